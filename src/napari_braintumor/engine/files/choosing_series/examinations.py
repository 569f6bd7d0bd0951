"""Which series were taken of one patient on one day: they make one case, and no others join it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.files.choosing_series.rows import UNNAMED
from napari_braintumor.engine.files.dicom.listing import origin_of
from napari_braintumor.engine.files.owners import is_collection_name
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.files.vocabulary import OF_SCANNERS, fold_word


@dataclass(frozen=True)
class Examination:
    """The series of one patient on one day.

    Attributes
    ----------
    series
        In the order of their numbers.
    patient
        ``patient 1``, ``patient 2`` and so on among the examinations found together, or ``unnamed``.
    date
        ``YYYY-MM-DD``, or empty.
    folder
        The lowest folder that contains all its files.
    """

    series: tuple[Series, ...]
    patient: str
    date: str
    folder: Path

    @property
    def patient_key(self) -> str:
        """Equal for the examinations of one patient, a digest; empty where the headers name nobody."""
        return next((each.patient for each in self.series if each.patient), "")


def group_examinations(series: Sequence[Series]) -> list[Examination]:
    """Split series by patient and day.

    The series of one study are of one patient, even if some do not name one. Without a date, studies are kept apart;
    without a study too, the folders of the series.

    Returns
    -------
    list of Examination
        Sorted by patient, in the order in which they were found, and date.
    """
    owner = {each.study: each.patient for each in series if each.study and each.patient}
    day = {each.study: each.date for each in series if each.study and each.date}
    groups: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for each in series:
        patient = each.patient or owner.get(each.study, "")
        date = each.date or day.get(each.study, "")
        time = date or each.study if patient else f"{date} {each.study or each.paths[0].parent}"
        groups[patient, time].append(each)
    numbers: Mapping[str, int] = {
        patient: number for number, patient in enumerate(dict.fromkeys(p for p, _ in groups if p), start=1)
    }
    found = []
    for (patient, _), members in groups.items():
        members.sort(key=lambda each: (each.number is None, each.number or 0))
        date = next((each.date for each in members if each.date), "")
        name = f"patient {numbers[patient]}" if patient else UNNAMED
        found.append(Examination(tuple(members), name, date, _common_folder(members)))
    return sorted(found, key=lambda each: (numbers.get(each.patient_key, 0), each.date))


def name_apart(
    found: Sequence[Examination], tops: Sequence[Path], taken: Sequence[Path] = ()
) -> list[tuple[Path, str]]:
    """Return for each examination the folder that names it, and what else its name needs.

    Parameters
    ----------
    found
        The examinations at or below some folders.
    tops
        Those folders.
    taken
        Folders of other scans.

    Returns
    -------
    list of tuple
        The highest folder, within one of `tops`, that contains no other examination and is not named like a
        collection; and an empty text. Where one folder holds several examinations, that folder, and their patient and
        date as far as they differ.
    """
    result: list[tuple[Path, str]] = []
    for one in found:
        others = [other.folder for other in found if other is not one]
        others += [path for each in taken if not _holds(one.folder, path := each.absolute())]
        folder = best = one.folder
        top = next((top.absolute() for top in tops if _holds(top.absolute(), folder)), folder)
        while folder != top and not any(_holds(folder.parent, other) for other in others):
            folder = folder.parent
            best = best if _names_nobody(folder) else folder
        best = folder if _names_nobody(best) else best
        rivals = [other for other in found if other is not one and _holds(best, other.folder)]
        parts = []
        if any(other.patient_key != one.patient_key or one.patient == UNNAMED for other in rivals):
            parts.append(one.patient.replace(" ", ""))
        same = [other for other in rivals if other.patient == one.patient]
        if same and one.date and all(other.date != one.date for other in same):
            parts.append(one.date)
        elif same:
            parts.append(str(1 + sum(other.patient == one.patient for other in found[: list(found).index(one)])))
        result.append((best, "_".join(parts)))
    return result


def _names_nobody(folder: Path) -> bool:
    """Whether a folder's name is that of a collection, of what scanners export, or a number."""
    name = folder.name
    return is_collection_name(name) or fold_word(name) in OF_SCANNERS or not any(map(str.isalpha, name))


def _holds(folder: Path, other: Path) -> bool:
    return folder == other or folder in other.parents


def _common_folder(series: Sequence[Series]) -> Path:
    folders = [_home_of(each.paths[0]) for each in series]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on different drives
        return folders[0]


def _home_of(path: Path) -> Path:
    """Return the folder of a file; for one that was unpacked, a folder with the name of its archive."""
    origin = origin_of(path).absolute()
    return origin.parent if origin == path.absolute() else origin.with_suffix("")

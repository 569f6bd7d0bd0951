"""Which series were taken of one patient on one day: they make one case, and no others join it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.files.series import Series

UNNAMED = "unnamed"


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


def name_apart(found: Sequence[Examination], top: Path) -> list[tuple[Path | None, str]]:
    """Return for each examination the folder that names it, and what else its name needs.

    Parameters
    ----------
    found
        The examinations at or below a folder.
    top
        That folder.

    Returns
    -------
    list of tuple
        The highest folder, at or below `top`, that contains no other examination; and an empty text. Where one folder
        holds several examinations, that folder, and their patient and date as far as they differ.
    """
    result: list[tuple[Path | None, str]] = []
    for one in found:
        others = [other.folder for other in found if other is not one]
        folder = one.folder
        while folder != top and top in folder.parents and not any(_holds(folder.parent, o) for o in others):
            folder = folder.parent
        rivals = [other for other in found if other is not one and _holds(folder, other.folder)]
        parts = []
        if any(other.patient_key != one.patient_key or one.patient == UNNAMED for other in rivals):
            parts.append(one.patient.replace(" ", ""))
        same = [other for other in rivals if other.patient == one.patient]
        if same and one.date and all(other.date != one.date for other in same):
            parts.append(one.date)
        elif same:
            parts.append(str(1 + sum(other.patient == one.patient for other in found[: list(found).index(one)])))
        result.append((folder, "_".join(parts)))
    return result


def _holds(folder: Path, other: Path) -> bool:
    return folder == other or folder in other.parents


def _common_folder(series: Sequence[Series]) -> Path:
    folders = [path.parent.absolute() for each in series for path in each.paths[:1]]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on different drives
        return folders[0]

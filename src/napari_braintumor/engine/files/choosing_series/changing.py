"""Look at a case's table of series, and change what is used: the same for the window, the command line and Python.

>>> case = find_cases(folder, offer=True)[0]
>>> for row in case.rows: ...                              # the table
>>> case = change_row(case, row.key, "T1ce")               # or None, to leave it out
>>> remember_choice(case)                                  # find_cases returns it like this from now on
>>> volume = read_case(case)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.calling import capitalize
from napari_braintumor.engine.files.case_files import CaseFiles, ImageFile
from napari_braintumor.engine.files.choosing_series.remembering import recall_choice, remember_rows
from napari_braintumor.engine.files.choosing_series.rows import (
    NO_MODALITY,
    UNNAMED,
    SeriesRow,
    choose_rows,
    describe_rows,
)
from napari_braintumor.engine.files.naming import read_modalities

NONE, AUTO = "none", "auto"


def with_rows(case: CaseFiles, rows: Sequence[SeriesRow]) -> CaseFiles:
    """Return a case with another table of series, and the images and notes that follow from it."""
    earlier = describe_rows(case.rows)
    images = [
        ImageFile(row.series.paths, row.modality or "", row.series.channel, row.series) for row in rows if row.used
    ]
    notes = [note for note in case.notes if note not in earlier]
    problem = None
    if not images:
        reasons = " ".join(describe_rows(rows)[:3])
        problem = f"Case '{case.name}' has no series for T1, T1ce, T2 or FLAIR. {reasons}"
    return replace(
        case,
        images=tuple(sorted(images, key=lambda image: MODALITIES.index(image.modality))),
        rows=tuple(rows),
        notes=(*notes, *describe_rows(rows)),
        problem=problem,
    )


def asks_to_choose(case: CaseFiles) -> bool:
    """Whether none of a case's series is used, but one could be: a person has to say what it shows."""
    return not case.images and any(row.usable for row in case.rows)


def change_row(case: CaseFiles, key: str, modality: str | None) -> CaseFiles:
    """Use a series of a case for a modality, or leave it out.

    Parameters
    ----------
    case
        A case with its table of series.
    key
        The `SeriesRow.key` of the row.
    modality
        One of `MODALITIES`; whatever was used for it is not used any more. None leaves the series out.

    Returns
    -------
    CaseFiles
        The case with its new table, images and notes. Nothing is remembered yet.

    Raises
    ------
    DataError
        If the series cannot be used as a scan.
    KeyError
        If no row has this key.
    """
    row = {row.key: row for row in case.rows}[key]
    if modality is not None and not row.usable:
        raise DataError(f"{capitalize(row.title)} cannot be used: {row.why_not.removesuffix('.')}. Choose another one.")
    choice = {each.key: each.choice for each in case.rows if each.choice is not None and each.choice != modality}
    choice[key] = modality or NO_MODALITY
    return _with_choice(case, choice)


def reset_rows(case: CaseFiles) -> CaseFiles:
    """Return a case with the table as headers and names say, without anything that was chosen by hand."""
    return _with_choice(case, {})


def remember_choice(case: CaseFiles) -> None:
    """Keep what was chosen in a case's table for the next time the case is found, in the user's folder.

    Raises
    ------
    DataError
        If that folder cannot be written to.
    """
    if case.rows:
        remember_rows(case.rows)


def recall_rows(case: CaseFiles) -> CaseFiles:
    """Return a case with what was remembered for its table; unchanged if there is nothing."""
    choice = recall_choice([row.series for row in case.rows]) if case.rows else {}
    return _with_choice(case, choice) if choice.keys() & {row.key for row in case.rows} else case


def choose_series(case: CaseFiles, picks: Sequence[str]) -> CaseFiles:
    """Change a case's table as the command line says.

    Parameters
    ----------
    case
        A case with its table of series.
    picks
        Each ``T1=3``: a modality, and the label of a row (see `label_rows`), its description, a part of it that no
        other row has, or its key. ``T1=none`` leaves the modality out, ``auto`` drops all that was chosen before.

    Returns
    -------
    CaseFiles
        The case with its new table.

    Raises
    ------
    SettingsError
        If a pick is not understood.
    DataError
        If there is no such modality; if no series, or more than one, is meant; or if it cannot be used as a scan.
    """
    for pick in picks:
        name, _, word = (part.strip() for part in pick.partition("="))
        if name.lower() == AUTO and not word:
            case = reset_rows(case)
            continue
        if not name or not word:
            raise SettingsError(f"'{pick}' does not choose a series. Expected a modality and a series, as in T1=3.")
        (modality,) = read_modalities([name])
        if word.lower() != NONE:
            case = change_row(case, _find_row(case, word).key, modality)
            continue
        for row in [row for row in case.rows if row.modality == modality and row.usable]:
            case = change_row(case, row.key, None)
    return case


def label_rows(rows: Sequence[SeriesRow]) -> tuple[str, ...]:
    """Return a short label for each row: the series' number, ``3.1`` and ``3.2`` for parts of one, or else ``#4``."""
    count = Counter(row.series.number for row in rows)
    seen: Counter[int | None] = Counter()
    labels = []
    for place, row in enumerate(rows, start=1):
        number = row.series.number
        seen[number] += 1
        whole = f"#{place}" if number is None else str(number)
        labels.append(f"{whole}.{seen[number]}" if number is not None and count[number] > 1 else whole)
    return tuple(labels)


def label_patients(cases: Sequence[CaseFiles]) -> tuple[str, ...]:
    """Name the patients of cases without naming them.

    Returns
    -------
    tuple of str
        ``patient 1``, or ``unnamed``, for each case; for files the patient that their names give.
    """
    numbers: dict[str, int] = {}
    labels = []
    for case in cases:
        key = next((row.series.patient for row in case.rows if row.series.patient), "")
        if key:
            labels.append(f"patient {numbers.setdefault(key, len(numbers) + 1)}")
        else:
            labels.append(UNNAMED if case.group == "dicom" else case.patient)
    return tuple(labels)


def _with_choice(case: CaseFiles, choice: dict[str, str]) -> CaseFiles:
    rows = choose_rows([replace(row, choice=choice.get(row.key)) for row in case.rows])
    titles = [row.title for row in case.rows if row.series.format != "dicom"]
    spoken = [note for note in case.notes if any(title in note for title in titles)]
    changed = with_rows(replace(case, notes=tuple(note for note in case.notes if note not in spoken)), rows)
    of_masks = case.problem is not None and "masks" in case.problem
    return replace(changed, problem=case.problem) if of_masks else changed


def _find_row(case: CaseFiles, word: str) -> SeriesRow:
    """Return the one row that a word means."""
    folded = word.casefold()
    labels = dict(zip(label_rows(case.rows), case.rows, strict=True))
    if word in labels:
        return labels[word]
    names = {
        row.key: {row.key, row.series.description.casefold(), row.series.paths[0].name.casefold()} for row in case.rows
    }
    exact = [row for row in case.rows if folded in names[row.key]]
    found = exact or [row for row in case.rows if folded in row.series.description.casefold()]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(
        f"{label} '{row.series.description}'" for label, row in labels.items() if not found or row in found
    )
    if found:
        raise DataError(f"'{word}' may mean several series of case '{case.name}': {listed}. Name one by its number.")
    raise DataError(f"Case '{case.name}' has no series '{word}'. It has {listed or 'none'}.")


def _file_of(row: SeriesRow) -> str:
    return "" if row.series.format == "dicom" else row.series.paths[0].name.casefold()

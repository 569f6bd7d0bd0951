"""Cohorts that are listed in a table: a CSV or TSV file with a row for each case and the paths of its scans."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import may_name_patient
from napari_braintumor.engine.files.case_files import CaseFiles, ImageFile
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.formats import strip_suffix
from napari_braintumor.engine.files.naming import find_modality
from napari_braintumor.engine.files.owners import find_patient

SUFFIXES = (".csv", ".tsv")

_NAMES = ("case", "name", "id", "case_id", "subject", "subject_id", "participant_id")
_WHOLE = ("path", "folder", "file", "dicom", "scan", "scans")
_PATIENTS = ("patient", "patient_id")


def is_table(path: Path) -> bool:
    """Whether a path is a table of cases, by its suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_table(path: Path) -> list[CaseFiles]:
    """Read a table of cases.

    Parameters
    ----------
    path
        A CSV file with commas or semicolons, or a TSV file; UTF-8. The first line names the columns: ``case`` with
        the case's name, and either a column for each modality (``T1``, ``t1ce``, ``flair``, ...), with a file or a
        folder of one DICOM series, or ``path``, with a case's folder or file as `find_cases` takes it. Paths are
        relative to the table's folder. Other columns do not matter.

    Returns
    -------
    list of CaseFiles
        In the order of the table. What is wrong with a row is the `problem` of its case.

    Raises
    ------
    DataError
        If the table cannot be read, or its columns do not say where scans are.
    """
    lines = _read_lines(path)
    heads = [head.strip() for head in lines[0]] if lines else []
    folded = [head.casefold().replace(" ", "_") for head in heads]
    scans = {column: modality for column, head in enumerate(heads) if (modality := find_modality(head))}
    whole = next((column for column, head in enumerate(folded) if head in _WHOLE), None)
    if not scans and whole is None:
        raise DataError(
            f"'{path.name}' has the columns {', '.join(heads) or 'none'}, none of which says where scans are. Expected "
            f"a column for each modality ({', '.join(MODALITIES)}), or the column 'path' with the folder of each case."
        )
    if twice := sorted({modality for modality in scans.values() if [*scans.values()].count(modality) > 1}):
        raise DataError(f"'{path.name}' has two columns for {twice[0]}. Expected one column for each modality.")
    named = next((column for column, head in enumerate(folded) if head in _NAMES), None)
    owned = next((column for column, head in enumerate(folded) if head in _PATIENTS), None)
    cases: list[CaseFiles] = []
    for number, line in enumerate(lines[1:], start=2):
        cells = dict(enumerate(cell.strip() for cell in line))
        if not any(cells.values()):
            continue
        name = cells.get(named, "") if named is not None else ""
        paths = {modality: cells[column] for column, modality in scans.items() if cells.get(column)}
        own = cells.get(whole, "") if whole is not None else ""
        try:
            found = _read_row(path, number, name, paths, own)
        except DataError as error:
            found = [_broken(name or f"{strip_suffix(path)}_line{number}", str(error))]
        if owned is not None and (patient := cells.get(owned, "")):
            found = [replace(case, patient=patient) for case in found]
        cases += found
    if not cases:
        raise DataError(f"'{path.name}' lists no case. Expected a line for each, below the names of the columns.")
    return name_apart(cases)


def find_cohort(path: Path) -> list[CaseFiles]:
    """Find the cases of a dataset: a folder, or a table of cases; as `read_table` or `find_cases`, with names apart."""
    return read_table(path) if is_table(path) else name_apart(find_cases(path))


def name_apart(cases: Iterable[CaseFiles]) -> list[CaseFiles]:
    """Put numbers behind the names of cases that share one, because results are filed by name."""
    named: dict[str, CaseFiles] = {}
    for case in cases:
        name, number = case.name, 2
        while name in named:
            name, number = f"{case.name}_{number}", number + 1
        named[name] = case if name == case.name else replace(case, name=name)
    return list(named.values())


def _read_lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"'{path.name}' cannot be read: {why}. Save it again as CSV in UTF-8.") from error
    first = text.partition("\n")[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max((",", ";", "\t"), key=first.count)
    try:
        return [line for line in csv.reader(text.splitlines(), delimiter=separator, strict=True) if line]
    except csv.Error as error:
        raise DataError(f"'{path.name}' is not a table: {error}. Save it again as CSV in UTF-8.") from error


def _read_row(table: Path, number: int, name: str, scans: Mapping[str, str], whole: str) -> list[CaseFiles]:
    if scans:
        for modality, text in scans.items():
            _check_there(table, number, table.parent / text, f"the {modality}")
        images = [_find_image(table.parent / text, modality) for modality, text in scans.items()]
        images.sort(key=lambda image: MODALITIES.index(image.modality))
        if not name:
            folder = images[0].paths[0].parent
            name = f"{strip_suffix(table)}_line{number}" if may_name_patient(images[0].paths[0]) else folder.name
        group = "dicom" if any(image.series is not None for image in images) else "other"
        return [CaseFiles(name=name, patient=find_patient(name), group=group, images=tuple(images))]
    if not whole:
        raise DataError(f"Line {number} of '{table.name}' names no scan. Fill in a path, or delete the line.")
    _check_there(table, number, table.parent / whole, "the path")
    found = find_cases(table.parent / whole)
    if name and len(found) == 1:
        return [replace(found[0], name=name)]
    return [replace(case, name=f"{name}_{case.name}") for case in found] if name else found


def _check_there(table: Path, number: int, path: Path, what: str) -> None:
    """Raise an error if a path leads nowhere; it is not shown, since paths of scanners may name the patient."""
    if not path.exists():
        raise DataError(f"In line {number} of '{table.name}', {what} does not exist. Correct it, or delete the line.")


def _find_image(path: Path, modality: str) -> ImageFile:
    """Return the image of a modality: a file, or the only series of DICOM files in a folder."""
    if path.is_file() and not may_name_patient(path):
        return ImageFile((path,), modality)
    from napari_braintumor.engine.files.dicom.scanning import find_series_of, scan_series  # pydicom takes long

    found = scan_series([path]) if path.is_dir() else find_series_of(path)
    usable = [series for series in found if series.problem is None]
    if not found:
        raise DataError(f"The folder of the {modality} holds no DICOM files. Name a file, or a folder of one series.")
    if len(usable) != 1:
        reason = found[0].problem or "" if len(found) == 1 else f"Expected one series, but there are {len(usable)}."
        raise DataError(f"The {modality} cannot be used. {reason} Name a file, or a folder of one series.")
    return ImageFile(usable[0].paths, modality, usable[0].channel, usable[0])


def _broken(name: str, problem: str) -> CaseFiles:
    return CaseFiles(name=name, patient=find_patient(name), group="other", images=(), problem=problem)

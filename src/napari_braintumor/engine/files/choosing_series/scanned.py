"""Cases of DICOM series: one for each patient and day, named by its folder unless that names the patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.files.choosing_series.changing import with_rows
from napari_braintumor.engine.files.choosing_series.examinations import Examination, group_examinations, name_apart
from napari_braintumor.engine.files.choosing_series.remembering import recall_choice
from napari_braintumor.engine.files.choosing_series.rows import UNNAMED, SeriesRow, describe_rows, judge_series
from napari_braintumor.engine.files.dicom.identity import read_identity
from napari_braintumor.engine.files.grouping import name_folder
from napari_braintumor.engine.files.owners import find_patient
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.files.vocabulary import OF_SCANNERS, fold_word


def build_scanned_cases(
    series: Sequence[Series], tops: Sequence[Path], taken: Sequence[Path] = (), keep_names: bool = False
) -> list[CaseFiles]:
    """Make cases of DICOM series, with what the user chose earlier.

    Parameters
    ----------
    series
        All series that were found.
    tops
        The folders that were searched.
    taken
        Folders that hold other scans.
    keep_names
        Name cases by the patient's name or number, which nothing else shows.

    Returns
    -------
    list of CaseFiles
        One for each patient and day, with its table of series. Examinations without any scan, such as a lone report,
        are notes of the first case instead.
    """
    found = group_examinations(series)
    named = name_apart(found, tops, taken)
    cases: list[CaseFiles] = []
    without: list[tuple[SeriesRow, ...]] = []
    for one, (folder, rest) in zip(found, named, strict=True):
        rows = judge_series(one.series, recall_choice(one.series))
        if len(found) > 1 and not any(row.usable for row in rows):
            without.append(rows)
            continue
        cases.append(with_rows(_name_case(one, folder, rest, keep_names), rows))
    if not cases:
        cases = [
            with_rows(_name_case(one, *name, keep_names), judge_series(one.series))
            for one, name in zip(found, named, strict=True)
        ]
        without = []
    for rows in without:
        cases[0] = replace(cases[0], notes=(*cases[0].notes, *describe_rows(rows)))
    return _note_others(cases)


def _name_case(one: Examination, folder: Path, rest: str, keep_names: bool) -> CaseFiles:
    identity = read_identity(each.paths[0] for each in one.series)
    who = f"patient-{one.patient_key[:8]}" if one.patient_key else ""
    while fold_word(folder.name) in OF_SCANNERS and folder.parent.name:
        folder = folder.parent
    name, patient = name_folder(folder)
    if keep_names and identity is not None and (identity.name or identity.number):
        patient = re.sub(r"[\W_]+", "_", identity.name or identity.number).strip("_")
        name, rest = patient, one.date if "patient" not in rest else "_".join(filter(None, (one.date,)))
    elif not keep_names and (identity is None or identity.is_in(name) or (who and not identity.name)):
        name = who or UNNAMED  # also where nothing says whether the folder bears the patient's name
    name = "_".join(part for part in (name, rest) if part)
    if not keep_names:
        patient = who or find_patient(name)
    return CaseFiles(name=name, patient=patient, group="dicom", images=())


def _note_others(cases: Sequence[CaseFiles]) -> list[CaseFiles]:
    """Note for cases from one folder that it holds several patients or days."""
    result = []
    for case in cases:
        folder = _folder_of(case)
        beside = [other for other in cases if other is not case and folder is not None and _folder_of(other) == folder]
        if beside:
            what = "patients" if any(other.patient != case.patient for other in beside) else "examinations"
            names = ", ".join(f"'{other.name}'" for other in beside[:3])
            note = f"One folder holds series of several {what}; they are cases of their own and not mixed: {names}."
            case = replace(case, notes=(note, *case.notes))
        result.append(case)
    return result


def _folder_of(case: CaseFiles) -> Path | None:
    return next((row.series.paths[0].parent for row in case.rows), None)

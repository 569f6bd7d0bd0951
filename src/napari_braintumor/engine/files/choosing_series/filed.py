"""The table of series for cases of other files than DICOM, whose names say what they are."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.case_files import CaseFiles, ImageFile
from napari_braintumor.engine.files.choosing_series.guessing import Guess
from napari_braintumor.engine.files.choosing_series.rows import SeriesRow, choose_rows
from napari_braintumor.engine.files.formats import find_format, strip_suffix
from napari_braintumor.engine.files.grouping import name_folder
from napari_braintumor.engine.files.schemes import NamedFile
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.files.unfound import UNUSABLE, explain_unused

_NO_SCANS = ("tissue", "mask", "result")


def fill_tables(cases: Sequence[CaseFiles], named: Sequence[NamedFile]) -> list[CaseFiles]:
    """Return cases with a table of series for their files.

    Parameters
    ----------
    cases
        Cases of files, and any others, which stay as they are.
    named
        All files that were found in some folders; only cases in these get a table. Files that belong to no case are
        rows that are not used.

    Returns
    -------
    list of CaseFiles
        In the same order.
    """
    folders = {item.path.parent for item in named}
    taken = {path for case in cases for image in case.images for path in image.paths}
    taken |= {path for case in cases for path in case.reference}
    free: dict[Path, list[NamedFile]] = defaultdict(list)
    for item in named:
        if item.path not in taken and item.kind != "mask" and item.why_not not in _NO_SCANS:
            free[item.path.parent].append(item)
    result = []
    for case in cases:
        if case.group == "dicom" or not any(image.paths[0].parent in folders for image in case.images):
            result.append(case)
            continue
        rows = [_used_row(image) for image in case.images]
        for folder in dict.fromkeys(image.paths[0].parent for image in case.images):
            rows += [_spare_row(item) for item in free.pop(folder, ())]
        result.append(replace(case, rows=choose_rows(rows)))
    return result


def build_unnamed_cases(homeless: Sequence[NamedFile]) -> list[CaseFiles]:
    """Return a case for each folder of files whose names do not say which modality they are, with its table."""
    folders: dict[Path, list[NamedFile]] = defaultdict(list)
    for item in homeless:
        folders[item.path.parent].append(item)
    cases = []
    for folder, items in folders.items():
        name, patient = name_folder(folder)
        rows = choose_rows([_spare_row(item) for item in items])
        problem = explain_unused(items[0])
        cases.append(CaseFiles(name=name, patient=patient, group="other", images=(), problem=problem, rows=rows))
    return cases


def _used_row(image: ImageFile) -> SeriesRow:
    reason = f"the name says {image.modality}"
    if image.channel is not None:
        reason = f"channel {image.channel + 1} is {image.modality}"
    return SeriesRow(_series_of(image.paths, image.channel), Guess(image.modality, reason))


def _spare_row(item: NamedFile) -> SeriesRow:
    if item.kind is not None or item.channels:
        reason = "another version was chosen"
    elif item.why_not == "sequence":
        reason = "none of T1, T1ce, T2 and FLAIR"
    elif item.why_not == "unclear":
        reason = f"the name may mean {' or '.join(item.words.unclear)}"
    else:
        reason = "the name does not say which modality it is"
    return SeriesRow(_series_of((item.path,), None), Guess(None, reason, sure=item.why_not in UNUSABLE))


def _series_of(paths: tuple[Path, ...], channel: int | None) -> Series:
    """Return what is known of a file without its voxels; the description is its name."""
    form = find_format(paths[0])
    words = (str(paths[0].absolute()), "" if channel is None else str(channel))
    key = hashlib.blake2b("\0".join(words).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    series = Series(paths, form.name if form else "", key, description=strip_suffix(paths[0]), channel=channel)
    if form is None or form.read_grid is None or len(paths) > 1:
        return series
    try:
        grid = form.read_grid(paths[0])
    except DataError as error:
        return replace(series, problem=str(error))
    return replace(series, grid=grid, slices=min(grid.shape_ZYX))

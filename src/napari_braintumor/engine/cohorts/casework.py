"""What is done with one case: claimed, looked for, read, segmented, written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from napari_braintumor.engine.cohorts.fingerprints import find_key
from napari_braintumor.engine.cohorts.plan import CohortPlan
from napari_braintumor.engine.cohorts.results import Result, find_place, find_result, save_result
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import Segmented, SegmentEvent, Started
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.segmenting.segment import segment
from napari_braintumor.engine.volumes import Segmentation, Volume


@dataclass(frozen=True, eq=False)
class Opened:
    """A case that is read and prepared, and claimed by this process.

    Attributes
    ----------
    case, volume
        The case.
    key
        From `find_key`.
    events
        With which its segmentation goes on.
    claim
        Keeps other processes from doing the same; `release` it.
    """

    case: CaseFiles
    volume: Volume
    key: str
    events: Iterator[SegmentEvent]
    claim: FileLock


def open_case(case: CaseFiles, plan: CohortPlan, model_sha256: str, claims: Path) -> Result | Opened | None:
    """Look for a case's result, else read the case and go on until the network could start.

    Parameters
    ----------
    case, plan
        The case, and what is to be done with it.
    model_sha256
        The checksum of the model's file.
    claims
        The folder of claims, shared by all processes that work on these results.

    Returns
    -------
    Result, Opened or None
        None if another process is at work on this case.

    Raises
    ------
    BrainTumorError
        If the case cannot be read, or does not fit the model.
    """
    if case.problem is not None:
        raise DataError(case.problem)
    claim = FileLock(claims / f"{hashlib.sha256(case.name.encode()).hexdigest()[:24]}.lock", thread_local=False)
    try:
        claim.acquire(blocking=False)
    except Timeout:
        return None
    opened = None
    try:
        key = find_key(case, plan.config, model_sha256)
        if not plan.overwrite and (result := find_result(find_place(case, plan), key)) is not None:
            return result
        volume = read_case(case, plan.config.aligning)
        if plan.config.spacing is not None:
            volume = volume.with_spacing(plan.config.spacing)
        events = segment(volume, plan.config.segmentation)
        for event in events:
            if isinstance(event, Started):
                break
        opened = Opened(case, volume, key, events, claim)
        return opened
    finally:
        if opened is None:
            release(claim)


def close_case(opened: Opened, segmentation: Segmentation, plan: CohortPlan, workplace: Path) -> Result:
    """Write the result of a case, and let go of it; see `save_result`."""
    try:
        return save_result(opened.case, opened.volume, segmentation, opened.key, plan, workplace)
    finally:
        release(opened.claim)


def segment_opened(opened: Opened) -> Segmentation:
    """Return the result of a case that is open, without reporting progress."""
    *_, last = opened.events
    assert isinstance(last, Segmented)
    return last.segmentation


def release(claim: FileLock) -> None:
    """Let go of a case. A process that waits for it finds the result, or tries what failed."""
    with suppress(OSError):  # Windows keeps open files
        Path(claim.lock_file).unlink()
    claim.release()

"""Cases as a plan's network sees them: in memory, and as archives of 8-bit arrays for machines without the scans.

An archive, ``<name>.cases.zip``, may stand in a plan wherever a folder of cases may, for plans with the same
modalities, regions and working grid. z-scores are rounded to steps of `STEP_Z`, far below the noise of a scan.
"""

# M modality, R region; z, y, x slices, rows and columns on the working grid

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, ImageFile
from napari_braintumor.engine.preparing.prepare import CLIP_Z, PreparedCase
from napari_braintumor.engine.training.plan import TrainPlan

SUFFIX = ".cases.zip"

STEP_Z = 0.125
"""Rounding moves a z-score by half of this at most; finer steps would hold noise and take more room."""

_MIDDLE = 128
_INDEX = "index.json"
_Read = TypeVar("_Read")
_ARRAYS = ("images", "masks", "slices", "counted")


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A case with its reference on the network's working grid.

    Attributes
    ----------
    name, group
        As in `CaseFiles`.
    patient
        Who it is, by the one name that all of a run uses.
    prepared
        The images, float16, with the way back to the case's own grid.
    regions
        ``(R, z, y, x)`` in the plan's order: bool, or float16 where a model's probabilities are the target.
    known
        bool ``(R,)``: the regions its annotation defines.
    slices
        ``(z,)``: which slice of the case's own grid each slice of the crop is.
    counted
        Slices of the crop that a person has looked through, rising.
    notes
        What the user should know of its files, a sentence each.
    with_skull
        The modalities that show more than the brain; empty for archived cases, of which it is not known.
    """

    name: str
    patient: str
    group: str
    prepared: PreparedCase
    regions: NDArray[Any]
    known: NDArray[np.bool_]
    slices: NDArray[np.intp]
    counted: NDArray[np.intp]
    notes: tuple[str, ...] = ()
    with_skull: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """What its arrays take."""
        return int(self.prepared.data.nbytes + self.prepared.foreground.nbytes + self.regions.nbytes)


def is_archive(path: Path) -> bool:
    """Whether a path of a plan names an archive of prepared cases."""
    return path.name.lower().endswith(SUFFIX)


def take_slices(case: TrainingCase, every: int) -> TrainingCase:
    """Return a case with only every so many of its slices: thin ones hardly differ from their neighbors."""
    taken = np.arange(0, len(case.slices), every)
    slice_mm = case.prepared.slice_mm
    prepared = replace(
        case.prepared,
        data=case.prepared.data[:, taken],
        foreground=case.prepared.foreground[taken],
        slice_mm=slice_mm and slice_mm * every,
    )
    return replace(
        case,
        prepared=prepared,
        regions=case.regions[:, taken],
        slices=case.slices[taken],
        counted=np.flatnonzero(np.isin(taken, case.counted)),
    )


def write_archive(path: Path, plan: TrainPlan, cases: Iterable[TrainingCase]) -> None:
    """Write prepared cases into an archive.

    Parameters
    ----------
    path
        The file, ``<name>.cases.zip``.
    plan
        What they were prepared for.
    cases
        With bool regions.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    index: dict[str, Any] = {"for": _purpose(plan), "step_z": STEP_Z, "cases": {}}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_BZIP2) as archive:
        for case in cases:
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **_to_arrays(case))
            archive.writestr(f"{case.name}.npz", buffer.getvalue())
            index["cases"][case.name] = {
                "patient": case.patient,
                "group": case.group,
                "present": case.prepared.present.tolist(),
                "known": case.known.tolist(),
                "limits": [float(limit) for limit in case.prepared.limits],
                "scales": case.prepared.scales.tolist(),
                "normalization": case.prepared.normalization,
                "box": [[side.start, side.stop] for side in case.prepared.box],
                "frame": list(case.prepared.frame),
                "shape": list(case.prepared.shape),
                "slice_mm": case.prepared.slice_mm,
                "notes": list(case.notes),
            }
        archive.writestr(_INDEX, json.dumps(index))


def find_archived(path: Path) -> list[CaseFiles]:
    """Return the cases of an archive; all of their files are the archive itself.

    Returns
    -------
    list of CaseFiles
        In the order of the archive.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    index = _reading(path, _read_index)
    names = index["for"]["modalities"]
    return [
        CaseFiles(
            name=name,
            patient=known["patient"],
            group=known["group"],
            images=tuple(ImageFile((path,), m) for m, there in zip(names, known["present"], strict=True) if there),
            reference=(path,),
        )
        for name, known in index["cases"].items()
    ]


def read_archived(case: CaseFiles, plan: TrainPlan) -> TrainingCase:
    """Read a case of an archive.

    Parameters
    ----------
    case
        From `find_archived`.
    plan
        What it is wanted for.

    Returns
    -------
    TrainingCase
        The case as it was prepared.

    Raises
    ------
    DataError
        If the archive cannot be read, or was prepared for something else.
    """
    path = case.reference[0]

    def read(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        with np.load(io.BytesIO(archive.read(f"{case.name}.npz"))) as stored:
            return _read_index(archive), {name: stored[name] for name in _ARRAYS}

    index, arrays = _reading(path, read)
    for field, expected in _purpose(plan).items():
        if index["for"][field] != expected:
            raise DataError(
                f"'{path.name}' was prepared for the {field} {index['for'][field]}, but the plan wants {expected}. "
                "Prepare it anew for this plan, or take the scans themselves."
            )
    entry = index["cases"][case.name]
    if plan.context_mm is not None and "slice_mm" not in entry:  # as earlier versions wrote
        raise DataError(
            f"'{path.name}' does not say how far slices lie apart, but the plan wants those {plan.context_mm:g} mm "
            "above and below. Prepare it anew, or take the scans themselves."
        )
    return _from_arrays(case, {**entry, "step_z": index["step_z"]}, arrays, plan)


def _purpose(plan: TrainPlan) -> dict[str, Any]:
    return {"modalities": list(plan.modalities), "regions": list(plan.regions), "spacing": list(plan.spacing)}


def _read_index(archive: zipfile.ZipFile) -> dict[str, Any]:
    index: dict[str, Any] = json.loads(archive.read(_INDEX))
    return index


def _reading(path: Path, read: Callable[[zipfile.ZipFile], _Read]) -> _Read:
    try:
        with zipfile.ZipFile(path) as archive:
            return read(archive)
    except (OSError, zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise DataError(
            f"'{path}' cannot be read as an archive of prepared cases: {error}. Prepare it anew, or copy it again."
        ) from error


def _to_arrays(case: TrainingCase) -> dict[str, NDArray[Any]]:
    prepared = case.prepared
    steps = np.rint(prepared.data[prepared.present].astype(np.float32) / STEP_Z)
    planes = np.concatenate([prepared.foreground[None], case.regions]).astype(np.uint8)
    bits = (planes << np.arange(len(planes), dtype=np.uint8)[:, None, None, None]).sum(0, dtype=np.uint8)
    return {
        "images": (steps + _MIDDLE).astype(np.uint8),
        "masks": bits,
        "slices": case.slices.astype(np.int32),
        "counted": case.counted.astype(np.int32),
    }


def _from_arrays(
    case: CaseFiles, entry: dict[str, Any], arrays: dict[str, NDArray[Any]], plan: TrainPlan
) -> TrainingCase:
    planes = (arrays["masks"][None] >> np.arange(1 + len(entry["known"]), dtype=np.uint8)[:, None, None, None]) & 1
    head = planes[0].astype(bool)
    present = np.array(entry["present"], bool)
    data = np.zeros((len(plan.modalities), *head.shape), np.float16)
    data[present] = ((arrays["images"].astype(np.float32) - _MIDDLE) * entry["step_z"]).clip(-CLIP_Z, CLIP_Z)
    data[:, ~head] = 0
    z, y, x = (slice(*side) for side in entry["box"])
    prepared = PreparedCase(
        foreground=head,
        present=present,
        normalization=entry.get("normalization") or entry["normalisation"],  # as earlier versions wrote
        limits=tuple(entry["limits"]),
        scales=np.array(entry["scales"], np.float32),
        box=(z, y, x),
        frame=tuple(entry["frame"]),
        shape=tuple(entry["shape"]),
        thumbnails={},
        slice_mm=entry.get("slice_mm"),
        context_mm=plan.context_mm,
        data=data,
    )
    return TrainingCase(
        name=case.name,
        patient=case.patient,
        group=case.group,
        prepared=prepared,
        regions=planes[1:].astype(bool),
        known=np.array(entry["known"], bool),
        slices=arrays["slices"].astype(np.intp),
        counted=arrays["counted"].astype(np.intp),
        notes=tuple(entry["notes"]),
    )

"""Cases that this program writes: images, labels, and a sidecar that says what they are and what was reviewed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_braintumor.engine.card import first_problem
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.labels import CONVENTIONS, reference_from_values
from napari_braintumor.engine.types import Volume

SIDECAR = "case.json"
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.nii\.gz$", max_length=200)]


class Sidecar(BaseModel):
    """What a written case is. Its files lie beside it.

    Attributes
    ----------
    images
        For each modality its file.
    convention
        What the labels' numbers mean, a key of `CONVENTIONS`.
    reviewed
        Slices along Z, from inferior, that a person has looked through; None means all.
    spacing_known
        False where the voxel size is a guess.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=200)]
    patient: Annotated[str, Field(min_length=1, max_length=200)]
    images: Annotated[dict[str, FileName], Field(min_length=1)]
    labels: FileName
    convention: str
    reviewed: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    spacing_known: bool = True
    created: str = ""


def corrected_folder() -> Path:
    """Return the folder of the user's corrected cases; ``BRAINTUMOR_CASES`` in the environment moves it."""
    chosen = os.environ.get("BRAINTUMOR_CASES")
    return Path(chosen) if chosen else user_data_path("napari-braintumor", appauthor=False) / "corrected"


def write_case(
    folder: Path,
    volume: Volume,
    labels_ZYX: NDArray[np.integer[Any]],
    convention: str,
    *,
    patient: str | None = None,
    reviewed: Sequence[int] | None = None,
) -> Path:
    """Write a case with its labels, so that training finds it again; one of that name that is there is replaced.

    Parameters
    ----------
    folder
        Gets a folder of the case's name.
    volume
        The images.
    labels_ZYX
        ``(Z, Y, X)``, whole numbers, on the volume's grid.
    convention
        What the numbers mean, a key of `CONVENTIONS`.
    patient
        Cases of one patient stay together in every split; left out, the case's name.
    reviewed
        Slices along Z that a person has looked through, also where they left them empty; None means all.

    Returns
    -------
    Path
        The case's own folder. It is written whole or not at all.

    Raises
    ------
    DataError
        If labels and volume do not fit, the labels are not those of the convention, there is nothing to learn from,
        or the folder cannot be written.
    """
    if labels_ZYX.shape != volume.shape:
        raise DataError(
            f"The labels {labels_ZYX.shape} and the scan {volume.shape} differ in shape. Labels must lie on the grid "
            "of the scan. Choose the labels that were drawn on it."
        )
    reference_from_values(labels_ZYX, convention, volume.source)
    if not labels_ZYX.any() and not reviewed:
        raise DataError(
            f"The labels of '{volume.name}' are empty. Draw the tumor in some slices, or mark slices without tumor as "
            "reviewed."
        )
    if outside := [z for z in reviewed or () if not 0 <= z < volume.shape[0]]:
        raise DataError(f"Slice {outside[0]} was marked as reviewed, but the scan has {volume.shape[0]} slices.")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", volume.name).strip("._-") or "case"
    target, temporary = folder / name, folder / f".{os.getpid()}.{name}"
    images = {m: f"{_file_word(m)}.nii.gz" for m in volume.modalities}
    sidecar = Sidecar(
        name=volume.name[:200] or name,
        patient=patient or volume.name[:200] or name,
        images=images,
        labels="labels.nii.gz",
        convention=convention,
        reviewed=tuple(sorted({int(z) for z in reviewed})) if reviewed else None,
        spacing_known=volume.source.spacing_known,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        temporary.mkdir(parents=True)
        for modality, channel in zip(volume.modalities, volume.data, strict=True):
            _write_nifti(temporary / images[modality], volume, _compact(channel))
        _write_nifti(temporary / sidecar.labels, volume, labels_ZYX.astype(np.uint8))
        (temporary / SIDECAR).write_text(sidecar.model_dump_json(indent=1), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except OSError as error:
        raise DataError(
            f"The case cannot be written to '{target}': {error.strerror or error}. Make room there or give it write "
            "permission."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def read_sidecar(path: Path) -> Sidecar:
    """Read what a written case is.

    Raises
    ------
    DataError
        If the file is damaged or names files that are not there.
    """
    try:
        sidecar = Sidecar.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read: {error}. Copy the case again.") from error
    except ValidationError as error:
        raise DataError(f"'{path}' does not describe a case: {first_problem(error)}. Write the case again.") from error
    if sidecar.convention not in CONVENTIONS:
        raise DataError(f"'{path}' names the convention '{sidecar.convention}'. Known are: {', '.join(CONVENTIONS)}.")
    for name in (*sidecar.images.values(), sidecar.labels):
        if not (path.parent / name).is_file():
            raise DataError(f"'{name}' is missing beside '{path}'. Copy the case again, with all its files.")
    return sidecar


def is_sidecar(path: Path) -> bool:
    """Whether a file is a sidecar of this program, and not another program's file of the same name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "images", "labels"} <= content.keys()


def _file_word(modality: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "", modality).lower() or "image"


def _compact(channel: NDArray[np.float32]) -> NDArray[Any]:
    """Return whole numbers as int16, which need half the room."""
    if np.abs(channel).max() < 2**15 and np.array_equal(channel, np.rint(channel)):
        return channel.astype(np.int16)
    return channel


def _write_nifti(path: Path, volume: Volume, array_ZYX: NDArray[Any]) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(volume.source.to_source(array_ZYX), volume.source.affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)

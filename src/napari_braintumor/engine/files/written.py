"""Cases that this program writes: images, labels, and a sidecar that describes them and lists reviewed slices."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_braintumor.engine.anatomy import CONVENTIONS
from napari_braintumor.engine.atomic import find_free_path, flush, making_folder, replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.labels import reference_from_values
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.settings import describe_problem
from napari_braintumor.engine.volumes import Volume

SIDECAR = "case.json"
_ENDING = ".nii.gz"
_MOST_LETTERS = 200
_FOLDER_LETTERS = 60
"""Longest part of a name used in a file name: file systems allow 255 bytes, and a letter may take four."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.nii\.gz$", max_length=200)]


class Sidecar(BaseModel):
    """The description of a written case. Its files are in the same folder.

    Attributes
    ----------
    images
        The file of each modality.
    convention
        The convention of the labels, a key of `CONVENTIONS`.
    reviewed
        Slices along Z, from inferior, that a person has reviewed; None means all.
    spacing_known
        False if the voxel size is a guess.
    fingerprints
        A checksum of the voxels of each modality, to recognize the case; empty in cases of older versions.
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
    fingerprints: dict[str, str] = {}


def corrected_folder() -> Path:
    """Return the folder of the user's corrected cases; the environment variable ``BRAINTUMOR_CASES`` overrides it."""
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
    """Write a case with its labels, so that it can be used for training.

    A case replaces one written before only if it has the same name and an identical image. Any other case gets its own
    folder, whatever its name. Either the old or the new case is complete at every moment: new files are written next to
    the old ones until the sidecar, which lists the files that count, is replaced atomically.

    Parameters
    ----------
    folder
        The parent folder; the case gets a subfolder with its name, and a number if another case has that name.
    volume
        The images.
    labels_ZYX
        ``(Z, Y, X)``, whole numbers, on the volume's grid.
    convention
        The convention of the labels, a key of `CONVENTIONS`.
    patient
        Cases of one patient stay together in every split; if left out, the case's name.
    reviewed
        Slices along Z that a person has reviewed, including those left empty; None means all.

    Returns
    -------
    Path
        The case's own folder.

    Raises
    ------
    DataError
        If labels and volume do not fit, the labels do not follow the convention, there is nothing to learn from, or
        the folder cannot be written.
    """
    _check_can_be_learned(volume, labels_ZYX, convention, reviewed)
    name = volume.name.encode("utf-8", "replace").decode()[:_MOST_LETTERS] or "case"
    sidecar = Sidecar(
        name=name,
        patient=patient or name,
        images=name_files(volume.modalities),
        labels="labels.nii.gz",
        convention=convention,
        reviewed=tuple(sorted({int(z) for z in reviewed})) if reviewed else None,
        spacing_known=volume.source.spacing_known,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprints={m: _fingerprint(image) for m, image in zip(volume.modalities, volume.data, strict=True)},
    )
    with naming_folder(folder):
        if (home := _find_home(folder, sidecar)) is not None:
            _replace_in(home, volume, labels_ZYX, sidecar)
            return home
        return write_new_folder(folder, name, lambda home: _write_files(home, volume, labels_ZYX, sidecar))


@contextmanager
def naming_folder(folder: Path) -> Iterator[None]:
    """Say into which folder a case could not be written.

    Raises
    ------
    DataError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The case cannot be written to '{folder}': {error.strerror or error}. Make room there or give it write "
            "permission."
        ) from error


def write_new_folder(folder: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Write a folder of a name, with a number if there is one already; it appears only when it is complete.

    Returns
    -------
    Path
        The new folder.
    """
    while True:
        home = _choose_folder(folder, name)
        with suppress(FileExistsError), making_folder(home) as temporary:  # another process may have just made it
            write(temporary)
            return home


def _check_can_be_learned(
    volume: Volume, labels_ZYX: NDArray[np.integer[Any]], convention: str, reviewed: Sequence[int] | None
) -> None:
    """Raise an error if labels do not fit the volume, or if nothing can be learned from them."""
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
        raise DataError(f"Slice {outside[0]} is marked as reviewed, but the scan has only {volume.shape[0]} slices.")


def _find_home(folder: Path, sidecar: Sidecar) -> Path | None:
    """Return the folder to which the same case was written before."""
    wanted = set(sidecar.fingerprints.values())
    for path in sorted(folder.glob(f"*/{SIDECAR}")):
        try:
            known = read_sidecar(path)
            if known.name == sidecar.name and wanted & _fingerprints_of(known, path.parent):
                return path.parent
        except DataError:  # damaged, so leave it alone
            continue
    return None


def _fingerprints_of(sidecar: Sidecar, home: Path) -> set[str]:
    if sidecar.fingerprints:
        return set(sidecar.fingerprints.values())
    return {_fingerprint(read_nifti(home / file)[0]) for file in sidecar.images.values()}


def _fingerprint(image_ZYX: NDArray[np.float32]) -> str:
    """Return a checksum of an image's shape and voxels, but not of its position, which may be corrected later."""
    digest = hashlib.sha256(str(image_ZYX.shape).encode())
    digest.update(np.ascontiguousarray(image_ZYX, np.float32).data)
    return digest.hexdigest()


def _choose_folder(folder: Path, name: str) -> Path:
    """Return a folder for a new case."""
    word = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name))[:_FOLDER_LETTERS].strip("._-") or "case"
    return find_free_path(folder / word)


def _replace_in(home: Path, volume: Volume, labels_ZYX: NDArray[np.integer[Any]], sidecar: Sidecar) -> None:
    """Write a case again: next to the old files, which are deleted once the sidecar no longer lists them."""
    old, token = read_sidecar(home / SIDECAR), secrets.token_hex(4)
    images = {modality: f"{_word(file)}_{token}{_ENDING}" for modality, file in sidecar.images.items()}
    sidecar = sidecar.model_copy(update={"images": images, "labels": f"{_word(sidecar.labels)}_{token}{_ENDING}"})
    try:
        _write_files(home, volume, labels_ZYX, sidecar)
    finally:
        counts = read_sidecar(home / SIDECAR)
        for file in {*_files_of(old), *_files_of(sidecar)} - set(_files_of(counts)):
            (home / file).unlink(missing_ok=True)


def _word(file: str) -> str:
    return file.removesuffix(_ENDING)


def _files_of(sidecar: Sidecar) -> tuple[str, ...]:
    return *sidecar.images.values(), sidecar.labels


def _write_files(home: Path, volume: Volume, labels_ZYX: NDArray[np.integer[Any]], sidecar: Sidecar) -> None:
    """Write the files of a case, the sidecar last."""
    for file, channel in zip(sidecar.images.values(), volume.data, strict=True):
        write_image(home / file, volume, compact_values(channel))
    write_image(home / sidecar.labels, volume, labels_ZYX.astype(np.uint8))
    with replacing(home / SIDECAR) as temporary:
        temporary.write_text(sidecar.model_dump_json(indent=1), encoding="utf-8")


def read_sidecar(path: Path) -> Sidecar:
    """Read the sidecar of a written case.

    Returns
    -------
    Sidecar
        What the case's files are.

    Raises
    ------
    DataError
        If the file is damaged or lists files that are missing.
    """
    try:
        sidecar = Sidecar.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read: {error}. Copy the case again.") from error
    except ValidationError as error:
        raise DataError(
            f"'{path}' does not describe a case: {describe_problem(error)}. Write the case again."
        ) from error
    if sidecar.convention not in CONVENTIONS:
        raise DataError(
            f"'{path}' has the unknown label convention '{sidecar.convention}'. Expected one of: "
            f"{', '.join(CONVENTIONS)}."
        )
    for name in (*sidecar.images.values(), sidecar.labels):
        if not (path.parent / name).is_file():
            raise DataError(f"'{name}' is missing next to '{path}'. Copy the case again, with all its files.")
    return sidecar


def is_sidecar(path: Path) -> bool:
    """Whether a file is a sidecar of this program, not another program's file of the same name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "images", "labels"} <= content.keys()


def name_files(modalities: Sequence[str]) -> dict[str, str]:
    """Return a unique file name for each modality."""
    files: dict[str, str] = {}
    for modality in modalities:
        word = re.sub(r"[^A-Za-z0-9]+", "", modality).lower()[:_FOLDER_LETTERS] or "image"
        numbered = (f"{word}{number}" for number in count(2))
        free = (
            each for each in chain([word], numbered) if each != "labels" and f"{each}{_ENDING}" not in files.values()
        )
        files[modality] = f"{next(free)}{_ENDING}"
    return files


def compact_values(channel: NDArray[np.float32]) -> NDArray[Any]:
    """Return whole numbers as int16, which takes half the space."""
    if np.abs(channel).max() < 2**15 and np.array_equal(channel, np.rint(channel)):
        return channel.astype(np.int16)
    return channel


def write_image(path: Path, volume: Volume, array_ZYX: NDArray[Any]) -> None:
    """Write an image ``(Z, Y, X)`` on a volume's grid as NIfTI."""
    import nibabel as nib

    image = nib.Nifti1Image(volume.source.to_source(array_ZYX), volume.source.affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    flush(path)

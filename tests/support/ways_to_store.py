"""Forty and more ways in which the same patient may be stored, for the metamorphic tests.

Every way gets a patient as arrays with axes (x, y, z) that grow to right, anterior and superior, writes the scans, and
returns what is to be opened with the true whole tumor in the order of the file's own array: no code of the program has
a part in it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tifffile
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy import ndimage

PLAIN_NAMES = {"T1": "scan_t1", "T1ce": "scan_t1ce", "T2": "scan_t2", "FLAIR": "scan_flair"}


@dataclass(frozen=True)
class Patient:
    """What is stored.

    Attributes
    ----------
    images
        For each modality float32 ``(x, y, z)``.
    tumor
        bool ``(x, y, z)``, the whole tumor as people drew it.
    affine
        ``(4, 4)``, index to RAS mm.
    """

    images: Mapping[str, NDArray[np.float32]]
    tumor: NDArray[np.bool_]
    affine: NDArray[np.float64]

    def changed(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Patient:
        """Return the patient with each image changed and the tumor as it is."""
        return replace(self, images={m: np.asarray(change(image)) for m, image in self.images.items()})


@dataclass(frozen=True)
class Stored:
    """Where a patient lies, and the whole tumor in the order of the first file's array."""

    path: Path
    tumor: NDArray[np.bool_]
    modalities: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Way:
    """A way to store a patient.

    Attributes
    ----------
    name
        In words.
    store
        Writes a patient into an empty folder.
    refusal
        What the refusal says, as a pattern, where the way cannot be read; None where it must give the same tumor.
    note
        What a note says, as a pattern, where the user must be informed.
    """

    name: str
    store: Callable[[Patient, Path], Stored]
    refusal: str | None = None
    note: str | None = None


def write(
    patient: Patient,
    folder: Path,
    names: Mapping[str, str] = PLAIN_NAMES,
    suffix: str = ".nii.gz",
    dtype: Any = np.float32,
    finish: Callable[[Any], None] = lambda image: None,
    kind: Any = nib.Nifti1Image,
) -> Stored:
    """Write each modality as a NIfTI file."""
    for modality, image in patient.images.items():
        path = folder / f"{names[modality]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        nifti = kind(np.asarray(image, dtype), patient.affine)
        nifti.header.set_xyzt_units("mm", "sec")
        finish(nifti)
        nib.save(nifti, path)
    return Stored(folder, patient.tumor)


def named(**names: str) -> Callable[[Patient, Path], Stored]:
    return lambda patient, folder: write(patient, folder, names)


def oriented(codes: str) -> Callable[[Patient, Path], Stored]:
    """Store the arrays with axes that grow to where the codes say, the affine following."""

    def store(patient: Patient, folder: Path) -> Stored:
        turn = ornt_transform(io_orientation(patient.affine), axcodes2ornt(codes))
        affine = patient.affine @ inv_ornt_aff(turn, patient.tumor.shape)
        turned = {m: nib.apply_orientation(image, turn) for m, image in patient.images.items()}
        return write(Patient(turned, nib.apply_orientation(patient.tumor, turn), affine), folder)

    return store


def tilted(degrees: float) -> Callable[[Patient, Path], Stored]:
    """Store the same arrays as an oblique acquisition: only the affine is turned."""

    def store(patient: Patient, folder: Path) -> Stored:
        angle = np.deg2rad(degrees)
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return write(replace(patient, affine=turn @ patient.affine), folder)

    return store


def with_codes(qform: int, sform: int) -> Callable[[Patient, Path], Stored]:
    def finish(image: Any) -> None:
        image.header.set_qform(image.affine, qform)
        image.header.set_sform(image.affine, sform)

    return lambda patient, folder: write(patient, folder, finish=finish)


def stored_as(dtype: Any, high: float, low: float = 0.0, **more: Any) -> Callable[[Patient, Path], Stored]:
    """Store values brought to a range, with a type of their own."""

    def scale(image: NDArray[Any]) -> NDArray[Any]:
        scaled = low + (image - image.min()) / (image.max() - image.min()) * (high - low)
        return np.round(scaled) if np.issubdtype(dtype, np.integer) else scaled

    return lambda patient, folder: write(patient.changed(scale), folder, dtype=dtype, **more)


def scaled_integers(patient: Patient, folder: Path) -> Stored:
    """Store integers with slope and intercept in the header."""
    for modality, image in patient.images.items():
        nifti = nib.Nifti1Image(np.asarray(image, np.float32), patient.affine)
        nifti.header.set_data_dtype(np.int16)
        nifti.header.set_slope_inter(float(image.max()) / 30000, 5.0)
        nib.save(nifti, folder / f"{PLAIN_NAMES[modality]}.nii.gz")
    return Stored(folder, patient.tumor)


def big_endian(patient: Patient, folder: Path) -> Stored:
    for modality, image in patient.images.items():
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(np.dtype(">f4"))
        nib.save(nib.Nifti1Image(image.astype(">f4"), patient.affine, header), folder / f"{modality}.nii")
    return Stored(folder, patient.tumor)


def in_units(unit: str, factor: float) -> Callable[[Patient, Path], Stored]:
    """Store lengths in another unit, as the header says."""

    def store(patient: Patient, folder: Path) -> Stored:
        affine = patient.affine.copy()
        affine[:3] *= factor
        return write(replace(patient, affine=affine), folder, finish=lambda image: image.header.set_xyzt_units(unit))

    return store


def plain_called_gz(patient: Patient, folder: Path) -> Stored:
    stored = write(patient, folder, suffix=".nii")
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name + ".gz"))
    return stored


def gz_called_plain(patient: Patient, folder: Path) -> Stored:
    stored = write(patient, folder)
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.removesuffix(".gz")))
    return stored


def trailing_axis(patient: Patient, folder: Path) -> Stored:
    write(patient.changed(lambda image: image[..., None]), folder)
    return Stored(folder, patient.tumor)


def decathlon(patient: Patient, folder: Path) -> Stored:
    (folder / "imagesTr").mkdir()
    stacked = np.stack([patient.images[m] for m in ("FLAIR", "T1", "T1ce", "T2")], axis=-1)
    nib.save(nib.Nifti1Image(stacked, patient.affine), folder / "imagesTr" / "BRATS_001.nii.gz")
    return Stored(folder, patient.tumor)


def nnunet_raw(patient: Patient, folder: Path) -> Stored:
    order = ("T2", "FLAIR", "T1", "T1ce")
    names = {m: f"imagesTr/glioma_007_{index:04d}" for index, m in enumerate(order)}
    stored = write(patient, folder, names)
    description = {
        "channel_names": {"0": "T2", "1": "FLAIR", "2": "T1", "3": "T1ce"},
        "labels": {"background": 0, "whole tumor": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return stored


def stack_of(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image as TIFF stacks show it: slices from inferior, rows from anterior, columns from the right."""
    return np.ascontiguousarray(image.transpose(2, 1, 0)[:, ::-1, ::-1])


def tiff_files(write_one: Callable[[Path, NDArray[Any]], None]) -> Callable[[Patient, Path], Stored]:
    def store(patient: Patient, folder: Path) -> Stored:
        for modality, image in patient.images.items():
            write_one(folder / f"{PLAIN_NAMES[modality]}.tif", stack_of(image).astype(np.float32))
        return Stored(folder, stack_of(patient.tumor))

    return store


def page_by_page(path: Path, stack: NDArray[Any]) -> None:
    for plane in stack:
        tifffile.imwrite(path, plane, append=path.exists(), metadata=None, contiguous=False)


def page_by_page_with_a_thumbnail(path: Path, stack: NDArray[Any]) -> None:
    tifffile.imwrite(path, stack[0, ::4, ::4], metadata=None)
    page_by_page(path, stack)


def ome_with_sizes(patient: Patient, folder: Path) -> Stored:
    x, y, z = nib.affines.voxel_sizes(patient.affine)
    sizes = {"PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
    units = {f"{key}Unit": "mm" for key in sizes}
    for modality, image in patient.images.items():
        path = folder / f"{PLAIN_NAMES[modality]}.ome.tif"
        tifffile.imwrite(path, stack_of(image).astype(np.float32), metadata={"axes": "ZYX", **sizes, **units})
    return Stored(folder, stack_of(patient.tumor))


def channels_in_one_tiff(patient: Patient, folder: Path) -> Stored:
    stacked = np.stack([stack_of(image) for image in patient.images.values()]).astype(np.float32)
    tifffile.imwrite(folder / "scan.ome.tif", stacked, metadata={"axes": "CZYX"})
    return Stored(folder / "scan.ome.tif", stack_of(patient.tumor), tuple(patient.images))


def cropped(margin: int) -> Callable[[Patient, Path], Stored]:
    """Cut the frame close to the head; a negative margin adds air."""

    def store(patient: Patient, folder: Path) -> Stored:
        if margin < 0:
            pad = [(-margin, -margin)] * 2 + [(0, 0)]
            affine = patient.affine.copy()
            affine[:3, 3] += affine[:3, :3] @ np.array([margin, margin, 0])
            images = {m: np.pad(image, pad) for m, image in patient.images.items()}
            return write(Patient(images, np.pad(patient.tumor, pad), affine), folder)
        box = _head_box(patient, margin)
        affine = patient.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array([side.start for side in box])
        images = {m: image[box] for m, image in patient.images.items()}
        return write(Patient(images, patient.tumor[box], affine), folder)

    return store


def _head_box(patient: Patient, margin: int) -> tuple[slice, ...]:
    head = next(iter(patient.images.values())) > 0
    boxes = ndimage.find_objects(ndimage.binary_opening(head, iterations=2).astype(int))[0]
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(boxes, head.shape, strict=True)
    )


def resampled(size_mm: tuple[float, float, float], order: int) -> Callable[[Patient, Path], Stored]:
    """Resample to voxels of another size; splines of order 3 leave ringing around the head."""

    def store(patient: Patient, folder: Path) -> Stored:
        sides = nib.affines.voxel_sizes(patient.affine)
        zoom = sides / size_mm
        images = {m: ndimage.zoom(image, zoom, order=order) for m, image in patient.images.items()}
        tumor = ndimage.zoom(patient.tumor.astype(np.float32), zoom, order=1) >= 0.5
        affine = patient.affine.copy()
        factor = (np.array(patient.tumor.shape) - 1) / (np.array(tumor.shape) - 1)
        affine[:3, :3] *= factor
        return write(Patient(images, tumor, affine), folder)

    return store


def rician_noise(image: NDArray[Any]) -> NDArray[Any]:
    random = np.random.default_rng(0)
    sigma = 0.01 * np.percentile(image[image > 0], 95)
    noisy = np.hypot(image + random.normal(0, sigma, image.shape), random.normal(0, sigma, image.shape))
    return noisy.astype(np.float32)


def gaussian_noise(image: NDArray[Any]) -> NDArray[Any]:
    sigma = 0.01 * np.percentile(image[image > 0], 95)
    return (image + np.random.default_rng(0).normal(0, sigma, image.shape)).astype(np.float32)


def smooth_gain(image: NDArray[Any]) -> NDArray[Any]:
    """Multiply by a mild, smooth field, as a coil's sensitivity or its correction leaves it."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij", sparse=True)
    return (image * (1 + 0.08 * axes[0] - 0.06 * axes[1] + 0.05 * axes[2])).astype(np.float32)


def then(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Patient, Path], Stored]:
    return lambda patient, folder: write(patient.changed(change), folder)


def beside_junk(patient: Patient, folder: Path) -> Stored:
    """Put files beside the scans that are not scans."""
    stored = write(patient, folder)
    (folder / "notes.txt").write_text("seen by EB")
    (folder / ".DS_Store").write_bytes(b"\0" * 16)
    (folder / "._scan_t1.nii.gz").write_bytes(b"\0" * 16)
    (folder / "report.json").write_text("{}")
    return stored


def analyze_pairs(patient: Patient, folder: Path) -> Stored:
    for modality, image in patient.images.items():
        nib.save(nib.AnalyzeImage(image.astype(np.float32), patient.affine), folder / f"{PLAIN_NAMES[modality]}.img")
    return Stored(folder, patient.tumor)


def one_file_broken(patient: Patient, folder: Path) -> Stored:
    stored = write(patient, folder)
    path = folder / "scan_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:4000])
    return stored


def two_grids(patient: Patient, folder: Path) -> Stored:
    write(patient, folder)
    image = nib.Nifti1Image(patient.images["T2"][::2, ::2], patient.affine @ np.diag([2, 2, 1, 1]))
    nib.save(image, folder / "scan_t2.nii.gz")
    return Stored(folder, patient.tumor)


def nearly_one_grid(patient: Patient, folder: Path) -> Stored:
    """Move one scan by a hundredth of a millimeter, as programs do that write affines in other ways."""
    write(patient, folder)
    moved = patient.affine.copy()
    moved[:3, 3] += 0.01
    nib.save(nib.Nifti1Image(patient.images["T2"], moved), folder / "scan_t2.nii.gz")
    return Stored(folder, patient.tumor)


def gz_of_a_text(patient: Patient, folder: Path) -> Stored:
    stored = write(patient, folder)
    with gzip.open(folder / "scan_t2.nii.gz", "wb") as file:
        file.write(b"this is not an image" * 100)
    return stored


BRATS_2023 = {"T1": "t1n", "T1ce": "t1c", "T2": "t2w", "FLAIR": "t2f"}

WAYS = (
    Way("plain", write),
    # names
    Way("names of BraTS 2023", named(**{m: f"BraTS-GLI-00007-000-{n}" for m, n in BRATS_2023.items()})),
    Way("names of BraTS 2021", named(**{m: f"BraTS2021_00007_{m.lower()}" for m in PLAIN_NAMES})),
    Way(
        "names of BIDS",
        named(
            T1="sub-07/anat/sub-07_T1w",
            T1ce="sub-07/anat/sub-07_ce-gadolinium_T1w",
            T2="sub-07/anat/sub-07_T2w",
            FLAIR="sub-07/anat/sub-07_FLAIR",
        ),
    ),
    Way(
        "names of UCSF-PDGM",
        named(
            **{m: f"UCSF-PDGM-0004_{n}_bias" for m, n in zip(PLAIN_NAMES, ("T1", "T1c", "T2", "FLAIR"), strict=True)}
        ),
    ),
    Way(
        "a scanner's protocol names",
        named(T1="t1_mprage_sag", T1ce="t1_mprage_sag_km", T2="t2_tse_tra", FLAIR="t2_tirm_tra_dark-fluid"),
    ),
    Way("contrast as +C", named(T1="3D_T1_BRAVO", T1ce="3D_T1_BRAVO_+C", T2="T2_PROPELLER", FLAIR="Sag_CUBE_FLAIR")),
    Way("CT1, a contrast T1", named(T1="T1", T1ce="CT1", T2="T2", FLAIR="FLAIR")),
    Way(
        "registered to T1",
        named(T1="T1", T1ce="T1ce_reg_T1", T2="T2_reg_T1", FLAIR="FLAIR_to_T1"),
    ),
    Way("stripped, and named so", named(T1="t1_bet", T1ce="t1ce_brain", T2="t2_skull_strip", FLAIR="flair_stripped")),
    Way(
        "a time point called t1",
        named(T1="pat04_t1_T1w", T1ce="pat04_t1_T1ce", T2="pat04_t1_T2w", FLAIR="pat04_t1_flair"),
    ),
    Way("names with umlauts and spaces", named(**{m: f"Müller Jörg (2) {m}" for m in PLAIN_NAMES})),
    Way("names in Chinese", named(**{m: f"张伟_{m}" for m in PLAIN_NAMES})),
    Way("names with markup", named(**{m: f"pat[old]_<b>x&y_{m}" for m in PLAIN_NAMES})),
    Way(
        "capital letters",
        lambda patient, folder: write(patient, folder, {m: f"CASE_{m.upper()}" for m in PLAIN_NAMES}, ".NII.GZ"),
    ),
    Way("a folder of Decathlon", decathlon),
    Way("a folder of nnU-Net", nnunet_raw),
    Way("beside other files", beside_junk),
    # orientations
    *(Way(f"axes {codes}", oriented(codes)) for codes in ("LPS", "LAS", "RAI", "PIR", "ASL", "SRA", "ILP")),
    Way("oblique by 12 degrees", tilted(12)),
    Way("oblique by 30 degrees", tilted(30)),
    Way("qform only", with_codes(1, 0)),
    Way("sform only", with_codes(0, 2)),
    # types and scales
    Way("int16", stored_as(np.int16, 1000)),
    Way("uint8", stored_as(np.uint8, 255)),
    Way("uint16 to the brim", stored_as(np.uint16, 65535)),
    Way("float64", stored_as(np.float64, 1.0)),
    Way("tiny values", stored_as(np.float32, 1e-7)),
    Way("huge values", stored_as(np.float32, 1e9)),
    Way("air at -1024", stored_as(np.int16, 1000, -1024)),
    Way("air at 5", stored_as(np.float32, 500, 5)),
    Way("integers with slope and intercept", scaled_integers),
    Way("big-endian", big_endian),
    # containers
    Way("uncompressed", lambda patient, folder: write(patient, folder, suffix=".nii")),
    Way("NIfTI-2", lambda patient, folder: write(patient, folder, kind=nib.Nifti2Image)),
    Way("plain files called .nii.gz", plain_called_gz),
    Way("compressed files called .nii", gz_called_plain),
    Way("a fourth axis of one", trailing_axis),
    Way("TIFF stacks", tiff_files(lambda path, stack: tifffile.imwrite(path, stack)), note="voxel size"),
    Way("TIFF page by page", tiff_files(page_by_page), note="voxel size"),
    Way("OME-TIFF with sizes", ome_with_sizes),
    Way("channels in one TIFF", channels_in_one_tiff, note="voxel size"),
    # lengths
    Way("meters", in_units("meter", 1e-3)),
    Way("micrometers", in_units("micron", 1e3)),
    Way("unknown units", in_units("unknown", 1.0)),
    Way("grids a hundredth of a millimeter apart", nearly_one_grid),
    # frames and air
    Way("cut to the head", cropped(0)),
    Way("cut with a margin", cropped(6)),
    Way("in a wider frame", cropped(-24)),
    Way("resampled by splines", resampled((0.9, 0.9, 1.5), 3)),
    Way("resampled linearly", resampled((1.2, 1.2, 1.5), 1)),
    Way("noise of Rice", then(rician_noise)),
    Way("noise of Gauss", then(gaussian_noise)),
    Way("a smooth gain", then(smooth_gain)),
    Way("smoothed a little", then(lambda image: ndimage.gaussian_filter(image, 0.5))),
    Way("Analyze pairs", analyze_pairs, note="does not state its orientation"),
    Way("one scan on another grid", two_grids, note="grid"),
    # what must be refused
    Way("TIFF behind a thumbnail", tiff_files(page_by_page_with_a_thumbnail), note="thumbnail|page|voxel size"),
    Way("one file cut short", one_file_broken, refusal="scan_t2"),
    Way("one file that is a text", gz_of_a_text, refusal="scan_t2"),
)

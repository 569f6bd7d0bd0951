"""Which files make a case, by the naming schemes of the public data sets, and reading them as a `Volume`."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.assemble import volume_from_modalities
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._access import (
    NIFTI_SUFFIXES,
    TIFF_SUFFIXES,
    check_readable,
    find_suffix,
    strip_suffix,
)
from napari_braintumor.engine.files.labels import CONVENTIONS, guess_convention, label_values, reference_from_values
from napari_braintumor.engine.files.nifti import read_nifti, read_nifti_grid
from napari_braintumor.engine.files.tiff import read_tiff, read_tiff_slices
from napari_braintumor.engine.files.written import SIDECAR, is_sidecar, read_sidecar
from napari_braintumor.engine.types import MODALITIES, Reference, SourceGrid, Volume


@dataclass(frozen=True)
class ImageFile:
    """Where one modality of a case is stored.

    Attributes
    ----------
    paths
        One file, or the slices in order.
    modality
        One of `MODALITIES`.
    channel
        The channel of a file that holds several modalities, else None.
    """

    paths: tuple[Path, ...]
    modality: str
    channel: int | None = None


@dataclass(frozen=True)
class CaseFiles:
    """The files of one patient at one time point.

    Attributes
    ----------
    name
        What the case is called; no two cases found together share a name.
    patient
        The same for all time points of a patient.
    group
        The naming scheme: ``lgg``, ``brats``, ``btp``, ``brisc``, ``decathlon``, ``bids`` or ``other``; ``corrected``
        for cases that this program wrote.
    images
        The modalities, in the order of `MODALITIES`.
    reference
        The mask drawn by people: one file, the slices in order, or nothing.
    convention
        What the mask's numbers mean, a key of `CONVENTIONS`; None where the names do not tell.
    reviewed
        Slices along Z that a person has looked through, in a case that this program wrote; None means all.
    spacing_known
        False where this program noted that the voxel size is a guess.
    notes
        What the user should know of its files, a sentence each: those left out, and why.
    problem
        Why the case cannot be read, in the words of a `DataError`; None where it can. One bad case among others is
        found like them, so that a run over all of them names it and goes on.
    """

    name: str
    patient: str
    group: str
    images: tuple[ImageFile, ...]
    reference: tuple[Path, ...] = ()
    convention: str | None = None
    reviewed: tuple[int, ...] | None = None
    spacing_known: bool = True
    notes: tuple[str, ...] = ()
    problem: str | None = None


# ---------------------------------------------------------------------------------------------- names of modalities

_ALIASES = {
    "T1": {"t1", "t1n", "t1w", "t1pre"},
    "T1ce": {"t1c", "t1ce", "t1gd", "t1post", "t1wce", "t1cw", "t1contrast"},
    "T2": {"t2", "t2w"},
    "FLAIR": {"flair", "t2f", "fla", "t2flair"},
}
_CONTRAST = {"ce", "gd", "gad", "gado", "gadolinium", "contrast", "postcontrast"}
_CONTRAST_BEHIND = {"post", "c"}  # before the modality they may be a time point or a person
_WITHOUT = {"pre", "precontrast", "without", "no", "non", "native"}
_MASK = {"seg", "segm", "segmentation", "mask", "label", "labels", "gt", "groundtruth"}
_NO_TUMOR = {"brain", "brainmask", "bet", "head", "skull", "aseg", "aparc", "tissue"}


def _tokens(text: str) -> list[str]:
    return [token for token in re.split(r"[^a-z0-9]+", text.lower()) if token]


def find_modality(text: str) -> str | None:
    """Tell the modality from a name such as a file's or a layer's.

    Parameters
    ----------
    text
        Read word by word without regard to case, so that ``BraTS-GLI-00000-000-t1c`` is T1ce and ``5_t2_flair`` is
        FLAIR.

    Returns
    -------
    str or None
        One of `MODALITIES`, or None where the name has no or more than one modality.
    """
    return _read_modality(_tokens(text))[0]


def _read_modality(words: Sequence[str]) -> tuple[str | None, set[int]]:
    """Return the modality that words name, and which of them name it."""
    by_word = {i: name for i, word in enumerate(words) for name, aliases in _ALIASES.items() if word in aliases}
    first = min(by_word, default=-1)
    contrast = {i for i, word in enumerate(words) if word in _CONTRAST or (i > first and word in _CONTRAST_BEHIND)}
    if _WITHOUT & set(words):
        contrast = set()
    found = set(by_word.values())
    if (
        found == {"T1", "T1ce"}
        or (found == {"T1"} and contrast)
        or (not found and {"post", "postcontrast"} & set(words))
    ):
        return "T1ce", {*by_word, *contrast}
    if found == {"T2", "FLAIR"}:
        return "FLAIR", set(by_word)
    return (found.pop() if len(found) == 1 else None), {*by_word, *contrast} if found == {"T1ce"} else set(by_word)


# ------------------------------------------------------------------------------------------------- naming schemes


@dataclass(frozen=True)
class _Found:
    """What a file's name says. `kind` is a modality, ``mask``, or None where it says neither."""

    path: Path
    group: str
    root: Path
    case: str
    patient: str
    kind: str | None
    channels: tuple[str, ...] = ()
    number: int | None = None
    convention: str | None = None


@dataclass(frozen=True)
class _Scheme:
    """A data set's way of naming files: a pattern of the name without its ending, with a group for the case."""

    group: str
    pattern: str
    convention: str | None


_SCHEMES = (
    _Scheme("brats", r"(?P<case>(?P<patient>BraTS-[A-Za-z]+(?:-RT)?-\d+)-\d+)[-_](?P<kind>\w+)", "brats2023"),
    _Scheme("brats", r"(?P<case>BraTS2021_\d+)_(?P<kind>\w+)", "brats2017"),
    _Scheme("brats", r"(?P<case>BraTS20_[A-Za-z]+_\d+)_(?P<kind>[A-Za-z0-9]+)", "brats2017"),
    _Scheme("brats", r"(?P<case>(?P<patient>BraTS1[789]_\w+)_\d+)_(?P<kind>[A-Za-z0-9]+)", "brats2017"),
    _Scheme("brats", r"(?P<case>(?P<patient>brats_(?:2013|tcia)_pat\d+)_\d+)_(?P<kind>\w+)", "brats2013"),
    _Scheme("btp", r"(?P<case>(?P<patient>PGBM-\d+)_(?:pre|post))_(?P<kind>\w+)", "enhancing"),
    _Scheme("brisc", r"(?P<case>brisc\w+?)_(?P<kind>t1ce|mask)", "core"),
)
_LGG = re.compile(r"(?P<case>(?P<patient>TCGA_[A-Z0-9]{2}_[A-Z0-9]{4})_\d{8})(?:_(?P<number>\d+))?(?P<mask>_mask)?")
_LGG_CHANNELS = ("T1", "FLAIR", "T1ce")
_DECATHLON_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")


def _recognise(path: Path) -> _Found | None:
    """Read a file's name by the schemes of the data sets."""
    stem = strip_suffix(path)
    kind: str | None
    channels: tuple[str, ...]
    for scheme in _SCHEMES:
        match = re.fullmatch(scheme.pattern, stem, re.IGNORECASE)
        if match and (kind := "mask" if match["kind"].lower() in {"seg", "mask"} else find_modality(match["kind"])):
            case, patient = match["case"], match.groupdict().get("patient") or match["case"]
            convention = _refine_brats(path, case) if scheme.convention == "brats2023" else scheme.convention
            return _Found(path, scheme.group, path.parent, case, patient, kind, convention=convention)
    if find_suffix(path) in TIFF_SUFFIXES and (match := _LGG.fullmatch(stem)):
        number = int(match["number"]) if match["number"] else None
        kind, channels = ("mask", ()) if match["mask"] else (None, _LGG_CHANNELS)
        return _Found(path, "lgg", path.parent, match["case"], match["patient"], kind, channels, number, "whole")
    if re.fullmatch(r"BRATS_\d+", stem) and re.fullmatch(r"(images|labels)T[rs]", path.parent.name):
        is_mask = path.parent.name.startswith("labels")
        kind, channels = ("mask", ()) if is_mask else (None, _DECATHLON_CHANNELS)
        return _Found(path, "decathlon", path.parent.parent, stem, stem, kind, channels, convention="decathlon")
    if stem.startswith("sub-"):
        return _recognise_bids(path, stem)
    if stem.startswith("VSD.Brain"):
        return _recognise_vsd(path, stem)
    return None


def _refine_brats(path: Path, case: str) -> str:
    """Tell the year's convention of a BraTS 2023 or later name: only the set and the time point set them apart."""
    old = any("brats2023" in part.lower().replace("-", "") for part in path.parts)
    if "-PED-" in case.upper() and not old:
        return "bratsped2024"
    time_point = int(case.rpartition("-")[2])
    return "brats2024" if "-GLI-" in case.upper() and time_point >= 100 else "brats2023"


def _recognise_bids(path: Path, stem: str) -> _Found | None:
    """Read BIDS entities; masks may lie below ``derivatives``, beside brain and tissue masks that are not meant."""
    entities = dict(part.partition("-")[::2] for part in stem.split("_") if "-" in part)
    patient = f"sub-{entities['sub']}"
    case = f"{patient}_ses-{entities['ses']}" if "ses" in entities else patient
    roots = (folder.parent for folder in reversed(path.parents) if folder.name in ("derivatives", patient))
    derived = any(folder.name == "derivatives" for folder in path.parents)
    suffix, words = stem.rpartition("_")[2].lower(), _tokens(stem)
    kind: str | None
    if suffix in {"dseg", "seg", "mask", "roi"}:
        of_tumor = any(part in word for word in words for part in ("tumo", "lesion", "glioma"))
        kind = "mask" if of_tumor or not (derived or _NO_TUMOR & set(words)) else None
    elif suffix in {"t1w", "t2w", "flair"}:
        kind = None if derived else "T1ce" if "ce" in entities and suffix == "t1w" else find_modality(suffix)
    else:
        return None
    return _Found(path, "bids", next(roots, path.parent), case, patient, kind, convention=_convention_in(words))


def _recognise_vsd(path: Path, stem: str) -> _Found | None:
    """BRATS 2012 to 2015: every file in a folder of its own name, the case's name only in the folder above."""
    modality = re.search(r"\.MR_(T1c|T1|T2|Flair)\b", stem, re.IGNORECASE)
    is_mask = re.search(r"\.OT\b", stem)
    if not (modality or is_mask):
        return None
    folder = path.parent.parent if path.parent.name == stem else path.parent
    kind = find_modality(modality[1]) if modality else "mask"
    return _Found(path, "brats", folder, folder.name, re.sub(r"_\d+$", "", folder.name), kind, convention="brats2013")


def _convention_in(words: Iterable[str]) -> str | None:
    return next((word for word in words if word in CONVENTIONS), None)


def _recognise_any(path: Path) -> _Found:
    """Read a name of no data set: the words that name a modality or a mask, and what is left as the case."""
    parts = [part for part in re.split(r"[^A-Za-z0-9]+", strip_suffix(path)) if part]
    words = [part.lower() for part in parts]
    modality, used = _read_modality(words)
    masks = {i for i, word in enumerate(words) if word in _MASK}
    other = _NO_TUMOR & set(words)
    kind = None if other else "mask" if masks else modality
    drop = used | masks | {i for i, word in enumerate(words) if word == "ome" or (masks and word in CONVENTIONS)}
    case = "_".join(part for i, part in enumerate(parts) if i not in drop)
    convention = _convention_in(words) if masks else None
    return _Found(path, "other", path.parent, case, case, kind, convention=convention)


# ------------------------------------------------------------------------------------------------- finding cases

_SUFFIXES = (*NIFTI_SUFFIXES, *TIFF_SUFFIXES, ".mha")
_HOW_TO_NAME = (
    "Put the modality into the file's name (t1, t1ce, t2, flair), or name the channels: --modalities T1,FLAIR,T1ce, "
    "or OME channel names."
)


def find_cases(path: Path | Sequence[Path], modalities: Sequence[str] | None = None) -> list[CaseFiles]:
    """Find the cases among files, by their names; only files whose names do not tell are opened.

    Parameters
    ----------
    path
        A file, the folder of a case, a folder of such folders to any depth, or several of these. A file that is given
        by itself is a case without its siblings, but with its mask.
    modalities
        What the channels of files are whose names do not tell, in order.

    Returns
    -------
    list of CaseFiles
        Sorted by name, numbers by value.

    Raises
    ------
    DataError
        If a path does not exist, nothing was found, a file does not say what it is, or two files claim one place.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    paths = [Path(p) for p in paths]
    names = tuple(_canonical(name) for name in modalities or ())
    files = dict.fromkeys(file for p in paths for file in _list_files(p))
    cases = [_case_of_sidecar(file) for file in files if file.name == SIDECAR]
    images = [file for file in files if file.name != SIDECAR]
    found = [_name_channels(_recognise(file) or _recognise_any(file), names) for file in images]

    folders: dict[Path, list[_Found]] = defaultdict(list)
    keyed: dict[tuple[str, Path, str], list[_Found]] = defaultdict(list)
    for item in found:
        if item.group == "other":
            folders[item.root].append(item)
        else:
            keyed[item.group, item.root, item.case].append(item)
    for (_, root, _), items in keyed.items():
        if root in folders and sum(key[1] == root for key in keyed) == 1:
            items = [*items, *_adopt_mask(items, folders[root])]
        cases.append(_build_case(items))
    for items in folders.values():
        cases.extend(_build_case(case) for case in _split_folder(items))
    cases = [case for case in cases if case.images]
    if not cases:
        raise _nothing_found(paths, found)
    return sorted(_name_apart(cases), key=lambda case: _natural(case.name))


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key by which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text.lower())]


def _canonical(name: str) -> str:
    modality = find_modality(name)
    if modality is None:
        raise DataError(f"'{name}' is no known modality. Expected were {', '.join(MODALITIES)} or usual other names.")
    return modality


def _list_files(path: Path) -> Iterator[Path]:
    """List the image files at or below a path; for a single file also the mask that belongs to it."""
    if path.is_dir():
        seen = set()  # links may run in circles
        for folder, subfolders, names in os.walk(path, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                subfolders.clear()
                continue
            seen.add(real)
            if SIDECAR in names and is_sidecar(Path(folder, SIDECAR)):
                subfolders.clear()
                yield Path(folder, SIDECAR)
                continue
            subfolders.sort(key=_natural)
            for name in sorted(names, key=_natural):
                file = Path(folder, name)
                if find_suffix(file) in _SUFFIXES and not name.startswith("."):
                    yield file
        return
    check_readable(path)
    yield path
    this = _recognise(path) or _recognise_any(path)
    beside = path.parent.parent / path.parent.name.replace("images", "labels")  # Decathlon's labelsTr
    for near in dict.fromkeys((path.parent, beside)):
        for sibling in sorted(near.iterdir()) if near.is_dir() else ():
            if find_suffix(sibling) in _SUFFIXES and not sibling.name.startswith(".") and sibling != path:
                other = _recognise(sibling) or _recognise_any(sibling)
                same = all(getattr(this, key) == getattr(other, key) for key in ("group", "root", "case", "number"))
                if same and other.kind == "mask":
                    yield sibling


def _case_of_sidecar(path: Path) -> CaseFiles:
    """Return a case that this program wrote."""
    known = read_sidecar(path)
    return CaseFiles(
        name=known.name,
        patient=known.patient,
        group="corrected",
        images=tuple(ImageFile((path.parent / file,), modality) for modality, file in known.images.items()),
        reference=(path.parent / known.labels,),
        convention=known.convention,
        reviewed=known.reviewed,
        spacing_known=known.spacing_known,
    )


def _name_channels(item: _Found, names: tuple[str, ...]) -> _Found:
    """Give the channels of a file names that its own name does not give."""
    if item.group != "other" or item.kind == "mask" or (item.kind and not names):
        return item
    if find_suffix(item.path) in TIFF_SUFFIXES:
        array, _, stated = read_tiff(item.path)
        channels = len(array) if array.ndim == 4 else 1
        own = tuple(find_modality(name) or "" for name in stated)
        if not names and own and all(own):
            return replace(item, kind=None, channels=own)
    elif find_suffix(item.path) in NIFTI_SUFFIXES and names:
        channels = read_nifti_grid(item.path)[1]
    else:
        return item
    if not names or (item.kind and channels == 1):
        return item
    if len(names) != channels:
        raise DataError(
            f"'{item.path.name}' has {channels} channels, but {len(names)} modalities were named ({', '.join(names)}). "
            "Name one for each channel, in order."
        )
    return replace(item, kind=None, channels=names)


def _adopt_mask(items: list[_Found], strays: list[_Found]) -> list[_Found]:
    """Give a case that has a folder for itself, and no mask, the only mask in it (BraTS20_Training_355)."""
    masks = [stray for stray in strays if stray.kind == "mask"]
    if len(masks) == 1 == len(strays) and not any(item.kind == "mask" for item in items):
        return masks
    return []


def _split_folder(items: list[_Found]) -> list[list[_Found]]:
    """Split the files of a folder into cases: one if no modality repeats, else by what is left of their names."""
    whole = [item for item in items if item.channels]
    images = [item for item in items if item.kind not in (None, "mask")]
    masks = [item for item in items if item.kind == "mask"]
    kinds = Counter(item.kind for item in images)
    if not whole and images and max(kinds.values()) == 1 and len(masks) <= 1:
        rest = {item.case for item in (*images, *masks)}
        name = rest.pop() if len(rest) == 1 and rest != {""} else items[0].root.name
        return [[replace(item, case=name, patient=_patient_of(name)) for item in (*images, *masks)]]
    groups: dict[str, list[_Found]] = defaultdict(list)
    for item in (*whole, *images, *masks):
        name = item.case or item.root.name
        groups[name].append(replace(item, case=name, patient=_patient_of(name)))
    return list(groups.values())


def _patient_of(case: str) -> str:
    """Return the patient of a case named freely: TCGA numbers are the same in every set, so no split may part them."""
    match = re.match(r"TCGA[-_]([A-Z0-9]{2})[-_]([A-Z0-9]{4})", case, re.IGNORECASE)
    return f"TCGA_{match[1]}_{match[2]}".upper() if match else case


def _build_case(items: list[_Found]) -> CaseFiles:
    """Put the files of one case into their places."""
    one = next((item for item in items if item.channels or item.kind not in (None, "mask")), items[0])
    slices = sorted((item for item in items if item.channels), key=lambda item: item.number or 0)
    images = [ImageFile((item.path,), item.kind) for item in items if item.kind not in (None, "mask")]
    numbers = {item.number for item in slices}
    if len(slices) == 1 or (slices and len(numbers) == len(slices) and None not in numbers):
        paths = tuple(item.path for item in slices)
        many = len(slices[0].channels) > 1
        images += [ImageFile(paths, name, i if many else None) for i, name in enumerate(slices[0].channels)]
    else:
        images += [ImageFile((item.path,), name, None) for item in slices for name in item.channels]
    taken: dict[str, ImageFile] = {}
    for image in images:
        if image.modality in taken:
            if one.group == "bids":  # several runs: the first is as good as the others
                continue
            raise DataError(
                f"Case '{one.case}' has two {image.modality} images: '{taken[image.modality].paths[0].name}' and "
                f"'{image.paths[0].name}'. Expected was one file for each modality. Move or rename one of them."
            )
        taken[image.modality] = image
    masks = sorted((item for item in items if item.kind == "mask"), key=lambda item: item.number or 0)
    if len({item.number for item in masks}) != len(masks):
        raise DataError(
            f"Case '{one.case}' has two masks: '{masks[0].path.name}' and '{masks[1].path.name}'. "
            "Expected was one. Move or rename the other."
        )
    return CaseFiles(
        name=one.case,
        patient=one.patient,
        group=one.group,
        images=tuple(sorted(taken.values(), key=lambda image: MODALITIES.index(image.modality))),
        reference=tuple(item.path for item in masks),
        convention=masks[0].convention if masks else one.convention,
    )


def _name_apart(cases: list[CaseFiles]) -> list[CaseFiles]:
    """Put folders before the names of cases that would share one, since results are filed by name."""
    count = Counter(case.name for case in cases)
    named: dict[str, CaseFiles] = {}
    for case in cases:
        name, patient = case.name, case.patient
        if count[name] > 1:
            alike = [other.images[0].paths[0].parent for other in cases if other.name == name]
            parts = case.images[0].paths[0].parent.relative_to(os.path.commonpath(alike)).parts
            # Equally named folders below patients' folders ('anna/before', 'bert/before') are other patients.
            patient = parts[0] if case.group == "other" and patient == name and parts else patient
            name = "_".join([*parts, *([name] if name not in parts else [])])
        number = 2
        while name in named:
            name, number = f"{name.removesuffix(f'_{number - 1}')}_{number}", number + 1
        named[name] = replace(case, name=name, patient=patient)
    return list(named.values())


def _nothing_found(paths: list[Path], found: list[_Found]) -> DataError:
    where = ", ".join(f"'{path}'" for path in paths)
    unnamed = [item.path.name for item in found if item.kind is None]
    if unnamed:
        return DataError(f"'{unnamed[0]}' does not say which modality it is. {_HOW_TO_NAME}")
    if found:
        return DataError(f"{where} holds only masks, no images. Expected was at least one modality of the scan.")
    return DataError(
        f"No case was found in {where}. Looked for NIfTI (.nii, .nii.gz) and TIFF (.tif, .tiff) files named by "
        "BraTS, LGG, BIDS or Decathlon, or by their modality (t1, t1ce, t2, flair). DICOM (.dcm) and MetaImage (.mha) "
        "are not read yet: convert them to NIfTI."
    )


# ------------------------------------------------------------------------------------------------- reading cases

_LGG_SLICE_MM = 5.0
_LGG_WIDTH_MM = 256.0

READ_AT_ONCE = 2
"""Files unpacked side by side."""


def read_case(case: CaseFiles) -> Volume:
    """Read the images of a case.

    In the LGG set a channel that equals FLAIR throughout is left out: its authors put FLAIR where a sequence was
    missing. The set states no voxel size; slices of 5 mm and a field of view of 256 mm are assumed.

    Raises
    ------
    DataError
        If a file cannot be read or the images do not share one grid (to 1e-3 mm).
    """
    if case.problem is not None:
        raise DataError(case.problem)
    arrays: dict[str, NDArray[Any]] = {}
    source: SourceGrid | None = None
    different = dict.fromkeys(image.paths for image in case.images)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        read = pool.map(lambda paths: _read_image(paths, case.group), different)
        files = dict(zip(different, read, strict=True))
    for image in case.images:
        data, grid = files[image.paths]
        name = image.paths[0].name
        if image.channel is None and data.ndim == 4:
            raise DataError(f"'{name}' has {len(data)} channels, but its name says {image.modality}. {_HOW_TO_NAME}")
        if image.channel is not None and (data.ndim != 4 or image.channel >= len(data)):
            channels = len(data) if data.ndim == 4 else 1
            raise DataError(
                f"'{name}' has {channels} channels, but channel {image.channel + 1} was expected to be "
                f"{image.modality}. {_HOW_TO_NAME}"
            )
        if source is None:
            source = grid
        else:
            _check_same_grid(source, grid, 1e-3, "The modalities of a case must share one grid. Resample one first.")
        arrays[image.modality] = data if image.channel is None else data[image.channel]
    if source is None:
        raise DataError(f"Case '{case.name}' has no image. At least one modality is needed.")
    if case.group == "lgg" and "FLAIR" in arrays:
        flair = arrays["FLAIR"]
        arrays = {m: a for m, a in arrays.items() if m == "FLAIR" or not np.array_equal(a, flair)}
    if not case.spacing_known:
        source = replace(source, spacing_known=False)
    return replace(volume_from_modalities(arrays, source, case.name), notes=case.notes)


def read_reference(case: CaseFiles) -> Reference | None:
    """Read the mask of a case as regions, or None if it has none.

    Raises
    ------
    DataError
        If the file cannot be read, lies on another grid than the images (to 0.1 mm), holds values that its
        convention does not define, or the convention cannot be told.
    """
    if not case.reference:
        return None
    data, grid = _read_image(case.reference, case.group)
    name = case.reference[0].name
    if data.ndim != 3:
        raise DataError(f"Mask '{name}' has {len(data)} channels. Expected was one number for each voxel.")
    if case.images:
        image = case.images[0].paths
        of_image = read_nifti_grid(image[0])[0] if _is_nifti(image[0]) else _read_image(image, case.group)[1]
        _check_same_grid(of_image, grid, 0.1, "A mask must lie on the grid of its images. Resample the mask first.")
    convention = case.convention or guess_convention(values := label_values(data, grid))
    if convention is None:
        raise DataError(
            f"Mask '{name}' holds the values {', '.join(map(str, values))}, which do not tell what they mean. "
            f"Put the convention into its name, for instance '{strip_suffix(case.reference[0])}_whole': "
            f"{', '.join(CONVENTIONS)}."
        )
    return reference_from_values(data, convention, grid)


def _is_nifti(path: Path) -> bool:
    return find_suffix(path) in NIFTI_SUFFIXES


def _read_image(paths: tuple[Path, ...], group: str) -> tuple[NDArray[Any], SourceGrid]:
    """Read a file, or slices, with what is known of its data set's voxel size."""
    check_readable(paths[0])
    if _is_nifti(paths[0]):
        data, grid = read_nifti(paths[0])
        # Brain-Tumor-Progression files state 1 mm, which is false.
        return data, replace(grid, spacing_known=False) if group == "btp" else grid
    if len(paths) > 1:
        _check_no_gap(paths)
        data, grid, _ = read_tiff_slices(paths)
    else:
        data, grid, _ = read_tiff(paths[0])
    if group == "lgg" and not grid.spacing_known:
        in_plane = _LGG_WIDTH_MM / grid.shape[2]
        return data, replace(
            grid, affine=grid.affine @ np.diag([_LGG_SLICE_MM / grid.spacing[0], in_plane, in_plane, 1])
        )
    return data, grid


def _check_no_gap(paths: tuple[Path, ...]) -> None:
    """Refuse a stack of single slices from which one is missing."""
    numbers = [int(re.findall(r"\d+", path.stem)[-1]) for path in paths]
    missing = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))
    if missing:
        raise DataError(
            f"Slices {', '.join(map(str, missing))} are missing beside '{paths[0].name}'. "
            "Expected was every slice of the stack. Copy or download them again."
        )


def _check_same_grid(first: SourceGrid, other: SourceGrid, tolerance_mm: float, remedy: str) -> None:
    """Refuse two images whose voxels, once reordered, do not lie in the same places."""
    one, two = (grid.path.name if grid.path else "image" for grid in (first, other))
    shape_ZYX, other_ZYX = (tuple(grid.shape[axis] for axis in grid.axes) for grid in (first, other))
    if shape_ZYX != other_ZYX:
        raise DataError(f"'{one}' {shape_ZYX} and '{two}' {other_ZYX} differ in shape. {remedy}")
    if first.format != other.format or not (first.spacing_known and other.spacing_known):
        return  # a TIFF does not say where it lies
    apart_mm = float(np.linalg.norm(_corners(first) - _corners(other), axis=1).max())
    if apart_mm > tolerance_mm:
        raise DataError(f"'{one}' and '{two}' lie up to {apart_mm:.3g} mm apart in space. {remedy}")


def _corners(grid: SourceGrid) -> NDArray[np.float64]:
    """Return where the corner voxels of the reordered array lie: ``(8, 3)`` RAS mm."""
    at = np.zeros((8, 3))
    ends = np.array(list(product((False, True), repeat=3)))
    for end, axis, flip in zip(ends.T, grid.axes, grid.flips, strict=True):
        at[:, axis] = np.where(end != flip, grid.shape[axis] - 1, 0)
    return at @ grid.affine[:3, :3].T + grid.affine[:3, 3]

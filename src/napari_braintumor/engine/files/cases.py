"""Which files make a case: the files of one patient at one time point."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._access import NIFTI_SUFFIXES, TIFF_SUFFIXES, check_readable, find_suffix
from napari_braintumor.engine.files.naming import HOW_TO_NAME, Named, find_modality, patient_of, read_name
from napari_braintumor.engine.files.nifti import read_nifti_grid
from napari_braintumor.engine.files.tiff import read_tiff
from napari_braintumor.engine.files.written import SIDECAR, is_sidecar, read_sidecar
from napari_braintumor.engine.types import MODALITIES


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


_SUFFIXES = (*NIFTI_SUFFIXES, *TIFF_SUFFIXES, ".mha")


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
    found = [_name_channels(read_name(file), names) for file in images]

    folders: dict[Path, list[Named]] = defaultdict(list)
    keyed: dict[tuple[str, Path, str], list[Named]] = defaultdict(list)
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
    this = read_name(path)
    beside = path.parent.parent / path.parent.name.replace("images", "labels")  # Decathlon's labelsTr
    for near in dict.fromkeys((path.parent, beside)):
        for sibling in sorted(near.iterdir()) if near.is_dir() else ():
            if find_suffix(sibling) in _SUFFIXES and not sibling.name.startswith(".") and sibling != path:
                other = read_name(sibling)
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


def _name_channels(item: Named, names: tuple[str, ...]) -> Named:
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


def _adopt_mask(items: list[Named], strays: list[Named]) -> list[Named]:
    """Give a case that has a folder for itself, and no mask, the only mask in it (BraTS20_Training_355)."""
    masks = [stray for stray in strays if stray.kind == "mask"]
    if len(masks) == 1 == len(strays) and not any(item.kind == "mask" for item in items):
        return masks
    return []


def _split_folder(items: list[Named]) -> list[list[Named]]:
    """Split the files of a folder into cases: one if no modality repeats, else by what is left of their names."""
    whole = [item for item in items if item.channels]
    images = [item for item in items if item.kind not in (None, "mask")]
    masks = [item for item in items if item.kind == "mask"]
    kinds = Counter(item.kind for item in images)
    if not whole and images and max(kinds.values()) == 1 and len(masks) <= 1:
        rest = {item.case for item in (*images, *masks)}
        name = rest.pop() if len(rest) == 1 and rest != {""} else items[0].root.name
        return [[replace(item, case=name, patient=patient_of(name)) for item in (*images, *masks)]]
    groups: dict[str, list[Named]] = defaultdict(list)
    for item in (*whole, *images, *masks):
        name = item.case or item.root.name
        groups[name].append(replace(item, case=name, patient=patient_of(name)))
    return list(groups.values())


def _build_case(items: list[Named]) -> CaseFiles:
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


def _nothing_found(paths: list[Path], found: list[Named]) -> DataError:
    where = ", ".join(f"'{path}'" for path in paths)
    unnamed = [item.path.name for item in found if item.kind is None]
    if unnamed:
        return DataError(f"'{unnamed[0]}' does not say which modality it is. {HOW_TO_NAME}")
    if found:
        return DataError(f"{where} holds only masks, no images. Expected was at least one modality of the scan.")
    return DataError(
        f"No case was found in {where}. Looked for NIfTI (.nii, .nii.gz) and TIFF (.tif, .tiff) files named by "
        "BraTS, LGG, BIDS or Decathlon, or by their modality (t1, t1ce, t2, flair). DICOM (.dcm) and MetaImage (.mha) "
        "are not read yet: convert them to NIfTI."
    )

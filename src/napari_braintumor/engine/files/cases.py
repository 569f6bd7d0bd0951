"""Which files make up a case: the files of one patient at one time point."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import (
    DICOM_SUFFIXES,
    call_file,
    capitalize,
    may_name_patient,
    natural_sort_key,
)
from napari_braintumor.engine.files.case_files import CaseFiles, ImageFile
from napari_braintumor.engine.files.choosing import choose_images, choose_masks
from napari_braintumor.engine.files.choosing_series.changing import recall_rows
from napari_braintumor.engine.files.choosing_series.filed import build_unnamed_cases, fill_tables
from napari_braintumor.engine.files.choosing_series.remembering import is_remembered
from napari_braintumor.engine.files.choosing_series.rows import UNNAMED
from napari_braintumor.engine.files.formats import find_format, is_listed, strip_suffix
from napari_braintumor.engine.files.grouping import Draft, describe_left, group_folder, leave_out, name_folder
from napari_braintumor.engine.files.listing import (
    describe_others,
    holds_dicom,
    is_dicom,
    list_files,
    list_neighbors,
)
from napari_braintumor.engine.files.naming import find_modality, read_folder, read_modalities
from napari_braintumor.engine.files.owners import find_patient
from napari_braintumor.engine.files.schemes import NamedFile, is_result, name_channel, read_free_name, read_scheme
from napari_braintumor.engine.files.unfound import UNUSABLE, explain_nothing_found, explain_unused
from napari_braintumor.engine.files.written import SIDECAR, read_sidecar

__all__ = ["CaseFiles", "ImageFile", "find_cases"]


def find_cases(
    path: Path | Sequence[Path],
    modalities: Sequence[str] | None = None,
    keep_names: bool = False,
    offer: bool = False,
) -> list[CaseFiles]:
    """Find cases among files by file name, and among DICOM series by their headers.

    Other files are opened only if their names do not say enough.

    Parameters
    ----------
    path
        A file, a case folder, a folder of such folders at any depth, or several of these; also a zip archive of DICOM
        files, or a DICOMDIR. A file given by itself is a case without the files next to it, but with its mask; a DICOM
        file stands for its series.
    modalities
        The modalities, in order, of the channels of files whose names do not say.
    keep_names
        Name cases of DICOM series by the patient's name or number, which nothing shows otherwise.
    offer
        Give every case its table of series, `CaseFiles.rows`, which cases of DICOM series always have; and make a case
        of files whose names do not say what they are, so that a person can; see `choosing_series.changing`.

    Returns
    -------
    list of CaseFiles
        Sorted by name, numbers by value. A case that cannot be read because of its file names or contents is included,
        with its `problem`; images that are not used are listed in its `notes`.

    Raises
    ------
    DataError
        If a path does not exist, or nothing was found.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    paths = [Path(p) for p in paths]
    names = read_modalities(modalities) if modalities else ()
    files: dict[Path, Path] = {}
    others: list[Path] = []
    broken: list[CaseFiles] = []
    scanned: list[Path] = []
    for given in paths:
        try:
            if holds_dicom(given):
                scanned.append(given)
                continue
            images, more = list_files(given)
        except DataError as error:
            if len(paths) == 1 or not given.exists():
                raise
            name = UNNAMED if may_name_patient(given) else strip_suffix(given)
            broken.append(_broken_case(name, str(error)))
            continue
        if given.is_dir():
            likely = {file for file in images if file.suffix.lower() in DICOM_SUFFIXES}  # whatever they are
            found = [file for file in (*images, *more) if file in likely or is_dicom(file)]
            scanned += found
            images, more = ([file for file in each if file not in {*found}] for each in (images, more))
        others += more
        for file in images if given.is_dir() else [given, *_masks_of(given)]:
            files.setdefault(file.absolute(), file)
    sidecars = [file for file in files.values() if file.name == SIDECAR]
    named = [_name_channels(item, names) for item in _name_files([f for f in files.values() if f.name != SIDECAR])]
    drafts, homeless = _draft_cases(named)
    of_series = _find_scanned(scanned, paths, [file.parent for file in files.values()], keep_names)
    others += [] if of_series else scanned
    _note_others(drafts, others)
    cases = [*map(_case_of_sidecar, sidecars), *map(_build_case, drafts), *of_series]
    cases, homeless = _offer(cases, named, homeless, offer)
    if not cases and (broken or not homeless):
        raise DataError(broken[0].problem or "") if broken else explain_nothing_found(paths, named, others)
    if not cases:
        raise explain_nothing_found(paths, named, others)
    cases += broken + [_broken_case(item.case or item.root.name, explain_unused(item)) for item in homeless]
    return sorted(_name_apart(cases), key=lambda case: natural_sort_key(case.name))


def _offer(
    cases: list[CaseFiles], named: Sequence[NamedFile], homeless: list[NamedFile], offer: bool
) -> tuple[list[CaseFiles], list[NamedFile]]:
    """Add tables of series, and what the user chose in them earlier; also return the files still without a case."""
    folders = {item.path.parent for item in named}
    known = folders if offer else {folder for folder in folders if is_remembered(folder)}
    if not known:
        return cases, homeless
    offered = [*map(recall_rows, fill_tables(cases, [item for item in named if item.path.parent in known]))]
    loose = build_unnamed_cases([item for item in homeless if item.path.parent in known])
    unnamed = [case for case in map(recall_rows, loose) if offer or case.images]
    placed = {path for case in unnamed for row in case.rows for path in row.series.paths}
    return [*offered, *unnamed], [item for item in homeless if item.path not in placed]


def _find_scanned(
    files: Sequence[Path], given: Sequence[Path], taken: Sequence[Path], keep_names: bool
) -> list[CaseFiles]:
    """Return the cases of DICOM series; imported only here, since it takes as long as all the rest."""
    if not files:
        return []
    from napari_braintumor.engine.files.choosing_series.scanned import build_scanned_cases
    from napari_braintumor.engine.files.dicom.scanning import find_series_of, scan_series

    if len(given) == 1 and given[0].is_file() and is_dicom(given[0]) and given[0].name.upper() != "DICOMDIR":
        series = find_series_of(given[0])
    else:
        series = scan_series(files)
    tops = [path for path in given if path.is_dir()]
    return build_scanned_cases(series, tops, taken, keep_names) if series else []


# ------------------------------------------------------------------------------------------------------ what they are


def _name_files(files: Iterable[Path]) -> list[NamedFile]:
    """Read the names of files. Names that follow no data set are read together with the other names in their folder."""
    found: dict[Path, NamedFile | None] = {file: read_scheme(file) for file in files}
    free: dict[Path, list[Path]] = defaultdict(list)
    for file, item in found.items():
        if item is None:
            free[file.parent].append(file)
    for folder, members in free.items():
        beside = [path for path in sorted(folder.iterdir()) if is_listed(path)]
        words = dict(zip(beside, read_folder([strip_suffix(path) for path in beside]), strict=True))
        for file in members:
            found[file] = read_free_name(file, words[file])
    named = [item for item in found.values() if item is not None]
    return [replace(item, kind=None, channels=(), why_not="result") if is_result(item.path) else item for item in named]


def _masks_of(path: Path) -> list[Path]:
    """Return the masks next to a file that belong to it."""
    this, *others = _name_files([path, *list_neighbors(path)])
    return [other.path for other in others if other.kind == "mask" and _are_one(this, other)]


def _are_one(one: NamedFile, two: NamedFile) -> bool:
    if (one.group, one.root, one.number) != (two.group, two.root, two.number):
        return False
    if one.group == "other":
        return (one.words.key, one.words.series) == (two.words.key, two.words.series)
    return one.case == two.case


def _name_channels(item: NamedFile, names: tuple[str, ...]) -> NamedFile:
    """Name the channels of a file whose name does not; a file that cannot be opened gets the reason instead."""
    if item.why_not == "channel":
        return name_channel(item, names)
    if item.group != "other" or item.kind == "mask" or item.why_not == "result" or (item.kind and not names):
        return item
    try:
        form = find_format(item.path)
        if form is None or not (names or form.names_channels):
            return item
        channels, stated = form.count_channels(item.path)
        own = tuple(find_modality(name) or "" for name in stated)
        if not names and own and all(own):
            return replace(item, kind=None, channels=own, why_not=None)
        if not names or (item.kind and channels == 1):
            return item
        if len(names) != channels:
            raise DataError(
                f"'{item.path.name}' has {channels} channels, but {len(names)} modalities were named "
                f"({', '.join(names)}). Name one for each channel, in order."
            )
    except DataError as error:
        return replace(item, kind=None, why_not=str(error))
    return replace(item, kind=None, channels=names, why_not=None)


# --------------------------------------------------------------------------------------------------- which are one case


def _draft_cases(named: Sequence[NamedFile]) -> tuple[list[Draft], list[NamedFile]]:
    """Group files into cases; also return files that may be images but belong to no case."""
    folders: dict[Path, list[NamedFile]] = defaultdict(list)
    keyed: dict[tuple[str, Path, str], list[NamedFile]] = defaultdict(list)
    for item in named:
        if item.group == "other":
            folders[item.root].append(item)
        else:
            keyed[item.group, item.root, item.case].append(item)
    drafts: list[Draft] = []
    homeless: list[NamedFile] = []
    for (group, root, case), items in keyed.items():
        draft = Draft(case, items[0].patient, group, root)
        draft.images = [item for item in items if item.channels or item.kind not in (None, "mask")]
        draft.masks = [item for item in items if item.kind == "mask"]
        draft.left = [item for item in items if item.kind is None and not item.channels]
        if sum(key[1] == root for key in keyed) == 1 and root in folders:
            strays = folders[root]
            if draft.images and all(item.kind in (None, "mask") and not item.channels for item in strays):
                _adopt(draft, folders.pop(root))
        if draft.images:
            drafts.append(draft)
        else:
            homeless += [item for item in draft.left if item.why_not not in UNUSABLE]
    for root, items in sorted(folders.items()):
        if made := group_folder(items):
            drafts += made
        elif above := [d for d in drafts if d.root in (root, *root.parents) and d.case in (d.root.name, _of_folder(d))]:
            leave_out(above[-1:], [item for item in items if item.kind is None])
        else:
            homeless += [item for item in items if item.kind is None and item.why_not not in UNUSABLE]
    return drafts, homeless


def _of_folder(draft: Draft) -> str:
    return name_folder(draft.root)[0]


def _adopt(draft: Draft, strays: list[NamedFile]) -> None:
    """Give a case with its own folder the other files in it; if the case has no mask, take the only one there.

    BraTS20_Training_355 has a mask with a different name.
    """
    masks = [stray for stray in strays if stray.kind == "mask"]
    if len(masks) == 1 and not draft.masks:
        draft.masks = masks
    elif masks:
        draft.left += [replace(mask, kind=None, why_not="mask") for mask in masks]
    draft.left += [stray for stray in strays if stray.kind is None]


def _note_others(drafts: Sequence[Draft], others: Sequence[Path]) -> None:
    """Note which files in a case's folder may also be scans, but have a format that is not supported."""
    near: dict[Path, list[Path]] = defaultdict(list)
    for path in others:
        near[path.parent].append(path)
    roots = Counter(draft.root for draft in drafts)
    for draft in drafts:
        for path, what in describe_others(near[draft.root]) if roots[draft.root] == 1 else ():
            if "picture" not in what.name or find_modality(strip_suffix(path)):
                called = capitalize(call_file(path))
                draft.notes.append(f"{called} was left out because it is {what.name}. {what.remedy}")


# ------------------------------------------------------------------------------------------------------ their places


def _case_of_sidecar(path: Path) -> CaseFiles:
    """Return a case that this program wrote, from its sidecar."""
    try:
        known = read_sidecar(path)
    except DataError as error:
        return _broken_case(path.parent.name, str(error))
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


def _broken_case(name: str, problem: str) -> CaseFiles:
    return CaseFiles(name=name, patient=find_patient(name), group="other", images=(), problem=problem)


def _build_case(draft: Draft) -> CaseFiles:
    """Build a case from the files of its draft."""
    slices = sorted((item for item in draft.images if item.channels), key=lambda item: item.number or 0)
    plain, notes, problem = choose_images(draft)
    images = [ImageFile((item.path,), item.kind or "") for item in plain]
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
            one, two = taken[image.modality].paths[0].name, image.paths[0].name
            problem = problem or (
                f"Case '{draft.case}' has two {image.modality} images: '{one}' and '{two}'. "
                "Expected one file for each modality. Move or rename one of them."
            )
        taken.setdefault(image.modality, image)
    masks, mask_notes, mask_problem = choose_masks(draft)
    return CaseFiles(
        name=draft.case,
        patient=draft.patient,
        group=draft.group,
        images=tuple(sorted(taken.values(), key=lambda image: MODALITIES.index(image.modality))),
        reference=tuple(item.path for item in masks),
        convention=masks[0].convention if masks else draft.images[0].convention,
        notes=(*draft.notes, *notes, *mask_notes, *describe_left(draft.left)),
        problem=draft.problem or problem or mask_problem,
    )


def _name_apart(cases: list[CaseFiles]) -> list[CaseFiles]:
    """Prefix folder names to cases that would share a name, because results are filed by name."""
    count = Counter(case.name for case in cases)
    named: dict[str, CaseFiles] = {}
    for case in cases:
        name, patient = case.name, case.patient
        if count[name] > 1 and case.images and case.group != "dicom":  # whose folders may name the patient
            parts = _folders_apart(case, [other for other in cases if other.name == name and other.images])
            # Folders with the same name below patient folders ('anna/mri', 'bert/mri') are different patients.
            of_folder = case.group == "other" and name == case.images[0].paths[0].parent.name
            if of_folder and patient == name and parts and not any(letter.isdigit() for letter in name):
                patient = parts[0]
            name = "_".join([*parts, *([name] if name not in parts else [])])
        number = 2
        while name in named:
            name, number = f"{name.removesuffix(f'_{number - 1}')}_{number}", number + 1
        named[name] = replace(case, name=name, patient=patient)
    return list(named.values())


def _folders_apart(case: CaseFiles, alike: Sequence[CaseFiles]) -> tuple[str, ...]:
    """Return the folders of a case below the folder that all cases of the same name share."""
    folders = [other.images[0].paths[0].parent.absolute() for other in alike]
    own = case.images[0].paths[0].parent.absolute()
    try:
        return own.relative_to(os.path.commonpath(folders)).parts
    except ValueError:  # on different drives
        return own.parts[1:]

"""Naming schemes of the public data sets: what a file's name and folder mean in each of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_braintumor.engine.anatomy import (
    CONVENTIONS,
    CORE,
    ENHANCING,
    LABEL_WORDS,
    REGION_NAMES,
    REGION_WORDS,
    REGIONS,
    WHOLE,
)
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.formats import find_suffix, strip_suffix
from napari_braintumor.engine.files.naming import Words, find_modality, read_words
from napari_braintumor.engine.files.nifti import NIFTI_SUFFIXES, read_nifti_grid
from napari_braintumor.engine.files.owners import find_patient
from napari_braintumor.engine.files.tiff import TIFF_SUFFIXES


@dataclass(frozen=True)
class NamedFile:
    """What a file's name says.

    Attributes
    ----------
    group
        The scheme; ``other`` for names that follow none.
    root
        The folder in which the case was found.
    kind
        A modality, ``mask``, or None if the name says neither or the file has several `channels`.
    number
        The number of the slice in a stack.
    why_not
        Why the file cannot be used, if `kind` is None; one of ``unnamed``, ``unclear``, ``sequence``, ``tissue``,
        ``mask``, ``result``, or a sentence.
    derived
        The version of an image below ``derivatives``.
    rank
        Of several masks, the one with the lowest rank counts.
    """

    path: Path
    group: str
    root: Path
    case: str
    patient: str
    kind: str | None
    channels: tuple[str, ...] = ()
    number: int | None = None
    convention: str | None = None
    words: Words = field(default_factory=Words)
    why_not: str | None = None
    derived: str = ""
    rank: int = 0


@dataclass(frozen=True)
class _Scheme:
    """How a data set names its files: a pattern for the case, the names of its masks, and their convention."""

    group: str
    case: str
    convention: str | None
    masks: tuple[str, ...] = ("seg", "mask")
    between: str = "_"


_SCHEMES = (
    _Scheme("brats", r"(?P<patient>BraTS-MEN-RT-\d+)-\d+", "core", ("gtv", "seg"), "[-_]"),
    _Scheme("brats", r"(?P<patient>BraTS-[A-Za-z]+-\d+)-\d+", "brats2023", between="[-_]"),
    _Scheme("brats", r"BraTS2021_\d+", "brats2017"),
    _Scheme("brats", r"BraTS20_[A-Za-z]+_\d+", "brats2017"),
    _Scheme("brats", r"(?P<patient>BraTS1[789]_\w+)_\d+", "brats2017"),
    _Scheme("brats", r"(?P<patient>brats_(?:2013|tcia)_pat\d+)_\d+", "brats2013"),
    _Scheme("brats", r"BraTSpseudo_[a-z0-9]+", "brats2017"),
    _Scheme("brats", r"(?P<patient>BraTSReg_\d+)_\d\d_\d{4}", None),
    _Scheme("brats", r"(?P<patient>UCSF-PDGM-\d+)(?:_FU\w+?)?", "brats2017", ("tumor_segmentation",)),
    _Scheme(
        "brats", r"(?P<patient>UPENN-GBM-\d+)_\d+", "brats2017", ("segm", "combined_segm", "automated_approx_segm")
    ),
    _Scheme("brats", r"(?P<patient>(?:UCSD-PTGBM|RHUH)-\d+)_\d+", None),
    _Scheme(
        "brats",
        r"(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})_\d{4}\.\d\d\.\d\d",
        "brats2017",
        ("glistrboost_manuallycorrected", "glistrboost"),
    ),
    _Scheme("btp", r"(?P<patient>PGBM-\d+)_(?:pre|post)", "enhancing"),
    _Scheme("brisc", r"brisc\w+", "core"),
)
_PATTERNS = [
    (scheme, re.compile(rf"(?P<case>{scheme.case}){scheme.between}(?P<kind>[A-Za-z]\w*)", re.IGNORECASE))
    for scheme in _SCHEMES
]
_LGG = re.compile(r"(?P<case>(?P<patient>TCGA_[A-Z0-9]{2}_[A-Z0-9]{4})_\d{8})(?:_(?P<number>\d+))?(?P<mask>_mask)?")
_LGG_CHANNELS = ("T1", "FLAIR", "T1ce")
_DECATHLON_CHANNELS = ("FLAIR", "T1", "T1ce", "T2")
_RESULT = re.compile(r"_tumor(_\d+)?(_corrected)?$|_desc-tumor\d*(corrected)?_dseg$")
_RAW_FOLDER = re.compile(r"(images|labels)(T[rs]|Val)?", re.IGNORECASE)


def read_scheme(path: Path) -> NamedFile | None:
    """Read a file's name by the schemes of the data sets; None if it follows none of them."""
    # Kaggle's BraTS 2023 puts each file into a folder with the file's published name.
    named = path.parent if find_suffix(path.parent) in NIFTI_SUFFIXES else path
    stem = strip_suffix(named)
    for scheme, pattern in _PATTERNS:
        if match := pattern.fullmatch(stem):
            return _by_scheme(path, named.parent, scheme, match)
    if find_suffix(path) in TIFF_SUFFIXES and (match := _LGG.fullmatch(stem)):
        number = int(match["number"]) if match["number"] else None
        kind, channels = ("mask", ()) if match["mask"] else (None, _LGG_CHANNELS)
        return NamedFile(path, "lgg", path.parent, match["case"], match["patient"], kind, channels, number, "whole")
    if raw := _of_dataset(path, stem):
        return raw
    if re.match(r"sub-[^_]+_", stem):
        return _by_bids(path, stem)
    if stem.startswith("VSD.Brain"):
        return _by_vsd(path, stem)
    return None


def read_free_name(path: Path, words: Words) -> NamedFile:
    """Read the words of a name that follows no scheme."""
    case = "_".join(words.rest)
    convention = words.convention or (_convention_of(_describe_labels(path.parent)) if words.mask else None)
    kind, why_not = _kind_of(words)
    return NamedFile(
        path, "other", path.parent, case, find_patient(case), kind, convention=convention, words=words, why_not=why_not
    )


def is_result(path: Path) -> bool:
    """Whether a label file is a result of this program, by its name and its record or header."""
    if not _RESULT.search(strip_suffix(path)):
        return False
    if {"case", "volumes_ml", "labels"} <= _read_json(path.with_name(f"{strip_suffix(path)}.json")).keys():
        return True
    if find_suffix(path) not in NIFTI_SUFFIXES:
        return False
    try:
        return b"napari-braintumor" in (read_nifti_grid(path)[0].header or b"")
    except DataError:
        return False


def _kind_of(words: Words) -> tuple[str | None, str | None]:
    if words.mask:
        return (None, "tissue") if words.tissue else ("mask", None)
    if words.modality:
        return words.modality, None
    if words.other_sequence:
        return None, "sequence"
    return None, "unclear" if words.unclear else "unnamed"


def _by_scheme(path: Path, root: Path, scheme: _Scheme, match: re.Match[str]) -> NamedFile:
    case, kind_text = match["case"], match["kind"].lower()
    patient = find_patient(match.groupdict().get("patient") or case)
    words = read_words(kind_text)
    kind, why_not = _kind_of(words)
    rank = 0
    if kind_text in scheme.masks:
        kind, why_not, rank = "mask", None, scheme.masks.index(kind_text)
    elif kind == "mask":
        kind, why_not = None, "mask"
    elif why_not == "unnamed":
        why_not = "sequence"
    convention = _refine_brats(path, case) if scheme.convention == "brats2023" else scheme.convention
    if case.lower().startswith("tcga"):
        patient = find_patient(case)
    return NamedFile(
        path, scheme.group, root, case, patient, kind, convention=convention, words=words, why_not=why_not, rank=rank
    )


def _refine_brats(path: Path, case: str) -> str:
    """Return the convention of a BraTS name of 2023 or later: only data set and time point distinguish the years."""
    old = any("brats2023" in part.lower().replace("-", "") for part in path.parts)
    if "-PED-" in case.upper() and not old:
        return "bratsped2024"
    time_point = int(case.rpartition("-")[2])
    return "brats2024" if "-GLI-" in case.upper() and time_point >= 100 else "brats2023"


def _by_bids(path: Path, stem: str) -> NamedFile:
    """Read BIDS entities. Masks may be below ``derivatives``, next to brain and tissue masks that do not count."""
    entities = dict(part.partition("-")[::2] for part in stem.split("_") if "-" in part)
    patient = f"sub-{entities['sub']}"
    case = f"{patient}_ses-{entities['ses']}" if "ses" in entities else patient
    roots = (folder.parent for folder in reversed(path.parents) if folder.name in ("derivatives", patient))
    derived = next((f for f in reversed(path.parents) if f.name == "derivatives"), None)
    suffix = stem.rpartition("_")[2].lower()
    words = read_words("_".join(part for part in stem.split("_") if not part.startswith(("sub-", "ses-", "space-"))))
    kind: str | None = None
    why_not: str | None = "sequence"
    if suffix in {"dseg", "seg", "mask", "roi"}:
        tumor = any(part in stem.lower() for part in ("tumo", "lesion", "glioma"))
        kind, why_not = ("mask", None) if tumor or not (derived or words.tissue) else (None, "tissue")
    elif suffix == "t1w" and (
        entities.get("ce", "none").lower() not in ("none", "no", "pre", "0") or _has_agent(entities)
    ):
        kind, why_not = "T1ce", None
    elif modality := find_modality(suffix):
        kind, why_not = modality, None
    version = ""
    if derived and kind not in (None, "mask"):
        details = [f"{key}-{entities[key]}" for key in ("space", "res", "desc") if key in entities]
        version = " ".join([path.relative_to(derived).parts[0], *details])
    return NamedFile(
        path, "bids", next(roots, path.parent), case, patient, kind, convention=words.convention, words=words,
        why_not=why_not, derived=version,
    )  # fmt: skip


def _has_agent(entities: dict[str, str]) -> bool:
    """Whether BIDS entities name a contrast agent: ``ce-gadolinium``, ``acq-gd``, ``acq-mpragePost``."""
    acquired = entities.get("acq", "")
    if entities.get("ce", "none").lower() not in ("none", "no", "pre", "0"):
        return True
    return acquired.lower().endswith("post") or find_modality(f"t1w {acquired}") == "T1ce"


def _by_vsd(path: Path, stem: str) -> NamedFile | None:
    """Read BRATS 2012 to 2015: every file is in a folder of the same name; only the folder above names the case."""
    modality = re.search(r"\.MR_(T1c|T1|T2|Flair)\b", stem, re.IGNORECASE)
    is_mask = re.search(r"\.OT\b", stem)
    if not (modality or is_mask):
        return None
    folder = path.parent.parent if path.parent.name == stem else path.parent
    kind = find_modality(modality[1]) if modality else "mask"
    return NamedFile(
        path, "brats", folder, folder.name, re.sub(r"_\d+$", "", folder.name), kind, convention="brats2013"
    )


# ------------------------------------------------------------------------------------------- Decathlon and nnU-Net


def _of_dataset(path: Path, stem: str) -> NamedFile | None:
    """Read the layout of the Decathlon and nnU-Net: ``imagesTr``, ``labelsTr`` and ``dataset.json``."""
    place = _RAW_FOLDER.fullmatch(path.parent.name)
    decathlon = re.fullmatch(r"(BRATS_\d+)(?:_(\d{4}))?", stem)
    numbered = re.fullmatch(r"(.+)_(000\d)", stem)
    about = _describe_dataset(path.parent.parent if place else path.parent)
    raw = place and place[2] and (decathlon or numbered or _has_numbered_images(path, stem))
    if read_words(stem).modality or not (about or raw):
        return None
    root = path.parent.parent if place else path.parent
    if place and place[1].lower() == "labels":
        convention = _convention_of(about) or ("decathlon" if decathlon and not about.get("labels") else None)
        return NamedFile(path, "decathlon", root, stem, _patient_of(stem), "mask", convention=convention)
    channels = _channels_of(about) or (_DECATHLON_CHANNELS if decathlon else ())
    if numbered:
        case, number = numbered[1], int(numbered[2])
        kind = channels[number] if number < len(channels) else None
        words = Words(rest=(case,))
        return NamedFile(
            path, "decathlon", root, case, _patient_of(case), kind or None, number=number, words=words,
            why_not=None if kind else "channel",
        )  # fmt: skip
    if channels and all(channels):
        kind = channels[0] if len(channels) == 1 else None
        return NamedFile(path, "decathlon", root, stem, _patient_of(stem), kind, () if kind else channels)
    return None


def _patient_of(case: str) -> str:
    for scheme in _SCHEMES:
        if (match := re.fullmatch(scheme.case, case, re.IGNORECASE)) and "patient" in match.groupdict():
            return find_patient(match["patient"])
    return find_patient(case)


def name_channel(item: NamedFile, names: tuple[str, ...]) -> NamedFile:
    """Name the modality of a file in nnU-Net's layout, for which only the channel number is known."""
    if item.why_not == "channel" and item.number is not None and item.number < len(names):
        return replace(item, kind=names[item.number], why_not=None)
    return item


def _describe_dataset(folder: Path) -> dict[str, Any]:
    for place in (folder, folder.parent):
        content = _read_json(place / "dataset.json")
        if isinstance(content.get("channel_names") or content.get("modality"), dict):
            return content
    return {}


def _describe_labels(folder: Path) -> dict[str, Any]:
    """Return the content of a ``dataset.json`` next to freely named files; only its labels apply to them."""
    return _read_json(folder / "dataset.json")


def _has_numbered_images(path: Path, stem: str) -> bool:
    folder = path.parent.with_name(path.parent.name.lower().replace("labels", "images").replace("tr", "Tr"))
    return any((folder / f"{stem}_0000{suffix}").is_file() for suffix in NIFTI_SUFFIXES)


def _channels_of(about: dict[str, Any]) -> tuple[str, ...]:
    """Return the modality of each channel, empty if its name gives none."""
    names = about.get("channel_names") or about.get("modality") or {}
    ordered = sorted((int(key), str(name)) for key, name in names.items() if str(key).isdecimal())
    return tuple(find_modality(name) or "" for _, name in ordered)


def _convention_of(about: dict[str, Any]) -> str | None:
    """Return the convention that matches the regions in ``dataset.json``."""
    labels = about.get("labels")
    if not isinstance(labels, dict):
        return None
    if all(str(key).isdecimal() for key in labels):
        labels = {str(name): int(key) for key, name in labels.items()}
    regions: dict[str, set[int]] = {name: set() for name in REGION_NAMES}
    for name, value in labels.items():
        values = set(value) if isinstance(value, list) else {value}
        if not all(isinstance(one, int) for one in values):
            return None
        inside = _regions_named(str(name).lower(), isinstance(value, list))
        if inside is None:
            return None
        for region in inside:
            regions[region] |= values
    found = {region: tuple(sorted(values)) for region, values in regions.items() if values}
    return next((key for key, convention in CONVENTIONS.items() if dict(convention.regions) == found), None)


def _regions_named(name: str, listed: bool) -> tuple[str, ...] | None:
    if name in ("background", "bg", "ignore"):
        return ()
    if apart := next((r.name for r in REGIONS if not r.nested and name in REGION_WORDS.get(r.name, ())), None):
        return (apart,)
    if listed:
        words = {"whole": WHOLE, "core": CORE, "enhanc": ENHANCING}
        return next(((region,) for word, region in words.items() if word in name), None)
    if "edema" in name or "oedema" in name or name in LABEL_WORDS[2]:
        return (WHOLE,)
    if re.search(r"non.?enhanc|necro|core", name) or name in LABEL_WORDS[1]:
        return (WHOLE, CORE)
    return (WHOLE, CORE, ENHANCING) if "enhanc" in name or name == "et" else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _parse_json(path, path.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=16)
def _parse_json(path: Path, changed: int) -> dict[str, Any]:
    """Return a file's content, cached until it changes: every image in a folder asks for it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

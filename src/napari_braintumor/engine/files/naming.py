"""What the names of files and layers say: modalities, masks, cases and patients, by the schemes of public data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.files._access import TIFF_SUFFIXES, find_suffix, strip_suffix
from napari_braintumor.engine.files.labels import CONVENTIONS

HOW_TO_NAME = (
    "Put the modality into the file's name (t1, t1ce, t2, flair), or name the channels: --modalities T1,FLAIR,T1ce, "
    "or OME channel names."
)

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
class Named:
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


def read_name(path: Path) -> Named:
    """Read a file's name by the schemes of the data sets, or else word by word."""
    return _recognise(path) or _recognise_any(path)


def _recognise(path: Path) -> Named | None:
    """Read a file's name by the schemes of the data sets."""
    stem = strip_suffix(path)
    kind: str | None
    channels: tuple[str, ...]
    for scheme in _SCHEMES:
        match = re.fullmatch(scheme.pattern, stem, re.IGNORECASE)
        if match and (kind := "mask" if match["kind"].lower() in {"seg", "mask"} else find_modality(match["kind"])):
            case, patient = match["case"], match.groupdict().get("patient") or match["case"]
            convention = _refine_brats(path, case) if scheme.convention == "brats2023" else scheme.convention
            return Named(path, scheme.group, path.parent, case, patient, kind, convention=convention)
    if find_suffix(path) in TIFF_SUFFIXES and (match := _LGG.fullmatch(stem)):
        number = int(match["number"]) if match["number"] else None
        kind, channels = ("mask", ()) if match["mask"] else (None, _LGG_CHANNELS)
        return Named(path, "lgg", path.parent, match["case"], match["patient"], kind, channels, number, "whole")
    if re.fullmatch(r"BRATS_\d+", stem) and re.fullmatch(r"(images|labels)T[rs]", path.parent.name):
        is_mask = path.parent.name.startswith("labels")
        kind, channels = ("mask", ()) if is_mask else (None, _DECATHLON_CHANNELS)
        return Named(path, "decathlon", path.parent.parent, stem, stem, kind, channels, convention="decathlon")
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


def _recognise_bids(path: Path, stem: str) -> Named | None:
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
    return Named(path, "bids", next(roots, path.parent), case, patient, kind, convention=_convention_in(words))


def _recognise_vsd(path: Path, stem: str) -> Named | None:
    """BRATS 2012 to 2015: every file in a folder of its own name, the case's name only in the folder above."""
    modality = re.search(r"\.MR_(T1c|T1|T2|Flair)\b", stem, re.IGNORECASE)
    is_mask = re.search(r"\.OT\b", stem)
    if not (modality or is_mask):
        return None
    folder = path.parent.parent if path.parent.name == stem else path.parent
    kind = find_modality(modality[1]) if modality else "mask"
    return Named(path, "brats", folder, folder.name, re.sub(r"_\d+$", "", folder.name), kind, convention="brats2013")


def _convention_in(words: Iterable[str]) -> str | None:
    return next((word for word in words if word in CONVENTIONS), None)


def _recognise_any(path: Path) -> Named:
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
    return Named(path, "other", path.parent, case, case, kind, convention=convention)


def patient_of(case: str) -> str:
    """Return the patient of a case named freely: TCGA numbers are the same in every set, so no split may part them."""
    match = re.match(r"TCGA[-_]([A-Z0-9]{2})[-_]([A-Z0-9]{4})", case, re.IGNORECASE)
    return f"TCGA_{match[1]}_{match[2]}".upper() if match else case

"""Read from a DICOM header how images were acquired: what the standard provides for it, and what makers use beside it.

Elements of makers are those of their conformance statements, and of the headers of scanners that people describe. What
is read here only names scans that are none of the four modalities, so an element that is missing costs nothing else.
"""

from __future__ import annotations

import re
from math import isfinite
from struct import unpack
from typing import Literal

from pydicom import Dataset
from pydicom.tag import BaseTag

from napari_braintumor.engine.files.dicom.elements import (
    find_group,
    first_given,
    read_items,
    read_number,
    read_text,
    read_texts,
    read_value,
)

Technique = Literal[
    "scout",
    "diffusion",
    "perfusion",
    "vessels",
    "susceptibility",
    "proton density",
    "short inversion",
    "echo planar",
    "mosaic",
    "fat suppressed",
]

TAGS: list[BaseTag | int | str | tuple[int, int]] = [
    "ScanningSequence", "ScanOptions", "AngioFlag", "AcquisitionContrast", "EchoPlanarPulseSequence", "PhaseContrast",
    "TimeOfFlightContrast", "SpectrallySelectedSuppression", "ASLContext", "MRArterialSpinLabelingSequence",
    "DiffusionBValue", (0x0019, 0x0010), (0x0019, 0x100A), (0x0019, 0x100C), (0x2001, 0x0010), (0x2001, 0x1003),
    (0x0043, 0x0010), (0x0043, 0x102F), (0x0043, 0x1030), (0x0043, 0x1039), (0x0065, 0x0010), (0x0065, 0x1009),
]  # fmt: skip
"""What must be read of a file for `find_techniques`, `read_b_value` and `read_component`."""

_B_VALUES = {
    0x00190010: ("SIEMENS", 0x0019100C),
    0x20010010: ("PHILIPS", 0x20011003),
    0x00430010: ("GEMS", 0x00431039),
    0x00650010: ("IMAGE PRIVATE HEADER", 0x00651009),
}
"""Where Siemens, Philips, GE and United Imaging keep the b-value, by the element that says whose block it is."""

_BINARY = {4: "<f", 8: "<d"}

_BIAS_OF_GE = 1_000_000_000
"""GE adds this to the b-values of some scans."""

_MOSAIC_OF_SIEMENS = 0x0019100A
_COMPONENTS_OF_GE = {1.0: "PHASE", 2.0: "REAL", 3.0: "IMAGINARY"}
_DIFFUSION_OF_GE = {14.0, 16.0, 18.0, 19.0}
"""Kinds of images by (0043,1030): without weighting, weighted, anisotropy, trace."""

_CONTRASTS: dict[str, Technique] = {
    "DIFFUSION": "diffusion",
    "PERFUSION": "perfusion",
    "FLOW_ENCODED": "vessels",
    "T2_STAR": "susceptibility",
    "PROTON_DENSITY": "proton density",
    "STIR": "short inversion",
}
"""Values of AcquisitionContrast (PS3.3, C.8.13.5.1) that belong to none of the four modalities."""

_SEQUENCES: dict[Technique, str] = {
    "diffusion": r"\W?(ep|re|tse|zs)\w*_b\d",
    "perfusion": r"\W?tgse|.*p?c?asl",
    "echo planar": r"\W?ep(_|2d|3d|fid|se|i\b)",
    "susceptibility": r"\W?swi|\W?qfl",
}
"""How Siemens' names of sequences begin, such as ``*ep_b1000#3`` and ``*epfid2d1_64``."""


def find_techniques(data: Dataset, frame: Dataset, shared: Dataset) -> frozenset[Technique]:
    """Find what a header says of the technique.

    Parameters
    ----------
    data
        The file's header.
    frame, shared
        Functional groups of the first frame and of all frames; empty for classic files.

    Returns
    -------
    frozenset of Technique
        Empty if it says nothing.
    """
    found: set[Technique] = set()
    kind = find_group("MRImageFrameTypeSequence", frame, shared)
    for place in (data, kind):
        if (contrast := _CONTRASTS.get(read_text(place, "AcquisitionContrast").upper())) is not None:
            found.add(contrast)
    sequence = (read_text(data, "SequenceName") or read_text(data, "PulseSequenceName")).casefold()
    found |= {technique for technique, pattern in _SEQUENCES.items() if re.match(pattern, sequence)}
    if "EP" in read_texts(data, "ScanningSequence") or _is_yes(data, "EchoPlanarPulseSequence"):
        found.add("echo planar")
    if any(_is_yes(data, keyword) for keyword in ("AngioFlag", "TimeOfFlightContrast", "PhaseContrast")):
        found.add("vessels")
    if read_text(data, "ASLContext") or read_items(data, "MRArterialSpinLabelingSequence"):
        found.add("perfusion")
    if find_group("MRArterialSpinLabelingSequence", frame, shared):
        found.add("perfusion")
    if _is_of(data, 0x00430010, "GEMS") and read_number(data, 0x00431030) in _DIFFUSION_OF_GE:
        found.add("diffusion")
    mosaic = read_number(data, _MOSAIC_OF_SIEMENS) if _is_of(data, 0x00190010, "SIEMENS") else None
    if "MOSAIC" in read_texts(data, "ImageType") or (mosaic or 0) > 1:
        found.add("mosaic")
    modifier = find_group("MRModifierSequence", frame, shared)
    suppressed = {read_text(place, "SpectrallySelectedSuppression").upper() for place in (data, modifier)}
    if "FS" in read_texts(data, "ScanOptions") or suppressed & {"FAT", "FAT_AND_WATER"}:
        found.add("fat suppressed")
    return frozenset(found)


def read_b_value(data: Dataset, frame: Dataset | None = None, shared: Dataset | None = None) -> float | None:
    """Return the b-value of an image in s/mm²; None if neither the standard's elements nor a maker's state it."""
    diffusion = find_group("MRDiffusionSequence", frame or Dataset(), shared or Dataset())
    value = first_given(read_number(diffusion, "DiffusionBValue"), read_number(data, "DiffusionBValue"))
    for creator, (maker, tag) in _B_VALUES.items():
        if value is None and _is_of(data, creator, maker):
            value = _read_private_number(data, tag)
            value = value % _BIAS_OF_GE if value is not None and maker == "GEMS" else value
    return value


def read_component(data: Dataset) -> str:
    """Return which part of the complex signal an image shows: ``PHASE``, ``REAL``, ``IMAGINARY``; or empty."""
    stated = read_text(data, "ComplexImageComponent").upper()
    if stated or not _is_of(data, 0x00430010, "GEMS"):
        return stated
    return _COMPONENTS_OF_GE.get(read_number(data, 0x0043102F) or 0.0, "")


def _read_private_number(data: Dataset, tag: int) -> float | None:
    """Return the number of a private element; where the file does not say of which kind it is, one in binary."""
    number, value = read_number(data, tag), read_value(data, tag)
    if number is None and isinstance(value, bytes) and (form := _BINARY.get(len(value))) is not None:
        (number,) = unpack(form, value)
    return number if number is not None and isfinite(number) else None


def _is_yes(data: Dataset, keyword: str) -> bool:
    return read_text(data, keyword).upper() in ("Y", "YES")


def _is_of(data: Dataset, creator: int, maker: str) -> bool:
    """Whether a block of private elements is that of a maker."""
    return maker in str(read_value(data, creator)).upper()

"""How a bundle of MONAI prepares images, read from the texts of its steps: which way axes go, voxel sizes, intensities.

What a step does not say in plain values is asked for, never guessed: a mirrored or stretched scan looks like any other.
"""

from __future__ import annotations

import re
from typing import Any

from napari_braintumor.engine.errors import DescriptionNeeded
from napari_braintumor.engine.exchange.archive import shorten

_HARMLESS = {
    "AddChanneld", "AsChannelFirstd", "CastToTyped", "ConcatItemsd", "CropForegroundd", "DeleteItemsd", "DivisiblePadd",
    "EnsureChannelFirstd", "EnsureTyped", "LoadImaged", "SelectItemsd", "SpatialPadd", "ToDeviced", "ToTensord",
}  # fmt: skip
"""Steps that neither turn an image, nor stretch it, nor change what its intensities mean."""

_AXES = {"RAS": "RAS xyz", "LPS": "LPS xyz"}
_OF_BRATS = "LPS xyz", (1.0, 1.0, 1.0)
"""The axes of all files of BraTS and their voxel size in mm, which a bundle for BraTS need not state."""


def read_steps(configuration: dict[str, Any], origin: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the steps of the preprocessing, each with the name of its class.

    Returns
    -------
    list of tuple
        The class's name without its module, and the arguments of the step; in the order they are run.

    Raises
    ------
    DescriptionNeeded
        If one of them is an expression, or does something unknown.
    """
    preprocessing = configuration.get("preprocessing")
    steps = preprocessing.get("transforms") if isinstance(preprocessing, dict) else None
    if not isinstance(steps, list):
        raise DescriptionNeeded(f"'{origin}' does not list the steps by which it prepares images. Describe the model.")
    named = []
    for step in steps:
        if not isinstance(step, dict) or not isinstance(step.get("_disabled_", False), bool):
            raise DescriptionNeeded(
                f"A step by which '{origin}' prepares images is the expression '{shorten(str(step))}', and expressions "
                "are never evaluated here. Describe the model."
            )
        name = str(step.get("_target_", step.get("_name_"))).rpartition(".")[2]
        name = re.sub("D(ict)?$", "d", name)  # MONAI has three names for each
        if not step.get("_disabled_", False):
            named.append((name, step))
    return named


def read_grid(
    steps: list[tuple[str, dict[str, Any]]], metadata: dict[str, Any], dims: object, origin: str
) -> tuple[str, list[float | None]]:
    """Return the axes and the spacing, mm along Z, Y, X, as on a card.

    Returns
    -------
    tuple
        The axes, a value of a card's ``axes``; and the spacing, None for each axis that is not resampled.

    Raises
    ------
    DescriptionNeeded
        If the steps do not say it in plain values that are known.
    """
    if dims == 2:
        raise DescriptionNeeded(
            f"'{origin}' has a network for two dimensions and does not say how its slices lie. Describe the model."
        )
    for name, _ in steps:
        if name not in _HARMLESS | {"Orientationd", "Spacingd", "NormalizeIntensityd"}:
            raise DescriptionNeeded(
                f"'{origin}' prepares images by the step '{shorten(name)}', which is not supported here. "
                "Describe the model."
            )
    turned = [step for name, step in steps if name == "Orientationd"]
    scaled = [step for name, step in steps if name == "Spacingd"]
    if not turned and not scaled and _is_of_brats(metadata):
        return _OF_BRATS[0], list(_OF_BRATS[1])
    axes = [_read_axes(step) for step in turned]
    if len(axes) != 1 or axes[0] is None:
        how = ", ".join(str(step.get("axcodes")) for step in turned) or "no Orientationd"
        raise DescriptionNeeded(
            f"'{origin}' does not say which way its images lie, in a supported way ({shorten(how)}; supported are "
            f"{' and '.join(_AXES)}). Describe the model."
        )
    sides = [_read_sides(step) for step in scaled]
    in_file_order = [name for name, _ in steps if name in ("Orientationd", "Spacingd")] == ["Spacingd", "Orientationd"]
    if len(sides) != 1 or sides[0] is None or (in_file_order and len(set(sides[0])) > 1):
        how = ", ".join(str(step.get("pixdim")) for step in scaled) or "no Spacingd"
        raise DescriptionNeeded(
            f"'{origin}' does not say at which voxel size its network works, in three plain numbers ({shorten(how)}). "
            "Describe the model."
        )
    return axes[0], [side if side > 0 else None for side in reversed(sides[0])]


def read_normalization(steps: list[tuple[str, dict[str, Any]]], origin: str) -> str:
    """Return how intensities are normalized.

    Returns
    -------
    str
        A value of a card's ``normalization``.

    Raises
    ------
    DescriptionNeeded
        If it is done in an unsupported way.
    """
    scaled = [step for name, step in steps if name == "NormalizeIntensityd"]
    only = scaled[0] if len(scaled) == 1 else {}
    by_itself = only.get("nonzero") is True and only.get("channel_wise") is True
    if not by_itself or not {"subtrahend", "divisor"}.isdisjoint(only):
        raise DescriptionNeeded(
            f"'{origin}' does not prepare images by one NormalizeIntensityd over nonzero voxels, channel by channel; "
            "other ways are not supported. Describe the model."
        )
    return "nonzero z-score"


def _is_of_brats(metadata: dict[str, Any]) -> bool:
    """Return whether a bundle says that it is for BraTS; the Decathlon's copies have other axes."""
    said = " ".join(str(metadata.get(key, "")) for key in ("name", "task", "data_source", "description")).lower()
    return "brats" in said and "decathlon" not in said and "task01" not in said


def _read_axes(step: dict[str, Any]) -> str | None:
    codes = step.get("axcodes")
    if step.get("as_closest_canonical") is True and codes is None:
        codes = "RAS"
    if isinstance(codes, list):
        codes = "".join(map(str, codes))
    return _AXES.get(codes) if isinstance(codes, str) and step.get("labels") is None else None


def _read_sides(step: dict[str, Any]) -> tuple[float, ...] | None:
    pixdim = step.get("pixdim")
    plain = isinstance(pixdim, list) and len(pixdim) == 3
    if not plain or not all(isinstance(side, int | float) and not isinstance(side, bool) for side in pixdim or ()):
        return None
    return tuple(float(side) for side in pixdim or ()) if all(abs(side) < 1e3 for side in pixdim or ()) else None

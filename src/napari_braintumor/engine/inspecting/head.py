"""Check that a scan shows a head, and all of it: a phantom is uniform inside, a slab ends where the head is widest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.inspecting.foreground import find_background

_BLOCK_MM = 5.0
_FEWEST_VOXELS = 200

UNIFORM = 0.02
"""Blocks inside a head differ from their neighbors by more than this share of their median: by 0.027 to 0.35 in 64
scans of patients, with and without skull, but by less than 0.015 in uniform balls with noise of up to 10 %."""

CUT = 0.5
"""A head is cut off if more than this share of its largest section lies in the last slice, or if an edge of the image
runs through it in more than this share of its slices; 0.44 was the most where only the vertex is missing."""


def describe_head(image_ZYX: NDArray[Any], spacing: tuple[float, float, float]) -> str:
    """Describe what is wrong with the head in a scan, as the end of a sentence that begins with the scan.

    Parameters
    ----------
    image_ZYX
        Real numbers, axes (Z, Y, X). Where the neck is cut does not matter.
    spacing
        mm along Z, Y, X.

    Returns
    -------
    str
        Such as ``cuts off the top and the front of the head``; empty if nothing seems wrong, or the scan is too small
        to say.
    """
    from scipy import ndimage

    coarse = _average_blocks(image_ZYX, spacing)
    if min(coarse.shape) < 3:
        return ""
    tissue = ndimage.binary_fill_holes(find_background(coarse).find_tissue(coarse))
    parts, count = ndimage.label(tissue)
    if not count:
        return "shows nothing"
    sizes = np.bincount(parts.ravel())[1:]
    head = parts == 1 + int(sizes.argmax())
    inside = ndimage.binary_erosion(head, iterations=2 if min(coarse.shape) > 8 else 1)
    if np.count_nonzero(inside) < _FEWEST_VOXELS:
        return ""
    apart = np.abs(coarse - ndimage.uniform_filter(coarse, 3))[inside]
    middle = float(np.median(coarse[inside]))
    if middle > 0 and float(np.median(apart)) < UNIFORM * middle:
        return "is uniform inside, as a phantom is and a head is not"
    sides = [f"the {side}" for side in _find_cuts(head)]
    listed = " and ".join(filter(None, (", ".join(sides[:-1]), *sides[-1:])))
    return f"cuts off {listed} of the head" if sides else ""


def _average_blocks(image_ZYX: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return the means of blocks of about 5 mm, whole blocks only."""
    z, y, x = (max(1, round(_BLOCK_MM / side)) for side in spacing)
    deep, high, wide = (size // step for size, step in zip(image_ZYX.shape, (z, y, x), strict=True))
    whole = np.asarray(image_ZYX[: deep * z, : high * y, : wide * x], np.float32)
    means: NDArray[np.float32] = whole.reshape(deep, z, high, y, wide, x).mean(axis=(1, 3, 5))
    return means


def _find_cuts(head: NDArray[np.bool_]) -> list[str]:
    sections = head.sum(axis=(1, 2))
    cuts = ["top"] if sections[-1] > CUT * sections.max() else []
    rows, columns = max(int(head.any(axis=1).sum()), 1), max(int(head.any(axis=2).sum()), 1)
    edges = {
        "front": int(head[:, 0].sum()) / rows,
        "back": int(head[:, -1].sum()) / rows,
        "right": int(head[:, :, 0].sum()) / columns,
        "left": int(head[:, :, -1].sum()) / columns,
    }
    return cuts + [side for side, share in edges.items() if share > CUT]

"""A tumor as it looks from outside: surfaces of its regions, the outer ones translucent, in the outline of the head.

Surfaces and not napari's volume rendering, which shows only the outermost label, and without a graphics card takes half
a minute for each picture.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Surface
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import EXTRA_COLORS, REGION_LABELS, REGIONS
from napari_braintumor.layers.orientation import SOLID, show_plane
from napari_braintumor.layers.placement import AXES, KEY, level_0, unwrap_layer, world_matrix
from napari_braintumor.layers.results import add_unselected

TUMOR_MM = 1.5
"""Detail of a region's surface."""

HEAD_MM = 4.0
"""Detail of the head's outline."""

_HEAD_COLOR = "#9a9a9a"
_LAMP = (1.0, -1.0, 0.5)  # where it stands: above, in front, on the left
_SHADE = 0.25
_HEAD_OPACITY = 0.25
_AIR = 0.15
"""Share of the brightest from which on a voxel is head, well enough for an outline."""

_OUTERMOST, _BETWEEN, _INNERMOST = 0.3, 0.6, 1.0


@dataclass(frozen=True, eq=False)
class Solids:
    """Surfaces that are drawn as one.

    Attributes
    ----------
    vertices
        float32 ``(V, 3)``, in napari's world.
    faces
        ``(F, 3)``, indices of vertices, in the order in which they must be drawn.
    colors
        float32 ``(V, 4)``, red, green, blue and opacity, 0 to 1.
    names
        Of the surfaces, innermost first.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.intp]
    colors: NDArray[np.float32]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Solid:
    name: str
    vertices: NDArray[np.float32]
    faces: NDArray[np.intp]
    lit: NDArray[np.float64]  # how bright each vertex is
    color: str
    opacity: float


def build_solids(layer: Labels, scan: Image | None = None) -> Solids:
    """Build surfaces of the regions in a label layer; takes up to a second, so in a worker thread.

    Parameters
    ----------
    layer
        Labels with the numbers of `LABELS`; any other label gets a surface of its own.
    scan
        Whose head is outlined.

    Returns
    -------
    Solids
        None of a region that is empty.
    """
    array = np.asarray(level_0(layer))
    present = {int(label) for label in np.unique(array) if label}
    named = {name: labels for name, labels in REGION_LABELS.items() if present & set(labels)}
    colors = {region.name: region.color for region in REGIONS}
    others = sorted(present - {label for labels in named.values() for label in labels})
    wanted = [(name, labels, colors[name]) for name, labels in reversed(named.items())]
    wanted += [(f"label {n}", (n,), EXTRA_COLORS[i % len(EXTRA_COLORS)]) for i, n in enumerate(others)]
    nested = [region.name for region in REGIONS if region.nested and region.name in named]
    solids = []
    for name, labels, color in wanted:
        opacity = _INNERMOST if name in nested[-1:] else _OUTERMOST if name in nested[:1] else _BETWEEN
        solids.append(_build(name, np.isin(array, labels), layer, TUMOR_MM, color, opacity))
    if scan is not None:
        solids.append(_build_head(scan))
    return _join([solid for solid in solids if solid is not None])


def _join(solids: Sequence[_Solid]) -> Solids:
    starts = np.cumsum([0, *(len(solid.vertices) for solid in solids)])
    none = np.zeros((0, 3), np.float32)
    return Solids(
        np.concatenate([none, *(solid.vertices for solid in solids)]),
        np.concatenate(
            [none.astype(int), *(solid.faces + start for solid, start in zip(solids, starts, strict=False))]
        ),
        np.concatenate([np.zeros((0, 4), np.float32), *(_tint(solid) for solid in solids)]),
        tuple(solid.name for solid in solids),
    )


def _tint(solid: _Solid) -> NDArray[np.float32]:
    rgb = [int(solid.color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    colors = np.tile(np.array([*rgb, solid.opacity], np.float32), (len(solid.vertices), 1))
    colors[:, :3] *= solid.lit[:, None]
    return colors


def _build_head(scan: Image) -> _Solid | None:
    steps = _steps(scan.scale, HEAD_MM)
    coarse = np.asarray(level_0(scan)[tuple(slice(None, None, step) for step in steps)], np.float32)
    limit = float(coarse.min()) + _AIR * float(np.percentile(coarse, 99) - coarse.min())
    return _build("head", coarse > limit, scan, 0.0, _HEAD_COLOR, _HEAD_OPACITY, steps)


def _build(
    name: str,
    mask: NDArray[np.bool_],
    layer: Layer,
    detail_mm: float,
    color: str,
    opacity: float,
    every: tuple[int, int, int] = (1, 1, 1),
) -> _Solid | None:
    """Build the surface of a mask that holds every n-th voxel of a layer, smoothed over about a voxel of the detail."""
    from scipy import ndimage
    from skimage.measure import marching_cubes

    if not mask.any():
        return None
    corner, box = _crop(mask)
    steps = _steps(layer.scale, detail_mm)
    padded = np.pad(box, [(step, step + -size % step) for step, size in zip(steps, box.shape, strict=True)])
    shape = [n for size, step in zip(padded.shape, steps, strict=True) for n in (size // step, step)]
    share = padded.reshape(shape).mean((1, 3, 5), dtype=np.float32)
    share = np.pad(ndimage.gaussian_filter(share, 0.7), 1)
    if share.max() <= 0.5:  # smaller than the detail
        share /= share.max()
    vertices, faces, normals, _ = marching_cubes(share, 0.5)  # type: ignore[no-untyped-call]
    within = (vertices - 1) * steps + (np.asarray(steps) - 1) / 2 - steps
    world = world_matrix(layer)
    placed = ((within + corner) * every) @ world[:3, :3].T + world[:3, 3]
    lit = _light(normals @ np.linalg.inv(world[:3, :3] * steps * every))
    return _Solid(name, placed.astype(np.float32), faces.astype(int), lit, color, opacity)


def _light(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how bright a surface is, 0 to 1: napari's own lamp shines from the wrong side where an axis is flipped."""
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    facing: NDArray[np.float64] = (normals / np.maximum(lengths, 1e-9)) @ (np.asarray(_LAMP) / np.linalg.norm(_LAMP))
    return _SHADE + (1 - _SHADE) * (0.5 + 0.5 * facing)


def _crop(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the first corner of the box around a mask, and the mask in it."""
    spans = []
    for axis in range(3):
        along = np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))
        spans.append(slice(int(along[0]), int(along[-1]) + 1))
    return np.array([span.start for span in spans]), mask[tuple(spans)]


def _steps(spacing: Sequence[float], detail_mm: float) -> tuple[int, int, int]:
    z, y, x = (max(1, round(detail_mm / abs(float(side)))) for side in tuple(spacing)[-3:])
    return z, y, x


# ------------------------------------------------------------------------------------------------------ showing


class _Outside:
    """What a viewer showed before it was looked at from outside."""

    def __init__(self, viewer: Any, shown: Iterable[Layer]) -> None:
        self._viewer = weakref.ref(viewer)
        self._shown = [weakref.ref(layer) for layer in shown]
        viewer.dims.events.ndisplay.connect(self.leave)

    def leave(self, _: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None or viewer.dims.ndisplay == 3:
            return
        viewer.dims.events.ndisplay.disconnect(self.leave)
        _OUTSIDE.pop(id(viewer), None)
        for solid in _solids_in(viewer):
            viewer.layers.remove(solid)
        for layer in (shown() for shown in self._shown):
            if layer is not None:
                layer.visible = True


_OUTSIDE: dict[int, _Outside] = {}


def show_solids(viewer: Any, solids: Solids, case: str) -> None:
    """Show surfaces in place of all other layers, from outside; going back to a plane takes them away again.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    solids
        From `build_solids`.
    case
        The name of the case, for the layer's name.
    """
    viewer = unwrap_layer(viewer)
    old = _solids_in(viewer)
    shown = [layer for layer in viewer.layers if layer.visible and layer not in old]
    for layer in old:
        viewer.layers.remove(layer)
    _OUTSIDE.setdefault(id(viewer), _Outside(viewer, shown))
    for layer in shown:  # first: without a graphics card they take half a minute in 3-D
        layer.visible = False
    surface = Surface(
        (solids.vertices, solids.faces),
        vertex_colors=solids.colors,
        name=f"Tumor in 3-D [{case}]",
        shading="none",
        blending="translucent",
        units=viewer.layers[0].units if len(viewer.layers) else None,
        axis_labels=AXES,
        metadata={KEY: {"role": "solid"}},
    )
    add_unselected(viewer, surface)
    show_plane(viewer, SOLID)


def _solids_in(viewer: Any) -> list[Surface]:
    return [layer for layer in viewer.layers if layer.metadata.get(KEY, {}).get("role") == "solid"]

"""Planes as people know them from other viewers: upright, with letters at the edges that say which side is which.

In the window the axes are (superior, posterior, left), whatever the file's order was; see `placement`.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components.overlays import TextOverlay
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.layers.placement import find_placement, is_taken_as_shown, level_0, unwrap_layer

AXES_RAS = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]], float)
"""Where napari's last three axes point in a patient, as right, anterior, superior."""

_LETTERS_RAS = ("LR", "PA", "IS")  # for each axis the letter against it, and the letter along it
_SLANTED = 0.35
"""Share of a direction from which on its letter is shown too."""

_FROM_THE_FRONT = ((0.25, 1.0, -0.45), (1.0, 0.0, 0.0))
"""Where a look in 3-D goes, and what is up: at the patient's left front, from a little above."""


@dataclass(frozen=True)
class Plane:
    """A plane through a head, as it is shown.

    Attributes
    ----------
    order
        The order of napari's last three axes: the first is cut across, the second runs along the side, the third along
        the top.
    vertical
        Where the second axis runs on the screen.
    mirrors
        Whether left and right change places between the conventions.
    """

    order: tuple[int, int, int]
    vertical: str
    mirrors: bool = True


PLANES: Mapping[str, Plane] = {
    "axial": Plane((0, 1, 2), "down"),
    "coronal": Plane((1, 0, 2), "up"),
    "sagittal": Plane((2, 0, 1), "up", mirrors=False),
}
"""Anterior is up in an axial plane, superior in the others; in a sagittal plane the nose points to the left."""

SOLID = "3-D"
"""The name of the view from outside."""


@dataclass(frozen=True)
class Edges:
    """The letters at the edges of the screen, of L, R, A, P, S and I; two where the view is slanted."""

    top: str
    bottom: str
    left: str
    right: str


def show_plane(viewer: Any, name: str, neurological: bool = False) -> None:
    """Show a plane upright, through the point that is shown now.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    name
        A key of `PLANES`, or `SOLID` for the view from outside.
    neurological
        True to have the patient's left on the left, as seen from behind or from above; False for the radiological
        convention, in which it is on the right.
    """
    plane = PLANES["axial" if name == SOLID else name]
    mirrored = neurological and plane.mirrors and name != SOLID
    ahead = tuple(range(viewer.dims.ndim - 3))
    if len(ahead) + 3 != viewer.dims.ndim:
        return
    viewer.dims.ndisplay = 3 if name == SOLID else 2
    viewer.dims.order = (*ahead, *(axis + len(ahead) for axis in plane.order))
    sides = (plane.vertical, "left" if mirrored else "right")
    viewer.scene.camera.orientation = (_true_depth(plane.order, *sides), *sides)
    viewer.reset_view()
    if name == SOLID:
        viewer.scene.camera.set_view_direction(*_FROM_THE_FRONT)


def shown_plane(viewer: Any) -> str:
    """Return the key of `PLANES` that is shown, `SOLID`, or an empty text for any other order of the axes."""
    order = _shown_order(viewer)
    if order is None:
        return ""
    if viewer.dims.ndisplay == 3:
        return SOLID
    return next((name for name, plane in PLANES.items() if plane.order == order), "")


def is_neurological(viewer: Any) -> bool | None:
    """Whether the patient's left is on the left; None where a plane shows neither side."""
    edges = find_edges(viewer)
    return None if edges is None or not {"L", "R"} & {edges.left} else edges.left == "L"


def find_edges(viewer: Any) -> Edges | None:
    """Return the letters for what is shown now; None if it has fewer than three axes.

    Returns
    -------
    Edges or None
        They follow the order of the axes, and in 3-D the camera. A view that is mirrored gets the letters of what is
        seen there.
    """
    order = _shown_order(viewer)
    if order is None:
        return None
    along = AXES_RAS[list(order)]
    _, vertical, horizontal = (str(side) for side in viewer.scene.camera.orientation)
    if viewer.dims.ndisplay == 2:
        up = along[1] * (1 if vertical == "up" else -1)
        right = along[2] * (1 if horizontal == "right" else -1)
    else:
        up, away = (
            np.asarray(each) @ along for each in (viewer.scene.camera.up_direction, viewer.scene.camera.view_direction)
        )
        true = str(viewer.scene.camera.orientation[0]) == _true_depth(order, vertical, horizontal)
        right = np.cross(away, up) * (1 if true else -1)
    return Edges(_name_side(up), _name_side(-up), _name_side(-right), _name_side(right))


def _shown_order(viewer: Any) -> tuple[int, ...] | None:
    """Return the order of the last three axes; None if there are fewer, or others are mixed in."""
    ahead = viewer.dims.ndim - 3
    order = tuple(axis - ahead for axis in viewer.dims.order[-3:])
    return order if ahead >= 0 and sorted(order) == [0, 1, 2] else None


def _true_depth(order: tuple[int, ...], vertical: str, horizontal: str) -> str:
    """Return napari's direction of the first axis with which a head in 3-D is not mirrored."""
    depth, side, top = AXES_RAS[list(order)]
    down = side * (1 if vertical == "down" else -1)
    right = top * (1 if horizontal == "right" else -1)
    return "away" if np.dot(np.cross(right, down), depth) > 0 else "towards"


def _name_side(direction_RAS: NDArray[np.float64]) -> str:
    """Return the letter of a direction in a patient, or two or three of a slanted one, the nearest first."""
    shares = direction_RAS / np.linalg.norm(direction_RAS)
    near = [axis for axis in np.argsort(-np.abs(shares), kind="stable") if abs(shares[axis]) >= _SLANTED]
    return "".join(_LETTERS_RAS[axis][int(shares[axis] > 0)] for axis in near)


# ------------------------------------------------------------------------------------------------------ letters


_POSITIONS = {"top": "top_center", "bottom": "bottom_center", "left": "middle_left", "right": "middle_right"}


class _Letters:
    """Keeps the letters at the edges of one viewer right."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self._measured = False
        self._overlays = {
            side: TextOverlay(position=position, font_size=14, box=True) for side, position in _POSITIONS.items()
        }
        for side, overlay in self._overlays.items():
            viewer.canvas.overlays[f"brain_tumor_{side}"] = overlay
        for event in (viewer.dims.events.order, viewer.dims.events.ndisplay, viewer.dims.events.ndim):
            event.connect(self.update)
        for event in (viewer.scene.camera.events.orientation, viewer.scene.camera.events.angles):
            event.connect(self.update)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.update)
        self.update()

    def update(self, _: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        edges = find_edges(viewer) if knows_sides(viewer.layers) else None
        for side, overlay in self._overlays.items():
            overlay.text = "" if edges is None else getattr(edges, side)
            overlay.visible = bool(overlay.text)
        if edges is not None and not self._measured:  # once: who hides the scale bar does not want it
            self._measured = viewer.canvas.overlays.scale_bar.visible = True


_LETTERS: dict[int, _Letters] = {}


def show_letters(viewer: Any) -> None:
    """Show letters at the edges of a viewer from now on, and a scale bar; calling it again changes nothing."""
    viewer = unwrap_layer(viewer)
    if id(viewer) not in _LETTERS:
        _LETTERS[id(viewer)] = _Letters(viewer)
        weakref.finalize(viewer, _LETTERS.pop, id(viewer), None)


def knows_sides(layers: Any) -> bool:
    """Whether all scans say where left and right are: a picture, or an array from a script, does not."""
    pixels = [unwrap_layer(layer) for layer in layers if isinstance(unwrap_layer(layer), Image | Labels)]
    scans = [layer for layer in pixels if isinstance(layer, Image)] or pixels  # labels may have been drawn on them
    return bool(scans) and all(_states_sides(layer) for layer in scans)


def _states_sides(layer: Layer) -> bool:
    if layer.ndim != 3 or np.ndim(level_0(layer)) != 3:
        return False
    try:
        return not is_taken_as_shown(layer) and find_placement(layer).grid.orientation_known
    except DataError:
        return False


# ------------------------------------------------------------------------------------------------------ going there


def find_largest_section(layer: Labels, axis: int) -> int | None:
    """Return where the labels cover most of a plane across an axis of their array; None if there are none."""
    covered = np.asarray(level_0(layer)) != 0
    areas = covered.sum(tuple(other for other in range(covered.ndim) if other != axis % covered.ndim))
    return int(areas.argmax()) if areas.any() else None


def go_to_largest_section(viewer: Any, layer: Labels) -> bool:
    """Move the slider of the plane that is shown to the largest section of what is labeled.

    Returns
    -------
    bool
        False if there are no labels, or no plane is shown.
    """
    order = _shown_order(viewer)
    if order is None or viewer.dims.ndisplay != 2:
        return False
    at = find_largest_section(layer, order[0])
    if at is None:
        return False
    go_to_section(viewer, layer, order[0], at)
    return True


def go_to_section(viewer: Any, layer: Layer, axis: int, at: int) -> None:
    """Move the slider of an axis, of the last three, to a plane of a layer's array."""
    index = [0.0] * layer.ndim
    index[axis - 3] = at
    world = layer.data_to_world(index)
    viewer.dims.set_point(viewer.dims.ndim - 3 + axis, world[axis - 3])

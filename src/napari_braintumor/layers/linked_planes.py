"""Planes beside the one that a viewer shows: the same scans and labels, through the same point, with a crosshair.

Each plane is a viewer model of its own, whose layers share their voxels with those of the viewer, so that nothing of
this is in the viewer's list of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Vectors

from napari_braintumor.layers.orientation import PLANES, is_neurological, show_letters, show_plane, shown_plane
from napari_braintumor.layers.placement import unwrap_layer
from napari_braintumor.layers.watching import LabelsWatch

FOLLOWED = (
    *("visible", "opacity", "blending", "contrast_limits", "gamma", "colormap", "interpolation2d"),
    *("contour", "show_selected_label", "selected_label", "scale", "translate", "affine"),
)
"""What a layer beside has in common with its original, as far as a layer of its kind has it."""

CROSSHAIR = "crosshair"
"""The name of the layer of lines through the point."""

_LINE_SHARE = 1 / 400
"""The width of a line, as a share of a head's."""

_BESIDE = {"axial": ("coronal", "sagittal"), "coronal": ("axial", "sagittal"), "sagittal": ("axial", "coronal")}


class LinkedPlanes:
    """Two planes beside the one that a viewer shows.

    Dragging in a plane beside moves the point that all planes go through; so does moving the pointer in the viewer
    with Shift held down, or a click there while the active layer is panned.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = unwrap_layer(viewer)
        self._neurological = False
        self._followers: dict[Layer, _Follower] = {}
        self._moving = False
        self.planes = tuple(_Plane(self._go_to) for _ in range(2))
        """The models, to be shown by one widget each."""
        dims, camera, layers = self._viewer.dims.events, self._viewer.scene.camera.events, self._viewer.layers.events
        self._connections: list[tuple[Any, Callable[..., None]]] = [
            *((emitter, self._match_layers) for emitter in (layers.inserted, layers.removed, layers.reordered)),
            *((emitter, self._choose) for emitter in (dims.order, dims.ndisplay, camera.orientation)),
            (dims.point, self._follow_point),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        self._viewer.mouse_move_callbacks.append(self._follow_pointer)
        self._viewer.mouse_drag_callbacks.append(self._click)
        self._match_layers()

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of the planes beside, as in `PLANES`."""
        return tuple(plane.name for plane in self.planes)

    def close(self) -> None:
        """Stop following the viewer."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections = []
        with suppress(ValueError):
            self._viewer.mouse_move_callbacks.remove(self._follow_pointer)
        with suppress(ValueError):
            self._viewer.mouse_drag_callbacks.remove(self._click)
        for follower in self._followers.values():
            follower.close()
        self._followers = {}

    def _match_layers(self, _: Any = None) -> None:
        """Have a copy of each scan and label layer of the viewer in each plane, in its order."""
        originals = [layer for layer in self._viewer.layers if is_shown_beside(layer)]
        for layer in [layer for layer in self._followers if layer not in originals]:
            follower = self._followers.pop(layer)
            follower.close()
            for plane, copy in zip(self.planes, follower.copies, strict=True):
                plane.model.layers.remove(copy)
        for layer in originals:
            if layer not in self._followers:
                self._followers[layer] = _Follower(layer, [plane.add(layer) for plane in self.planes])
        for number, plane in enumerate(self.planes):
            plane.sort([self._followers[layer].copies[number] for layer in originals])
        self._choose()
        self._follow_point()

    def _choose(self, _: Any = None) -> None:
        """Show the planes that the viewer does not show, in its convention."""
        now = is_neurological(self._viewer)
        self._neurological = self._neurological if now is None else now
        for plane, name in zip(self.planes, _BESIDE.get(shown_plane(self._viewer), _BESIDE["sagittal"]), strict=True):
            plane.show(name, self._neurological)

    def _follow_point(self, _: Any = None) -> None:
        if not self._moving:
            for plane in self.planes:
                plane.go_to(self._viewer.dims.point)

    def _go_to(self, axes: list[int], point: list[float]) -> None:
        """Move the point of the viewer along some of its last three axes, and of all planes with it."""
        dims = self._viewer.dims
        if dims.ndim < 3:
            return
        self._moving = True
        dims.set_point([dims.ndim - 3 + axis for axis in axes], point)
        self._moving = False
        self._follow_point()

    def _follow_pointer(self, _: Any, event: Any) -> None:
        if "Shift" in event.modifiers:
            self._go_to_pointer(event)

    def _click(self, _: Any, event: Any) -> Iterator[None]:
        active = self._viewer.layers.selection.active
        if event.button != 1 or (active is not None and str(active.mode) != "pan_zoom"):
            return
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        if not moved:
            self._go_to_pointer(event)

    def _go_to_pointer(self, event: Any) -> None:
        dims = self._viewer.dims
        if dims.ndisplay == 2 and dims.ndim >= 3:
            axes = [axis - (dims.ndim - 3) for axis in dims.displayed]
            if min(axes) >= 0:
                self._go_to(axes, [float(event.position[axis]) for axis in dims.displayed])


def is_shown_beside(layer: Layer) -> bool:
    """Whether planes beside show a layer: a scan or labels in three dimensions."""
    return isinstance(layer, Image | Labels) and layer.ndim == 3 and not getattr(layer, "rgb", False)


class _Plane:
    """One plane, as a viewer model."""

    def __init__(self, moved: Callable[[list[int], list[float]], None]) -> None:
        self.model = ViewerModel()
        self.name = "axial"
        self._moved = moved
        self._point = (0.0, 0.0, 0.0)
        self._lines: Vectors | None = None
        self._neurological = False
        self._busy = False
        self.model.scene.camera.mouse_pan = False  # dragging moves the crosshair
        self.model.mouse_drag_callbacks.append(self._drag)
        self.model.dims.events.point.connect(self._scroll)

    @property
    def scans(self) -> list[Layer]:
        """The copies that are shown, without the crosshair."""
        return [layer for layer in self.model.layers if layer is not self._lines]

    def add(self, layer: Layer) -> Layer:
        """Add a copy of a layer, which shares its voxels, and return it."""
        data, state, kind = layer.as_layer_data_tuple()
        copy = Layer.create(data, {**state, "name": layer.name}, kind)
        self._busy = True
        self.model.layers.insert(len(self.scans), copy)
        if self._lines is None:
            self._add_lines(copy)
            show_letters(self.model)
            show_plane(self.model, self.name, self._neurological)
        self._busy = False
        return copy

    def sort(self, copies: list[Layer]) -> None:
        """Bring the copies into an order."""
        for place, copy in enumerate(copies):
            now = self.model.layers.index(copy)
            if now != place:
                self.model.layers.move(now, place)
        if not copies and self._lines is not None:
            self.model.layers.remove(self._lines)
            self._lines = None

    def show(self, name: str, neurological: bool) -> None:
        """Show a plane; zoom and place of the view stay if it is shown already."""
        if (name, neurological) != (self.name, self._neurological):
            self.name, self._neurological = name, neurological
            if self.scans:
                show_plane(self.model, name, neurological)
                self._cut()
                self._draw_lines()

    def fit(self) -> None:
        """Fit the head into the view, which is as large as its widget only when that is seen."""
        if self.scans:
            self.model.reset_view()

    def go_to(self, point: tuple[float, ...]) -> None:
        """Go to a point of the viewer; its last three axes count."""
        if self.scans and len(point) >= 3:
            z, y, x = (float(each) for each in point[-3:])
            self._point = z, y, x
            self._cut()
            self._draw_lines()

    def _cut(self) -> None:
        """Cut through the point; along the plane nothing moves but the crosshair, so nothing else is drawn anew."""
        across = PLANES[self.name].order[0]
        if self.model.dims.point[across] != self._point[across]:
            self._busy = True
            self.model.dims.set_point(across, self._point[across])
            self._busy = False

    def _add_lines(self, beside: Layer) -> None:
        # Its own units would not be those of the scans, which napari does not mix.
        self._lines = Vectors(
            np.zeros((2, 2, 3), np.float32), name=CROSSHAIR, vector_style="line", edge_color="#f2c14e", opacity=0.8,
            units=beside.units, projection_mode="all",
        )  # fmt: skip
        self.model.layers.append(self._lines)

    def _draw_lines(self) -> None:
        if self._lines is None or self.model.dims.ndim != 3:
            return
        dims = self.model.dims
        extent = np.asarray([(each.start, each.stop) for each in dims.range])
        lines = np.zeros((2, 2, 3), np.float32)
        across, *along = PLANES[self.name].order
        for line, axis in zip(lines, along, strict=True):
            line[0] = self._point
            line[0, across] = dims.point[across]
            line[0, axis] = extent[axis, 0]
            line[1, axis] = extent[axis, 1] - extent[axis, 0]
        width = float(np.ptp(extent, axis=1).max()) * _LINE_SHARE
        if self._lines.edge_width != width:
            self._lines.edge_width = width
        self._lines.data = lines

    def _drag(self, _: Any, event: Any) -> Iterator[None]:
        if event.button != 1:
            return
        self._point_at(event)
        yield
        while event.type == "mouse_move":
            self._point_at(event)
            yield

    def _point_at(self, event: Any) -> None:
        axes = list(self.model.dims.displayed)
        if len(axes) == 2 and len(event.position) == 3:
            self._moved(axes, [float(event.position[axis]) for axis in axes])

    def _scroll(self, _: Any = None) -> None:
        """Take the other planes along when this one is scrolled."""
        if not self._busy and self.scans:
            axis = self.model.dims.not_displayed[0]
            self._moved([axis], [float(self.model.dims.point[axis])])


class _Follower:
    """Keeps copies of a layer as it is."""

    def __init__(self, layer: Layer, copies: list[Layer]) -> None:
        self.copies = copies
        self._layer = layer
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        for name in FOLLOWED:
            if hasattr(layer, name) and hasattr(layer.events, name):
                self._connect(getattr(layer.events, name), self._make_setter(name))
        self._connect(layer.events.data, self._take_data)
        self._watch = LabelsWatch(self._draw_anew)
        self._watch.follow(layer if isinstance(layer, Labels) else None)

    def close(self) -> None:
        """Stop following."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections = []
        self._watch.follow(None)

    def _connect(self, emitter: Any, callback: Callable[..., None]) -> None:
        emitter.connect(callback)
        self._connections.append((emitter, callback))

    def _make_setter(self, name: str) -> Callable[..., None]:
        def follow(_: Any = None) -> None:
            for copy in self.copies:
                setattr(copy, name, getattr(self._layer, name))

        return follow

    def _take_data(self, _: Any = None) -> None:
        for copy in self.copies:
            if copy.data is not self._layer.data:
                copy.data = self._layer.data
            else:
                copy.refresh(thumbnail=False, extent=False)

    def _draw_anew(self) -> None:
        for copy in self.copies:
            if copy.visible:
                copy.refresh(thumbnail=False, extent=False)

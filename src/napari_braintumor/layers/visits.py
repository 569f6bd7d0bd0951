"""Two visits in one window: the later one on the grid of the earlier one, side by side with it or in its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.layers.display import make_image_layer, make_label_layer
from napari_braintumor.layers.measuring import find_changes, scans_of
from napari_braintumor.layers.placement import find_placement, unwrap_layer

MOVED = "moved"
"""The role of layers that show the later visit where it lies in the head of the earlier one."""

SIDE_BY_SIDE, EARLIER, LATER, CHANGED = "side by side", "earlier", "later", "changes"
VISIT_VIEWS: Mapping[str, str] = {
    SIDE_BY_SIDE: "The earlier visit on the left and the later one on the right, in the same place of the head",
    EARLIER: "The earlier visit only; with Later in turn, changes catch the eye",
    LATER: "The later visit only, where it lies in the head of the earlier one",
    CHANGED: "What has grown, shrunk, vanished and is new, on the later visit",
}
"""How two visits can be looked at, and what is shown."""


@dataclass(frozen=True, eq=False)
class MovedVisit:
    """The later visit on the grid of the earlier one.

    Attributes
    ----------
    modality
        The scan that is shown.
    scan_ZYX
        It, resampled.
    labels_ZYX
        The labels, resampled.
    names, colors
        The name and the color of each label.
    """

    modality: str
    scan_ZYX: NDArray[np.float32]
    labels_ZYX: NDArray[np.uint8]
    names: Mapping[int, str]
    colors: Mapping[int, str]


_SHOWN_FIRST = ("T1ce", "FLAIR", "T2", "T1")


def list_modalities(layers: Sequence[Layer], visits: Iterable[Labels]) -> list[str]:
    """Return the modalities that are open with the labels of visits, those first that are visible."""
    found = [item for labels in visits for item in scans_of(layers, labels).items()]
    names = dict.fromkeys((*_SHOWN_FIRST, *(name for name, _ in found)))
    seen = {name for name, scan in found if scan.visible}
    return sorted((name for name in names if name in dict(found)), key=lambda name: name not in seen)


class VisitsView:
    """Shows two visits, and then all layers again as they were.

    Parameters
    ----------
    viewer
        The viewer of both.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._before: WeakKeyDictionary[Layer, bool] = WeakKeyDictionary()
        self._grid_before: tuple[bool, int, tuple[int, int]] | None = None
        self._moved: list[Layer] = []
        self._changes: Labels | None = None
        self._busy = False
        self.shown = ""
        """A key of `VISIT_VIEWS`; empty while the layers are as they were."""

    def show(self, view: str, earlier: Labels, moved: MovedVisit) -> None:
        """Show two visits.

        Parameters
        ----------
        view
            A key of `VISIT_VIEWS`.
        earlier
            The labels of the earlier visit.
        moved
            The later visit.
        """
        layers = self._viewer.layers
        if not self.shown:
            self._before = WeakKeyDictionary({unwrap_layer(layer): layer.visible for layer in layers})
            grid = self._viewer.canvas.grid
            self._grid_before = (grid.enabled, grid.stride, grid.shape)
        self._busy = True
        if not self._moved or any(layer not in layers for layer in self._moved):
            self._add(earlier, moved)
        scan = scans_of(layers, earlier).get(moved.modality)
        left = [each for each in (scan, earlier) if each is not None]
        self._changes = changes = find_changes(self._viewer, earlier)
        wanted = {
            SIDE_BY_SIDE: [*left, *self._moved],
            EARLIER: left,
            LATER: self._moved,
            CHANGED: [self._moved[0], *([changes] if changes is not None else [])],
        }[view]
        self._show_only(wanted)
        self.shown = view
        self._busy = False
        self.refresh()

    def refresh(self) -> None:
        """Keep the visits apart after layers were added or taken away."""
        if self._busy or not self.shown:
            return
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        if any(layer not in layers for layer in self._moved):
            self.leave()
            return
        grid.enabled = False  # while layers change places
        self._busy = True
        if self.shown == SIDE_BY_SIDE and list(layers)[-len(self._moved) :] != self._moved:
            for layer in self._moved:
                layers.move(layers.index(layer), len(layers))
        elif self.shown == CHANGED and self._changes in layers:  # or the scan would cover them
            layers.move(layers.index(self._changes), len(layers))
        self._busy = False
        if self.shown != SIDE_BY_SIDE:
            return
        self._busy = True
        grid.stride, grid.shape = max(len(layers) - len(self._moved), len(self._moved)), (1, 2)
        grid.enabled = True
        self._viewer.reset_view()
        self._busy = False

    def leave(self) -> None:
        """Show the layers as they were before, and take away those of the moved visit."""
        if not self.shown:
            return
        self._busy = True
        self.shown = ""
        grid = self._viewer.canvas.grid
        sided = grid.enabled
        grid.enabled = False
        for layer in self._moved:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._moved = []
        for layer, visible in self._before.items():
            layer.visible = visible
        if self._grid_before is not None:
            enabled, grid.stride, grid.shape = self._grid_before
            grid.enabled = enabled
        if sided:
            self._viewer.reset_view()
        self._busy = False

    def _show_only(self, wanted: Collection[Layer]) -> None:
        kept = [unwrap_layer(layer) for layer in wanted]
        for layer in self._viewer.layers:
            visible = unwrap_layer(layer) in kept
            if layer.visible != visible:
                layer.visible = visible

    def _add(self, earlier: Labels, moved: MovedVisit) -> None:
        place = find_placement(earlier)
        active = self._viewer.layers.selection.active
        scan, options, _ = make_image_layer(
            moved.scan_ZYX, place, f"{moved.modality}, later visit moved [{earlier.name}]", "", role=MOVED
        )
        image = self._viewer.add_image(place.to_layer(scan), **options)
        data, options, _ = make_label_layer(
            place.to_layer(moved.labels_ZYX),
            place,
            f"Later visit moved [{earlier.name}]",
            moved.names,
            moved.colors,
            case="",
            role=MOVED,
        )
        self._moved = [image, self._viewer.add_labels(data, **options)]
        self._viewer.layers.selection.active = active

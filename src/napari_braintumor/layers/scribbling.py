"""Strokes as a layer of their own, and what follows from them in the layer of the labels.

A stroke is drawn with napari's brush and undone with Ctrl+Z while its layer is selected; the labels that followed from
it go with it. It also goes when its change is undone in the layer of the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.events import EmitterGroup
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.strokes import Stroke
from napari_braintumor.engine.tally import tally_slice
from napari_braintumor.layers.editing import (
    Edit,
    apply_labels,
    copy_labels,
    last_step,
    read_label,
    read_step,
    spacing_of,
)
from napari_braintumor.layers.figures import figures_of
from napari_braintumor.layers.placement import KEY, Placement, find_placement, level_0, unwrap_layer
from napari_braintumor.layers.results import add_unselected
from napari_braintumor.layers.selection import case_of
from napari_braintumor.layers.views import make_colormap

NOTHING = 255
"""The number, in a layer of strokes, of what belongs to no tumor: 0 is where nobody drew."""

NOTHING_COLOR = "#e6e6e6"


@dataclass(eq=False)
class _Drawn:
    """A stroke, whether it was followed, and the step in the history of the labels that this became."""

    stroke: Stroke
    followed: bool = False
    step: Any | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """Labels, and the strokes that are to be followed from there.

    Attributes
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``, before the first of the strokes.
    strokes
        In the order in which they were drawn.
    """

    labels_ZYX: NDArray[np.uint8]
    strokes: tuple[Stroke, ...]


class Scribble:
    """The strokes on one label layer.

    Parameters
    ----------
    viewer
        Where the layer of the strokes is added, if it is not there yet.
    target
        The layer of the labels, in memory.

    Attributes
    ----------
    layer
        The layer of the strokes.
    events
        ``asked`` is emitted when a person has drawn or undone a stroke: `request` says what to follow.
    """

    def __init__(self, viewer: Any, target: Labels) -> None:
        self.target = unwrap_layer(target)
        self.events = EmitterGroup(source=self, asked=None)
        self.layer = find_stroke_layer(viewer, self.target) or _add_stroke_layer(viewer, self.target)
        self._drawn: list[_Drawn] = []  # those that follow from `_base`
        self._undone: list[_Drawn] = []
        self._base: NDArray[np.uint8] | None = None
        self._result: NDArray[np.uint8] | None = None
        self._pen: list[tuple[float, ...]] = []
        self._ours = False  # the labels change by us
        self._dropping = False
        self._means_nothing = False
        self._steps = _count_steps(self.layer)
        self.layer.mouse_drag_callbacks.append(self._follow_pen)
        self.layer.events.paint.connect(self._take_stroke)
        self.layer.events.set_data.connect(self._notice_undo)
        self.layer.events.labels_update.connect(self._drop_stroke)
        self.layer.events.mode.connect(self._put_others_away)
        self.layer.events.selected_label.connect(self._keep_to_tissues)
        self.target.events.set_data.connect(self._notice_undone_labels)
        self._viewer = viewer
        viewer.layers.events.removed.connect(self._forget)

    def close(self) -> None:
        """Stop following the layers; the strokes stay."""
        if self._follow_pen in self.layer.mouse_drag_callbacks:
            self.layer.mouse_drag_callbacks.remove(self._follow_pen)
        self.layer.events.paint.disconnect(self._take_stroke)
        self.layer.events.set_data.disconnect(self._notice_undo)
        self.layer.events.labels_update.disconnect(self._drop_stroke)
        self.layer.events.mode.disconnect(self._put_others_away)
        self.layer.events.selected_label.disconnect(self._keep_to_tissues)
        self.target.events.set_data.disconnect(self._notice_undone_labels)
        self._viewer.layers.events.removed.disconnect(self._forget)

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        """All strokes on the labels, also those that were followed before an edit by other means, or saved earlier."""
        strokes: tuple[Stroke, ...] = self.target.metadata[KEY].get("strokes", ())
        return strokes

    def request(self) -> Request | None:
        """Return what to follow now; None if all strokes have been followed."""
        if self._base is None or not self._drawn or self._drawn[-1].followed:
            return None
        return Request(self._base, tuple(each.stroke for each in self._drawn))

    def apply(self, request: Request, labels_ZYX: NDArray[np.uint8]) -> Edit | None:
        """Put what followed from a request into the layer of the labels, as one step; None if it came too late.

        Parameters
        ----------
        request
            What was followed.
        labels_ZYX
            uint8 ``(Z, Y, X)``, what followed.

        Returns
        -------
        Edit or None
            What changed.
        """
        if request.labels_ZYX is not self._base or len(request.strokes) != len(self._drawn):
            return None
        if any(one is not two.stroke for one, two in zip(request.strokes, self._drawn, strict=True)):
            return None
        before = last_step(self.target)
        self._ours = True
        try:
            edit = apply_labels(self.target, labels_ZYX)
        finally:
            self._ours = False
        step = last_step(self.target)
        for drawn in self._drawn:
            drawn.followed = True
        self._drawn[-1].step = step if step is not before else None
        self._result = copy_labels(self.target)
        self._note_followed(edit.slices, self._result)
        return edit

    def _note_followed(self, slices: Iterable[int], labels_ZYX: NDArray[np.uint8]) -> None:
        """Note how slices look that changed although no stroke lies in them: nobody may have looked at these."""
        known = self.target.metadata[KEY]
        drawn = {int(np.rint(point[0])) for stroke in self.strokes for point in stroke.points}
        new = {z: tally_slice(labels_ZYX[z]).digest for z in slices if z not in drawn}
        followed = {**known.get("followed", {}), **new}
        self.target.metadata = {**self.target.metadata, KEY: {**known, "followed": followed}}

    # ---------------------------------------------------------------------------------------------- what is drawn

    def _follow_pen(self, layer: Labels, event: Any) -> Iterator[None]:
        """Note where the pen goes; napari calls this for each drag in the layer."""
        self._pen = [tuple(layer.world_to_data(event.position))]
        yield
        while event.type == "mouse_move":
            self._pen.append(tuple(layer.world_to_data(event.position)))
            yield

    def _take_stroke(self, event: Any) -> None:
        self._steps = _count_steps(self.layer)
        pen, self._pen = self._pen, []
        parts = [indices for indices, _ in read_step(event.value)][::-1]
        label = read_label(event.value)
        regions: dict[int, str | None] = {**regions_by_label(self.target), NOTHING: None}
        if label not in regions:  # from a script: napari emits this before it paints
            self._means_nothing = True
            return
        place = find_placement(self.layer)
        points = pen or [tuple(float(axis.mean()) for axis in indices) for indices in parts]
        way = tuple(_to_ZYX(place, point) for point in points)
        self._undone.clear()
        self._add(_Drawn(Stroke(region=regions[label], points=way, radius_mm=_radius_mm(self.layer))))

    def _drop_stroke(self, _: Any = None) -> None:
        """Take a stroke away that says nothing: its label is none of the model's."""
        if not self._means_nothing:
            return
        self._means_nothing = False
        self._dropping = True
        try:
            self.layer.undo()
        finally:
            self._dropping = False
        self._steps = _count_steps(self.layer)

    def _add(self, drawn: _Drawn) -> None:
        now = copy_labels(self.target)
        if self._result is None or not np.array_equal(now, self._result):  # other edits came between
            self._base, self._drawn = now, []
        self._drawn.append(drawn)
        self._remember((*self.strokes, drawn.stroke))
        self._result = now
        self.events.asked()

    def _remember(self, strokes: tuple[Stroke, ...]) -> None:
        known = self.target.metadata[KEY]
        self.target.metadata = {**self.target.metadata, KEY: {**known, "strokes": strokes}}

    def _forget(self, event: Any) -> None:
        """Forget the strokes when a person deletes their layer; the labels that followed stay."""
        if unwrap_layer(event.value) is self.layer:
            self._remember(())

    def _put_others_away(self, _: Any = None) -> None:
        """Keep the brush: what is erased or filled would be no stroke."""
        if str(self.layer.mode) in ("erase", "fill", "polygon"):
            self.layer.mode = "paint"

    def _keep_to_tissues(self, _: Any = None) -> None:
        """Choose no label that is none of the model's, as napari's keys would."""
        known = [*regions_by_label(self.target), NOTHING]
        if self.layer.selected_label not in known:
            self.layer.selected_label = known[0]

    # ---------------------------------------------------------------------------------------------- what is undone

    def _notice_undo(self, _: Any = None) -> None:
        """Find out whether napari redraws the strokes because one was undone or redone."""
        before, self._steps = self._steps, _count_steps(self.layer)
        if self._steps == (before[0] - 1, before[1] + 1) and not self._dropping:
            self._take_back()
        elif self._steps == (before[0] + 1, before[1] - 1) and self._undone:
            self._add(self._undone.pop())

    def _take_back(self) -> None:
        self._remember(self.strokes[:-1])
        if not self._drawn:
            return  # it was followed before an edit by other means, which must be undone first
        drawn = self._drawn.pop()
        step, followed = drawn.step, drawn.followed
        drawn.step, drawn.followed = None, False
        self._undone.append(drawn)
        unchanged = self._result is not None and np.array_equal(copy_labels(self.target), self._result)
        if step is not None and step is last_step(self.target):
            self._undo_labels()
        elif followed and unchanged and self._base is not None:
            if not self._drawn:
                apply_labels(self.target, self._base)
            else:  # its step is no longer the last one: what is left is followed anew
                self._drawn[-1].followed = False
        self._result = copy_labels(self.target)
        self.events.asked()

    def _undo_labels(self) -> None:
        self._ours = True
        try:
            self.target.undo()
        finally:
            self._ours = False
        if self._drawn and self._drawn[-1].step is None:  # it was followed together with the one that is gone
            self._drawn[-1].followed = False

    def _notice_undone_labels(self, _: Any = None) -> None:
        """Take strokes back whose change was undone in the layer of the labels."""
        changing = [number for number, drawn in enumerate(self._drawn) if drawn.step is not None]
        if self._ours or not changing:
            return
        step = self._drawn[changing[-1]].step
        if last_step(self.target) is step or not _count_steps(self.target)[1]:
            return
        if any(each is step for each in getattr(self.target, "_undo_history", [])):
            return
        gone = self._drawn[changing[-1] :]
        for drawn in gone:
            drawn.step, drawn.followed = None, False
        self._ours = True
        try:
            for _ in gone:
                self.layer.undo()
        finally:
            self._ours = False


def corrected_slices(target: Labels) -> tuple[int, ...]:
    """Return the slices along Z that a person corrected: not those that only follow from strokes in other slices."""
    figures = figures_of(target)
    followed = target.metadata.get(KEY, {}).get("followed", {})
    return tuple(z for z in figures.edited if followed.get(z) != figures.slices[z].digest)


def find_stroke_layer(viewer: Any, target: Labels) -> Labels | None:
    """Return the layer of the strokes on a label layer, if there is one."""
    for layer in viewer.layers:
        known = layer.metadata.get(KEY, {})
        if known.get("role") == "strokes" and known.get("of") == target.unique_id:
            return unwrap_layer(layer)
    return None


def regions_by_label(target: Labels) -> dict[int, str]:
    """Return, for each label of a result, the region that it is the innermost part of."""
    answer = figures_of(target).answer
    return {} if answer is None else {labels[0]: name for name, labels in answer.regions.items()}


def _add_stroke_layer(viewer: Any, target: Labels) -> Labels:
    place = find_placement(target)
    colors: Mapping[int, str] = {**figures_of(target).label_colors, NOTHING: NOTHING_COLOR}
    layer = Labels(
        place.to_layer(_paint_strokes(target, place)),
        **place.options,
        name=f"Strokes [{case_of(target) or target.name}]",
        colormap=make_colormap(colors),
        opacity=0.9,
        metadata=place.remember(case=case_of(target), role="strokes", of=target.unique_id),
    )
    add_unselected(viewer, layer)
    return layer


def _paint_strokes(target: Labels, place: Placement) -> NDArray[np.uint8]:
    """Paint the strokes that are known of labels, such as those saved with them: uint8 ``(Z, Y, X)``."""
    z, y, x = place.from_layer(level_0(target)).shape
    painted_ZYX = np.zeros((z, y, x), np.uint8)
    labels = {name: label for label, name in regions_by_label(target).items()}
    spacing = spacing_of(target)
    for stroke in target.metadata[KEY].get("strokes", ()):
        under = tuple(stroke.find_voxels((z, y, x), spacing).T)
        painted_ZYX[under] = NOTHING if stroke.region is None else labels[stroke.region]
    return painted_ZYX


def _to_ZYX(place: Placement, point: tuple[float, ...]) -> tuple[float, float, float]:
    """Convert an index of a layer's array, with fractions, to axes (Z, Y, X)."""
    if not place.in_source_order:
        z, y, x = (float(each) for each in point[-3:])
        return z, y, x
    grid = place.grid
    z, y, x = (
        float(grid.shape[axis] - 1 - point[axis] if flip else point[axis])
        for axis, flip in zip(grid.axes, grid.flips, strict=True)
    )
    return z, y, x


def _radius_mm(layer: Labels) -> float:
    """Return half the width of the brush as napari draws it."""
    shown = layer._slice_input.displayed
    return float((np.floor(layer.brush_size / 2) + 0.5) * min(abs(layer.scale[axis]) for axis in shown))


def _count_steps(layer: Labels) -> tuple[int, int]:
    return len(getattr(layer, "_undo_history", [])), len(getattr(layer, "_redo_history", []))

"""Strokes as a layer of their own, and what follows from them in the layer of the labels.

A stroke is drawn with napari's brush and undone with Ctrl+Z while its layer is selected; the labels that followed from
it go with it. It also goes when its change is undone in the layer of the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
)
from napari_braintumor.layers.placement import KEY, find_placement, unwrap_layer
from napari_braintumor.layers.stroke_layers import (
    NOTHING,
    add_stroke_layer,
    find_stroke_layer,
    radius_of,
    regions_by_label,
    to_ZYX,
)


@dataclass(eq=False)
class _Drawn:
    """A stroke, whether it was followed, and the step in the history of the labels that this became.

    Once it is undone, `undone` is what the labels would redo to bring its step back.
    """

    stroke: Stroke
    followed: bool = False
    step: Any | None = None
    undone: Any | None = None


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
        self.layer = find_stroke_layer(viewer, self.target) or add_stroke_layer(viewer, self.target)
        self._drawn: list[_Drawn] = []  # those that follow from `_base`
        self._undone: list[_Drawn] = []
        self._base: NDArray[np.uint8] | None = None
        self._result: NDArray[np.uint8] | None = None
        self._pen: list[tuple[float, ...]] = []
        self._ours = False  # the labels change by us
        self._dropping = False
        self._means_nothing = False
        self._steps = _count_steps(self.layer)
        self._label_steps = _count_steps(self.target)
        self.layer.mouse_drag_callbacks.append(self._follow_pen)
        self.layer.events.paint.connect(self._take_stroke)
        self.layer.events.set_data.connect(self._notice_undo)
        self.layer.events.labels_update.connect(self._drop_stroke)
        self.layer.events.mode.connect(self._put_others_away)
        self.layer.events.selected_label.connect(self._keep_to_tissues)
        self.target.events.set_data.connect(self._notice_labels)
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
        self.target.events.set_data.disconnect(self._notice_labels)
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
        with self._changing_labels():
            edit = apply_labels(self.target, labels_ZYX)
        step = last_step(self.target)
        for drawn in self._drawn:
            drawn.followed = True
        if step is not before:
            self._drawn[-1].step = step
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
        way = tuple(to_ZYX(place, point) for point in points)
        if any(drawn.undone is not None for drawn in self._undone):  # as after any new step, nothing is redone any more
            self.target._redo_history.clear()
        self._undone.clear()
        self._add(_Drawn(Stroke(region=regions[label], points=way, radius_mm=radius_of(self.layer))))

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
            self._bring_back(self._undone.pop())

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
            with self._changing_labels():
                self.target.undo()
            drawn.undone = _next_step(self.target)
            self._doubt_last()
        elif followed and unchanged and self._base is not None:
            if not self._drawn:
                apply_labels(self.target, self._base)
            else:  # its step is no longer the last one: what is left is followed anew
                self._drawn[-1].followed = False
        self._result = copy_labels(self.target)
        self.events.asked()

    def _bring_back(self, drawn: _Drawn) -> None:
        """Redo a stroke: with the step that it was in the labels, or if that is gone by following it anew."""
        undone, drawn.undone = drawn.undone, None
        if not self._ours:
            if undone is None or undone is not _next_step(self.target):
                self._add(drawn)
                return
            with self._changing_labels():
                self.target.redo()
        drawn.followed = True
        drawn.step = last_step(self.target) if undone is not None else None
        self._drawn.append(drawn)
        self._remember((*self.strokes, drawn.stroke))
        self._result = copy_labels(self.target)

    def _doubt_last(self) -> None:
        """Follow the last stroke anew if it has no step: it may have been followed together with one that is gone."""
        if self._drawn and self._drawn[-1].step is None:
            self._drawn[-1].followed = False

    def _notice_labels(self, _: Any = None) -> None:
        """Take strokes back, or bring them back, whose step was undone or redone in the layer of the labels."""
        before, self._label_steps = self._label_steps, _count_steps(self.target)
        if self._ours:
            return
        if self._label_steps == (before[0] - 1, before[1] + 1):
            self._follow_undo()
        elif self._label_steps == (before[0] + 1, before[1] - 1):
            self._follow_redo()

    def _follow_undo(self) -> None:
        changing = [number for number, drawn in enumerate(self._drawn) if drawn.step is not None]
        history = getattr(self.target, "_undo_history", [])
        if not changing or any(each is self._drawn[changing[-1]].step for each in history):
            return
        gone = self._drawn[changing[-1] :]
        for drawn in gone:
            drawn.step, drawn.followed = None, False
        with self._changing_labels():
            for _ in gone:
                self.layer.undo()
        gone[0].undone = _next_step(self.target)
        self._doubt_last()
        self.events.asked()

    def _follow_redo(self) -> None:
        waiting = getattr(self.target, "_redo_history", [])
        back = [each for each in self._undone if each.undone is not None]
        if not back or any(each is back[-1].undone for each in waiting):
            return
        with self._changing_labels():
            while back[-1] in self._undone:
                self.layer.redo()

    @contextmanager
    def _changing_labels(self) -> Iterator[None]:
        """Whatever changes within is our own doing."""
        was, self._ours = self._ours, True
        try:
            yield
        finally:
            self._ours = was


def _next_step(layer: Labels) -> Any | None:
    """Return the step that a layer would redo, to recognize it by; None if there is none."""
    history = getattr(layer, "_redo_history", [])
    return history[-1] if history else None


def _count_steps(layer: Labels) -> tuple[int, int]:
    return len(getattr(layer, "_undo_history", [])), len(getattr(layer, "_redo_history", []))

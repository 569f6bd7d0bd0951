"""The current content of a label layer: counted when it is edited, and shown in napari's status bar.

Slices are counted one by one, and after an edit only those it changed. A result also stores what its model produced, so
that slices edited by hand can be found.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary, ref

import napari
import numpy as np
from napari.layers import Labels
from napari.utils.events import EmitterGroup

from napari_braintumor.engine.anatomy import EXTRA_COLORS
from napari_braintumor.engine.measuring.record import describe_corrected
from napari_braintumor.engine.tally import EMPTY, SliceTally, add_up, tally_slice
from napari_braintumor.layers.answers import Answer
from napari_braintumor.layers.placement import KEY, Placement, find_placement, level_0, unwrap_layer
from napari_braintumor.layers.views import make_colormap, show_region, shown_region

AT_ONCE_VOXELS = 10_000_000
"""Arrays in memory up to this size are counted at once, which takes about 30 ms; others bit by bit."""


class Figures:
    """The current content of a label layer, updated as long as the layer exists.

    Attributes
    ----------
    events
        ``changed`` is emitted after any of these values has changed.
    """

    def __init__(self, layer: Labels) -> None:
        self._layer = ref(layer)
        self.events = EmitterGroup(source=self, changed=None)
        answer = layer.metadata.get(KEY, {}).get("answer")
        self._slices: list[SliceTally] = list(answer.slices) if isinstance(answer, Answer) else []
        self._voxels = add_up(self._slices)
        self._uncounted: set[int] = set()
        self._soon: set[int] = set()  # of those, the slices to count as soon as napari has drawn them
        self._steps: tuple[int | None, ...] = ()
        self._view = ""
        self._own_change = False
        layer.events.paint.connect(self._paint)
        layer.events.labels_update.connect(self._count_soon)
        layer.events.data.connect(self._replace)
        layer.events.set_data.connect(self._redraw)
        for event in (layer.events.scale, layer.events.affine, layer.events.units):
            event.connect(self.publish)
        self._note_steps(layer)
        self._doubt_all(layer)

    # ---------------------------------------------------------------------------------------------- content

    @property
    def layer(self) -> Labels:
        """The layer."""
        layer = self._layer()
        assert layer is not None
        return layer

    @property
    def complete(self) -> bool:
        """Whether the counts of all slices are up to date."""
        return not self._uncounted

    @property
    def slices(self) -> tuple[SliceTally, ...]:
        """The content of each slice along Z, as far as it is counted."""
        return tuple(self._slices)

    @property
    def answer(self) -> Answer | None:
        """What the model produced: the closer of its last two answers, because a run can be undone."""
        known = self.layer.metadata.get(KEY, {})
        answers = [answer for answer in (known.get("answer"), known.get("earlier")) if isinstance(answer, Answer)]
        return min(answers, key=lambda answer: len(self._changed_since(answer)), default=None)

    @property
    def edited(self) -> tuple[int, ...]:
        """The slices along Z that differ from the model's answer."""
        answer = self.answer
        return self._changed_since(answer) if answer is not None else ()

    @property
    def label_names(self) -> dict[int, str]:
        """The names of the labels: those that the layer names, and any others that are painted."""
        answer = self.answer
        names = dict(answer.label_names) if answer is not None else _named_in(self.layer)
        return {**names, **{label: f"label {label}" for label in sorted(self._voxels) if label not in names}}

    @property
    def label_colors(self) -> dict[int, str]:
        """``#rrggbb`` for each label of a result."""
        answer = self.answer
        own = dict(answer.label_colors) if answer is not None else {}
        extra = [label for label in self.label_names if label not in own]
        return {**own, **{label: EXTRA_COLORS[i % len(EXTRA_COLORS)] for i, label in enumerate(extra)}}

    @property
    def label_ml(self) -> dict[int, float]:
        """Volume of each label in mL; NaN if the scans cannot show it and nobody has painted it."""
        voxel_ml, answer = self._voxel_ml(), self.answer
        hidden = [answer.regions[region][0] for region in answer.not_measurable] if answer is not None else []
        return {
            label: np.nan if label in hidden and not self._voxels.get(label) else self._voxels.get(label, 0) * voxel_ml
            for label in self.label_names
        }

    @property
    def region_ml(self) -> dict[str, float]:
        """Volume of each region of a result in mL; regions that the scans cannot show are left out, unless painted."""
        answer = self.answer
        if answer is None:
            return {}
        voxel_ml = self._voxel_ml()
        voxels = {name: sum(self._voxels.get(each, 0) for each in labels) for name, labels in answer.regions.items()}
        return {name: n * voxel_ml for name, n in voxels.items() if n or name not in answer.not_measurable}

    @property
    def model_ml(self) -> dict[str, float]:
        """Volume of each region in mL as the model drew it, with the current voxel size of the layer."""
        answer = self.answer
        if answer is None:
            return {}
        return {name: ml * self._voxel_ml() / answer.voxel_ml for name, ml in answer.volumes_ml.items()}

    def describe(self) -> dict[str, Any]:
        """Return the record of a result: the model's answer and the current state; JSON values only."""
        answer = self.answer
        assert answer is not None
        grid = find_placement(self.layer).grid
        return describe_corrected(
            answer.record,
            volumes_ml=self.region_ml,
            model_ml=self.model_ml,
            label_names=self.label_names,
            label_ml=self.label_ml,
            edited=self.edited,
            reviewed=tuple(self.layer.metadata.get(KEY, {}).get("reviewed", ())),
            grid=grid,
        )

    # ---------------------------------------------------------------------------------------------- counting

    def settle(self) -> None:
        """Finish counting; arrays in memory are counted again, because napari may have missed changes."""
        if _is_in_memory(level_0(self.layer)):
            self._uncounted = set(range(_depth(find_placement(self.layer))))
        self.count_some(np.inf)

    def count_some(self, budget_s: float) -> None:
        """Count slices that may have changed, until all are counted or the time is up."""
        if self._layer() is not None and self._uncounted:
            self._count_slices(sorted(self._uncounted), budget_s)

    def _count_slices(self, which: Iterable[int], budget_s: float = np.inf) -> bool:
        """Count slices, and return whether any has changed."""
        layer = self.layer
        array_ZYX = find_placement(layer).from_layer(level_0(layer))
        until_s = time.perf_counter() + budget_s
        changed = len(self._slices) != int(array_ZYX.shape[0])
        if changed:
            self._slices = [EMPTY] * array_ZYX.shape[0]
        for z in which:
            tally = tally_slice(np.asarray(array_ZYX[z]))
            changed |= tally.digest != self._slices[z].digest
            self._slices[z] = tally
            self._uncounted.discard(z)
            if time.perf_counter() > until_s:
                break
        if changed:
            self._voxels = add_up(self._slices)
            self.publish()
        return changed

    def _changed_since(self, answer: Answer) -> tuple[int, ...]:
        if len(answer.slices) != len(self._slices):
            return tuple(range(len(self._slices)))
        pairs = enumerate(zip(self._slices, answer.slices, strict=True))
        return tuple(z for z, (now, then) in pairs if now.digest != then.digest)

    def _voxel_ml(self) -> float:
        return find_placement(self.layer).grid.voxel_ml

    # ---------------------------------------------------------------------------------------------- following

    def _paint(self, event: Any) -> None:
        """Count the slices changed by a stroke, a fill or a call of data_setitem.

        napari emits this event after a stroke, but before any other edit. In that case the slices are still unchanged,
        and are counted when napari draws them.
        """
        self._note_steps(self.layer)
        touched = _touched(event.value, self.layer)
        self._soon |= touched
        self._uncounted |= touched
        first = min(touched, default=None)
        if first is None or self._count_slices([first]):
            self._count_soon()
        else:
            self._soon.add(first)
            self._uncounted.add(first)
            self.events.changed()

    def _count_soon(self, _: Any = None) -> None:
        if self._soon:
            soon, self._soon = self._soon, set()
            self._count_slices(sorted(soon))

    def _replace(self, _: Any) -> None:
        self._note_steps(self.layer)
        self._doubt_all(self.layer)

    def _redraw(self, _: Any) -> None:
        """Find out why napari redraws the layer: an undo, a change of the displayed slice, or an unknown reason."""
        layer = self.layer
        before, view = self._steps, self._view
        self._note_steps(layer)
        self._count_soon()
        stepped = _stepped(layer, before) if before != self._steps else None
        if stepped is not None:
            self._count_slices(sorted(stepped))
        elif before != self._steps or (self._view == view and not self._own_change):
            self._doubt_all(layer)

    def _note_steps(self, layer: Labels) -> None:
        """Note how many steps can be undone and redone, and which slice is displayed."""
        histories = (getattr(layer, name, None) for name in ("_undo_history", "_redo_history"))
        self._steps = tuple(None if history is None else len(history) for history in histories)
        self._view = repr(getattr(layer, "_slice_input", None))

    def _doubt_all(self, layer: Labels) -> None:
        place = find_placement(layer)
        self._uncounted = set(range(_depth(place)))
        data = level_0(layer)
        if _is_in_memory(data) and data.size <= AT_ONCE_VOXELS:
            self.count_some(np.inf)
        else:
            self.events.changed()

    def publish(self, _: Any = None) -> None:
        """Update the status bar, give unknown labels a color, and show labels again if a region was shown."""
        layer = self.layer
        names, ml = self.label_names, self.label_ml
        table = layer.features
        wanted = [0, *sorted(names)]
        if list(table["index"]) != wanted:
            table = table.set_index("index").reindex(wanted).reset_index()
            table["name"] = ["background", *(names[label] for label in wanted[1:])]
        table["mL"] = [np.nan, *(round(ml[label], 2) for label in wanted[1:])]
        self._own_change = True
        try:
            layer.features = table
            if self.answer is not None:
                self._color(layer)
        finally:
            self._own_change = False
        self.events.changed()

    def _color(self, layer: Labels) -> None:
        colors = self.label_colors
        if shown_region(layer) is not None:
            show_region(layer, None, colors)
        elif not set(colors) <= set(layer.colormap.color_dict):
            layer.colormap = make_colormap(colors)


_FIGURES: WeakKeyDictionary[Labels, Figures] = WeakKeyDictionary()


def figures_of(layer: Labels) -> Figures:
    """Return the figures of a label layer of this plugin; from the first call on, they are kept up to date."""
    layer = unwrap_layer(layer)
    if layer not in _FIGURES:
        _FIGURES[layer] = Figures(layer)
    return _FIGURES[layer]


def follow_labels(viewer: Any) -> None:
    """Keep the figures of all label layers of this plugin in a viewer up to date, now and later."""
    viewer.layers.events.inserted.connect(_begin_following)
    for layer in viewer.layers:
        _follow(layer)


def follow_window() -> None:
    """Call `follow_labels` for the open window, if any: new layers go there."""
    if (viewer := napari.current_viewer()) is not None:
        follow_labels(viewer)


def is_result(layer: Any) -> bool:
    """Whether a layer contains the tumor that a model drew."""
    return isinstance(layer, Labels) and isinstance(layer.metadata.get(KEY, {}).get("answer"), Answer)


def _begin_following(event: Any) -> None:
    _follow(event.value)


def _follow(layer: Any) -> None:
    known = layer.metadata.get(KEY, {})
    if isinstance(layer, Labels) and known.get("role") and "name" in layer.features and layer.ndim == 3:
        figures_of(layer)


def _named_in(layer: Labels) -> dict[int, str]:
    table = layer.features
    named = zip(table["index"], table["name"], strict=True)
    return {int(label): str(name) for label, name in named if label and name != f"label {label}"}


def _is_in_memory(data: Any) -> bool:
    return isinstance(data, np.ndarray) and not isinstance(data, np.memmap)


def _depth(place: Placement) -> int:
    return int(place.grid.shape[place.grid.axes[0]])


def _touched(step: Iterable[Any], layer: Labels) -> set[int]:
    """Return the slices along Z that a step of napari's history changes."""
    place = find_placement(layer)
    axis, size = (place.grid.axes[0], _depth(place)) if place.in_source_order else (0, _depth(place))
    found: set[int] = set()
    for atom in step:
        key = getattr(atom, "slice_key", None)
        along = (atom[0] if key is None else key)[axis]
        found.update(range(*along.indices(size)) if isinstance(along, slice) else np.unique(along).tolist())
    return {size - 1 - z for z in found} if place.in_source_order and place.grid.flips[0] else found


def _stepped(layer: Labels, before: Any) -> set[int] | None:
    """Return the slices that the last undo or redo changed; None if napari does not say."""
    undo, redo = (getattr(layer, name, None) for name in ("_undo_history", "_redo_history"))
    if undo is None or redo is None:
        return None
    if (len(undo), len(redo)) == (before[0] - 1, before[1] + 1):
        return _touched(redo[-1], layer)
    if (len(undo), len(redo)) == (before[0] + 1, before[1] - 1):
        return _touched(undo[-1], layer)
    return None

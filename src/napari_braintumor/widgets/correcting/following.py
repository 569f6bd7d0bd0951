"""Strokes are followed in the background.

First what the model sees in the case is gathered, which takes about as long as a run; then each stroke takes a moment.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_braintumor import engine
from napari_braintumor.engine.correcting.correcting import Correction, correct
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.errors import BrainTumorError, DataError
from napari_braintumor.engine.settings import AlignConfig, SegmentConfig
from napari_braintumor.layers import (
    KEY,
    Request,
    Scribble,
    Selection,
    align_selection,
    find_scans,
    reviewed_slices,
    scans_of,
    select_layers,
    stream_selection,
)
from napari_braintumor.widgets.correcting.edits import describe
from napari_braintumor.widgets.shared.following import when_destroyed
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.one_job import OneJob


class Follower(OneJob):
    """Gathers what the model sees in the case of a result, and follows strokes there.

    Parameters
    ----------
    parent
        The dock.
    viewer
        Whose layers they are.
    footer
        Shows how far gathering is.
    """

    ready = Signal()
    """What the model sees in the case is known now."""

    def __init__(self, parent: QObject, viewer: Any, footer: Footer) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._footer = footer
        self._known: WeakKeyDictionary[Labels, CaseFeatures] = WeakKeyDictionary()
        self._scribbles: WeakKeyDictionary[Labels, Scribble] = WeakKeyDictionary()
        self._target: Labels | None = None
        when_destroyed(self, _close_all, self._scribbles)

    def features_of(self, target: Labels | None) -> CaseFeatures | None:
        """Return what the model sees in the case of a result, if that was gathered."""
        return self._known.get(target) if target is not None else None

    def strokes_of(self, target: Labels) -> Labels | None:
        """Return the layer of the strokes on a result, if there is one."""
        scribble = self._scribbles.get(target)
        return scribble.layer if scribble is not None and scribble.layer in self._viewer.layers else None

    def scribble_on(self, target: Labels) -> Scribble | None:
        """Return the strokes on a result, with a layer for them; gathers what is needed to follow them."""
        scribble = self._scribbles.get(target)
        if scribble is None or scribble.layer not in self._viewer.layers:
            if scribble is not None:
                scribble.close()
            try:
                scribble = Scribble(self._viewer, target)
            except BrainTumorError as error:
                self.reported.emit(str(error))
                return None
            self._scribbles[target] = scribble
            scribble.events.asked.connect(self._notice)
        self._target = target
        self.gather(target)
        return scribble

    def gather(self, target: Labels) -> None:
        """Gather what the model sees in the case of a result, unless that is known or under way."""
        if target in self._known or self._footer.job is not None:
            return
        try:
            selection, config = _case_of(self._viewer, target)
        except BrainTumorError as error:
            self.reported.emit(str(error))
            return
        job = Job(self, f"Prepare strokes [{selection.name}]", gather_selection, selection, config)
        job.happened.connect(lambda event: self._take(target, event))
        job.failed.connect(self._fail)
        job.ended.connect(self._end_gathering)
        self._footer.run(job, "Preparing strokes: reading the scans…")

    def _take(self, target: Labels, event: Any) -> None:
        if isinstance(event, CaseFeatures):
            self._known[target] = event
            for note in event.notes:
                self.reported.emit(note)
        elif hasattr(event, "phase"):
            self._footer.show_phase(event)
        else:
            self._footer.show_progress(event.done, event.total, f"Preparing strokes: {event.done} of {event.total}")

    def _end_gathering(self) -> None:
        if self._footer.end():
            self.reported.emit("Canceled. Strokes are drawn, but not followed.")
        self.ready.emit()
        self._notice()

    def _notice(self, _: Any = None) -> None:
        """Follow the strokes as they are now, unless others are being followed."""
        target = self._target
        scribble = self._scribbles.get(target) if target is not None else None
        if target is None or scribble is None or self.busy:
            return
        request, features = scribble.request(), self._known.get(target)
        if request is None:
            return
        if features is None:
            if self._footer.job is not None:
                self.reported.emit("The stroke is followed as soon as strokes are prepared.")
            return
        job = Job(self, "Follow strokes", _follow, features, request, reviewed_slices(target))
        self.start(job, lambda correction: self._apply(scribble, request, correction))

    def _apply(self, scribble: Scribble, request: Request, correction: Correction) -> None:
        edit = scribble.apply(request, correction.labels)
        if edit is not None:
            count = len(request.strokes)
            self.reported.emit(describe("Stroke followed" if count == 1 else f"{count} strokes followed", edit))

    def _end(self) -> None:
        super()._end()
        self._notice()  # strokes may have come or gone meanwhile


def _close_all(scribbles: WeakKeyDictionary[Labels, Scribble]) -> None:
    for scribble in scribbles.values():
        scribble.close()


def gather_selection(selection: Selection, config: SegmentConfig) -> Generator[Any, None, None]:
    """Read the scans of a result, bring them onto one grid if need be, and gather what the model sees in them."""
    volume = None
    if selection.reference is not None:
        for event in align_selection(selection, AlignConfig()):
            if hasattr(event, "phase"):
                yield event
            else:
                volume = event
    yield from engine.gather_features(volume or stream_selection(selection), config)


def _follow(features: CaseFeatures, request: Request, locked: tuple[int, ...]) -> Generator[Correction, None, None]:
    yield correct(features, request.labels_ZYX, request.strokes, locked)


def _case_of(viewer: Any, target: Labels) -> tuple[Selection, SegmentConfig]:
    """Return the scans that a result was made from, and the settings."""
    known = target.metadata[KEY]
    made_from, model = known.get("made_from", {}), known.get("model", {})
    scans = scans_of(viewer.layers, target) if made_from else find_scans(viewer.layers, target)
    gone = [str(scan["name"]) for modality, scan in made_from.items() if modality not in scans]
    if gone or not scans:
        which = f": {', '.join(gone)}" if gone else ""
        raise DataError(
            f"The scans that '{target.name}' was made from are no longer all open{which}. Strokes are followed in the "
            "scans that the model saw. Open them and segment again, or use the brush."
        )
    path = model.get("path")
    if path is None or not Path(path).is_file():
        raise DataError(
            f"The model that drew '{target.name}' is no longer there. Strokes are followed by what it sees. Segment "
            "again with another model, or use the brush."
        )
    settings = dict(known.get("provenance", {}).get("settings", {}))
    return select_layers(scans), SegmentConfig(**{**settings, "model": str(path), "probabilities": False})

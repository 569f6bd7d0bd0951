"""What is computed in the background of something that changes: one job at a time, and never of an old state last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_braintumor.layers import last_step
from napari_braintumor.widgets.shared.jobs import Job

Prepared = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any], None]]
"""A generator function, its arguments, and who takes its events."""


class Latest(QObject):
    """Runs a job when it is asked for, and once more at its end if it was asked for meanwhile.

    Parameters
    ----------
    dock
        The dock that the jobs belong to.
    title
        Shown in napari's activity dock, if a job takes long.
    prepare
        Returns what is to run as things are now; None if there is nothing to do.
    """

    failed = Signal(object)
    """A `Failure`."""

    def __init__(self, dock: QObject, title: str, prepare: Callable[[], Prepared | None]) -> None:
        super().__init__(dock)
        self._dock, self._title, self._prepare = dock, title, prepare
        self._job: Job | None = None
        self._again = False

    @property
    def idle(self) -> bool:
        """Whether no job runs."""
        return self._job is None

    def ask(self) -> None:
        """Compute it of what is there now."""
        if self._job is not None:
            self._again = True
            return
        prepared = self._prepare()
        if prepared is None:
            return
        generator, args, take = prepared
        self._job = job = Job(self._dock, self._title, generator, *args)
        job.happened.connect(take)
        job.failed.connect(self.failed)
        job.ended.connect(self._end)
        job.start()

    def _end(self) -> None:
        self._job = None
        if self._again:
            self._again = False
            self.ask()


class LabelsWatch:
    """Notices when the labels of a layer change: by the brush, an edit, Ctrl+Z or other data.

    Parameters
    ----------
    changed
        What to call then.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self.layer: Labels | None = None
        self._step: Any = None

    def follow(self, layer: Labels | None) -> None:
        """Look at another layer from now on; None for no layer."""
        if self.layer is not None:
            for event in self._list_events(self.layer):
                event.disconnect(self._note)
            self.layer.events.set_data.disconnect(self._compare)
        self.layer = layer
        if layer is not None:
            self._step = last_step(layer)
            for event in self._list_events(layer):
                event.connect(self._note)
            layer.events.set_data.connect(self._compare)

    @staticmethod
    def _list_events(layer: Labels) -> tuple[Any, ...]:
        return layer.events.paint, layer.events.data, layer.events.labels_update

    def _note(self, _: Any = None) -> None:
        self._changed()

    def _compare(self, _: Any = None) -> None:
        """Tell undo and redo, of which napari says no more than that it draws anew, from a slider that moves."""
        if self.layer is not None and (step := last_step(self.layer)) is not self._step:
            self._step = step
            self._changed()

"""Segment the slice that is looked at, and the next one as soon as that is looked at."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_braintumor import engine
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.layers import Appearing, Selection, slice_of, stream_selection
from napari_braintumor.widgets.shared.following import follow, when_destroyed
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.one_job import OneJob
from napari_braintumor.widgets.shared.parts import name_widget

WAIT_MS = 60
"""After the slider has moved, before the slice is segmented: who scrolls through many waits for none."""


class LivePreview(QWidget):
    """A box to tick; off at first.

    Parameters
    ----------
    viewer
        Whose shown slice is segmented.
    find_config
        Returns the model and how to run it.
    """

    def __init__(self, viewer: Any, find_config: Callable[[], SegmentConfig]) -> None:
        super().__init__()
        self._viewer = viewer
        self._find_config = find_config
        self._selection: Selection | None = None
        self._key: Any = None  # the scans and the settings that the preview at hand is of
        self._preview: Any = None
        self._done: set[int] = set()
        self.jobs = OneJob(self)
        self.jobs.reported.connect(self._give_up)
        self.jobs.failed.connect(self._give_up)
        self.jobs.busy_changed.connect(self._go_on)
        self.shown = Appearing(viewer, "Preview")
        self.box = QCheckBox("Preview this slice")
        name_widget(
            self.box, "Preview this slice", "Segment each slice that you look at, at once; for scans on one grid"
        )
        self.box.toggled.connect(self._go_on)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.box)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(WAIT_MS)
        self._wait.timeout.connect(self._look)
        follow(self, self._go_on, viewer.dims.events.point, viewer.dims.events.order)
        when_destroyed(self, self.shown.clear)

    @property
    def idle(self) -> bool:
        """Whether the slice that is shown is segmented, or none is to be."""
        return not self.jobs.busy and not self._wait.isActive()

    def work_on(self, selection: Selection | None) -> None:
        """Preview these scans; None if there are none that can be segmented."""
        self._selection = selection if selection is not None and selection.reference is None else None
        self.box.setEnabled(self._selection is not None)
        self._go_on()

    def _go_on(self, _: Any = None) -> None:
        if not self.box.isChecked() or self._selection is None:
            self._wait.stop()
            self._forget()
        else:
            self._wait.start()

    def _give_up(self, _: Any) -> None:
        """Untick the box: what failed once would fail again at the next slice."""
        self.box.setChecked(False)

    def _forget(self) -> None:
        self.shown.clear()
        self._preview, self._key = None, None
        self._done.clear()

    def _look(self) -> None:
        """Segment the slice that is shown, after making the model ready if need be."""
        selection = self._selection
        if selection is None or self.jobs.busy:  # the end of the job leads here again
            return
        config = self._find_config()
        key = ({name: dict(scan) for name, scan in selection.made_from.items()}, config)
        if key != self._key:
            self._forget()
        z = slice_of(selection, self._viewer)
        if z is None or z in self._done:
            return
        job = Job(self.jobs, "Preview", _preview_slice, self._preview, selection, config, z)
        self.jobs.start(job, partial(self._take, key, z))

    def _take(self, key: Any, z: int, event: tuple[Any, Any]) -> None:
        if not self.box.isChecked() or self._selection is None:
            return
        self._key = key
        self._preview, plane = event
        self._done.add(z)
        self.shown.show(self._selection, {z: plane})


def _preview_slice(
    preview: Any, selection: Selection, config: SegmentConfig, z: int
) -> Generator[tuple[Any, Any], None, None]:
    ready = preview or engine.prepare_preview(stream_selection(selection), config)
    yield ready, ready.labels_of(z)

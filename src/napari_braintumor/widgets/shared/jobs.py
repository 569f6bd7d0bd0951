"""Run a generator of the engine in a napari worker thread, and report to a dock what becomes of it.

A `Job` belongs to its dock: when the dock or the whole viewer goes away, the job asks its thread to stop and nobody is
called any more.
"""

from __future__ import annotations

import gc
import logging
import platform
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from threading import Event
from typing import Any

import napari
from napari.qt.threading import create_worker
from napari.utils import progress
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_braintumor import __version__
from napari_braintumor.engine.errors import BrainTumorError, describe_origin, name_kind
from napari_braintumor.widgets.shared.following import when_destroyed

Events = Generator[Any, None, None]

PROGRESS_MS = 500
"""Between two changes of a bar. Each makes Qt put the whole window together anew, as it has OpenGL in it; where that is
drawn without a graphics card (remote desktops, virtual machines), it takes what the job needs."""

ACTIVITY_S = 5.0
"""How long a job runs before it is listed among napari's activities, whose moving wheel costs the same."""

logger = logging.getLogger("napari_braintumor")


@dataclass(frozen=True)
class Failure:
    """Why a job could not finish.

    Attributes
    ----------
    text
        One sentence for the user.
    details
        Where it arose, and versions, for a report, and nothing of a patient; empty if the user can mend it.
    """

    text: str
    details: str = ""


class Job(QObject):
    """A generator that runs in the background; signals arrive in the GUI thread.

    Parameters
    ----------
    parent
        The dock that the job belongs to.
    title
        Shown in napari's activity dock, if the job takes long.
    generator
        A generator function whose body starts in the worker thread. Events with `done` and `total` are its progress, of
        which, where it comes quickly, only the latest is reported twice a second, and the end.
    *args
        Its arguments.
    """

    happened = Signal(object)
    """An event of the generator."""

    failed = Signal(object)
    """A `Failure`; `ended` follows."""

    ended = Signal()
    """The thread is free: the generator finished, failed or was cancelled. Sent once, last; then the job goes away."""

    def __init__(self, parent: QObject, title: str, generator: Callable[..., Events], *args: Any) -> None:
        super().__init__(parent)
        self._stop = Event()
        self._bar = _Bar(title)
        self._progress: Any | None = None  # the last that was not reported yet
        self._breath = QTimer(self)
        self._breath.setSingleShot(True)
        self._breath.timeout.connect(self._tell_progress)
        self._worker = create_worker(_run, generator, args, self._stop)
        self._worker.yielded.connect(self._receive)
        # Sent by the thread and not by the generator, which napari leaves suspended when it is closed.
        self._worker.finished.connect(_COLLECTOR.release)
        self._worker.finished.connect(self._finish)
        when_destroyed(self, _abandon, self._stop, self._bar)

    def start(self) -> None:
        """Start the thread."""
        _COLLECTOR.spare()
        self._worker.start()

    def cancel(self) -> None:
        """Ask the generator to stop at its next event."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def _receive(self, event: Any) -> None:
        if isinstance(event, Failure):
            self.failed.emit(event)
            return
        if hasattr(event, "done") and hasattr(event, "total"):
            self._progress = event
            if not self._breath.isActive() or event.done >= event.total:
                self._tell_progress()
        elif not self.cancelled:
            self.happened.emit(event)

    def _tell_progress(self) -> None:
        """Report how far the job is, if that is news, and then pause."""
        event, self._progress = self._progress, None
        if event is None:
            return
        self._breath.start(PROGRESS_MS)
        if not self.cancelled:
            self.happened.emit(event)
        # Moving the bar lets Qt deliver the next event inside this call, so it must come after reporting this one.
        self._bar.move(event.done, event.total)

    def _finish(self) -> None:
        self._breath.stop()
        self._bar.close()
        self.ended.emit()
        self.deleteLater()


def run_quietly(function: Callable[..., None], *args: Any) -> None:
    """Run a function in a worker thread; nobody waits for it, and what it raises is only logged."""
    worker = create_worker(_try, function, args)
    worker.finished.connect(_COLLECTOR.release)
    _COLLECTOR.spare()
    worker.start()


def _try(function: Callable[..., None], args: tuple[Any, ...]) -> None:
    warnings.showwarning = _log_warning
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001  nobody waits for it
        logger.info("A background task failed\n%s", describe_origin(error))


class _Bar:
    """A bar in napari's activity dock, there once a job has run for a while; it may be closed twice."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._begun_s = time.monotonic()
        self._bar: progress[Any] | None = None
        self._closed = False

    def move(self, done: int, total: int) -> None:
        if time.monotonic() - self._begun_s < ACTIVITY_S:
            return
        if self._bar is None:
            self._bar = progress(total=total, desc=self._title, leave=False)
        if self._closed:  # napari lets Qt deliver events while it adds a bar, and one may be the job's end
            self.close()
            return
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        bar, self._bar, self._closed = self._bar, None, True
        if bar is not None:
            bar.close()


class _Collector:
    """Keeps full collections of garbage short while jobs run.

    Such a collection looks at all objects there are, half a million in a viewer with torch, and stops the viewer for a
    quarter of a second or more. What was there before the first job began is passed over until the last one has ended.
    """

    def __init__(self) -> None:
        self._jobs = 0

    def spare(self) -> None:
        if self._jobs == 0:
            gc.freeze()
        self._jobs += 1

    def release(self) -> None:
        self._jobs -= 1
        if self._jobs == 0:
            gc.unfreeze()


_COLLECTOR = _Collector()


def _run(generator: Callable[..., Events], args: tuple[Any, ...], stop: Event) -> Events:
    """Run a generator and turn what it raises into a last event, so that napari does not show it a second time.

    It is stopped here and not by napari's `quit`, which would leave it suspended with all that it holds in memory.

    Yields
    ------
    object
        The events of the generator, and a `Failure` last if it fails.
    """
    # The worker would turn the warnings of torch and others into notifications; it restores this when it ends.
    warnings.showwarning = _log_warning
    try:
        for event in (events := generator(*args)):
            yield event
            if stop.is_set():
                events.close()
                break
    except BrainTumorError as error:
        yield Failure(str(error))
    except Exception as error:  # noqa: BLE001  whatever it is, the dock says so
        logger.error("A job failed\n%s", describe_origin(error))  # its words may name a patient
        yield _describe_bug(error)


def _describe_bug(error: Exception) -> Failure:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = "There is not enough memory for this. Close other programs, or choose a smaller batch or another device."
    else:
        text = f"Something went wrong that should not: {name_kind(error)}. Copy the details to report it."
    versions = f"napari-braintumor {__version__}, napari {napari.__version__}, Python {platform.python_version()}, "
    return Failure(text, f"{versions}{platform.platform()}\n\n{describe_origin(error)}")


def _log_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    logger.info("%s: %s", category.__name__, message)


def _abandon(stop: Event, bar: _Bar) -> None:
    """Stop a thread whose dock is gone."""
    stop.set()
    bar.close()

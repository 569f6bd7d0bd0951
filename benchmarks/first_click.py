"""Part c: from opening the dock to the label layer, in a real napari window.

Each series has a window of its own, in a fresh process, with the case open. An empty cache of conversions is what a
user has once after installing; a full one, at each later start of napari. Some users click at once, while torch is
still being loaded in the background, some after a while. The window's event loop is checked every few milliseconds; its
longest silence is what a user would feel. For comparison, the same is measured for a window to which napari alone adds
a label layer of the same shape.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from measuring import Worker, data_folder, interleave, judge, make_table

CASE = "BraTS2021_00024"
SERIES = {
    "first use, clicked at once": (False, 0.0),
    "later, clicked at once": (True, 0.0),
    "later, clicked after 15 s": (True, 15.0),
}
"""Whether the converted model is in the cache, and seconds between opening the dock and the first click."""

ROUNDS = 2
PATIENCE_S = 300
BEAT_MS = 4

MAX_DOCK_S = 0.3
MAX_FIRST_S = 15.0
MAX_SECOND_S = 5.0
MAX_SILENCE_S = 0.2


class Window:
    """A napari window; the job of a child.

    Parameters
    ----------
    cache
        Folder of converted models.
    case
        Folder of the case that is opened.
    """

    def __init__(self, cache: str, case: str) -> None:
        os.environ["BRAINTUMOR_CACHE"] = cache
        import napari
        from qtpy.QtCore import QEventLoop, QTimer

        self._loop, self._timer = QEventLoop, QTimer
        self.viewer = napari.Viewer()
        self.viewer.open(case, plugin="napari-braintumor")
        self._run(lambda: None, lambda: False, 2.0)  # until the window is drawn

    def __call__(self, action: str, seconds: float = 0.0) -> dict[str, float]:
        """Do an action and return its cost: ``seconds``, and the longest ``silence`` of the event loop."""
        if action == "wait":
            return self._run(lambda: None, lambda: False, seconds)
        if action == "add a label layer":
            empty = np.zeros(self.viewer.layers[0].data.shape, np.uint8)
            return self._run(lambda: self.viewer.add_labels(empty), lambda: False, 2.0)
        if action == "open the dock":
            return self._run(self._open, lambda: self.dock.isVisible(), PATIENCE_S)
        return self._run(self.dock.segment_button.click, self._is_done, PATIENCE_S)

    def _open(self) -> None:
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")

    def _is_done(self) -> bool:
        """Whether the label layer is there and the dock is ready for the next click."""
        there = any(type(layer).__name__ == "Labels" and layer.name.startswith("Tumor") for layer in self.viewer.layers)
        return there and self.dock.segment_button.isVisible()

    def _run(self, action: Callable[[], Any], is_done: Callable[[], bool], patience_s: float) -> dict[str, float]:
        """Start an action inside of the event loop, and let that run until it is done."""
        loop, timer = self._loop(), self._timer()
        beats: list[float] = [time.perf_counter()]
        started = beats[0]

        def beat() -> None:
            beats.append(time.perf_counter())
            if len(beats) == 2:
                action()
            elif is_done() or beats[-1] - started > patience_s:
                loop.quit()

        timer.timeout.connect(beat)
        timer.start(BEAT_MS)
        loop.exec()
        timer.stop()
        silences = [after - before for before, after in pairwise(beats)]
        return {"seconds": beats[-1] - started, "silence": max(silences)}


def measure(quick: bool) -> dict[str, Any]:
    """Open windows and click; quick does each series once, on the sample case."""
    from napari_braintumor.engine.files.sample import sample_folder

    case = sample_folder() if quick else data_folder() / "brats" / CASE
    rounds = 1 if quick else ROUNDS
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        run_series(case, kept, 0.0)  # fills the cache
        series = {
            name: lambda name=name, is_kept=is_kept, pause=pause: run_series(  # type: ignore[misc]
                case, kept if is_kept else Path(folder) / f"new-{time.monotonic_ns()}", pause
            )
            for name, (is_kept, pause) in SERIES.items()
        }
        runs = interleave(series, rounds)
        alone = [add_alone(case, kept) for _ in range(rounds)]
    return {
        "case": case.name,
        "rounds": rounds,
        "napari_alone": _middle(alone)["add"],
        "series": {n: _middle(r) for n, r in runs.items()},
    }


def add_alone(case: Path, cache: Path) -> dict[str, dict[str, float]]:
    """Open a window and let napari add a label layer."""
    with Worker("first_click:Window", cache=str(cache), case=str(case)) as window:
        return {"add": window(action="add a label layer").value}


def run_series(case: Path, cache: Path, pause_s: float) -> dict[str, dict[str, float]]:
    """Open a window and the dock, wait, click twice."""
    with Worker("first_click:Window", cache=str(cache), case=str(case)) as window:
        return {
            "dock": window(action="open the dock").value,
            "pause": window(action="wait", seconds=pause_s).value,
            "first": window(action="click").value,
            "second": window(action="click").value,
        }


def _middle(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return for each action the median of the seconds and the longest of all silences."""
    return {
        action: {
            "seconds": round(median(run[action]["seconds"] for run in runs), 3),
            "silence": round(max(run[action]["silence"] for run in runs), 3),
        }
        for action in runs[0]
    }


def describe(result: dict[str, Any]) -> str:
    """Return the section of the page."""
    series = result["series"]
    lines = [
        [
            name,
            *(f"{row[action]['seconds']:.2f}" for action in ("dock", "first", "second")),
            *(f"{1000 * row[action]['silence']:.0f}" for action in ("dock", "pause", "first", "second")),
        ]
        for name, row in series.items()
    ]
    header = [
        "series", "dock, s", "first click, s", "second click, s",
        "longest silence, ms: dock", "before the click", "first click", "second click",
    ]  # fmt: skip

    def under(limit_s: float, action: str) -> dict[str, bool]:
        return {name: row[action]["seconds"] < limit_s for name, row in series.items()}

    verdicts = [
        judge(f"dock open in under {MAX_DOCK_S} s", under(MAX_DOCK_S, "dock")),
        judge(f"first click under {MAX_FIRST_S:g} s", under(MAX_FIRST_S, "first")),
        judge(f"second click under {MAX_SECOND_S:g} s", under(MAX_SECOND_S, "second")),
        judge(
            f"the window is never silent for over {1000 * MAX_SILENCE_S:g} ms",
            {name: max(each["silence"] for each in row.values()) <= MAX_SILENCE_S for name, row in series.items()},
        ),
    ]
    return "\n\n".join(
        [
            "## First click and second click",
            make_table(header, lines),
            "\n".join(verdicts),
            f"Default model on {result['case']}, in a window of napari; medians of {result['rounds']} windows, longest "
            "silence of all. A click counts until the label layer is there and the button is back. Nothing of torch is "
            "loaded before the dock is opened. Opening the case itself is not counted. The longest silence of a first "
            f"click is that in which napari adds its first label layer: without any plugin, a window like this was "
            f"silent for {1000 * result['napari_alone']['silence']:.0f} ms when an empty one was added.",
        ]
    )

"""Part h: all measurements and all scores of a case of 240 x 240 x 155 voxels, and how long the window is silent.

First both are computed by themselves, then in a real napari window with the Measure dock, whose event loop is checked
every few milliseconds. The labels that are scored are the reference, moved a little, so that nearly every voxel of the
border counts.

Usage, without keeping a record: python benchmarks/sizes_and_scores.py [--quick]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from first_click import PATIENCE_S, Window
from measuring import Worker, data_folder, judge, make_table

CASE = "BraTS2021_00024"
ROUNDS = 3
SHIFT = (1, 2, 2)
"""By how many voxels the labels are moved along Z, Y and X."""

MAX_MEASURE_S = 2.0
MAX_SCORE_S = 5.0
MAX_SILENCE_S = 0.2


class Computing:
    """Measures and scores a case; the job of a child.

    Parameters
    ----------
    case
        Its folder.
    """

    def __init__(self, case: str) -> None:
        from napari_braintumor.engine.files.cases import find_cases
        from napari_braintumor.engine.files.reading import read_case, read_reference
        from napari_braintumor.engine.inspecting.inspection import find_foreground
        from napari_braintumor.engine.measuring.measurements import measure_regions
        from napari_braintumor.engine.measuring.scores import score_regions
        from napari_braintumor.engine.measuring.sides import find_midline

        self._measure, self._score, self._find_midline = measure_regions, score_regions, find_midline
        self._find_foreground = find_foreground
        (files,) = find_cases(Path(case))
        reference = read_reference(files)
        assert reference is not None
        self._scan = read_case(files).data[0]
        self._regions, self._grid = reference.regions, reference.source
        self._moved = {name: np.roll(mask, SHIFT, (0, 1, 2)) for name, mask in self._regions.items()}

    def __call__(self, action: str) -> dict[str, float]:
        """Compute once, and return ``seconds`` and ``cpu_seconds``."""
        begun, cpu = time.perf_counter(), time.process_time()
        if action == "measure":
            midline = self._find_midline(self._find_foreground(self._scan))
            self._measure(self._regions, self._grid, midline)
        else:
            self._score(self._moved, self._regions, self._grid)
        return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}


class MeasureWindow(Window):
    """A window with a case, its reference and the Measure dock; the job of a child."""

    def __call__(self, action: str, seconds: float = 0.0) -> dict[str, float]:
        """Do an action and return its cost: ``seconds``, and the longest ``silence`` of the event loop."""
        if action == "prepare":
            from napari.layers import Labels

            (self.reference,) = (layer for layer in self.viewer.layers if isinstance(layer, Labels))
            _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-braintumor", "Measure")
            self._run(lambda: None, lambda: bool(self.dock.rows) and self.dock.measuring.idle, PATIENCE_S)
            self.moved = self.reference.as_layer_data_tuple()
            data, options, _ = self.moved
            options = {**options, "name": "moved", "visible": True}
            self.layer = self.viewer.add_labels(np.roll(np.asarray(data), SHIFT, (0, 1, 2)), **options)
            return self._run(lambda: None, self._is_measured, PATIENCE_S)
        if action == "measure":
            return self._run(self._start, self._is_measured, PATIENCE_S)
        if action == "score":
            slot = self.dock.scores_box.reference_slot
            slot.setCurrentIndex(0)
            row = slot.findText(self.reference.name)
            return self._run(lambda: slot.setCurrentIndex(row), self._is_scored, PATIENCE_S)
        return super().__call__(action, seconds)

    def _start(self) -> None:
        self._before = self.dock.rows
        self.dock.measuring.ask()

    def _is_measured(self) -> bool:
        return bool(self.dock.rows) and self.dock.rows is not getattr(self, "_before", ()) and self.dock.measuring.idle

    def _is_scored(self) -> bool:
        return bool(self.dock.scores_box.table.rows) and self.dock.scoring.idle


def measure(quick: bool) -> dict[str, Any]:
    """Measure and score; quick does it once, on the sample case."""
    from napari_braintumor.engine.files.sample import sample_folder

    case = str(sample_folder() if quick else data_folder() / "brats" / CASE)
    rounds = 1 if quick else ROUNDS
    alone: dict[str, list[dict[str, float]]] = {"measure": [], "score": []}
    with Worker("sizes_and_scores:Computing", case=case) as worker:
        for _ in range(rounds):
            for action, runs in alone.items():
                runs.append(worker(action=action).value)
    seen: dict[str, list[dict[str, float]]] = {"measure": [], "score": []}
    with (
        TemporaryDirectory() as cache,
        Worker("sizes_and_scores:MeasureWindow", cache=cache, case=case) as window,
    ):
        window(action="prepare")
        for _ in range(rounds):
            for action, runs in seen.items():
                runs.append(window(action=action).value)
    return {
        "case": Path(case).name,
        "rounds": rounds,
        "alone": {
            action: {key: round(median(run[key] for run in runs), 3) for key in ("seconds", "cpu_seconds")}
            for action, runs in alone.items()
        },
        "window": {
            action: {
                "seconds": round(median(run["seconds"] for run in runs), 3),
                "silence": round(max(run["silence"] for run in runs), 3),
            }
            for action, runs in seen.items()
        },
    }


def describe(result: dict[str, Any]) -> str:
    """Return the section of the page."""
    alone, window = result["alone"], result["window"]
    titles = {"measure": "all measurements", "score": "all scores"}
    rows = [
        [
            title,
            f"{alone[action]['seconds']:.2f}",
            f"{alone[action]['cpu_seconds']:.2f}",
            f"{window[action]['seconds']:.2f}",
            f"{1000 * window[action]['silence']:.0f}",
        ]
        for action, title in titles.items()
    ]
    verdicts = [
        judge(f"all measurements in {MAX_MEASURE_S:g} s", {"alone": alone["measure"]["seconds"] <= MAX_MEASURE_S}),
        judge(f"all scores in {MAX_SCORE_S:g} s", {"alone": alone["score"]["seconds"] <= MAX_SCORE_S}),
        judge(
            f"the window is never silent for over {1000 * MAX_SILENCE_S:g} ms",
            {titles[action]: each["silence"] <= MAX_SILENCE_S for action, each in window.items()},
        ),
    ]
    header = ["", "alone, s", "CPU time, s", "in the window, s", "longest silence, ms"]
    return "\n\n".join(
        [
            "## Sizes and scores of a case",
            make_table(header, rows),
            "\n".join(verdicts),
            f"The labels of {result['case']}, medians of {result['rounds']} runs, longest silence of all. Alone: "
            "regions, lesions, diameters, surfaces and sides of the three regions; all scores of labels that were "
            "moved by a few voxels, lesion by lesion too. In the window reading the labels and drawing the tables "
            "count too.",
        ]
    )


if __name__ == "__main__":
    print(describe(measure("--quick" in sys.argv)))

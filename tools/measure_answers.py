"""Measure how fast the Correct dock answers in a real window, on a case of 240 x 240 x 155 voxels.

The case is the sample case, enlarged. Each figure is of the clock on the wall, from the click until the picture shows
what followed. Meanwhile a timer ticks in the window: its longest pause is how long the window did not listen. Beside it
stands what the processor spent: on a busy machine the clock says more of the others than of this program.

Usage: tools/with_display python tools/measure_answers.py [--strokes 12] [--model NAME]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_braintumor.engine import segment
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import (
    default_placement,
    go_to_section,
    layers_from_case,
    scans_in,
    select_layers,
    update_or_add_labels,
)
from napari_braintumor.widgets.correcting.dock import CorrectDock
from napari_braintumor.widgets.correcting.tissues import STROKES
from napari_braintumor.widgets.shared.dock import open_dock

SHAPE = (155, 240, 240)
TICK_MS = 5
SHIFTS = (4, 8, -4, -8, 2, 6, -2, -6, 3, 0)
"""Where the slider goes, in its steps."""

PEN_VOX = 5
PATIENCE_S = 300.0


class Heartbeat:
    """A timer in the window; its longest pause is how long the window did not listen, and what that cost."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.longest = 0.0
        self.spent = self.busiest = 0.0
        self.timer = QTimer()
        self.timer.setInterval(TICK_MS)
        self.timer.timeout.connect(self.beat)
        self.timer.start()

    def beat(self) -> None:
        """Note how long the pause was."""
        now, spent = time.perf_counter(), time.thread_time()
        self.longest, self.last = max(self.longest, now - self.last), now
        self.busiest, self.spent = max(self.busiest, spent - self.spent), spent

    def reset(self) -> None:
        """Begin anew."""
        self.last, self.longest = time.perf_counter(), 0.0
        self.spent, self.busiest = time.thread_time(), 0.0


@dataclass
class Answer:
    """How long an answer took, in seconds: by the clock, and of the processor; and the window's silence, in both."""

    seconds: float
    spent: float
    silence: float = 0.0
    busiest: float = 0.0

    @classmethod
    def begin(cls, heartbeat: Heartbeat) -> Answer:
        """Begin to measure."""
        heartbeat.reset()
        return cls(-time.perf_counter(), -time.process_time())

    def end(self, heartbeat: Heartbeat) -> None:
        """End it."""
        heartbeat.beat()
        self.seconds += time.perf_counter()
        self.spent += time.process_time()
        self.silence, self.busiest = heartbeat.longest, heartbeat.busiest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--strokes", type=int, default=12)
    options = parser.parse_args()
    volume = enlarge(read_case(find_cases(sample_folder())[0]))
    config = SegmentConfig(model=options.model, device="cpu")
    result = next(event.segmentation for event in segment(volume, config) if isinstance(event, Segmented))
    viewer = napari.Viewer()
    for data, layer_options, _ in layers_from_case(volume):
        viewer.add_image(data, **layer_options)
    scans = {layer.metadata["braintumor"]["modality"]: layer for layer in scans_in(viewer.layers)}
    path = ModelStore().find(options.model).path
    selection = select_layers(scans)
    place = default_placement(volume.source)
    target = update_or_add_labels(viewer, result, place, made_from=selection.made_from, model_path=path)
    dock = open_dock(viewer, CorrectDock)
    heartbeat = Heartbeat()
    wait_for(lambda: False, 2.0)

    heartbeat.reset()
    started = time.perf_counter()
    dock.follower.gather(target)
    wait_for(lambda: dock.follower.features_of(target) is not None and dock.footer.job is None)
    print(
        f"strokes prepared in {time.perf_counter() - started:.1f} s; longest silence {heartbeat.longest * 1000:.0f} ms"
    )

    def idle() -> bool:
        return not dock.edits.busy and not dock.region_tools.waiting

    answers = []
    for shift in SHIFTS:
        answers.append(Answer.begin(heartbeat))
        dock.region_tools.amount_slider.setValue(shift)
        wait_for(idle)
        answers[-1].end(heartbeat)
    report("threshold", answers)

    dock.tissues.choose_way(STROKES)
    scribble = dock.follower.scribble_on(target)
    assert scribble is not None
    scribble.layer.brush_size = PEN_VOX
    edge = np.argwhere(ndimage.binary_dilation(target.data > 0, iterations=4) & ~(target.data > 0))
    answers = []
    for at in np.random.default_rng(0).permutation(edge)[: options.strokes]:
        go_to_section(viewer, target, 0, int(at[0]))
        wait_for(lambda: False, 0.5)
        answers.append(Answer.begin(heartbeat))
        scribble.layer.paint(tuple(int(each) for each in at), 2)
        wait_for(lambda: not dock.follower.busy and scribble.request() is None)
        answers[-1].end(heartbeat)
    report("stroke", answers)
    viewer.close()


def enlarge(volume: Volume) -> Volume:
    """Return a case of 1 mm voxels and the shape of BraTS."""
    factors = [wanted / own for wanted, own in zip(SHAPE, volume.shape, strict=True)]
    data = np.stack([ndimage.zoom(each, factors, order=1) for each in volume.data]).astype(np.float32)
    return replace(volume, data=data, source=default_grid(SHAPE, (1.0, 1.0, 1.0)))


def wait_for(done: Callable[[], bool], at_most_s: float = PATIENCE_S) -> None:
    """Let the window work until something is done, and has been painted."""
    until = time.perf_counter() + at_most_s
    while not done() and time.perf_counter() < until:
        QApplication.processEvents()
        time.sleep(0.001)
    QApplication.processEvents()


def report(name: str, answers: list[Answer]) -> None:
    """Print a line for the clock, and one for the processor."""
    for title, took, silences in (
        ("by the clock", [each.seconds for each in answers], [each.silence for each in answers]),
        ("of the processor", [each.spent for each in answers], [each.busiest for each in answers]),
    ):
        print(
            f"{name}, {title}: median {np.median(took):.2f} s, 95 % {np.percentile(took, 95):.2f} s, n = {len(took)}; "
            f"longest silence of the window {max(silences) * 1000:.0f} ms, median {np.median(silences) * 1000:.0f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""How a training went, as a picture: loss, Dice of each region, learning rate. Drawn without a display."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import find_region
from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.events import BatchDone, EpochDone, Resumed, TrainingEvent

MOST_POINTS = 1000


@dataclass
class Curves:
    """The curves of a training. Steps are counted from 1.

    Attributes
    ----------
    losses, rates
        ``(step, value)`` of batches.
    epoch_losses
        ``(step, mean loss)`` of epochs.
    dice
        For each region ``(step, Dice)`` of epochs.
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    rates: list[tuple[int, float]] = field(default_factory=list)
    epoch_losses: list[tuple[int, float]] = field(default_factory=list)
    dice: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, events: Iterable[TrainingEvent]) -> Curves:
        """Add events; those of steps that a resumed run repeats replace the earlier ones."""
        for event in events:
            if isinstance(event, BatchDone):
                self.losses.append((event.step, event.loss))
                self.rates.append((event.step, event.learning_rate))
            elif isinstance(event, EpochDone):
                step = self.losses[-1][0] if self.losses else event.epoch
                self.epoch_losses.append((step, event.loss))
                for name, value in event.dice.items():
                    self.dice.setdefault(name, []).append((step, value))
            elif isinstance(event, Resumed):
                for points in (self.losses, self.rates, self.epoch_losses, *self.dice.values()):
                    points[:] = [point for point in points if point[0] <= event.step]
        return self


def collect_curves(events: Iterable[TrainingEvent]) -> Curves:
    """Return the curves of a run's events."""
    return Curves().add(events)


def draw_curves(
    curves: Curves, width_px: int, height_px: int, text: str = "#000000", background: str = "#ffffff00"
) -> NDArray[np.uint8]:
    """Draw three panels side by side, or below each other where there is more height than width.

    Parameters
    ----------
    curves
        What to draw.
    width_px, height_px
        Of the picture.
    text, background
        Colors that matplotlib knows.

    Returns
    -------
    ndarray
        uint8 ``(height, width, 4)``, red, green, blue, opacity.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_px / 100, height_px / 100), dpi=100, layout="constrained", facecolor=background)
    canvas = FigureCanvasAgg(figure)
    shape = (1, 3) if width_px > height_px else (3, 1)
    loss, dice, rate = figure.subplots(*shape, squeeze=False).ravel()
    loss.plot(*_points(curves.losses), color="#8888888a", linewidth=0.8)
    loss.plot(*_points(curves.epoch_losses), color="#4c8bf5", linewidth=1.5, marker=".", markersize=3)
    loss.set_title("loss")
    for name, points in curves.dice.items():
        color = find_region(name).color
        dice.plot(*_points(points), label=name, linewidth=1.5, marker=".", markersize=3, color=color)
    dice.set_ylim(0, 1)
    dice.set_title("Dice on validation")
    if curves.dice:
        dice.legend(fontsize=7, frameon=False, labelcolor=text, loc="lower right")
    rate.plot(*_points(curves.rates), color="#d08a2e", linewidth=1.2)
    rate.set_title("learning rate")
    rate.set_xlabel("step", color=text, fontsize=8)
    for axes in (loss, dice, rate):
        axes.set_facecolor("none")
        axes.title.set(color=text, fontsize=9)
        axes.tick_params(colors=text, labelsize=7)
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.grid(color="#88888844", linewidth=0.5)
        for spine in axes.spines.values():
            spine.set_color("#888888")
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba(), np.uint8)  # type: ignore[no-untyped-call]


def save_curves(curves: Curves, path: Path) -> None:
    """Write the picture as PNG.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    from matplotlib.image import imsave

    with replacing(path) as temporary:
        imsave(temporary, draw_curves(curves, 1200, 360, background="#ffffff"), format="png")


def thin(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return points thinned to what a picture can show, the last one among them."""
    every = max(1, len(points) // MOST_POINTS)
    return points[::every] + (points[-1:] if every > 1 else [])


def _points(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Return x and y."""
    thinned = thin(points)
    return [x for x, _ in thinned], [y for _, y in thinned]

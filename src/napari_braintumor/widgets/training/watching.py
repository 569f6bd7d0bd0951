"""What a dock shows of a run, prepared in a worker thread: nothing here may touch Qt."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import LABEL_COLORS
from napari_braintumor.engine.events import PreviewDone, TrainingEvent
from napari_braintumor.engine.training.curves import Curves, thin
from napari_braintumor.engine.training.run_watching import follow
from napari_braintumor.engine.training.runs import Run

REDRAW_S = 1.0
"""Between two looks at a run. Without a graphics card each takes time from the training."""


@dataclass(frozen=True, eq=False)
class Preview:
    """One slice of a case as the network sees it now.

    Attributes
    ----------
    labels
        uint8 ``(Y, X)``.
    picture
        uint8 ``(H, W, 4)``: the reference on the left, the prediction on the right.
    """

    case: str
    z: int
    epoch: int
    labels: NDArray[np.uint8]
    picture: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class RunNews:
    """The changes in a run; curves and preview only if they changed."""

    events: list[TrainingEvent] = field(default_factory=list)
    curves: Curves | None = None
    preview: Preview | None = None


def watch(run: Run, alive: Callable[[], bool]) -> Generator[RunNews, None, None]:
    """Follow a run until it ends.

    Parameters
    ----------
    run
        The run.
    alive
        Whether there is a process to wait for.

    Yields
    ------
    RunNews
        The changes since the last one; empty if there are none.
    """
    curves, told_s = Curves(), 0.0
    new: list[TrainingEvent] = []
    for events in follow(run, alive):
        curves.add(events)
        new += events
        if not new or time.monotonic() - told_s < REDRAW_S:
            yield RunNews()  # so that whoever listens can stop
            continue
        preview = load_preview(run) if any(isinstance(event, PreviewDone) for event in new) else None
        yield RunNews(new, _copy(curves), preview)
        new, told_s = [], time.monotonic()
    yield RunNews(new, _copy(curves), load_preview(run))


def _copy(curves: Curves) -> Curves:
    """Return what can be shown of curves, for another thread."""
    dice = {name: thin(points) for name, points in curves.dice.items()}
    return Curves(thin(curves.losses), thin(curves.rates), thin(curves.epoch_losses), dice)


def load_preview(run: Run) -> Preview | None:
    """Read a run's preview; None where there is none yet."""
    try:
        with np.load(run.preview_path, allow_pickle=False) as stored:
            image, reference, predicted = (stored[name] for name in ("image", "reference", "predicted"))
            case, z, epoch = str(stored["case"]), int(stored["z"]), int(stored["epoch"])
    except (OSError, ValueError, KeyError):
        return None
    low, high = np.percentile(image, (1, 99.5))
    gray = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    sides = [_paint(gray, labels) for labels in (reference, predicted)]
    return Preview(case, z, epoch, predicted, np.concatenate(sides, axis=1))


def _paint(gray_YX: NDArray[np.float32], labels_YX: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend labels in their colors over a gray picture."""
    picture = np.repeat(gray_YX[..., None], 4, axis=-1) * 255
    for label, color in LABEL_COLORS.items():
        inside = labels_YX == label
        tint = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        picture[inside, :3] = 0.45 * picture[inside, :3] + 0.55 * tint
    picture[..., 3] = 255
    return picture.astype(np.uint8)

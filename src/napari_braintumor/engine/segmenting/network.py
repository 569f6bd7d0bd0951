"""A model ready to run: prepared images in, logits of its regions out."""

# N batch, M modality, R region; then the network's spatial axes: two for a slice, three for a window

from __future__ import annotations

import torch
from torch import Tensor

from napari_braintumor.engine.models.axes import order_for_network
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.segmenting.resolve import SegmentTask
from napari_braintumor.engine.segmenting.runtime import (
    FallbackRunner,
    run_with_cpu_fallback,
    start_runner,
    start_with_fallback,
)


class Network:
    """A task's network on its device.

    Parameters
    ----------
    task
        The model, and where it runs.
    sides
        Sides of the slices or windows to come: Y, X or Z, Y, X.

    Attributes
    ----------
    runner
        Runs batches; its notes say what it changed because memory ran out.
    """

    def __init__(self, task: SegmentTask, sides: tuple[int, ...]) -> None:
        shape = (len(task.card.inputs), *order_for_network(sides, task.card))
        self.task = task
        self.runner: FallbackRunner = start_with_fallback(
            lambda: start_runner(task.path, task.sha256, task.runtime, task.device, shape, task.config.precision),
            lambda: start_runner(task.path, task.sha256, "torch", torch.device("cpu"), shape),
            task.config.batch_size,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, R, ...)`` of the card's regions for images ``(N, M, ...)`` in the network's axes.

        With test-time mirroring, the logits are averaged over the images and their left-right mirror images.

        Returns
        -------
        Tensor
            float32 logits ``(N, R, ...)``.
        """
        logits = self._run(images)
        if not self.task.config.test_time_mirroring:
            return logits
        left_right = -1 if self.task.card.axes == "LPS zyx" else -3
        mirrored = self._run(images.flip(left_right)).flip(left_right)
        if mirrored.device != logits.device:  # memory ran out between the two runs
            logits, mirrored = logits.cpu(), mirrored.cpu()
        return (logits + mirrored) / 2

    def _run(self, images: Tensor) -> Tensor:
        return run_with_cpu_fallback(lambda output: to_regions(output, self.task.card), self.runner(images))


def to_regions(output: Tensor, card: ModelCard) -> Tensor:
    """Turn a network's output ``(N, C, ...)`` into the logits ``(N, R, ...)`` of a card's regions."""
    if card.channels is None:
        return output
    if card.activation == "sigmoid":
        return output[:, [channel for (channel,) in card.channels]]
    regions = []
    for inside in card.channels:
        outside = [channel for channel in range(output.shape[1]) if channel not in inside]
        regions.append(output[:, list(inside)].logsumexp(1) - output[:, outside].logsumexp(1))
    return torch.stack(regions, dim=1)

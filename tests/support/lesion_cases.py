"""Made cases for lesion-wise scores: tumors of several lesions, and predictions with all kinds of mistakes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHAPE = (44, 52, 48)


def draw_case(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a prediction and a reference ``(Z, Y, X)`` with the labels of BraTS 2024, on a grid of 1 mm."""
    random = np.random.default_rng(seed)
    reference = np.zeros(SHAPE, np.uint8)
    prediction = np.zeros(SHAPE, np.uint8)
    for _ in range(int(random.integers(1, 6))):
        center = random.uniform(8, 40, 3)
        radius = random.uniform(1.2, 8)
        _paint(reference, center, radius, random)
        if random.random() < 0.8:
            _paint(prediction, center + random.normal(0, 1.5, 3), max(radius + random.normal(0, 1), 0.8), random)
    for _ in range(int(random.integers(0, 4))):
        _paint(prediction, random.uniform(6, 40, 3), random.uniform(0.8, 3), random)
    for _ in range(int(random.integers(0, 6))):
        spot = tuple(int(value) for value in random.integers(4, 40, 3))
        reference[spot] = random.integers(1, 5)
    return prediction, reference


def _paint(labels: NDArray[np.uint8], center: NDArray[np.float64], radius: float, random: np.random.Generator) -> None:
    """Paint edema around a core with a rim that enhances in places, and sometimes a cavity."""
    away = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - center, axis=-1)
    noise = random.random(SHAPE)
    labels[away <= radius] = 2
    labels[away <= 0.75 * radius] = np.where(noise < 0.6, 3, 1)[away <= 0.75 * radius]
    labels[away <= 0.45 * radius] = 4 if random.random() < 0.4 else 1

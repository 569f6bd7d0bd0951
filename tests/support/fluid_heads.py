"""Heads whose fluid, gray and white matter are as bright as in each modality."""

import numpy as np
from numpy.typing import NDArray

SHAPE = (40, 96, 96)
FLUID = {"T1": 30, "T1ce": 35, "T2": 220, "FLAIR": 25}
GRAY = {"T1": 90, "T1ce": 100, "T2": 110, "FLAIR": 120}
WHITE = {"T1": 130, "T1ce": 130, "T2": 80, "FLAIR": 95}


def brain(modality: str, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float32]:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    distance = z**2 + y**2 + x**2
    image = np.where(distance < 0.15, WHITE[modality], GRAY[modality])
    image = np.where((np.abs(x) < 0.12) & (np.abs(y) < 0.35) & (np.abs(z) < 0.35), FLUID[modality], image)
    noise = np.random.default_rng(sum(map(ord, modality))).normal(0, 5, shape)
    return ((image + noise) * (distance < 0.95)).astype(np.float32)

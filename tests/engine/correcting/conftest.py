from collections.abc import Callable

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.correcting.features import CaseFeatures

SHAPE = (12, 32, 32)


def _make_features(
    regions=GLIOMA_REGIONS, step: int = 2, seed: int = 0, adapts: bool = True, second: bool = False
) -> tuple[CaseFeatures, np.ndarray, np.ndarray]:
    """A bright ball of tumor in a head, of which the model found one half; its features, its labels and the truth.

    `second` puts another, which the model missed, into a corner.
    """
    random = np.random.default_rng(seed)
    grid = (SHAPE[0], SHAPE[1] // step, SHAPE[2] // step)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    ball = z**2 + y**2 + x**2 < 0.3
    found = ball & (x < 0)
    if second:
        ball[:, :4, :4] = True
    labels = np.where(found, np.uint8(2), np.uint8(0))
    small = np.s_[:, step // 2 :: step, step // 2 :: step]
    brightness = ball[small].reshape(-1) * 2.0
    values = np.stack([brightness, *random.normal(0, 1, (3, brightness.size))], 1) + random.normal(0, 0.1, (1, 4))
    logits = np.full((brightness.size, len(regions)), -6, np.float32)
    logits[found[small].reshape(-1), 0] = 4
    logits[ball[small].reshape(-1) & ~found[small].reshape(-1), 0] = -2
    features = CaseFeatures(
        regions=tuple(regions),
        shape=SHAPE,
        spacing=(2.0, 1.0, 1.0),
        grid=grid,
        start=(0.0, (step - 1) / 2, (step - 1) / 2),
        step=(1.0, float(step), float(step)),
        places=np.arange(brightness.size),
        logits=logits,
        values=values.astype(np.float16),
        adapts=adapts,
    )
    return features, labels, ball


@pytest.fixture
def half_found() -> Callable[..., tuple[CaseFeatures, np.ndarray, np.ndarray]]:
    """Make a case of which the model found one half."""
    return _make_features

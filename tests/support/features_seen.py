"""What a model would see in a case, without one."""

from __future__ import annotations

import numpy as np

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, region_from_labels
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.volumes import Segmentation


def make_features(segmentation: Segmentation) -> CaseFeatures:
    """What a model would see: sure of its answer, except of a tumor in slice 2 that it did not draw."""
    labels = segmentation.labels
    logits = np.stack(
        [np.where(region_from_labels(labels, region.name), 4.0, -6.0) for region in GLIOMA_REGIONS], -1
    ).astype(np.float32)
    logits[2, :5, :4, 0] = -1.0
    bright = np.zeros(labels.shape)
    bright[:3, :5, :4] = 2.0
    return CaseFeatures(
        regions=GLIOMA_REGIONS,
        shape=labels.shape,
        spacing=segmentation.source.spacing,
        grid=labels.shape,
        start=(0.0, 0.0, 0.0),
        step=(1.0, 1.0, 1.0),
        places=np.arange(labels.size),
        logits=logits.reshape(-1, 3),
        values=bright.reshape(-1, 1).astype(np.float16),
    )

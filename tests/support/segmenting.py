"""A segmentation at once, for tests that do not look at what happens on the way."""

from typing import Any

from napari_braintumor.engine import segment
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume, Segmentation


def result_of(volume: AnyVolume, **settings: Any) -> Segmentation:
    """Segment on the CPU and return the result."""
    *_, last = segment(volume, SegmentConfig(device="cpu", **settings))
    assert isinstance(last, Segmented)
    return last.segmentation

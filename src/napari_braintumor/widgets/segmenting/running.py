"""A run over open layers, in a worker thread."""

from __future__ import annotations

from collections.abc import Generator

from napari_braintumor import engine
from napari_braintumor.engine.events import PhaseReached, Segmented, SegmentEvent
from napari_braintumor.engine.settings import AlignConfig, SegmentConfig
from napari_braintumor.layers import PreparedScans, Selection, stream_selection
from napari_braintumor.widgets.segmenting.alignment import align_if_needed


def segment_selection(
    selection: Selection, config: SegmentConfig, how: AlignConfig | None = None, kept: PreparedScans | None = None
) -> Generator[SegmentEvent | PhaseReached | PreparedScans, None, None]:
    """Read the voxels of layers, bring them onto one grid if need be, and segment them; runs in a worker thread."""
    prepared = yield from align_if_needed(selection, how or AlignConfig(), kept)
    volume = stream_selection(selection) if prepared is None else prepared.volume
    for event in engine.segment(volume, config):
        if isinstance(event, Segmented):
            _ = event.segmentation.tallies  # counted here, so that the window does not wait for it
        yield event

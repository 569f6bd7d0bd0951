"""One slice at a time, as a person looks at it: the case is surveyed once, and the network stays ready."""

# R region; N slice of a batch; Y row, X column

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.preparing.prepare import survey_for
from napari_braintumor.engine.segmenting.cleaning import leave_out, paint_labels
from napari_braintumor.engine.segmenting.network import Network
from napari_braintumor.engine.segmenting.regions import threshold_slices
from napari_braintumor.engine.segmenting.resolve import resolve
from napari_braintumor.engine.segmenting.segment import refine_now
from napari_braintumor.engine.segmenting.slices import predict
from napari_braintumor.engine.segmenting.windows import choose_window
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume


class SlicePreview:
    """A 2-D model that is ready for any slice of a case.

    Parameters
    ----------
    volume
        The case.
    config
        The model and how to run it.

    Raises
    ------
    ModelError
        If the model is a 3-D network, which cannot look at one slice.
    BrainTumorError
        If the volume or the settings do not fit the model.
    """

    def __init__(self, volume: AnyVolume, config: SegmentConfig) -> None:
        task = resolve(volume, config)
        if task.card.spatial_dims == 3:
            raise ModelError(
                f"'{task.card.name}' looks at many slices at once, so it has no preview of one. Choose a 2-D model, or "
                "segment the case."
            )
        self._task = refine_now(task)
        self._survey = survey_for(task.card, self._task.volume, task.divisor)
        self._network = Network(self._task, choose_window(task.card, self._survey.foreground.shape, task.divisor))

    def labels_of(self, z: int) -> NDArray[np.uint8]:
        """Return the labels of a slice along Z, before small components are removed: uint8 ``(Y, X)``."""
        task, survey = self._task, self._survey
        index = z - survey.box[0].start
        if not 0 <= index < len(survey.foreground) or not survey.foreground[index].any():
            return np.zeros(task.volume.shape[1:], np.uint8)
        ((slices, logits_NRyx),) = predict(task, survey, self._network, np.array([index]))
        depth_NYX, _ = threshold_slices(
            survey, slices, logits_NRyx, task.threshold, task.card.regions, task.not_measurable
        )
        leave_out(depth_NYX, task.card, task.not_measurable)
        paint_labels(depth_NYX, task.card)
        plane: NDArray[np.uint8] = depth_NYX[0]
        return plane

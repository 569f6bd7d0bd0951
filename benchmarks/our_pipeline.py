"""A case on disk to labels on disk, by this package: one of the two sides of `case_to_file`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

# `segment` imports its other half when it starts; here that is to count as imports and not as work.
import napari_braintumor.engine.segmenting.segment  # noqa: F401
from measuring import THREADS
from napari_braintumor.engine import segment
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.settings import SegmentConfig

with suppress(ImportError):
    import openvino.frontend.pytorch.ts_decoder  # noqa: F401


class OurPipeline:
    """Find and read a case, segment it, write the labels.

    Parameters
    ----------
    model
        Name of a model in the store.
    cache
        Folder for converted models, empty at first: not the user's, where this model may be already.
    **settings
        More of `SegmentConfig`.
    """

    def __init__(self, model: str, cache: str, **settings: Any) -> None:
        os.environ["BRAINTUMOR_CACHE"] = cache
        torch.set_num_threads(THREADS)
        self.config = SegmentConfig(**{"model": model, "device": "cpu", **settings})

    def __call__(self, case: str, output: str) -> str:
        """Do it once.

        Parameters
        ----------
        case
            The case's folder.
        output
            The file for the labels.

        Returns
        -------
        str
            The runtime that was used.
        """
        (files,) = find_cases(Path(case))
        *_, last = segment(read_case(files), self.config)
        assert isinstance(last, Segmented)
        result = last.segmentation
        write_labels(result.labels, result.source, Path(output))
        return str(result.provenance["runtime"])

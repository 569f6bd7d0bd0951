"""Open a case of a cohort as layers: its scans, and the labels that a model drew or a person corrected."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.formats import check_readable
from napari_braintumor.layers.opening import CaseRead, OpeningEvent, open_case
from napari_braintumor.layers.placement import KEY, placement_beside
from napari_braintumor.layers.reopening import reopen_result


def open_segmented(case: CaseFiles, labels: Path | None) -> Generator[OpeningEvent, None, None]:
    """Open a case with its labels, as they were when they were saved.

    Parameters
    ----------
    case
        Its files.
    labels
        A file that this program wrote, with its record beside it; None opens the scans alone.

    Yields
    ------
    OpeningEvent
        As `open_case`; the last layer of `CaseRead` holds the labels.

    Raises
    ------
    DataError
        If a file cannot be read, or the record of the labels is missing.
    """
    for event in open_case(case):
        if not isinstance(event, CaseRead) or labels is None:
            yield event
            continue
        values, grid = check_readable(labels).read(labels)
        beside = event.layers[0][1]["metadata"][KEY]["beside"] if event.layers else grid
        layer = reopen_result(np.rint(values).astype(np.uint8), placement_beside(grid, beside), labels)
        if layer is None:
            raise DataError(
                f"The record beside '{labels.name}' is missing or does not fit. Segment the case again, or open the "
                "labels alone in napari."
            )
        yield replace(event, layers=(*event.layers, layer))

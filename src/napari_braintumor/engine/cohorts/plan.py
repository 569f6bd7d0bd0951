"""What a cohort's run is to do: its cases, its settings, and where the results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.settings import AlignConfig, Frozen, SegmentConfig

ALL = "all"
"""Write labels on the grid of each scan."""


class CohortConfig(Frozen):
    """All settings that a result depends on. A result is made again only if one of them or its scans have changed."""

    segmentation: SegmentConfig = Field(default_factory=SegmentConfig, description="The model and how to run it.")
    aligning: AlignConfig = Field(
        default_factory=AlignConfig, description="How scans on different grids are brought onto one."
    )
    spacing: tuple[float, float, float] | None = Field(
        None, description="Voxel size in mm along Z, Y, X, if the files state none or a wrong one."
    )
    on: str | None = Field(
        None, description="The modality on whose grid labels are written, or all; None is that of the reference."
    )
    suffix: str | None = Field(None, description="The suffix of label files; None is that of the scans.")
    also: tuple[str, ...] = Field((), description="What is written beside a DICOM segmentation.")
    pictures: bool = Field(True, description="Draw a picture of each case, for the report.")


@dataclass(frozen=True)
class CohortPlan:
    """A cohort's run.

    Attributes
    ----------
    cases
        In the order in which they are done; their names differ.
    output
        The folder of the results.
    config
        What the results depend on.
    bids
        The root of the BIDS dataset that the cases are from, to write its derivatives; None writes ``<case>_tumor``.
    tables
        Also write ``volumes.csv`` and ``report.html``.
    overwrite
        Make results again that are there already, and replace labels that were edited.
    """

    cases: Sequence[CaseFiles]
    output: Path
    config: CohortConfig
    bids: Path | None = None
    tables: bool = True
    overwrite: bool = False

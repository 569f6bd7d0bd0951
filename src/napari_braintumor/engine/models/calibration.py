"""How far what a model promises was off on patients, kept in a small file beside the models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.model_file import read_weights_sha256
from napari_braintumor.engine.models.store import bundled_folder
from napari_braintumor.engine.settings import Frozen

ENDING = ".trust.json"


class RegionCalibration(Frozen):
    """How Dice followed from what a model's probabilities promised of a region; all in logits.

    The logit of Dice is about ``intercept + slope * promised``, and for nine of ten patients within ``reach`` of that.
    """

    intercept: float
    slope: float
    reach: Annotated[float, Field(gt=0)]
    least: float = Field(description="The lowest promise that was seen.")
    most: float = Field(description="The highest promise that was seen.")
    patients: Annotated[int, Field(ge=2)] = Field(description="So many, none of whom the training saw.")


class CalibratedScans(Frozen):
    """The calibration of each region for scans of some kind.

    Attributes
    ----------
    modalities
        The sets of modalities that it was measured with; nothing is claimed with others.
    regions
        By the region's name; nothing is claimed of others.
    """

    modalities: tuple[tuple[str, ...], ...]
    regions: Mapping[str, RegionCalibration]


class Calibration(Frozen):
    """The calibration of a model.

    Attributes
    ----------
    weights_sha256
        Of the weights, as `read_weights_sha256` gives it: the calibration is of these alone.
    scans
        By the kind of scans.
    """

    weights_sha256: str
    scans: tuple[CalibratedScans, ...]

    def of_regions(self, modalities: Iterable[str]) -> Mapping[str, RegionCalibration]:
        """Return the calibration of each region with exactly these modalities; empty if there is none."""
        used = set(modalities)
        fitting = (each for each in self.scans if used in [set(known) for known in each.modalities])
        return next((each.regions for each in fitting), {})


def find_calibration(model: Path) -> Calibration | None:
    """Return the calibration of a model's weights, whatever its file is called; None if there is none.

    Parameters
    ----------
    model
        The model's file. Calibrations lie beside it, or beside the bundled models.

    Returns
    -------
    Calibration or None
        The one that is of these weights.

    Raises
    ------
    ModelError
        If a file is damaged.
    """
    weights = read_weights_sha256(model)
    folders = dict.fromkeys((model.parent, bundled_folder()))
    found = [read_calibration(path) for folder in folders for path in sorted(folder.glob(f"*{ENDING}"))]
    return next((each for each in found if weights and each.weights_sha256 == weights), None)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Returns
    -------
    Calibration
        What the file states.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"'{path.name}' holds no calibration that can be read. It says how far a model's results can be trusted. "
            "Delete the file, or copy it again."
        ) from error

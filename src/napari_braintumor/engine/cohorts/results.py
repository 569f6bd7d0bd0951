"""The result of a case on disk: where it goes, whether it is there already, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.returning import segmentation_on
from napari_braintumor.engine.atomic import fold, list_taken_names
from napari_braintumor.engine.cohorts.bids import describe_sources, find_address, folder_of, name_labels, read_entities
from napari_braintumor.engine.cohorts.plan import ALL, CohortConfig, CohortPlan
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.dicom_export import check_extras
from napari_braintumor.engine.measuring.measurements import measure_regions
from napari_braintumor.engine.measuring.record import Naming, are_intact, number_result, read_written, save_segmentation
from napari_braintumor.engine.volumes import Segmentation, Volume

KEY, OTHERS, MEASURED, ENTITIES = "key", "other_records", "measured", "bids_entities"
"""What a record says besides: what it depends on, results on other grids, and the measurements of whole regions."""

_SCREEN_DPI = 100
_SHOWN = ("FLAIR", "T1ce", "T2", "T1")
"""Which scan is drawn below the labels: the first of these that there is."""


@dataclass(frozen=True)
class Place:
    """Where the result of a case goes.

    Attributes
    ----------
    folder
        Its folder.
    naming
        The name of its files by number; see `save_segmentation`.
    more
        What its record says besides.
    entities
        Those of BIDS; None for results that are not named so.
    """

    folder: Path
    naming: Naming
    more: Mapping[str, Any] = field(default_factory=dict)
    entities: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Result:
    """The result of a case: its record, and what it says."""

    record: Path
    content: Mapping[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written with the record, the labels first."""
        written = self.content["written"]["files"] if "written" in self.content else [self.content["labels_file"]]
        return tuple(self.record.with_name(name) for name in written)

    @property
    def picture(self) -> Path | None:
        """The picture of the case, if one was drawn."""
        return next((path for path in self.files if path.suffix == ".png"), None)


def read_result(record: Path) -> Result:
    """Read a result that is there.

    Parameters
    ----------
    record
        Its JSON file.

    Returns
    -------
    Result
        The result; its other files are not looked at.

    Raises
    ------
    DataError
        If the record is gone or damaged.
    """
    try:
        content = json.loads(record.read_bytes())
        result = Result(record, content)
        _ = result.files
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"The record '{record}' is gone or damaged. Segment the case again.") from error
    return result


def check_plan(plan: CohortPlan) -> None:
    """Check what is to be written.

    Raises
    ------
    SettingsError
        If what is asked for beside labels cannot be written, or labels of BIDS are asked for in another format than
        NIfTI.
    """
    suffix = plan.config.suffix
    check_extras(plan.config.also, suffix or "")
    if plan.bids is not None and suffix not in (None, ".nii", ".nii.gz"):
        raise SettingsError(
            f"Labels of a BIDS dataset are NIfTI, so they cannot be written as '{suffix}'. Leave the format out, or "
            "choose the plain layout."
        )


def find_place(case: CaseFiles, plan: CohortPlan) -> Place:
    """Return where a case's result goes: beside the others, or in BIDS in the folder of its subject and session.

    Returns
    -------
    Place
        Cases of a BIDS dataset whose scans are not named as BIDS says go beside the dataset's description.

    """
    entities = read_entities(case) if plan.bids is not None else None
    if plan.bids is None or entities is None:
        return Place(plan.output, partial(number_result, case.name))
    more = {**describe_sources(case, plan.bids), ENTITIES: entities}
    return Place(plan.output / folder_of(entities), partial(name_labels, entities), more, entities)


def find_result(place: Place, key: str) -> Result | None:
    """Return the result of these scans, model and settings, if it is there with all its files as they were written."""
    taken = list_taken_names(place.folder)
    for number in count(1):
        name = place.naming(number)
        if not any(other.startswith(fold(f"{name}.")) for other in taken):
            return None  # labels without a record may stand before it
        record = place.folder / f"{name}.json"
        try:
            content = json.loads(record.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get(KEY) == key and all(map(_is_whole, _records_of(record, content))):
            return Result(record, content)
    return None


def save_result(
    case: CaseFiles, volume: Volume, segmentation: Segmentation, key: str, plan: CohortPlan, workplace: Path
) -> Result:
    """Measure a result and write it: labels, record and picture, on the grids that were asked for.

    Parameters
    ----------
    case, volume, segmentation
        The case, and what was found in it.
    key
        From `find_key`.
    plan
        What is written, and where.
    workplace
        A folder on the same file system, for what is unfinished.

    Returns
    -------
    Result
        That on the grid of the reference, or the one that was asked for.

    Raises
    ------
    BrainTumorError
        As `save_segmentation` and `segmentation_on`.
    """
    place, config = find_place(case, plan), plan.config
    suffix = config.suffix or (".nii.gz" if place.entities is not None else None)
    save = partial(save_segmentation, suffix=suffix, overwrite=plan.overwrite, also=config.also, workplace=workplace)
    main, others = _place_on_grids(segmentation, config)
    records = []
    for modality, placed in others.items():  # before the main one, whose record says that all is done
        naming: Naming = partial(number_result, placed.name)
        if place.entities is not None:
            naming = partial(name_labels, place.entities, space=modality)
        more = {**place.more, **_find_reference(placed, plan), KEY: key}
        _, record = save(placed, place.folder, more=more, naming=naming)
        records.append(record.name)
    more = {**place.more, **_find_reference(main, plan), KEY: key, OTHERS: records, MEASURED: measure(main)}
    draw = partial(_draw, volume, segmentation) if config.pictures else None
    _, record = save(main, place.folder, picture=draw, more=more, naming=place.naming)
    return Result(record, json.loads(record.read_bytes()))


def _find_reference(placed: Segmentation, plan: CohortPlan) -> dict[str, str]:
    """Return what a sidecar of BIDS says of the scan whose grid labels lie on."""
    if plan.bids is None or placed.source.path is None:
        return {}
    address = find_address(placed.source.path, plan.bids)
    return {"SpatialReference": address} if address else {}


def measure(segmentation: Segmentation) -> dict[str, dict[str, Any]]:
    """Measure the regions of a result, see `measure_masks`."""
    regions = {name: segmentation.mask_of(name) for name in segmentation.regions if name in segmentation.volumes_ml}
    return measure_masks(regions, segmentation.source)


def measure_masks(regions: Mapping[str, NDArray[np.bool_]], grid: SourceGrid) -> dict[str, dict[str, Any]]:
    """Measure regions ``(Z, Y, X)``, each as a whole; the values of `MEASUREMENTS` by name, for a record."""
    return {
        row.region: {name: _round(value) for name, value in row.values.items()}
        for row in measure_regions(regions, grid)
        if not row.lesion
    }


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value if isinstance(value, str) else int(value)


def _place_on_grids(result: Segmentation, config: CohortConfig) -> tuple[Segmentation, dict[str, Segmentation]]:
    """Return a result on the grid that was asked for, and on those of other modalities, by these."""
    if config.on is None or (result.alignment is None and config.on == ALL):
        return result, {}
    if config.on != ALL:
        return segmentation_on(result, config.on), {}
    assert result.alignment is not None
    others = [modality for modality in result.alignment.scans if modality != result.alignment.reference]
    return result, {each: replace(segmentation_on(result, each), name=f"{result.name}_on_{each}") for each in others}


def _draw(volume: Volume, result: Segmentation, path: Path) -> None:
    from napari_braintumor.engine.measuring.plate import save_plate  # matplotlib takes long to import

    modality = next((each for each in _SHOWN if each in volume.modalities), volume.modalities[0])
    scan = volume.data[volume.modalities.index(modality)]
    labels = np.asarray(result.labels)
    save_plate(scan, labels, result.source, result.label_names, result.label_colors, path, modality, _SCREEN_DPI)


def _records_of(record: Path, content: Mapping[str, Any]) -> list[Path]:
    return [record, *(record.with_name(name) for name in content.get(OTHERS, ()))]


def _is_whole(record: Path) -> bool:
    files, _ = read_written(record)
    return bool(files) and are_intact(record, files)

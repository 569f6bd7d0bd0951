"""What is kept of a segmentation on disk: the labels on the source's own grid, and a JSON record beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.labels import label_suffix, write_labels
from napari_braintumor.engine.types import Segmentation


def describe_segmentation(segmentation: Segmentation) -> dict[str, Any]:
    """Return a segmentation's record: what was measured, by which model, from which file; JSON values only."""
    source = segmentation.source
    return {
        "case": segmentation.name,
        "volumes_ml": {name: round(ml, 3) for name, ml in segmentation.volumes_ml.items()},
        "labels": {str(label): name for label, name in segmentation.label_names.items()},
        "source": str(source.path) if source.path else None,
        "spacing_zyx_mm": [round(side, 6) for side in source.spacing],
        "spacing_known": source.spacing_known,
        **segmentation.provenance,
    }


def save_segmentation(segmentation: Segmentation, folder: Path, suffix: str | None = None) -> tuple[Path, Path]:
    """Write a segmentation's labels and record as ``<case>_tumor.nii.gz`` and ``<case>_tumor.json``.

    Parameters
    ----------
    segmentation
        What to write.
    folder
        Made if it is not there.
    suffix
        ``.nii``, ``.nii.gz``, ``.tif`` or ``.tiff``; left out, the source's own kind.

    Returns
    -------
    labels, record
        The two files.

    Raises
    ------
    DataError
        If the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The folder '{folder}' cannot be written to: {error.strerror}. Choose another folder."
        ) from error
    stem = folder / f"{segmentation.name}_tumor"
    labels = write_labels(
        segmentation.labels,
        segmentation.source,
        stem.with_name(stem.name + (suffix or label_suffix(segmentation.source))),
    )
    record = stem.with_name(stem.name + ".json")
    with replacing(record) as temporary:
        temporary.write_text(json.dumps(describe_segmentation(segmentation), indent=1) + "\n", encoding="utf-8")
    return labels, record

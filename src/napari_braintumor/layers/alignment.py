"""Scans that were brought onto one grid: kept for the next run, and looked at in turn or in fields of one picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.aligning import describe_alignment
from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.settings import AlignConfig
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers.display import find_contrast_limits
from napari_braintumor.layers.placement import KEY, Placement
from napari_braintumor.layers.selection import Selection

CHECK = "alignment check"
"""The role of a layer that is there only while somebody looks at it."""

FIELD_MM = 24.0
"""The side of a field of the checkerboard: small enough to have several on a head, large enough to follow an edge."""


@dataclass(frozen=True, eq=False)
class PreparedScans:
    """The scans of a selection on one grid, kept so that another model need not wait for them again.

    Attributes
    ----------
    selection
        The layers that they were made from.
    config
        How.
    volume
        The result.
    """

    selection: Selection
    config: AlignConfig
    volume: Volume

    def serve(self, selection: Selection, config: AlignConfig) -> PreparedScans | None:
        """Return the scans of a selection, if all of them are here: some may have been left out since."""
        before, wanted = self.selection, tuple(selection.arrays)
        same = all(
            modality in self.volume.modalities
            and before.arrays[modality][0] is data
            and before.arrays[modality][1].grid is place.grid
            and np.array_equal(before.arrays[modality][1].matrix, place.matrix)
            for modality, (data, place) in selection.arrays.items()
        )
        if not same or config != self.config or selection.reference != before.reference:
            return None
        volume, alignment = self.volume, self.volume.alignment
        if wanted == volume.modalities or alignment is None:
            return PreparedScans(selection, config, volume)
        kept = Alignment(alignment.reference, {modality: alignment.scans[modality] for modality in wanted})
        gone = set(describe_alignment(alignment)) - set(describe_alignment(kept))
        notes = tuple(note for note in volume.notes if note not in gone)
        return PreparedScans(selection, config, replace(volume.with_modalities(wanted), notes=notes, alignment=kept))


def make_check_layer(image_ZYX: NDArray[np.float32], place: Placement, name: str, case: str) -> Image:
    """Make the layer in which an alignment is looked at; it covers what lies below it.

    Parameters
    ----------
    image_ZYX
        What to show, from 0 to 1.
    place
        The placement of the reference.
    name, case
        The layer's name, and the case that it belongs to.

    Returns
    -------
    Image
        The layer, not yet in a viewer.
    """
    metadata: dict[str, Any] = place.remember(case=case, role=CHECK)
    return Image(
        place.to_layer(image_ZYX), **place.options, name=name, colormap="gray", contrast_limits=(0, 1),
        blending="opaque", metadata=metadata,
    )  # fmt: skip


def is_check(layer: Any) -> bool:
    """Whether a layer is there only to look at an alignment."""
    return bool(layer.metadata.get(KEY, {}).get("role") == CHECK)


def even_out(image_ZYX: NDArray[Any]) -> NDArray[np.float32]:
    """Return an image with the brightness that scans are shown with, from 0 to 1, so that two can be compared."""
    low, high = find_contrast_limits(image_ZYX)
    evened: NDArray[np.float32] = np.clip((np.asarray(image_ZYX, np.float32) - low) / (high - low), 0, 1)
    return evened


def make_checkerboard(
    one_ZYX: NDArray[np.float32], two_ZYX: NDArray[np.float32], spacing: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Return fields of two images in turn, squares within each slice.

    Parameters
    ----------
    one_ZYX, two_ZYX
        The images, on one grid.
    spacing
        Its voxel size in mm along Z, Y, X.

    Returns
    -------
    ndarray
        float32 ``(Z, Y, X)``.
    """
    rows, columns = (
        (np.arange(size) * side // FIELD_MM).astype(int)
        for size, side in zip(one_ZYX.shape[1:], spacing[1:], strict=True)
    )
    of_one = (rows[:, None] + columns) % 2 == 0
    return np.where(of_one, one_ZYX, two_ZYX)

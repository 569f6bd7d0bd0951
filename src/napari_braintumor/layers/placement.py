"""Where a layer's voxels lie, and on which grid of a file.

A layer's array is either in our own order (Z, Y, X), as in layers from this plugin's readers, or in another order,
which its scale, translate and affine describe. A `Placement` stores the difference, so that labels get exactly the
position of the image, whichever plugin opened it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine

KEY = "braintumor"
"""The key of this plugin's values in a layer's ``metadata``."""

AXES = ("z", "y", "x")
# A displayed (z, y, x) is (superior, posterior, left).
_WORLD_TO_RAS = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], float)
# The only orientation for which napari-nifti (up to 0.0.20) shows the axes superior, anterior, right as intended.
_SAR_ORDER = "RAS+"


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a layer's voxels lie, stored separately from the layer, which may be deleted while a model runs.

    Attributes
    ----------
    grid
        The grid of the layer's file if known, otherwise the grid of the layer's array as displayed.
    in_source_order
        True if the layer's array has the axes of `grid`; False if it was reordered to (Z, Y, X).
    options
        scale, translate, rotate, shear, affine, units and axis labels, as `Layer` takes them.
    matrix
        ``(4, 4)``, index of the layer's array to napari's world.
    """

    grid: SourceGrid
    in_source_order: bool
    options: Mapping[str, Any]
    matrix: NDArray[np.float64]

    def to_layer(self, array_ZYX: NDArray[Any]) -> NDArray[Any]:
        """Reorder an array with axes (Z, Y, X) to the order of the layer's array."""
        return self.grid.to_source(array_ZYX) if self.in_source_order else array_ZYX

    def from_layer(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reorder an array in the layer's order to axes (Z, Y, X)."""
        return self.grid.from_source(array) if self.in_source_order else array

    def remember(self, **more: Any) -> dict[str, Any]:
        """Return layer metadata that `find_placement` recognizes the layer by."""
        known = {"source": self.grid, "in_source_order": self.in_source_order, "matrix": self.matrix}
        return {KEY: {**more, **known}}


_SAME_MM = 1e-3
"""Scans lie at the same place if their affines differ by less."""

_SCANS: WeakSet[Placement] = WeakSet()


def note_scan(place: Placement) -> Placement:
    """Note where a scan is shown, as long as its layer exists, so that labels drawn on it find its grid."""
    _SCANS.add(place)
    return place


def known_scans() -> list[Placement]:
    """Return where the scans of this plugin are shown."""
    return list(_SCANS)


def default_placement(grid: SourceGrid) -> Placement:
    """Return where this plugin shows a case: reordered to (Z, Y, X), in mm, in scanner coordinates.

    If the voxel size is not known, the units stay pixels. Oblique grids are shown unrotated; the grid keeps the angle.

    Returns
    -------
    Placement
        The grid and what a layer is given.
    """
    matrix = np.diag([*grid.spacing, 1.0])
    matrix[:3, 3] = grid.origin
    unit = "mm" if grid.spacing_known else "pixel"
    options = {"scale": grid.spacing, "translate": grid.origin, "units": (unit,) * 3, "axis_labels": AXES}
    return Placement(grid, False, options, matrix)


def placement_among_shown(grid: SourceGrid) -> Placement:
    """Return where a file is shown that is opened by itself: over the open scan whose voxels it shares.

    That scan may be shown beside another one, see `placement_beside`, and labels on its grid must not lie elsewhere.

    Returns
    -------
    Placement
        The grid and what a layer is given; as `default_placement` if no such scan is open.
    """
    place = default_placement(grid)
    alike = [
        scan
        for scan in known_scans()
        if scan.grid.shape == grid.shape
        and not scan.in_source_order
        and np.allclose(scan.grid.affine, grid.affine, atol=_SAME_MM)
    ]
    if not alike or any(not np.allclose(scan.matrix, alike[0].matrix, atol=_SAME_MM) for scan in alike):
        return place
    return Placement(grid, False, {**place.options, "translate": alike[0].options["translate"]}, alike[0].matrix)


def placement_beside(grid: SourceGrid, other: SourceGrid) -> Placement:
    """Return where a scan is shown beside another one of its case, which lies as in `default_placement`.

    The middle of the scan is shown at its true place. napari shows no turned grids, so a scan that is tilted against
    the other one is shown without that tilt; one that is tilted like it lies right everywhere.

    Parameters
    ----------
    grid
        The scan's own grid.
    other
        The grid that is shown along its own axes.

    Returns
    -------
    Placement
        The grid and what a layer is given.
    """
    place = default_placement(grid)
    if grid is other or not (
        grid.orientation_known and other.orientation_known and grid.spacing_known and other.spacing_known
    ):
        return place
    middle = np.array([*((size - 1) / 2 for size in grid.shape_ZYX), 1.0])
    there = np.linalg.solve(other.affine_ZYX, grid.affine_ZYX @ middle)
    shown = default_placement(other).matrix @ there - place.matrix @ middle
    translate = tuple(float(each) for each in np.add(place.options["translate"], shown[:3]))
    matrix = place.matrix.copy()
    matrix[:3, 3] = translate
    return Placement(grid, False, {**place.options, "translate": translate}, matrix)


def source_of(layer: Layer) -> SourceGrid:
    """Return the grid for writing a three-dimensional layer's voxels; see `find_placement`."""
    return find_placement(layer).grid


def find_placement(layer: Layer) -> Placement:
    """Find where a three-dimensional layer lies.

    A layer of this plugin that was not reshaped or moved has the grid of its file. A layer of the napari-nifti plugin
    has the affine of its header. Any other layer is taken as displayed: the slider runs to superior, down the screen is
    posterior, and right is the patient's left; lengths are in the layer's units, with pixels as mm.

    Returns
    -------
    Placement
        The grid, the layer's order of axes and its place in the viewer.

    Raises
    ------
    DataError
        If napari-nifti shows the axes of the file in a different order than it states.
    """
    options = {
        "scale": tuple(layer.scale),
        "translate": tuple(layer.translate),
        "rotate": np.array(layer.rotate),
        "shear": np.array(layer.shear),
        "affine": np.array(layer.affine.affine_matrix),
        "units": tuple(str(unit) for unit in layer.units),
        "axis_labels": tuple(layer.axis_labels),
    }
    matrix = world_matrix(layer)
    known = layer.metadata.get(KEY, {})
    source = known.get("source")
    if isinstance(source, SourceGrid) and np.allclose(matrix, known["matrix"], atol=1e-6):
        shape = source.shape if known["in_source_order"] else tuple(source.shape[axis] for axis in source.axes)
        if shape == layer.data.shape:
            return Placement(source, known["in_source_order"], options, matrix)
    path = Path(layer.source.path) if layer.source.path else None
    shape = tuple(np.shape(level_0(layer)))
    if "coordinate_system" in layer.metadata:
        affine = _affine_of_napari_nifti(layer)
        return Placement(grid_from_affine(shape, affine, path=path), True, options, matrix)  # type: ignore[arg-type]
    in_mm = [_millimeters(unit) for unit in layer.units]
    spacing_known = any(size is not None for size in in_mm) or not np.allclose(np.abs(layer.scale), 1)
    affine = np.eye(4)
    affine[:3] = _WORLD_TO_RAS @ np.diag([size or 1.0 for size in in_mm]) @ matrix[:3]
    grid = grid_from_affine(shape, affine, path=path, spacing_known=spacing_known)  # type: ignore[arg-type]
    return Placement(grid, True, options, matrix)


def has_own_grid(layer: Layer, place: Placement) -> bool:
    """Whether a layer's grid comes from its own file or scan, and not only from what is displayed."""
    return place.grid is layer.metadata.get(KEY, {}).get("source") or "coordinate_system" in layer.metadata


def is_taken_as_shown(layer: Layer) -> bool:
    """Whether only the display gives a scan's orientation, so that the slider is assumed to run to superior."""
    return np.ndim(level_0(layer)) == 3 and not has_own_grid(layer, find_placement(layer))


def display_affine(place: Placement) -> NDArray[np.float64]:
    """Return the affine from an index of a layer's array to the displayed position in RAS mm."""
    affine = np.eye(4)
    affine[:3] = _WORLD_TO_RAS @ place.matrix[:3]
    return affine


def unwrap_layer(layer: Any) -> Any:
    """Return a layer without the temporary wrapper in which napari passes it to plugins."""
    return getattr(layer, "__wrapped__", layer)


def set_spacing(layer: Layer, spacing: tuple[float, float, float]) -> None:
    """Give a three-dimensional layer the voxel size entered by the user, for display, measurements and writing.

    Parameters
    ----------
    layer
        The layer.
    spacing
        mm along Z, Y, X.

    Raises
    ------
    SettingsError
        If no scan of a head can have such voxels.
    """
    place = find_placement(layer)
    grid = place.grid.with_spacing(spacing)
    known = layer.metadata.get(KEY, {})
    if place.in_source_order:
        scale = np.sign(layer.scale)
        for size, axis in zip(spacing, grid.axes, strict=True):
            scale[axis] *= size
        layer.scale = scale
        shown = Placement(grid, True, {}, world_matrix(layer))
    else:
        shown = default_placement(grid)
        layer.scale, layer.translate = shown.options["scale"], shown.options["translate"]
    if "source" in known:
        layer.metadata = {**layer.metadata, **shown.remember(**known)}
    layer.units = ("mm",) * 3  # last, so that listeners find everything updated


def check_three_dimensional(layer: Layer) -> None:
    """Raise an error if a layer does not have three dimensions."""
    shape = tuple(np.shape(level_0(layer)))
    if len(shape) != 3:
        how = "Open the whole scan." if len(shape) < 3 else "Right-click the layer and choose Split Stack."
        raise DataError(f"Layer '{layer.name}' {shape} has {len(shape)} dimensions. Expected (Z, Y, X). {how}")


def _affine_of_napari_nifti(layer: Layer) -> NDArray[np.float64]:
    """Return the affine of the array that napari-nifti shows; its metadata has that of the transposed array."""
    order = layer.metadata["coordinate_system"]
    if order != _SAR_ORDER:
        raise DataError(
            f"Layer '{layer.name}' was opened by napari-nifti, which shows scans stored along {order} in "
            "a different order than it states. Expected superior, anterior, right. "
            "Open the file with Brain Tumor instead."
        )
    affine = np.array(layer.metadata["affine"], np.float64)[:, [2, 1, 0, 3]]
    # A voxel size that the user corrected in the layer takes precedence.
    affine[:3, :3] *= np.abs(layer.scale) / np.linalg.norm(affine[:3, :3], axis=0)
    return affine


def world_matrix(layer: Layer) -> NDArray[np.float64]:
    """Return the ``(4, 4)`` matrix from an index of a layer's array to napari's world."""
    matrix = np.eye(4)
    matrix[:3, 3] = layer.data_to_world((0, 0, 0))
    for axis in range(3):
        matrix[:3, axis] = layer.data_to_world(np.eye(3)[axis]) - matrix[:3, 3]
    return matrix


def _millimeters(unit: Any) -> float | None:
    """Return a unit in mm, or None if it is not a length."""
    if not unit.is_compatible_with("millimeter"):
        return None
    return float((1 * unit).to("millimeter").magnitude)


def level_0(layer: Layer) -> Any:
    """Return a layer's array, at full resolution."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data

"""napari layers <-> `Volume` and `Segmentation`: the only file that knows both worlds. No Qt.

A layer's array is either in our own order (Z, Y, X), as this plugin's readers leave it, or in an order of its own,
which its scale, translate and affine describe. A `Placement` holds the difference, so that labels come back to exactly
where the image lies, whichever plugin opened it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_braintumor.engine.assemble import volume_from_modalities
from napari_braintumor.engine.card import GLIOMA_REGIONS
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.labels import guess_convention, label_values, reference_from_values
from napari_braintumor.engine.files.naming import find_modality
from napari_braintumor.engine.inspection import Inspection, inspect_images
from napari_braintumor.engine.types import (
    LABELS,
    MODALITIES,
    REGION_LABELS,
    AnyVolume,
    Comparison,
    Reference,
    Segmentation,
    SourceGrid,
    StreamedVolume,
    Volume,
    grid_from_affine,
    region_from_labels,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

LayerData = tuple[Any, dict[str, Any], str]
"""What napari's readers return: data, arguments of the layer, kind of layer."""

KEY = "braintumor"
"""Where a layer's ``metadata`` keeps what this plugin knows of it."""

AXES = ("z", "y", "x")
_DISPUTED_COLORS = ("#38bdf8", "#a855f7", "#ec4899", "#ffffff")
_SHOWN_FIRST = ("FLAIR", "T1ce", "T2", "T1")
# A displayed (z, y, x) is (superior, posterior, left).
_WORLD_TO_RAS = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], float)
# The only orientation of which napari-nifti (up to 0.0.20) shows the axes superior, anterior, right as it means to.
_SAR_ORDER = "RAS+"


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a layer's voxels lie, kept apart from the layer, which may be deleted while a model runs.

    Attributes
    ----------
    grid
        The grid of the layer's file where that is known, otherwise that of the layer's array as displayed.
    in_source_order
        True if the layer's array has the axes of `grid`; False if it has been reordered to (Z, Y, X).
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
        """Give an array with axes (Z, Y, X) the order of the layer's array."""
        return self.grid.to_source(array_ZYX) if self.in_source_order else array_ZYX

    def from_layer(self, array: NDArray[Any]) -> NDArray[Any]:
        """Give an array like the layer's the axes (Z, Y, X)."""
        return self.grid.from_source(array) if self.in_source_order else array

    def remember(self, **more: Any) -> dict[str, Any]:
        """Return layer metadata by which `find_placement` knows the layer again."""
        known = {"source": self.grid, "in_source_order": self.in_source_order, "matrix": self.matrix}
        return {KEY: {**more, **known}}


@dataclass(frozen=True, eq=False)
class Selection:
    """Layers that make a case: checked for fitting each other, their voxels not read yet.

    Attributes
    ----------
    arrays
        For each modality the layer's array, NumPy or lazy, and how to bring it to (Z, Y, X).
    placement
        That of the first layer; labels made from the case go there.
    name
        The case's name.
    shape
        Voxels along Z, Y, X.
    """

    arrays: Mapping[str, tuple[Any, Placement]]
    placement: Placement
    name: str
    shape: tuple[int, int, int]


# ------------------------------------------------------------------------------------------------------ to layers


def layers_from_case(volume: Volume, reference: Reference | None = None) -> list[LayerData]:
    """Make an image layer of each modality, and a hidden label layer of the reference.

    Parameters
    ----------
    volume
        A case. The layers share its memory.
    reference
        The mask drawn by people, on the same grid.
    """
    place = default_placement(volume.source)
    shown = next((m for m in _SHOWN_FIRST if m in volume.modalities), volume.modalities[0])
    layers = [
        image_layer(channel, place, f"{modality} [{volume.name}]", volume.name, modality, visible=modality == shown)
        for modality, channel in zip(volume.modalities, volume.data, strict=True)
    ]
    if reference is not None:
        names = _reference_names(tuple(reference.regions))
        colors = {region.label: region.color for region in GLIOMA_REGIONS}
        layers.append(
            label_layer(
                reference.labels, place, f"Reference [{volume.name}]", names, colors,
                case=volume.name, role="reference", visible=False,
            )
        )  # fmt: skip
    return layers


def image_layer(
    array_ZYX: NDArray[Any],
    place: Placement,
    name: str,
    case: str,
    modality: str | None = None,
    visible: bool = True,
) -> LayerData:
    """Make an image layer of a scan with axes (Z, Y, X)."""
    low, high = _contrast_limits(array_ZYX)
    options = {
        **place.options,
        "name": name,
        "colormap": "gray",
        "contrast_limits": (low, high),
        "visible": visible,
        "metadata": place.remember(case=case, modality=modality),
    }
    return array_ZYX, options, "image"


def label_layer(
    array: NDArray[Any],
    place: Placement,
    name: str,
    names: Mapping[int, str],
    colors: Mapping[int, str],
    *,
    case: str,
    role: str,
    visible: bool = True,
    **more: Any,
) -> LayerData:
    """Make a label layer that knows what its labels are called and how many milliliters each has.

    Parameters
    ----------
    array
        In the order of the layer's own array.
    place
        Where it goes.
    name
        Of the layer.
    names, colors
        For each label; the background and all other labels are transparent.
    case
        Whose labels they are.
    role
        ``tumor`` for results of a model, ``reference`` for masks drawn by people.
    visible
        Whether it is shown.
    **more
        Kept in the layer's metadata.
    """
    counts = dict.fromkeys(names, 0)
    for index in range(array.shape[0]):  # one at a time: some arrays are larger than memory
        if (plane := np.asarray(array[index])).any():
            for label in counts:
                counts[label] += int(np.count_nonzero(plane == label))
    voxel_ml = place.grid.voxel_ml
    options = {
        **place.options,
        "name": name,
        "colormap": make_colormap({label: colors[label] for label in names}),
        "features": {  # napari's status bar shows the row whose index is the label under the mouse
            "index": [0, *sorted(names)],
            "name": ["background", *(names[label] for label in sorted(names))],
            "mL": [np.nan, *(round(counts[label] * voxel_ml, 2) for label in sorted(names))],
        },
        "opacity": 0.6,
        "visible": visible,
        "metadata": place.remember(case=case, role=role, **more),
    }
    return array, options, "labels"


def make_colormap(colors: Mapping[int, str], region: str | None = None) -> DirectLabelColormap:
    """Color labels each by its own color or, for a region, all that belong to it by the region's color.

    Parameters
    ----------
    colors
        ``#rrggbb`` for each label; the background and all other labels are transparent.
    region
        A key of `REGION_LABELS`; labels outside it are transparent.
    """
    of_region = {r.name: r.color for r in GLIOMA_REGIONS}
    palette: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    for label, color in colors.items():
        if region is None:
            palette[label] = color
        elif label in REGION_LABELS.get(region, ()):
            palette[label] = of_region.get(region, color)
    return DirectLabelColormap(color_dict=palette)


def labels_from_segmentation(
    segmentation: Segmentation, place: Placement | None = None, by: str | None = None
) -> LayerData:
    """Make the label layer of a result.

    Parameters
    ----------
    segmentation
        The result. The layer gets its own copy of the labels, to be corrected with the brush; labels of a streamed
        volume are shared with it.
    place
        Of the image layer that the result was made from; left out, where this plugin's readers put the case.
    by
        The model, where there are layers of several.
    """
    place = place or default_placement(segmentation.source)
    labels = place.to_layer(segmentation.labels)
    more: dict[str, Any] = {} if by is None else {"by": by}
    return label_layer(
        np.array(labels, order="C") if isinstance(labels, np.ndarray) else labels,
        place,
        f"Tumor [{segmentation.name}]" if by is None else f"Tumor [{segmentation.name}] by {by}",
        segmentation.label_names,
        segmentation.label_colors,
        case=segmentation.name,
        role="tumor",
        **more,
        volumes_ml=dict(segmentation.volumes_ml),
        provenance=dict(segmentation.provenance),
    )


def update_or_add_labels(
    viewer: ViewerModel, segmentation: Segmentation, place: Placement, by: str | None = None
) -> Labels:
    """Show a result: in the layer of the case's last result if that is still there, else in a new one.

    What the layer held before comes back with napari's undo (Ctrl+Z), unless the labels are a zarr array.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    segmentation
        The result.
    place
        Of the image layer that it was made from.
    by
        The model, where several are compared: each has a layer of its own.
    """
    data, options, _ = labels_from_segmentation(segmentation, place, by)
    layer = _find_result(viewer, Labels, segmentation.name, "tumor", data.shape, place, by)
    if layer is None:
        return viewer.add_labels(data, **options)
    # What was reviewed were the labels before.
    layer.colormap, layer.metadata = options["colormap"], {**layer.metadata, **options["metadata"]}
    if isinstance(layer.data, np.ndarray) and isinstance(data, np.ndarray):
        changed = np.nonzero(layer.data != data)
        if changed[0].size:
            layer.data_setitem(changed, data[changed])
    else:
        layer.data = data
    layer.features = options["features"]
    return layer


def update_or_add_probabilities(viewer: ViewerModel, segmentation: Segmentation, place: Placement) -> list[Image]:
    """Show the probability of each region as a hidden image layer, where the result has them."""
    layers: list[Image] = []
    if segmentation.probabilities is None:
        return layers
    for region, array_ZYX in zip(segmentation.regions, segmentation.probabilities, strict=True):
        role = f"probability of {region}"
        data = place.to_layer(array_ZYX).astype(np.float32)  # graphics cards have no use for float16
        layer = _find_result(viewer, Image, segmentation.name, role, data.shape, place)
        if layer is not None:
            layer.data = data
        else:
            layer = viewer.add_image(
                data,
                **place.options,
                name=f"{role.capitalize()} [{segmentation.name}]",
                colormap="magma",
                blending="additive",
                contrast_limits=(0, 1),
                visible=False,
                metadata=place.remember(case=segmentation.name, role=role),
            )
        layers.append(layer)
    return layers


def update_or_add_disagreement(viewer: ViewerModel, comparison: Comparison, place: Placement) -> Labels:
    """Show where models disagree: each label tells how many of them do not go with the majority.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    comparison
        Of models on one case.
    place
        Of the image layer that their results were made from.
    """
    many = len(comparison.models)
    names = {n: f"{n} of {many} models {'differs' if n == 1 else 'differ'}" for n in range(1, many // 2 + 1)}
    colors = {n: _DISPUTED_COLORS[min(n, len(_DISPUTED_COLORS)) - 1] for n in names}
    array, case = place.to_layer(comparison.disagreement), comparison.name
    data, options, _ = label_layer(
        array, place, f"Disagreement [{case}]", names, colors, case=case, role="disagreement"
    )
    layer = _find_result(viewer, Labels, case, "disagreement", data.shape, place)
    if layer is None:
        return viewer.add_labels(data, **options)
    layer.data = data
    layer.colormap, layer.features = options["colormap"], options["features"]
    return layer


def default_placement(grid: SourceGrid) -> Placement:
    """Return where this plugin shows a case: reordered to (Z, Y, X), in mm, on the scanner's coordinates.

    Without a known voxel size the units stay pixels. Oblique grids are shown unrotated; the grid keeps the angle.
    """
    matrix = np.diag([*grid.spacing, 1.0])
    matrix[:3, 3] = grid.origin
    unit = "mm" if grid.spacing_known else "pixel"
    options = {"scale": grid.spacing, "translate": grid.origin, "units": (unit,) * 3, "axis_labels": AXES}
    return Placement(grid, False, options, matrix)


def _find_result(
    viewer: Any, kind: Any, case: str, role: str, shape: tuple[int, ...], place: Placement, by: str | None = None
) -> Any:
    """Find the layer of an earlier result of the same case in the same place."""
    for layer in viewer.layers:
        known = layer.metadata.get(KEY, {})
        alike = isinstance(layer, kind) and tuple(map(known.get, ("case", "role", "by"))) == (case, role, by)
        if alike and layer.data.shape == shape and np.allclose(_world_matrix(layer), place.matrix):
            return layer
    return None


def _reference_names(regions: tuple[str, ...]) -> dict[int, str]:
    """Name the labels that regions are painted with: edema is edema only where the core inside is known too."""
    names = {}
    for region, label, inner in (("whole tumor", 2, "tumor core"), ("tumor core", 1, "enhancing tumor")):
        if region in regions:
            names[label] = LABELS[label] if inner in regions else region
    return {**names, 3: LABELS[3]} if "enhancing tumor" in regions else names


def _contrast_limits(array_ZYX: NDArray[Any]) -> tuple[float, float]:
    """Return a gray range that shows the brain: percentiles over what is not background, from a part of the voxels."""
    some = np.asarray(array_ZYX[::2, ::3, ::3], np.float32)
    inside = some[some > some.min()]
    if not inside.size:
        return float(some.min()), float(some.min()) + 1
    low = float(some.min())
    return low, max(float(np.percentile(inside, 99.8)), low + 1e-6)


# ---------------------------------------------------------------------------------------------------- from layers


def modality_of(layer: Layer) -> str | None:
    """Tell a layer's modality from what its reader noted, else from its name, else from its file's name."""
    known = layer.metadata.get(KEY, {}).get("modality")
    if known:
        return str(known)
    path = layer.source.path
    return find_modality(layer.name) or (find_modality(Path(path).name) if path else None)


def scans_in(layers: Iterable[Layer]) -> list[Image]:
    """Return the layers that may be scans: images that this plugin did not make from a result."""
    return [
        layer
        for layer in layers
        if isinstance(layer, Image) and not layer.metadata.get(KEY, {}).get("role") and not layer.rgb
    ]


def match_modalities(layers: Iterable[Layer], anchor: Layer | None = None) -> dict[str, Image]:
    """Find the layers of one case by their metadata and names.

    Parameters
    ----------
    layers
        In the viewer's order.
    anchor
        A layer of the case that is meant; left out, the case of the topmost scan of known modality.

    Returns
    -------
    dict
        For each modality its layer, in the order of `MODALITIES`. Where two layers would do, the upper one.
    """
    scans = [(layer, modality_of(layer)) for layer in scans_in(layers)]
    named = [layer for layer, modality in scans if modality]
    if anchor is None or anchor not in named:
        anchor = named[-1] if named else None
    if anchor is None:
        return {}
    found = {
        modality: layer
        for layer, modality in scans
        if modality and layer.data.shape == anchor.data.shape and _case_of(layer) == _case_of(anchor)
    }
    found[modality_of(anchor) or ""] = anchor
    order = (*MODALITIES, *sorted(set(found) - set(MODALITIES)))
    return {modality: found[modality] for modality in order if modality in found}


def scan_beside(layers: Iterable[Layer], layer: Layer | None) -> Layer | None:
    """Return the topmost scan of the case that a layer belongs to: the layer itself if it is a scan."""
    scans = scans_in(layers)
    if layer is None or layer in scans:
        return layer
    case = _case_of(layer)
    return next((scan for scan in reversed(scans) if case and _case_of(scan) == case), None)


def select_layers(layers: Mapping[str, Layer]) -> Selection:
    """Check that layers make a case, without reading their voxels.

    Parameters
    ----------
    layers
        For each modality its image layer.

    Raises
    ------
    DataError
        If there is none, one is no three-dimensional gray image, one was chosen twice, or they differ in shape, voxel
        size or place.
    """
    if not layers:
        raise DataError("No image is chosen. At least one modality is needed. Open a scan and choose its layer.")
    chosen: dict[str, tuple[Any, Placement]] = {}
    names: dict[str, str] = {}
    for modality, layer in layers.items():
        twin = next((other for other in names if layers[other] == layer), None)
        if twin:
            raise DataError(
                f"Layer '{layer.name}' is chosen as {twin} and as {modality}. A layer is one modality. "
                "Set one of the two to none."
            )
        chosen[modality], names[modality] = (_level_0(layer), _find_scan_placement(layer)), layer.name
    first = next(iter(chosen))
    place = chosen[first][1]
    for other in list(chosen)[1:]:
        _check_fit(place, chosen[other][1], names[first], names[other])
    shape = tuple(place.grid.shape[axis] for axis in place.grid.axes)
    return Selection(chosen, place, _case_name(list(layers.values())), shape)  # type: ignore[arg-type]


def inspect_selection(selection: Selection) -> Inspection | None:
    """Take a quick look at the images of a selection; None where a layer is lazy and looking would take long."""
    if not all(isinstance(data, np.ndarray) for data, _ in selection.arrays.values()):
        return None
    return inspect_images({modality: place.from_layer(data) for modality, (data, place) in selection.arrays.items()})


def stream_selection(selection: Selection) -> AnyVolume:
    """Return a selection as a case to segment: layers that are not in memory are read while it is used.

    Raises
    ------
    DataError
        As `volume_from_selection`, for layers in memory; for others if two modalities hold the same image.
    """
    if all(_is_in_memory(data) for data, _ in selection.arrays.values()):
        return volume_from_selection(selection)
    images = [place.from_layer(_make_lazy(data)) for data, place in selection.arrays.values()]
    together = max(max(getattr(image, "chunks", ((1,),))[0]) for image in images)
    names = tuple(selection.arrays)
    middle = {name: np.asarray(image[len(image) // 2]) for name, image in zip(names, images, strict=True)}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if np.ptp(middle[first]) and np.array_equal(middle[first], middle[second]):
                raise _same_image(first, second)
    return StreamedVolume(tuple(images), names, selection.placement.grid, selection.name, together)


def volume_from_selection(selection: Selection) -> Volume:
    """Read the voxels of a selection; may take seconds where layers are lazy, so do it in a worker.

    Raises
    ------
    DataError
        If an image holds NaN, infinity or nothing but one value, or two modalities hold the same image.
    """
    arrays = {modality: place.from_layer(np.asarray(data)) for modality, (data, place) in selection.arrays.items()}
    volume = volume_from_modalities(arrays, selection.placement.grid, selection.name)
    for i, first in enumerate(volume.modalities):
        for j in range(i + 1, len(volume.modalities)):
            if np.array_equal(volume.data[i], volume.data[j]):
                raise _same_image(first, volume.modalities[j])
    return volume


def _same_image(first: str, second: str) -> DataError:
    return DataError(
        f"{first} and {second} hold the same image. Each modality must be a scan of its own. "
        "Set the one that is missing to none."
    )


def _is_in_memory(data: Any) -> bool:
    return isinstance(data, np.ndarray) and not isinstance(data, np.memmap)


def _make_lazy(data: Any) -> Any:
    """Return an array whose axes can be reordered without reading it: one of dask, if it is not one of NumPy."""
    if isinstance(data, np.ndarray):
        return data
    import dask.array

    if isinstance(data, dask.array.Array):
        return data
    return dask.array.from_array(data, chunks=getattr(data, "chunks", None) or "auto")


def volume_from_layers(layers: Mapping[str, Layer]) -> Volume:
    """Make a volume of image layers, whichever plugin opened them.

    Parameters
    ----------
    layers
        For each modality its image layer. The first gives the grid.

    Raises
    ------
    DataError
        As `select_layers` and `volume_from_selection`.
    """
    return volume_from_selection(select_layers(layers))


def labels_from_layer(layer: Labels) -> tuple[NDArray[np.integer[Any]], SourceGrid]:
    """Return a label layer's array with axes (Z, Y, X), and the grid to write it on.

    Raises
    ------
    DataError
        If the layer is not three-dimensional.
    """
    _check_three_dimensional(layer)
    place = find_placement(layer)
    return place.from_layer(np.asarray(_level_0(layer))), place.grid


def source_of(layer: Layer) -> SourceGrid:
    """Return the grid on which a three-dimensional layer's voxels are to be written; see `find_placement`."""
    return find_placement(layer).grid


def find_placement(layer: Layer) -> Placement:
    """Find where a three-dimensional layer lies.

    A layer of this plugin that was neither reshaped nor moved keeps the grid of its file. A layer of the napari-nifti
    plugin keeps its header's affine. Any other is taken as displayed: down the slider is superior, down the screen
    posterior, to the right the patient's left; lengths in the layer's units, pixels being mm.

    Raises
    ------
    DataError
        If napari-nifti shows the axes of the file in another order than it says.
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
    matrix = _world_matrix(layer)
    known = layer.metadata.get(KEY, {})
    source = known.get("source")
    if isinstance(source, SourceGrid) and np.allclose(matrix, known["matrix"], atol=1e-6):
        shape = source.shape if known["in_source_order"] else tuple(source.shape[axis] for axis in source.axes)
        if shape == layer.data.shape:
            return Placement(source, known["in_source_order"], options, matrix)
    path = Path(layer.source.path) if layer.source.path else None
    shape = tuple(np.shape(_level_0(layer)))
    if "coordinate_system" in layer.metadata:
        affine = _affine_of_napari_nifti(layer)
        return Placement(grid_from_affine(shape, affine, path=path), True, options, matrix)  # type: ignore[arg-type]
    in_mm = [_millimeters(unit) for unit in layer.units]
    spacing_known = any(size is not None for size in in_mm) or not np.allclose(layer.scale, 1)
    affine = np.eye(4)
    affine[:3] = _WORLD_TO_RAS @ np.diag([size or 1.0 for size in in_mm]) @ matrix[:3]
    grid = grid_from_affine(shape, affine, path=path, spacing_known=spacing_known)  # type: ignore[arg-type]
    return Placement(grid, True, options, matrix)


def _find_scan_placement(layer: Layer) -> Placement:
    """Return where a scan lies, refusing layers that are none."""
    if not isinstance(layer, Image):
        raise DataError(f"Layer '{layer.name}' is no image layer. A scan is needed. Choose an image layer.")
    if layer.rgb:
        raise DataError(
            f"Layer '{layer.name}' is a color picture. A gray scan is needed. "
            "Right-click the layer and choose Split RGB."
        )
    _check_three_dimensional(layer)
    return find_placement(layer)


def _check_three_dimensional(layer: Layer) -> None:
    shape = tuple(np.shape(_level_0(layer)))
    if len(shape) != 3:
        how = "Open the whole scan." if len(shape) < 3 else "Right-click the layer and choose Split Stack."
        raise DataError(f"Layer '{layer.name}' {shape} has {len(shape)} dimensions. Expected were (Z, Y, X). {how}")


def _check_fit(one: Placement, two: Placement, first: str, second: str) -> None:
    """Refuse two layers whose voxels do not lie in the same places, compared in (Z, Y, X)."""
    shapes = [tuple(place.grid.shape[axis] for axis in place.grid.axes) for place in (one, two)]
    remedy = "The modalities of a case must share one grid."
    if shapes[0] != shapes[1]:
        raise DataError(
            f"Layers '{first}' {shapes[0]} and '{second}' {shapes[1]} differ in shape. {remedy} "
            f"Resample '{second}' to '{first}' first."
        )
    if not np.allclose(one.grid.spacing, two.grid.spacing, rtol=1e-3):
        sizes = [" x ".join(f"{side:.4g}" for side in place.grid.spacing) for place in (one, two)]
        raise DataError(
            f"Layers '{first}' ({sizes[0]} mm) and '{second}' ({sizes[1]} mm) differ in voxel size. {remedy} "
            f"Correct the layers' scale, or resample '{second}' to '{first}' first."
        )
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shapes[0]))])
    apart = corners @ (_affine_ZYX(one.grid) - _affine_ZYX(two.grid)).T
    apart_mm = float(np.linalg.norm(apart[:, :3], axis=1).max())
    if apart_mm > 0.1 * min(one.grid.spacing):
        raise DataError(
            f"Layers '{first}' and '{second}' lie up to {apart_mm:.3g} mm apart. {remedy} "
            f"Register and resample '{second}' to '{first}' first, or correct the layers' translate."
        )


def _affine_ZYX(grid: SourceGrid) -> NDArray[np.float64]:
    """Return the affine from our own index (z, y, x) to RAS mm."""
    reorder = np.zeros((4, 4))
    reorder[3, 3] = 1
    for ours, (axis, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        reorder[axis, ours] = -1 if flip else 1
        reorder[axis, 3] = grid.shape[axis] - 1 if flip else 0
    return grid.affine @ reorder


def _affine_of_napari_nifti(layer: Layer) -> NDArray[np.float64]:
    """Return the affine of the array that napari-nifti shows; the one in its metadata is that of the transpose."""
    order = layer.metadata["coordinate_system"]
    if order != _SAR_ORDER:
        raise DataError(
            f"Layer '{layer.name}' was opened by napari-nifti, which shows scans stored along {order} in "
            "another order than it says. Expected were superior, anterior, right. "
            "Open the file with Brain Tumor instead."
        )
    affine = np.array(layer.metadata["affine"], np.float64)[:, [2, 1, 0, 3]]
    # A voxel size that the user has corrected in the layer is meant.
    affine[:3, :3] *= np.abs(layer.scale) / np.linalg.norm(affine[:3, :3], axis=0)
    return affine


def _world_matrix(layer: Layer) -> NDArray[np.float64]:
    """Return the ``(4, 4)`` matrix from an index of a layer's array to napari's world."""
    matrix = np.eye(4)
    matrix[:3, 3] = layer.data_to_world((0, 0, 0))
    for axis in range(3):
        matrix[:3, axis] = layer.data_to_world(np.eye(3)[axis]) - matrix[:3, 3]
    return matrix


def _millimeters(unit: Any) -> float | None:
    """Return a unit in mm, or None if it is no length."""
    if not unit.is_compatible_with("millimeter"):
        return None
    return float((1 * unit).to("millimeter").magnitude)


def _level_0(layer: Layer) -> Any:
    """Return a layer's array, at full resolution."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def _case_of(layer: Layer) -> str | None:
    """Return the case that a layer was opened from, None where another plugin opened it."""
    case: str | None = layer.metadata.get(KEY, {}).get("case")
    return case


def _case_name(layers: list[Layer]) -> str:
    """Name a case by what its layers' readers noted, else by what the layers' names share."""
    case = _case_of(layers[0])
    if case:
        return case
    names = [str(layer.name) for layer in layers]
    same = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), 0)
    shared = names[0][:same].strip(" _-.[(")
    return shared if len(shared) > 2 else names[0]


# --------------------------------------------------------------------------------------------- to learn from layers


def masks_in(layers: Iterable[Layer]) -> list[Labels]:
    """Return the label layers that may serve as a mask: not the preview of a training, nor where models disagree."""
    return [
        layer
        for layer in layers
        if isinstance(layer, Labels) and layer.metadata.get(KEY, {}).get("role") not in ("preview", "disagreement")
    ]


def find_reference(layers: Iterable[Layer], case: str) -> Labels | None:
    """Return the topmost mask drawn by people that was opened with a case."""
    of_case = {"case": case, "role": "reference"}.items()
    found = [layer for layer in masks_in(layers) if of_case <= _known_words(layer).items()]
    return found[-1] if found else None


def reference_from_labels(
    labels_ZYX: NDArray[np.integer[Any]], names: Mapping[int, str], source: SourceGrid
) -> Reference:
    """Read the labels of a layer as regions that models can be held against.

    Parameters
    ----------
    labels_ZYX
        As `labels_for` returns them.
    names
        What the layer calls its labels, as `label_names` returns them. A layer of this plugin has its own numbers. Of
        any other the numbers tell the convention; a single number stands for the whole tumor.
    source
        The grid of the scans.

    Raises
    ------
    DataError
        If the labels fit no convention.
    """
    if names:
        known = [r for r, label in (("whole tumor", 2), ("tumor core", 1), ("enhancing tumor", 3)) if label in names]
        return Reference({region: region_from_labels(labels_ZYX, region) for region in known}, "brats2023", source)
    values = label_values(labels_ZYX, source)
    convention = guess_convention(values) or ("whole" if len(set(values) - {0}) == 1 else None)
    if convention is None:
        raise DataError(
            f"The reference holds the values {', '.join(map(str, values))}, which may mean different things. Expected "
            "were 1 necrotic / non-enhancing core, 2 edema, 3 enhancing tumor, or one value for the whole tumor. "
            "Choose another layer."
        )
    return reference_from_values(labels_ZYX, convention, source)


def label_names(layer: Labels) -> dict[int, str]:
    """Return what a label layer of this plugin calls its labels; nothing for a layer of another origin."""
    if not layer.metadata.get(KEY, {}).get("role") or "name" not in layer.features:
        return {}
    table = layer.features
    return {int(n): str(name) for n, name in zip(table["index"], table["name"], strict=True) if n}


def _known_words(layer: Layer) -> dict[str, str]:
    """Return what this plugin noted of a layer, as far as it is text."""
    return {name: value for name, value in layer.metadata.get(KEY, {}).items() if isinstance(value, str)}


def labels_for(selection: Selection, layer: Labels) -> NDArray[np.integer[Any]]:
    """Return a label layer's array with axes (Z, Y, X), checked to lie where the scans lie.

    Raises
    ------
    DataError
        If it is no three-dimensional layer, or lies elsewhere or has another shape: then it belongs to another scan.
    """
    _check_three_dimensional(layer)
    place = find_placement(layer)
    shape = tuple(place.grid.shape[axis] for axis in place.grid.axes)
    # A layer that was drawn on a scan lies where napari shows the scan, whatever either knows of its file.
    here, there = (np.asarray(each.matrix) for each in (selection.placement, place))
    if shape != selection.shape or (layer.data.ndim == 3 and not np.allclose(here, there, atol=1e-3)):
        raise DataError(
            f"Labels '{layer.name}' {shape} do not lie on the scans {selection.shape}: they belong to another image. "
            "Choose the labels that were drawn on these scans."
        )
    return selection.placement.from_layer(np.asarray(_level_0(layer)))


def reviewed_slices(layer: Labels) -> tuple[int, ...]:
    """Return the slices along Z, from inferior, that the user marked as reviewed."""
    return tuple(layer.metadata.get(KEY, {}).get("reviewed", ()))


def mark_reviewed(layer: Labels, z: int, reviewed: bool = True) -> None:
    """Mark a slice along Z as looked through by a person, or take the mark back."""
    marks = set(reviewed_slices(layer)) - {z} | ({z} if reviewed else set())
    layer.metadata = {**layer.metadata, KEY: {**layer.metadata.get(KEY, {}), "reviewed": tuple(sorted(marks))}}


def slice_at(layer: Layer, point: Iterable[float]) -> int | None:
    """Return which slice of a layer, along Z from inferior, a point of the world lies in; None outside of it.

    Raises
    ------
    DataError
        If the layer is not three-dimensional.
    """
    _check_three_dimensional(layer)
    place = find_placement(layer)
    index = np.asarray(layer.world_to_data(tuple(point)[-3:]), float)
    axis = place.grid.axes[0] if place.in_source_order else 0
    size = layer.data.shape[axis]
    at = round(float(index[axis]))
    if not 0 <= at < size:
        return None
    return size - 1 - at if place.in_source_order and place.grid.flips[0] else at


def update_or_add_preview(viewer: ViewerModel, case: str, z: int, labels_YX: NDArray[np.uint8]) -> Labels | None:
    """Show what a network in training predicts in one slice of a case, where its scans are open.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    case
        The case's name.
    z
        The slice, from inferior.
    labels_YX
        With the numbers of `LABELS`.

    Returns
    -------
    Labels or None
        The layer; None where no scan of that case and size is open.
    """
    for scan in scans_in(viewer.layers):
        if np.ndim(_level_0(scan)) != 3 or case not in (_case_of(scan), _case_name([scan])):
            continue
        place = find_placement(scan)
        shape = tuple(place.grid.shape[axis] for axis in place.grid.axes)
        if shape[1:] != labels_YX.shape or not 0 <= z < shape[0]:
            continue
        array_ZYX = np.zeros(shape, np.uint8)
        array_ZYX[z] = labels_YX
        data = place.to_layer(array_ZYX)
        layer = _find_result(viewer, Labels, case, "preview", data.shape, place)
        if layer is not None:
            layer.data = data
            return layer
        colors = {region.label: region.color for region in GLIOMA_REGIONS}
        made, options, _ = label_layer(data, place, f"Preview [{case}]", LABELS, colors, case=case, role="preview")
        return viewer.add_labels(made, **options)
    return None

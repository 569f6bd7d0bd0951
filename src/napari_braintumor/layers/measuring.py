"""Label layers to be measured, and layers that show measurements: diameters, differences, changes between visits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Shapes
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.anatomy import LABEL_COLORS, OWN_CONVENTION, REGIONS, name_labels
from napari_braintumor.engine.files.calling import natural_sort_key
from napari_braintumor.engine.files.owners import find_patient
from napari_braintumor.engine.measuring.measurements import Measured
from napari_braintumor.engine.measuring.visits import CHANGE_COLORS, CHANGES, VisitComparison, find_named_day
from napari_braintumor.engine.volumes import Reference
from napari_braintumor.layers.cases import cases_in, find_case, match_modalities
from napari_braintumor.layers.display import make_label_layer, make_own_label_layer
from napari_braintumor.layers.figures import figures_of, is_result
from napari_braintumor.layers.masks import label_names, reference_from_labels
from napari_braintumor.layers.orientation import go_to_section
from napari_braintumor.layers.placement import KEY, Placement, check_three_dimensional, find_placement, level_0
from napari_braintumor.layers.selection import case_of

RIGHT, FALSE, MISSED = 1, 2, 3
DIFFERENCES: Mapping[int, str] = {RIGHT: "in both", FALSE: "false: not in the reference", MISSED: "missed"}
"""What the numbers of a layer of differences mean."""

_DIFFERENCE_COLORS: Mapping[int, str] = {RIGHT: "#9aa0a6", FALSE: "#e4572e", MISSED: "#4aa3df"}
_LINE_COLORS = ("#ffffff", "#ffe14d")


@dataclass(frozen=True, eq=False)
class DrawnLabels:
    """The labels of a layer, to be read in a worker thread.

    Attributes
    ----------
    name
        The layer's name.
    case
        The case it belongs to, or its own name.
    array
        The layer's array.
    place
        Where it lies.
    names, colors
        The name and the color of each label; none for layers of other origin.
    convention
        What the numbers mean, for those; None if that follows from them.
    without
        Regions that the scans could not show.
    record
        Of a result, with what a person changed; empty for other labels.
    scans
        The array and the place of each scan of its case that is open, by modality.
    """

    name: str
    case: str
    array: Any
    place: Placement
    names: Mapping[int, str]
    colors: Mapping[int, str]
    convention: str | None = None
    without: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    scans: Mapping[str, tuple[Any, Placement]] = field(default_factory=dict)

    def read(self) -> Reference:
        """Read the labels as regions, as they are now; see `reference_from_labels` for the errors."""
        labels = np.array(self.place.from_layer(np.asarray(self.array)))
        read = reference_from_labels(labels, self.names, self.place.grid, self.convention)
        drawn = {name: mask for name, mask in read.regions.items() if name not in self.without or mask.any()}
        return Reference(drawn, read.convention, read.source, read.notes)

    def read_scans(self) -> dict[str, Scan]:
        """Read the scans of the case, by modality."""
        return {
            modality: Scan(np.asarray(place.from_layer(np.asarray(array)), np.float32), place.grid, modality)
            for modality, (array, place) in self.scans.items()
        }


def drawn_labels_of(layer: Labels, layers: Iterable[Layer], convention: str | None = None) -> DrawnLabels:
    """Return what is needed to measure a label layer, without reading its voxels.

    Parameters
    ----------
    layer
        The labels.
    layers
        All open layers, for the scans of its case.
    convention
        What the numbers mean in a layer that does not name them, a key of `CONVENTIONS`.

    Returns
    -------
    DrawnLabels
        The layer's array and where it lies, and its scans.

    Raises
    ------
    DataError
        If the layer is not three-dimensional.
    """
    check_three_dimensional(layer)
    names = label_names(layer)
    without: tuple[str, ...] = ()
    record: Mapping[str, Any] = {}
    colors = {label: LABEL_COLORS[label] for label in name_labels(region.name for region in REGIONS)}
    if is_result(layer):
        figures = figures_of(layer)
        answer = figures.answer
        assert answer is not None
        names, colors, record = figures.label_names, figures.label_colors, figures.describe()
        without = tuple(answer.not_measurable)
    found = scans_of(layers, layer)
    scans = {name: (level_0(scan), find_placement(scan)) for name, scan in found.items()}
    return DrawnLabels(
        str(layer.name),
        case_of(layer) or str(layer.name),
        level_0(layer),
        find_placement(layer),
        names,
        colors,
        None if names else layer.metadata.get(KEY, {}).get("convention", convention),
        without,
        record,
        scans,
    )


def scans_of(layers: Iterable[Layer], layer: Labels) -> dict[str, Image]:
    """Return the open scans that labels belong to, by modality.

    Returns
    -------
    dict
        Empty if the labels are of a case whose scans are not open. Labels that know no case belong to the topmost one.
    """
    layers = list(layers)
    if case_of(layer) and find_case(cases_in(layers), layer) is None:
        return {}
    return match_modalities(layers, layer)


def find_earlier(layer: Labels, others: Sequence[Labels]) -> Labels | None:
    """Find the labels of the last visit of the same patient before that of a layer.

    Visits are recognized by the names of their cases, which differ only in the time.

    Returns
    -------
    Labels or None
        One of the other layers; None if none is of an earlier visit.
    """
    case = case_of(layer)
    if case is None:
        return None
    known = [(other, case_of(other)) for other in others]
    same = [(other, name) for other, name in known if name and name != case and _patient_of(name) == _patient_of(case)]
    before = [(_order(name), index) for index, (_, name) in enumerate(same) if _order(name) < _order(case)]
    return same[max(before)[1]][0] if before else None


def _patient_of(case: str) -> str:
    if match := re.fullmatch(r"(?i)(BraTSReg_\d+)_\d\d_\d{4}", case):
        return match[1]
    return find_patient(case)


def _order(case: str) -> tuple[int, list[tuple[int, str]]]:
    return find_named_day(case) or 0, natural_sort_key(case)


def index_in_layer(place: Placement, point_ZYX: Sequence[float]) -> NDArray[np.float64]:
    """Return the index in a layer's array of a point that is given by index (z, y, x), fractions included."""
    if not place.in_source_order:
        return np.asarray(point_ZYX, np.float64)
    index = np.zeros(3)
    for value, axis, flip in zip(point_ZYX, place.grid.axes, place.grid.flips, strict=True):
        index[axis] = place.grid.shape[axis] - 1 - value if flip else value
    return index


def go_to_slice(viewer: Any, layer: Layer, z: int) -> None:
    """Move the slider to an axial slice of a layer, counted from inferior."""
    place = find_placement(layer)
    axis = place.grid.axes[0] if place.in_source_order else 0
    go_to_section(viewer, layer, axis, round(float(index_in_layer(place, (z, 0, 0))[axis])))


def update_or_add_diameters(viewer: ViewerModel, layer: Labels, rows: Iterable[Measured]) -> Shapes | None:
    """Draw the diameters of lesions as lines, each in its slice: the longest white, that across it yellow.

    Returns
    -------
    Shapes or None
        The layer, updated or new; None if there is nothing to draw.
    """
    drawn = list(rows)
    several = {row.region for row in drawn if row.lesion}
    place = find_placement(layer)
    lines, colors = [], []
    for row in drawn:
        if row.diameters is None or (not row.lesion and row.region in several):
            continue  # the region's diameters are those of one of its lesions
        for ends, color in zip((row.diameters.longest_ends, row.diameters.across_ends), _LINE_COLORS, strict=True):
            lines.append(np.array([index_in_layer(place, end) for end in ends]))
            colors.append(color)
    old = _find(viewer, Shapes, layer, "diameters")
    if old is not None:
        viewer.layers.remove(old)
    if not lines:
        return None
    selected = viewer.layers.selection.active
    made = viewer.add_shapes(
        lines,
        shape_type="line",
        edge_color=colors,
        edge_width=1,
        name=f"Diameters [{layer.name}]",
        **place.options,  # another scale would change the steps of the sliders
        metadata={KEY: {"role": "diameters", "of": layer.name}},
    )
    viewer.layers.selection.active = selected
    return made


def remove_diameters(viewer: ViewerModel, layer: Labels) -> None:
    """Remove the drawn diameters of a layer, if there are any."""
    if (old := _find(viewer, Shapes, layer, "diameters")) is not None:
        viewer.layers.remove(old)


def update_or_add_differences(viewer: ViewerModel, layer: Labels, differences_ZYX: NDArray[np.uint8]) -> Labels:
    """Show where labels and a reference differ, by the numbers of `DIFFERENCES`; the layer is updated or new."""
    return _update_or_add(viewer, layer, differences_ZYX, "differences", DIFFERENCES, _DIFFERENCE_COLORS)


def update_or_add_changes(viewer: ViewerModel, layer: Labels, comparison: VisitComparison) -> Labels:
    """Show what has changed since an earlier visit, on the labels of that visit; the layer is updated or new."""
    return _update_or_add(viewer, layer, comparison.changes, "changes", CHANGES, CHANGE_COLORS)


def add_converted(viewer: ViewerModel, layer: Labels, values_ZYX: NDArray[np.uint8], convention: str) -> Labels:
    """Add labels in the numbers of another convention as a new layer, which knows its convention.

    Returns
    -------
    Labels
        Named after the layer and the convention, so that a file that is saved under its name says so too.
    """
    place, selected = find_placement(layer), viewer.layers.selection.active
    name, case = f"{layer.name} {convention}", case_of(layer) or ""
    if convention == OWN_CONVENTION:
        array, options, _ = make_own_label_layer(place.to_layer(values_ZYX), place, name, case=case, role="reference")
    else:
        metadata = place.remember(convention=convention, **({"case": case} if case else {}))
        array, options = (
            place.to_layer(values_ZYX),
            {**place.options, "name": name, "opacity": 0.6, "metadata": metadata},
        )
    made: Labels = viewer.add_labels(array, **options)
    viewer.layers.selection.active = selected
    return made


def find_differences(viewer: ViewerModel, layer: Labels) -> Labels | None:
    """Return the layer that shows where labels and a reference differ; None if there is none."""
    found: Labels | None = _find(viewer, Labels, layer, "differences")
    return found


def find_changes(viewer: ViewerModel, layer: Labels) -> Labels | None:
    """Return the layer that shows what has changed since the visit of a label layer; None if there is none."""
    found: Labels | None = _find(viewer, Labels, layer, "changes")
    return found


def _update_or_add(
    viewer: ViewerModel,
    layer: Labels,
    array_ZYX: NDArray[np.uint8],
    role: str,
    names: Mapping[int, str],
    colors: Mapping[int, str],
) -> Labels:
    place = find_placement(layer)
    data, options, _ = make_label_layer(
        place.to_layer(array_ZYX),
        place,
        f"{role.capitalize()} [{layer.name}]",
        names,
        colors,
        case=case_of(layer) or str(layer.name),
        role=role,
        of=layer.name,
    )
    old = _find(viewer, Labels, layer, role)
    if old is not None and old.data.shape == data.shape:
        old.data, old.features = data, options["features"]
        return old
    selected = viewer.layers.selection.active
    made: Labels = viewer.add_labels(data, **options)
    viewer.layers.selection.active = selected
    return made


def _find(viewer: ViewerModel, kind: type[Any], layer: Layer, role: str) -> Any:
    for each in viewer.layers:
        known = each.metadata.get(KEY, {})
        if isinstance(each, kind) and known.get("role") == role and known.get("of") == layer.name:
            return each
    return None

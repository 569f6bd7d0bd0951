"""Compare models on the open case: which case, which reference, and the result."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray
from qtpy.QtWidgets import QGroupBox, QLabel, QVBoxLayout

from napari_braintumor import engine
from napari_braintumor.engine.errors import BrainTumorError, DataError, SettingsError
from napari_braintumor.engine.events import CompareEvent, ModelSegmented, PhaseReached
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume, Comparison, Volume
from napari_braintumor.layers import (
    Selection,
    align_selection,
    find_reference,
    find_scan_of,
    kept_slices,
    label_names,
    labels_for,
    masks_in,
    match_modalities,
    reference_from_labels,
    select_layers,
    stream_selection,
    update_or_add_disagreement,
    update_or_add_labels,
)
from napari_braintumor.widgets.models.compare import ComparisonTable
from napari_braintumor.widgets.shared.meaning_box import MeaningBox
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import LayerSlot, make_line, name_widget
from napari_braintumor.widgets.shared.result_card import describe_kept

if TYPE_CHECKING:
    import napari


@dataclass(frozen=True, eq=False)
class PaintedReference:
    """A reference as it was when Compare was pressed: its labels, and what its layer calls them."""

    labels: NDArray[np.integer[Any]]
    names: dict[int, str]
    convention: str | None = None


def compare_selection(
    selection: Selection, configs: Sequence[SegmentConfig], painted: PaintedReference | None
) -> Generator[CompareEvent | PhaseReached, None, None]:
    """Read the voxels of layers, on one grid, and compare models on them; runs in a worker thread."""
    source = selection.placement.grid
    reference = None
    if painted is not None:
        reference = reference_from_labels(painted.labels, painted.names, source, painted.convention)
    volume: AnyVolume | None = None
    for step in align_selection(selection) if selection.reference is not None else ():
        if isinstance(step, Volume):
            volume = step
        else:
            yield step
    for event in engine.compare(volume or stream_selection(selection), configs, reference):
        if isinstance(event, ModelSegmented):
            _ = event.segmentation.tallies  # counted here, so that the window does not wait for it
        yield event


class CaseComparison(QGroupBox):
    """Choose a reference, and see how the ticked models perform on the open case.

    Parameters
    ----------
    viewer
        The viewer on whose case models are compared.
    message
        Where the dock shows what happens.
    """

    def __init__(self, viewer: napari.viewer.Viewer, message: Message) -> None:
        super().__init__("Compare on the open case")
        self._viewer = viewer
        self._message = message
        self._case = ""
        self._references: dict[str, Layer | None] = {}  # for each case what the user chose; else the one found
        self._compared: Selection | None = None  # what the comparison under way began with
        self.results: dict[str, Labels] = {}
        self.check_line = make_line("", "Whether models can be compared")
        self.reference_slot = LayerSlot()
        name_widget(self.reference_slot, "Reference", "Labels drawn by people, to compare the models with")
        self.reference_slot.activated.connect(self._pick_reference)
        self.meaning_box = MeaningBox("What the reference's labels mean", "Meaning: as its numbers suggest")
        self.figures = ComparisonTable()
        self.figures.model_asked.connect(self._show_result)
        column = QVBoxLayout(self)
        for widget in (self.check_line, QLabel("Reference"), self.reference_slot, self.meaning_box, self.figures):
            column.addWidget(widget)
        column.addStretch(1)

    def check(self, models: Sequence[StoredModel]) -> tuple[Selection | None, str]:
        """Return the case that models can be compared on, or why they cannot, and say so.

        The case is that of the selected layer, else the topmost.

        Returns
        -------
        tuple
            The case and an empty text; or None and the reason.
        """
        layers = self._viewer.layers
        try:
            selection = select_layers(match_modalities(layers, find_scan_of(layers, layers.selection.active)))
            self._offer_references(selection.name)
            _check_models(models, selection)
        except BrainTumorError as error:
            self.check_line.setText(f"Not ready: {error}")
            return None, str(error)
        said = f"{len(models)} models on {selection.name}, {', '.join(selection.arrays)}"
        self.check_line.setText(f"Ready: {said}.")
        return selection, ""

    def begin(self, selection: Selection) -> PaintedReference | None:
        """Forget the comparison before, and return the reference as it is now.

        Returns
        -------
        PaintedReference or None
            None if no reference is chosen.

        Raises
        ------
        DataError
            If it does not lie on the scans.
        """
        layer, painted = self.reference_slot.layer, None
        if isinstance(layer, Labels):
            labels = np.array(labels_for(selection, layer))
            painted = PaintedReference(labels, label_names(layer), self.meaning_box.convention)
        self._compared, self.results = selection, {}
        return painted

    def add_result(self, event: ModelSegmented, models: Sequence[StoredModel]) -> None:
        """Add the labels that a model gave; the first model's are shown."""
        assert self._compared is not None
        path = next((stored.path for stored in models if stored.name == event.model), None)
        layer = update_or_add_labels(
            self._viewer,
            event.segmentation,
            self._compared.placement,
            event.model,
            made_from=self._compared.made_from,
            model_path=path,
        )
        layer.visible = not self.results
        self.results[event.model] = layer
        if kept := describe_kept(len(kept_slices(layer))):
            self._message.add(f"{layer.name}: {kept}")

    def show_comparison(self, comparison: Comparison, models: Sequence[StoredModel]) -> None:
        """Show where the models disagree, and the table."""
        assert self._compared is not None
        update_or_add_disagreement(self._viewer, comparison, self._compared.placement)
        badges = {m.name: ", ".join(m.card.badges) for m in models if m.card and m.card.badges}
        self.figures.show_comparison(comparison, badges)
        self._message.show_text(
            "The first model's layer and the disagreement are shown. Click a row to see another model's layer."
        )

    def _show_result(self, model: str) -> None:
        """Show one model's layer and hide the others'."""
        if model not in self.results:
            return
        for name, layer in self.results.items():
            if layer in self._viewer.layers:
                layer.visible = name == model

    def _pick_reference(self, _: int) -> None:
        self._references[self._case] = self.reference_slot.layer
        self._show_meaning()

    def _show_meaning(self) -> None:
        """Ask what the numbers mean of labels that this plugin has not made or read."""
        layer = self.reference_slot.layer
        self.meaning_box.setVisible(isinstance(layer, Labels) and not label_names(layer))
        if self.meaning_box.isHidden():
            self.meaning_box.setCurrentIndex(0)

    def _offer_references(self, case: str) -> None:
        self._case = case
        masks = masks_in(self._viewer.layers)
        found = find_reference(masks, case)
        picked = self._references.get(case, found)
        self.reference_slot.offer(masks, picked if picked is None or picked in masks else found)
        self._show_meaning()


def _check_models(models: Sequence[StoredModel], selection: Selection) -> None:
    if len(models) < 2:
        raise SettingsError(f"{len(models)} models are ticked. Tick two or more to compare them on {selection.name}.")
    for model in models:
        if model.card is not None and (missing := model.card.lacks(selection.arrays)):
            raise DataError(f"'{model.name}' needs {', '.join(missing)} too. Open it, or untick the model.")

"""The open layers to learn from: one case's scans and labels, and which slices were reviewed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QWidget

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError
from napari_braintumor.layers import (
    KEY,
    cases_in,
    find_case,
    find_scan_of,
    labels_for,
    layers_on,
    mark_reviewed,
    masks_in,
    match_modalities,
    reviewed_slices,
    scans_in,
    scans_of,
    select_layers,
    slice_at,
)
from napari_braintumor.widgets.shared.meaning_box import MeaningBox
from napari_braintumor.widgets.shared.parts import LayerSlot, make_line, name_widget, without_mnemonic
from napari_braintumor.widgets.training.starting import OpenCase

if TYPE_CHECKING:
    import napari


class LayersPage(QWidget):
    """Choose scans and labels among the open layers.

    Parameters
    ----------
    viewer
        The viewer whose layers are offered.
    """

    changed = Signal()
    """Something else is chosen or marked."""

    reported = Signal(str)
    """A sentence for the dock to show."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._picked: dict[str, Layer | None] = {}  # scans that the user chose; the others follow the labels
        self._build()
        self.refill()

    @property
    def labels_layer(self) -> Labels | None:
        """The layer that the tumor is drawn in."""
        layer = self.labels_slot.layer
        return layer if isinstance(layer, Labels) else None

    @property
    def slice_count(self) -> int | None:
        """How many slices there are to learn from and to judge by; None without labels."""
        layer = self.labels_layer
        return None if layer is None else len(reviewed_slices(layer)) or len(layer.data)

    def open_case(self) -> OpenCase:
        """Return the open layers as a case.

        Returns
        -------
        OpenCase
            The scans, their labels, what the numbers mean, and the reviewed slices.

        Raises
        ------
        DataError
            If they are none.
        """
        layer = self.labels_layer
        if layer is None:
            raise DataError("No labels are chosen. Draw the tumor in a Labels layer, and choose it under Labels.")
        self._check_owner(layer)
        selection = select_layers({m: slot.layer for m, slot in self.slots.items() if slot.layer is not None})
        labels = np.array(labels_for(selection, layer))  # the user may go on drawing
        return OpenCase(selection, labels, self.meaning_box.convention or "", reviewed_slices(layer))

    def choose(self, layers: Mapping[str, Layer], labels: Labels) -> None:
        """Choose layers, as another dock has them: these and no others."""
        for modality in layers:
            self._add_slot(modality)
        self._picked = {modality: layers.get(modality) for modality in self.slots}
        self.labels_slot.offer(masks_in(self._viewer.layers), labels)
        self.refill()

    def refill(self, *_: Any) -> None:
        """Offer the layers that are open now, keeping what was chosen; the scans follow the labels."""
        layers = list(self._viewer.layers)
        masks = masks_in(layers)
        before = self.labels_slot.layer
        drawn = [m for m in masks if m.metadata.get(KEY, {}).get("role") != "reference"] or masks
        self.labels_slot.offer(masks, before if before in masks else (drawn[-1] if drawn else None))
        self._offer_scans()
        self._show_reviewed()

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        self.slots: dict[str, LayerSlot] = {}
        self._scans_form = QFormLayout()
        form.addRow(self._scans_form)
        for modality in MODALITIES:
            self._add_slot(modality)
        self.labels_slot = LayerSlot()
        name_widget(self.labels_slot, "Labels", "The layer that the tumor is drawn in")
        self.labels_slot.activated.connect(self._pick_labels)
        form.addRow("Labels", self.labels_slot)
        self.meaning_box = MeaningBox("What the labels mean")
        form.addRow("Meaning", self.meaning_box)
        self.reviewed_line = make_line("", "Reviewed slices")
        self.mark_button = QPushButton("Mark this slice as reviewed")
        name_widget(
            self.mark_button, "Mark this slice as reviewed", "Only marked slices are learned from; they may be empty"
        )
        self.mark_button.clicked.connect(self._mark)
        self.forget_button = QPushButton("Forget marks")
        name_widget(self.forget_button, "Forget marks", "Take all marks back, so that every slice counts")
        self.forget_button.clicked.connect(self._forget)
        self.keep_button = QPushButton("Keep for later")
        name_widget(self.keep_button, "Keep in my corrected cases", "Save scans, labels and marks for later trainings")
        form.addRow(self.reviewed_line)
        form.addRow(self.mark_button)
        row = QHBoxLayout()
        row.addWidget(self.forget_button)
        row.addWidget(self.keep_button)
        form.addRow(row)

    def _add_slot(self, modality: str) -> None:
        if modality in self.slots:
            return
        slot = LayerSlot()
        slot.setAccessibleName(f"Layer of {modality}")
        slot.describe(f"The {modality} scan, or none")
        slot.activated.connect(partial(self._pick, modality))
        self.slots[modality] = slot
        self._scans_form.addRow(without_mnemonic(modality), slot)

    # ---------------------------------------------------------------------------------------------- choosing

    def _offer_scans(self) -> None:
        """Fill the slots that were not chosen by hand: with what the labels were made from, else with their case."""
        scans, labels = scans_in(self._viewer.layers), self.labels_layer
        self._picked = {m: layer for m, layer in self._picked.items() if layer is None or layer in scans}
        anchor = next((layer for layer in reversed(list(self._picked.values())) if layer is not None), None)
        made_from = scans_of(scans, labels) if labels is not None and anchor is None else {}
        matched = made_from or match_modalities(scans, anchor or find_scan_of(self._viewer.layers, labels))
        for modality in matched:
            self._add_slot(modality)
        for modality, slot in self.slots.items():
            slot.offer(scans, self._picked.get(modality, matched.get(modality)))

    def _pick(self, modality: str, _: int = 0) -> None:
        """Keep what the user chose; the other slots follow its case."""
        self._picked.pop(modality, None)
        self._picked[modality] = self.slots[modality].layer
        self._offer_scans()
        self.changed.emit()

    def _pick_labels(self, _: int = 0) -> None:
        self._picked.clear()
        self._offer_scans()
        self._show_reviewed()

    def _check_owner(self, labels: Labels) -> None:
        """Refuse labels of which nobody has said whose they are, where they may be of two cases."""
        layers = self._viewer.layers
        cases = cases_in(layers)
        if self._picked or find_case(cases, labels) is not None:
            return
        fitting = [case.name for case in cases if any(labels in layers_on(layers, scan) for scan in case.scans)]
        if len(fitting) > 1:
            raise DataError(
                f"Labels '{labels.name}' do not say whose they are, and lie on the scans of {_quote(fitting)}. Choose "
                "the scans that they were drawn on."
            )

    def _show_reviewed(self, *_: Any) -> None:
        layer = self.labels_layer
        marks = reviewed_slices(layer) if layer is not None else ()
        self.reviewed_line.setText(
            f"Reviewed slices: {', '.join(map(str, marks))}. Only these are learned from."
            if marks
            else "No slice is marked as reviewed, so all slices count as they are drawn."
        )
        self.mark_button.setEnabled(layer is not None)
        self.forget_button.setEnabled(bool(marks))
        self.changed.emit()

    def _mark(self) -> None:
        layer = self.labels_layer
        if layer is None:
            return
        try:
            z = slice_at(layer, self._viewer.dims.point)
        except DataError as error:
            self.reported.emit(str(error))
            return
        if z is None:
            self.reported.emit("The slice that is shown lies outside the labels. Move the slider into the scan.")
            return
        mark_reviewed(layer, z, z not in reviewed_slices(layer))
        self._show_reviewed()

    def _forget(self) -> None:
        layer = self.labels_layer
        if layer is not None:
            for z in reviewed_slices(layer):
                mark_reviewed(layer, z, False)
        self._show_reviewed()


def _quote(names: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)

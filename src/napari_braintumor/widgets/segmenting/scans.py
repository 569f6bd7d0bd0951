"""Which scans are segmented: the case in work, and the layer of each modality."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QFormLayout, QGroupBox, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.layers import (
    Case,
    CaseView,
    cases_in,
    find_case,
    find_owner,
    is_taken_as_shown,
    match_modalities,
    modality_of,
    scans_in,
)
from napari_braintumor.widgets.shared.following import follow, follow_names
from napari_braintumor.widgets.shared.parts import (
    Combo,
    EndingCombo,
    LayerSlot,
    literal,
    make_line,
    name_widget,
    without_mnemonic,
)

if TYPE_CHECKING:
    import napari

ALL_LAYERS = "All open scans"
"""In place of a case: scans whose names do not show that they belong together are chosen by hand."""


class CaseBar(QWidget):
    """The case in work, and whether it alone is shown.

    Parameters
    ----------
    viewer
        The viewer whose layers are offered.
    """

    chosen = Signal()
    """The user wants another case."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._cases: list[Case] = []
        self._key: str | None = None
        self._view = CaseView()
        self.box = EndingCombo()
        name_widget(
            self.box, "Case", "Whose scans are offered and segmented; scans of two cases are never mixed by name"
        )
        self.box.activated.connect(self._choose)
        self.only_box = QCheckBox("Show only this case")
        self.only_box.setChecked(True)
        name_widget(self.only_box, "Show only this case", "Hide the layers of other cases; they come back as they were")
        self.only_box.toggled.connect(self.show_layers)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Case", self.box)
        form.addRow(self.only_box)
        self.hide()

    @property
    def case(self) -> Case | None:
        """The case in work; None where any scans may be put together."""
        return next((case for case in self._cases if case.key == self._key), None)

    @property
    def offered(self) -> list[Image]:
        """The scans that may be chosen: those of the case, and those that say nothing of whose they are."""
        case = self.case
        scans = scans_in(self._viewer.layers)
        return scans if case is None else [scan for scan in scans if scan in case.scans or find_owner(scan) is None]

    def refill(self, newest: Layer | None = None) -> None:
        """List the cases that are open now.

        Parameters
        ----------
        newest
            A scan that was just opened: its case is in work from now on.
        """
        before = self._key
        self._cases = cases_in(self._viewer.layers)
        opened = find_case(self._cases, newest) if newest is not None else None
        keys = [case.key for case in self._cases]
        if opened is not None:
            self._key = opened.key
        elif self._key not in keys and not (self._key == ALL_LAYERS and len(keys) > 1):
            self._key = keys[-1] if keys else None
        several = len(self._cases) > 1
        names = [case.name for case in self._cases] + [ALL_LAYERS] * several
        self.box.list_names(names, [*keys, ALL_LAYERS].index(self._key) if self._key else -1)
        self.box.setToolTip(literal(f"Whose scans are offered and segmented: {self.box.currentText()}"))
        self.setVisible(bool(self._cases))
        self.only_box.setVisible(several)
        if self._key != before:
            self.show_layers()

    def show_layers(self, _: bool = False, new: Iterable[Layer] | None = None) -> None:
        """Hide what belongs to other cases, or show everything again.

        Parameters
        ----------
        new
            Look at these only, which were just added; the user may have shown others meanwhile.
        """
        case = self.case
        layers = list(self._viewer.layers)
        if case is None or len(self._cases) < 2 or not self.only_box.isChecked():
            self._view.show_all(layers)
        else:
            self._view.show_only(case, layers, layers if new is None else list(new))

    def take(self, layer: Layer) -> None:
        """Go on with the case of a layer, if its scans are open."""
        case = find_case(self._cases, layer)
        if case is not None and case.key != self._key:
            self._work_on(case.key)

    def _choose(self, index: int) -> None:
        """Go on with the chosen case, and select a layer of it: a selected result of another would ask for its own."""
        key = [*(case.key for case in self._cases), ALL_LAYERS][index]
        layers = self._viewer.layers
        owner = find_case(self._cases, layers.selection.active)
        if owner is not None and key not in (owner.key, ALL_LAYERS):
            owners = {layer: find_case(self._cases, layer) for layer in layers}
            layers.selection.active = next(
                layer for layer in reversed(layers) if (case := owners[layer]) is not None and case.key == key
            )
        self._work_on(key)

    def _work_on(self, key: str) -> None:
        self._key = key
        self.refill()
        self.show_layers()
        if self.case is not None:
            self._view.show_some(self.case)
        self.chosen.emit()


class ScansForm(QGroupBox):
    """The layer of each modality, filled by name; choices made by hand stay.

    Parameters
    ----------
    viewer
        The viewer whose layers are offered.
    """

    changed = Signal()
    """Other layers are open or chosen."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__("Scans")
        self._viewer = viewer
        self._picked: dict[str, Layer | None] = {}  # what the user chose; the other slots are filled automatically
        self.case_bar = CaseBar(viewer)
        self.case_bar.chosen.connect(self._take_case)
        column = QVBoxLayout(self)
        self._form = QFormLayout()
        column.addLayout(self._form)
        self.slots: dict[str, LayerSlot] = {}
        self.guess_row = QWidget()
        guess = QFormLayout(self.guess_row)
        guess.setContentsMargins(0, 0, 0, 0)
        guess.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapAllRows)
        self.guess_label = make_line("", "Question")
        self.guess_box = Combo()
        name_widget(self.guess_box, "Modality of the unnamed scan", "Its name does not show which modality it is")
        self.guess_box.activated.connect(self.refill)
        guess.addRow(self.guess_label, self.guess_box)
        column.addWidget(self.guess_row)
        self.guess_row.hide()
        self.autofill_button = QPushButton("Fill by name")
        name_widget(
            self.autofill_button, "Fill by name", "Discard choices made by hand and match the layers by their names"
        )
        self.autofill_button.clicked.connect(self.autofill)
        column.addWidget(self.autofill_button)

        layers = viewer.layers
        follow(self, self._take_new, layers.events.inserted)
        follow(self, self.refill, layers.events.removed, layers.events.reordered)
        follow_names(self, self.refill, layers)

    @property
    def chosen(self) -> dict[str, Layer]:
        """For each modality that the model uses and that is not set to none, its layer."""
        return {m: slot.layer for m, slot in self.slots.items() if slot.layer is not None and slot.isEnabled()}

    @property
    def color_pictures(self) -> dict[str, Layer]:
        """The topmost color picture, which is not a scan, as if it were one: checking it says why it is not."""
        pictures = [layer for layer in self._viewer.layers if isinstance(layer, Image) and layer.rgb]
        return {"FLAIR": pictures[-1]} if pictures else {}

    @property
    def remarks(self) -> list[str]:
        """What the user should know of how the layers were chosen, a sentence each."""
        found = []
        if any(is_taken_as_shown(layer) for layer in self.chosen.values()):
            found.append("Taken as shown: the slider runs from foot to head, and the patient's left is on the right.")
        owners = {m: owner for m, layer in self.chosen.items() if (owner := find_owner(layer))}
        if len({owner.casefold() for owner in owners.values()}) > 1:
            mixed = ", ".join(f"{modality} of '{owner}'" for modality, owner in owners.items())
            found.append(f"The names say that these are scans of different cases: {mixed}.")
        if not self.guess_row.isHidden():
            found.append(f"Taken as {self.guess_box.currentText()}: change it above if it is not.")
        return found

    def use_modalities(self, used: tuple[str, ...]) -> None:
        """Offer a slot for each modality that the model may use."""
        offered = (*MODALITIES, *(modality for modality in used if modality not in MODALITIES))
        if tuple(self.slots) != offered:
            while self._form.rowCount():
                self._form.removeRow(0)
            self.slots = {}
            for modality in offered:
                slot = LayerSlot()
                slot.setAccessibleName(f"Layer of {modality}")
                slot.activated.connect(partial(self._pick, modality))
                self._form.addRow(without_mnemonic(modality), slot)
                self.slots[modality] = slot
        for modality, slot in self.slots.items():
            slot.setEnabled(modality in used)
            slot.describe(f"The {modality} scan" if modality in used else f"This model does not use {modality}")
        guessed = self.guess_box.currentText()
        self.guess_box.clear()
        self.guess_box.addItems(used)
        best = next((m for m in (guessed, "FLAIR", "T1ce") if m in used), used[0])
        self.guess_box.setCurrentText(best)
        self.refill()

    def autofill(self, _: bool = False) -> None:
        """Discard choices made by hand."""
        self._picked.clear()
        self.refill()

    def refill(self, _: Any = None, newest: Layer | None = None) -> None:
        """Offer the layers that are open now, and match them to the slots."""
        self.case_bar.refill(newest)
        scans = self.case_bar.offered
        self._picked = {m: layer for m, layer in self._picked.items() if layer is None or layer in scans}
        anchor = next((layer for layer in reversed(list(self._picked.values())) if layer is not None), None)
        case = self.case_bar.case
        matched: dict[str, Layer] = dict(match_modalities(scans, anchor or (case.scans[-1] if case else None)))
        unnamed = [layer for layer in scans if modality_of(layer) is None and layer.ndim == 3]
        ask = bool(unnamed) and not matched and all(layer is None for layer in self._picked.values())
        if ask:
            self.guess_label.setText(f"Which modality is '{unnamed[-1].name}'?")
            matched = {self.guess_box.currentText(): unnamed[-1]}
        self.guess_row.setVisible(ask)
        taken = [layer for layer in self._picked.values() if layer is not None]
        for modality, slot in self.slots.items():
            layer = self._picked.get(modality, matched.get(modality))
            slot.offer(scans, None if modality not in self._picked and layer in taken else layer)
        self.changed.emit()

    def _take_new(self, event: Any) -> None:
        layer = event.value
        if isinstance(layer, Image):  # a new label layer takes napari long enough
            self.refill(newest=layer if scans_in([layer]) and find_owner(layer) is not None else None)
        self.case_bar.show_layers(new=[layer])

    def _take_case(self) -> None:
        """Fill the slots with the case; where any scans may be put together, begin with what is there."""
        here = self.case_bar.case is None
        self._picked = {modality: slot.layer for modality, slot in self.slots.items()} if here else {}
        self.refill()

    def _pick(self, modality: str, _: int = 0) -> None:
        """Keep what the user chose."""
        self._picked.pop(modality, None)
        self._picked[modality] = self.slots[modality].layer
        self.refill()

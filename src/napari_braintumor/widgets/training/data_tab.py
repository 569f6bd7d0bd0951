"""The Data tab: what a training learns from, be it the open layers, a folder of cases or the corrected cases."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QStackedWidget,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.anatomy import CONVENTIONS, MODALITIES
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.usable import CaseReport, survey_cases
from napari_braintumor.engine.files.written import corrected_folder
from napari_braintumor.layers import (
    KEY,
    Selection,
    cases_in,
    find_case,
    labels_for,
    layers_on,
    mark_reviewed,
    masks_in,
    match_modalities,
    reviewed_slices,
    scan_beside,
    scans_in,
    scans_of,
    select_layers,
    slice_at,
)
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.parts import Combo, LayerSlot, literal, make_line, name_widget, without_mnemonic

if TYPE_CHECKING:
    import napari

MEANINGS = {
    name: CONVENTIONS[name].meaning for name in ("brats2023", "brats2017", "brats2013", "whole", "core", "enhancing")
}
"""What the user may say that labels mean; keys of `CONVENTIONS`."""

SOURCES = {"layers": "The open layers", "folder": "A folder of cases", "corrected": "My corrected cases"}
SIDES = ("automatic", "training", "validation", "left out")


@dataclass(frozen=True, eq=False)
class OpenCase:
    """A case of open layers, its voxels not read yet."""

    selection: Selection
    labels: Any
    convention: str
    reviewed: tuple[int, ...]


class DataPage(QWidget):
    """Choose what to learn from."""

    changed = Signal()
    """Something else is chosen."""

    told = Signal(str)
    """A sentence for the dock to show."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._job: Job | None = None
        self._picked: dict[str, Layer | None] = {}  # scans that the user chose; the others follow the labels
        self.reports: list[CaseReport] = []
        self.sides: dict[str, str] = {}

        self.source_box = Combo()
        name_widget(self.source_box, "What to learn from", "Open layers, cases on disk, or the cases you kept")
        for key, text in SOURCES.items():
            self.source_box.addItem(text, key)
        self.pages = QStackedWidget()
        self.pages.addWidget(self._build_layers())
        self.pages.addWidget(self._build_folder())
        column = QVBoxLayout(self)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(self.source_box)
        column.addWidget(self.pages)
        self.source_box.currentIndexChanged.connect(self._show_source)
        self.refill()
        self._show_source()

    # ---------------------------------------------------------------------------------------------- what is chosen

    @property
    def source(self) -> str:
        """A key of `SOURCES`."""
        return str(self.source_box.currentData())

    @property
    def folder(self) -> Path | None:
        """The folder of cases, if one is chosen."""
        if self.source == "corrected":
            return corrected_folder()
        text = self.folder_edit.text().strip()
        return Path(text).expanduser() if text and self.source == "folder" else None

    @property
    def labels_layer(self) -> Labels | None:
        """The layer that the tumor is drawn in."""
        layer = self.labels_slot.layer
        return layer if isinstance(layer, Labels) else None

    def open_case(self) -> OpenCase:
        """Return the open layers as a case.

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
        return OpenCase(selection, labels, str(self.meaning_box.currentData()), reviewed_slices(layer))

    def named_sides(self) -> dict[str, tuple[str, ...]]:
        """Return the patients that the user put on a side by hand, as fields of a plan."""
        return {
            field: patients
            for side, field in (("training", "training"), ("validation", "validation"), ("left out", "held_out"))
            if (patients := tuple(patient for patient, chosen in self.sides.items() if chosen == side))
        }

    def count_slices(self) -> int | None:
        """Return how many slices there are to learn from and to judge by, None where that is not known yet."""
        if self.source == "layers":
            layer = self.labels_layer
            return None if layer is None else len(reviewed_slices(layer)) or len(layer.data)
        usable = [report for report in self.reports if not report.problem]
        if self._job is not None or not usable:
            return None
        counts = [(report.case.reviewed, report.shape) for report in usable]
        return sum(len(marks) if marks is not None else shape[0] if shape else 0 for marks, shape in counts)

    def choose_layers(self, layers: Mapping[str, Layer], labels: Labels) -> None:
        """Choose open layers, as another dock has them: these and no others."""
        self.source_box.setCurrentIndex(list(SOURCES).index("layers"))
        for modality in layers:
            self._add_slot(modality)
        self._picked = {modality: layers.get(modality) for modality in self.slots}
        self.labels_slot.offer(masks_in(self._viewer.layers), labels)
        self.refill()

    # ---------------------------------------------------------------------------------------------- building

    def _build_layers(self) -> QWidget:
        page = QWidget()
        form = QFormLayout(page)
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
        self.meaning_box = Combo()
        name_widget(self.meaning_box, "What the labels mean", "Which number stands for which tissue")
        for key, text in MEANINGS.items():
            self.meaning_box.addItem(text, key)
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
        return page

    def _add_slot(self, modality: str) -> None:
        if modality in self.slots:
            return
        slot = LayerSlot()
        slot.setAccessibleName(f"Layer of {modality}")
        slot.describe(f"The {modality} scan, or none")
        slot.activated.connect(partial(self._pick, modality))
        self.slots[modality] = slot
        self._scans_form.addRow(without_mnemonic(modality), slot)

    def _build_folder(self) -> QWidget:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(0, 0, 0, 0)
        self.folder_row = QWidget()
        row = QHBoxLayout(self.folder_row)
        row.setContentsMargins(0, 0, 0, 0)
        self.folder_edit = QLineEdit()
        self.folder_edit.setPlaceholderText("Folder of cases")
        name_widget(self.folder_edit, "Folder of cases", "Cases named as in BraTS, LGG, BIDS, or by their modality")
        self.folder_edit.editingFinished.connect(self.look)
        browse = QPushButton("Choose…")
        name_widget(browse, "Choose the folder of cases", "Look for a folder")
        browse.clicked.connect(self._browse)
        row.addWidget(self.folder_edit, 1)
        row.addWidget(browse)
        self.found_line = make_line("", "What was found")
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["case", "side", "what it has"])
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setMinimumHeight(140)
        header = self.table.horizontalHeader()
        if header is not None:
            for index in (0, 1):
                header.setSectionResizeMode(index, QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        name_widget(self.table, "Cases found", "Double-click a case to change the side its patient is on")
        self.table.cellDoubleClicked.connect(self._change_side)
        for widget in (self.folder_row, self.found_line, self.table):
            column.addWidget(widget)
        return page

    # ---------------------------------------------------------------------------------------------- open layers

    def refill(self, *_: Any) -> None:
        """Offer the layers that are open now, keeping what was chosen; the scans follow the labels."""
        layers = list(self._viewer.layers)
        masks = masks_in(layers)
        before = self.labels_slot.layer
        drawn = [m for m in masks if m.metadata.get(KEY, {}).get("role") != "reference"] or masks
        self.labels_slot.offer(masks, before if before in masks else (drawn[-1] if drawn else None))
        self._offer_scans()
        self._show_reviewed()

    def _offer_scans(self) -> None:
        """Fill the slots that were not chosen by hand: with what the labels were made from, else with their case."""
        scans, labels = scans_in(self._viewer.layers), self.labels_layer
        self._picked = {m: layer for m, layer in self._picked.items() if layer is None or layer in scans}
        anchor = next((layer for layer in reversed(list(self._picked.values())) if layer is not None), None)
        made_from = scans_of(scans, labels) if labels is not None and anchor is None else {}
        matched = made_from or match_modalities(scans, anchor or scan_beside(self._viewer.layers, labels))
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
            self.told.emit(str(error))
            return
        if z is None:
            self.told.emit("The slice that is shown lies outside the labels. Move the slider into the scan.")
            return
        mark_reviewed(layer, z, z not in reviewed_slices(layer))
        self._show_reviewed()

    def _forget(self) -> None:
        layer = self.labels_layer
        if layer is not None:
            for z in reviewed_slices(layer):
                mark_reviewed(layer, z, False)
        self._show_reviewed()

    # ---------------------------------------------------------------------------------------------- folders

    def _show_source(self) -> None:
        self.pages.setCurrentIndex(0 if self.source == "layers" else 1)
        self.folder_row.setVisible(self.source == "folder")
        self.look()
        self.changed.emit()

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of cases", self.folder_edit.text())
        if chosen:
            self.folder_edit.setText(chosen)
            self.look()

    def look(self) -> None:
        """Look at the cases of the chosen folder, in the background."""
        folder = self.folder
        if self._job is not None:
            self._job.cancel()
        self.reports, self.sides = [], {}
        self.table.setRowCount(0)
        self.found_line.setText("")
        if folder is None:
            return
        if self.source == "corrected" and not folder.is_dir():
            self.found_line.setText("There are none yet. Correct a case, then press Keep for later at the open layers.")
            return
        self.found_line.setText("Looking…")
        self._job = job = Job(self, "Look at cases", _survey, folder)
        job.happened.connect(partial(self._add, job))
        job.failed.connect(partial(self._fail, job))
        job.ended.connect(partial(self._end, job))
        job.start()

    def _add(self, job: Job, report: CaseReport) -> None:
        if job is not self._job:
            return
        self.reports.append(report)
        self.sides.setdefault(report.case.patient, SIDES[0])
        row = self.table.rowCount()
        self.table.insertRow(row)
        what = report.problem or f"{', '.join(report.modalities)}; {', '.join(report.regions)}"
        texts = (report.case.name, "unusable" if report.problem else SIDES[0], what)
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setToolTip(literal(text))
            self.table.setItem(row, column, item)

    def _fail(self, job: Job, failure: Failure) -> None:
        if job is self._job:
            self.found_line.setText(failure.text)

    def _end(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self._count()
        job.deleteLater()

    def _count(self) -> None:
        if self.reports:
            usable = [report for report in self.reports if not report.problem]
            patients = len({report.case.patient for report in usable})
            self.found_line.setText(
                f"{len(usable)} of {len(self.reports)} cases can be used, {patients} patients in all. Double-click one "
                "to change the side its patient is on."
            )
        self.changed.emit()

    def _change_side(self, row: int, _: int) -> None:
        report = self.reports[row]
        if report.problem:
            return
        patient = report.case.patient
        self.sides[patient] = SIDES[(SIDES.index(self.sides[patient]) + 1) % len(SIDES)]
        for index, other in enumerate(self.reports):
            item = self.table.item(index, 1)
            if other.case.patient == patient and not other.problem and item is not None:
                item.setText(self.sides[patient])
        self.changed.emit()


def _survey(folder: Path) -> Generator[CaseReport, None, None]:
    yield from survey_cases([folder])


def _quote(names: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)

"""Ask how labels are saved: on the grid of which scan, in which format, and with what beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qtpy.QtWidgets import QCheckBox, QDialog, QDialogButtonBox, QFileDialog, QFormLayout, QPushButton, QWidget

from napari_braintumor.engine.aligning.scans import lie_alike
from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.files.formats import (
    FORMATS,
    Format,
    find_label_suffix,
    find_suffix,
    is_listed,
    strip_suffix,
)
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.dicom_export import EXTRAS, REPORT, STRUCTURES
from napari_braintumor.engine.measuring.record import name_result
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget

LEAST_WIDTH_PX = 460

DICOM_TITLE = "DICOM segmentation"

_EXTRA_TITLES = {REPORT: "Report with volumes and diameters", STRUCTURES: "Contours for radiotherapy planning"}
_EXTRA_TIPS = {
    REPORT: "Also write a DICOM structured report (TID 1500)",
    STRUCTURES: "Also write a DICOM structure set (RTSTRUCT); this needs the package rt-utils",
}


@dataclass(frozen=True)
class Wish:
    """How labels are to be saved.

    Attributes
    ----------
    path
        The file.
    on
        The modality on whose grid; None for the grid that they were drawn on.
    also
        What to write beside them, any of `EXTRAS`.
    """

    path: Path
    on: str | None = None
    also: tuple[str, ...] = ()


class SaveForm(QDialog):
    """Asks for grid and format; the file is asked for last.

    Parameters
    ----------
    parent
        The widget that asks.
    case
        The case's name, which the file is named after.
    source
        The grid that the labels were drawn on.
    alignment
        How the scans of the case were brought onto it, if their own grids differ.
    """

    def __init__(self, parent: QWidget | None, case: str, source: SourceGrid, alignment: Alignment | None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Save labels")
        self._case = case
        self._grids = list_grids(source, alignment)
        self.wish: Wish | None = None
        form = QFormLayout(self)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.grid_box, self.format_box = Combo(), Combo()
        self.grid_box.setSizeAdjustPolicy(Combo.SizeAdjustPolicy.AdjustToContents)
        self.grid_box.addItems([text for text, _, _ in self._grids])
        name_widget(self.grid_box, "On the grid of", "The labels are brought back to where this scan has its voxels")
        self.grid_box.currentIndexChanged.connect(self._offer_formats)
        name_widget(self.format_box, "Format", "How the labels are stored")
        self.format_box.currentIndexChanged.connect(self._offer_extras)
        form.addRow("On the grid of", self.grid_box)
        form.addRow("Format", self.format_box)
        self.extra_boxes: dict[str, QCheckBox] = {}
        for extra in EXTRAS:
            self.extra_boxes[extra] = box = QCheckBox(_EXTRA_TITLES[extra])
            name_widget(box, _EXTRA_TITLES[extra], _EXTRA_TIPS[extra])
            form.addRow(box)
        self.line = make_line("", "What is written")
        form.addRow(self.line)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.save_button = QPushButton("Save as…")
        name_widget(self.save_button, "Save as", "Choose the file, and save")
        buttons.addButton(self.save_button, QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.accepted.connect(self._ask_for_file)
        buttons.rejected.connect(self.reject)
        form.addRow(buttons)
        self.setMinimumWidth(LEAST_WIDTH_PX)
        self._offer_formats()

    @property
    def grid(self) -> SourceGrid:
        """The chosen grid."""
        return self._grids[max(self.grid_box.currentIndex(), 0)][2]

    @property
    def format(self) -> Format:
        """The chosen format."""
        return self._formats[max(self.format_box.currentIndex(), 0)]

    def _offer_formats(self, _: int = 0) -> None:
        before = self.format_box.currentText()
        self._formats = [
            each for each in FORMATS if each.written_suffixes and (each.name != "dicom" or self.grid.format == "dicom")
        ]
        titles = [DICOM_TITLE if each.name == "dicom" else each.title for each in self._formats]
        usual = find_label_suffix(self.grid)
        fitting = (title for title, form in zip(titles, self._formats, strict=True) if usual in form.written_suffixes)
        self.format_box.blockSignals(True)
        self.format_box.clear()
        self.format_box.addItems(titles)
        self.format_box.setCurrentText(before if before in titles else next(fitting, titles[0]))
        self.format_box.blockSignals(False)
        self._offer_extras()

    def _offer_extras(self, _: int = 0) -> None:
        is_dicom = self.format.name == "dicom"
        for box in self.extra_boxes.values():
            box.setVisible(any(form.name == "dicom" for form in self._formats))
            box.setEnabled(is_dicom)
        said = "A record of model, settings and volumes is written beside them."
        if is_dicom:
            said = f"The files refer to the series and carry the patient's data, as it does. {said}"
        self.line.setText(said)
        layout = self.layout()
        assert layout is not None
        layout.activate()
        self.resize(self.width(), max(self.height(), layout.totalHeightForWidth(self.width())))

    def _ask_for_file(self) -> None:
        from napari_braintumor.engine.files.dicom.listing import origin_of

        _, on, grid = self._grids[max(self.grid_box.currentIndex(), 0)]
        folder = origin_of(grid.path).parent if grid.path else Path.home()
        suffixes = self.format.written_suffixes
        stem = name_result(f"{self._case}_{on}" if on else self._case)
        suffix = find_label_suffix(grid)
        proposed = folder / f"{stem}{suffix if suffix in suffixes else suffixes[0]}"
        kinds = f"{self.format_box.currentText()} ({' '.join(f'*{each}' for each in suffixes)})"
        name, _ = QFileDialog.getSaveFileName(self, "Save labels", str(proposed), kinds)
        if not name:
            return
        path = Path(name)
        if find_suffix(path) not in suffixes:
            path = path.with_name(f"{strip_suffix(path) if is_listed(path) else path.name}{suffixes[0]}")
        also = [extra for extra, box in self.extra_boxes.items() if box.isChecked() and box.isEnabled()]
        self.wish = Wish(path, on, tuple(also))
        self.accept()


def list_grids(source: SourceGrid, alignment: Alignment | None) -> list[tuple[str, str | None, SourceGrid]]:
    """List the grids that labels can be saved on.

    Parameters
    ----------
    source
        The grid that they were drawn on.
    alignment
        How the scans of the case were brought onto it.

    Returns
    -------
    list of tuple
        For each grid, that of the labels first: in words, a modality with it (None for that of the labels), and itself.
    """
    if alignment is None:
        return [(f"the scan, {_describe(source)}", None, source)]
    reference = alignment.reference
    found: list[tuple[str, str | None, SourceGrid]] = [
        (f"{reference}, {_describe(source)}", None, alignment.scans[reference].grid)
    ]
    for modality, scan in alignment.scans.items():
        if modality != reference and not lie_alike(alignment.scans[reference].grid, scan.grid):
            found.append((f"{modality}, {_describe(scan.grid)}", modality, scan.grid))
    return found


def _describe(grid: SourceGrid) -> str:
    sides = " x ".join(f"{side:.2g}" for side in grid.spacing)
    return f"{' x '.join(map(str, grid.shape_ZYX))} voxels of {sides} mm"

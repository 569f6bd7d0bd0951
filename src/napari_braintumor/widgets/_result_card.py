"""What was found: the legend of the label layer, the regions with their volumes, and what to do with them."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QFrame, QGridLayout, QGroupBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.types import Segmentation
from napari_braintumor.widgets._parts import Combo, make_line, name_widget


class ResultCard(QGroupBox):
    """What was found: the legend of the label layer with milliliters, the regions, and what to do with them."""

    def __init__(self) -> None:
        super().__init__("Result")
        column = QVBoxLayout(self)
        self.headline = make_line("", "Result in words")
        self.legend = QWidget()
        column.addWidget(self.headline)
        self._grid = QGridLayout(self.legend)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(1, 1)
        column.addWidget(self.legend)
        self.show_box = Combo()
        name_widget(
            self.show_box, "Show labels or a region", "A region is made of several labels; saving is not changed"
        )
        column.addWidget(self.show_box)
        buttons = QHBoxLayout()
        self.save_button = QPushButton("Save NIfTI…")
        name_widget(
            self.save_button, "Save labels", "Save the label layer, with your corrections, on the grid of the scan"
        )
        self.copy_button = QPushButton("Copy record")
        name_widget(self.copy_button, "Copy record", "Copy volumes, model, settings and source as JSON")
        buttons.addWidget(self.save_button)
        buttons.addWidget(self.copy_button)
        column.addLayout(buttons)
        self.tune_button = QPushButton("Fine-tune…")
        name_widget(
            self.tune_button, "Fine-tune", "Correct some slices with the brush, then let the model learn from them"
        )
        column.addWidget(self.tune_button)
        self.hide()

    def show_segmentation(self, segmentation: Segmentation) -> None:
        """Fill the card."""
        while item := self._grid.takeAt(0):
            if widget := item.widget():
                widget.deleteLater()
        found = any(segmentation.volumes_ml.values())
        guess = "" if segmentation.source.spacing_known else " The voxel size is unknown, so mL are a guess."
        self.headline.setText(f"{'Tumor' if found else 'No tumor found'} [{segmentation.name}].{guess}")
        of_label_ml = segmentation.label_volumes_ml
        rows: list[tuple[str | None, str, float]] = [
            (segmentation.label_colors[label], name, of_label_ml[label])
            for label, name in sorted(segmentation.label_names.items())
        ]
        rows += [(None, region, segmentation.volumes_ml.get(region, 0.0)) for region in segmentation.regions]
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        self._grid.addWidget(line, len(segmentation.label_names), 0, 1, 3)
        for i, (color, name, ml) in enumerate(rows):
            row = i if color else i + 1
            if color:
                pixmap = QPixmap(14, 14)
                pixmap.fill(QColor(color))
                swatch = QLabel()
                swatch.setPixmap(pixmap)
                swatch.setAccessibleName(f"Color of {name}")
                self._grid.addWidget(swatch, row, 0)
            self._grid.addWidget(QLabel(name), row, 1)
            self._grid.addWidget(QLabel(f"{ml:.1f} mL"), row, 2, Qt.AlignmentFlag.AlignRight)
        self.show_box.blockSignals(True)
        self.show_box.clear()
        self.show_box.addItem("Show labels", None)
        for region in segmentation.regions:
            self.show_box.addItem(f"Show {region}", region)
        self.show_box.blockSignals(False)
        self.show()

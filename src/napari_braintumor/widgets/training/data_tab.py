"""The Data tab: what a training learns from, be it the open layers, a folder of cases or the corrected cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Labels, Layer
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QStackedWidget, QVBoxLayout, QWidget

from napari_braintumor.widgets.shared.parts import Combo, name_widget
from napari_braintumor.widgets.training.folder_page import SOURCES, FolderPage
from napari_braintumor.widgets.training.layers_page import LayersPage

if TYPE_CHECKING:
    import napari


class DataPage(QWidget):
    """Choose what to learn from.

    Parameters
    ----------
    viewer
        The viewer whose layers are offered.
    """

    changed = Signal()
    """Something else is chosen."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.source_box = Combo()
        name_widget(self.source_box, "What to learn from", "Open layers, cases on disk, or the cases you kept")
        for key, text in SOURCES.items():
            self.source_box.addItem(text, key)
        self.layers_page = LayersPage(viewer)
        self.folder_page = FolderPage()
        self.pages = QStackedWidget()
        for page in (self.layers_page, self.folder_page):
            page.changed.connect(self.changed)
            self.pages.addWidget(page)
        column = QVBoxLayout(self)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(self.source_box)
        column.addWidget(self.pages)
        self.source_box.currentIndexChanged.connect(self._show_source)
        self._show_source()

    @property
    def source(self) -> str:
        """A key of `SOURCES`."""
        return str(self.source_box.currentData())

    @property
    def slice_count(self) -> int | None:
        """How many slices there are to learn from and to judge by, None where that is not known yet."""
        return self.layers_page.slice_count if self.source == "layers" else self.folder_page.slice_count

    def choose_layers(self, layers: Mapping[str, Layer], labels: Labels) -> None:
        """Choose open layers, as another dock has them: these and no others."""
        self.source_box.setCurrentIndex(list(SOURCES).index("layers"))
        self.layers_page.choose(layers, labels)

    def choose_folder(self, folder: Path) -> None:
        """Choose the cases of a folder."""
        self.folder_page.folder_edit.setText(str(folder))
        self.source_box.setCurrentIndex(list(SOURCES).index("folder"))
        self._show_source()

    def _show_source(self) -> None:
        self.pages.setCurrentWidget(self.layers_page if self.source == "layers" else self.folder_page)
        self.folder_page.show_source(self.source)
        self.changed.emit()

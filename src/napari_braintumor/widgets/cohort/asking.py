"""Ask for a dataset: a folder or a table."""

from __future__ import annotations

from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from napari_braintumor.engine.cohorts.listed import SUFFIXES
from napari_braintumor.widgets.shared.path_row import ask_folder

_TABLES = f"Tables ({' '.join(f'*{suffix}' for suffix in SUFFIXES)})"


def ask_dataset(parent: QWidget) -> str:
    """Ask for a folder or a table; an empty text if none is chosen."""
    menu = QMenu(parent)
    folder, table = menu.addAction("Folder of cases…"), menu.addAction("Table of paths…")
    chosen = menu.exec(QCursor.pos())
    if chosen is table:
        return str(QFileDialog.getOpenFileName(parent, "Table of cases", "", _TABLES)[0])
    return ask_folder(parent) if chosen is folder else ""

"""A form to state the voxel size of scans whose files do not, or whose header cannot be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from magicgui.widgets import Container, FloatSpinBox, PushButton
from napari.layers import Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QAbstractSpinBox, QVBoxLayout, QWidget

from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.layers import Selection, layers_on, set_spacing
from napari_braintumor.widgets.shared.parts import make_line, name_widget

if TYPE_CHECKING:
    import napari

DECIMALS = 3
LARGEST_MM = 1000.0
LEAST_WIDTH_PX = 50


class VoxelSizeForm(QWidget):
    """Three lengths, and a button that gives them to all layers of the case: display and volumes then agree.

    Parameters
    ----------
    viewer
        The viewer whose layers are changed.
    find_scan
        Returns a scan of the case in work.
    """

    stated = Signal()
    """The layers have another voxel size now."""

    def __init__(self, viewer: napari.viewer.Viewer, find_scan: Callable[[], Layer | None]) -> None:
        super().__init__()
        self._viewer = viewer
        self._find_scan = find_scan
        self._case = ""
        self._stated: set[str] = set()  # cases whose size was stated here, and may be corrected here
        self.line = make_line("", "Why the voxel size is asked for")
        self.boxes = {
            axis: FloatSpinBox(name=axis, min=0.0, max=LARGEST_MM, step=0.1, tooltip=f"mm along {axis}")
            for axis in ("Z", "Y", "X")
        }
        for axis, box in self.boxes.items():
            box.native.setDecimals(DECIMALS)
            box.native.setMinimumWidth(LEAST_WIDTH_PX)
            box.native.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)  # they leave no room for a number
            name_widget(box.native, f"Voxel size along {axis}", f"mm along {axis}")
        self.button = PushButton(text="Use this voxel size")
        name_widget(self.button.native, "Use this voxel size", "Display and measure all layers of this case with it")
        self.button.changed.connect(self._state)
        sizes = Container(widgets=list(self.boxes.values()), layout="horizontal", labels=False)
        sizes.margins = (0, 0, 0, 0)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.line, sizes.native, self.button.native):
            column.addWidget(widget)
        self.hide()

    def show_for(self, selection: Selection | None) -> None:
        """Ask for the voxel size of scans, if it is unknown or in doubt, or was stated here."""
        grid = selection.placement.grid if selection is not None else None
        if selection is None or grid is None:
            self.hide()
            return
        doubtful = not grid.spacing_known or bool(grid.spacing_note)
        self.setVisible(doubtful or selection.name in self._stated)
        if self.isHidden():
            return
        why = grid.spacing_note or (
            "The voxel size is not known." if doubtful else "The voxel size is as you stated it."
        )
        said = f"{why} In mm, slice to slice first (Z, Y, X):"
        if said != self.line.text() or not doubtful:
            self.line.setText(said)
            for box, size in zip(self.boxes.values(), grid.spacing, strict=True):
                box.value = min(round(size, DECIMALS), LARGEST_MM)
        self._case = selection.name

    def _state(self) -> None:
        scan = self._find_scan()
        if scan is None:
            return
        spacing = tuple(float(box.value) for box in self.boxes.values())
        try:
            for layer in layers_on(self._viewer.layers, scan):
                set_spacing(layer, spacing)  # type: ignore[arg-type]
        except BrainTumorError as error:
            self.line.setText(str(error))
            return
        self._stated.add(self._case)
        self.stated.emit()

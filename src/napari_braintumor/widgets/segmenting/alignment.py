"""How the scans of a case were brought onto one grid: what was done, whether that is wanted, and a look at it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFormLayout, QGridLayout, QGroupBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.aligning.scans import lie_alike
from napari_braintumor.engine.alignment import AlignedScan, Alignment
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.settings import AlignConfig
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import (
    PreparedScans,
    Selection,
    align_selection,
    even_out,
    make_check_layer,
    make_checkerboard,
    unwrap_layer,
)
from napari_braintumor.widgets.shared.following import follow, when_destroyed
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget

if TYPE_CHECKING:
    import napari

FLICKER_MS = 700
"""How long each scan is seen: long enough to find an edge, short enough to see it jump."""

AUTO = "automatic"
_WAYS: dict[str, Literal["auto", "never", "always"]] = {
    "Register where needed": "auto",
    "Use scanner coordinates": "never",
    "Always register": "always",
}

How = Literal["flicker", "board"]


def align_if_needed(
    selection: Selection, config: AlignConfig, kept: PreparedScans | None
) -> Generator[PhaseReached | PreparedScans, None, PreparedScans | None]:
    """Bring the scans of a selection onto one grid, if they lie on several; runs in a worker thread.

    Parameters
    ----------
    selection
        The layers.
    config
        How.
    kept
        What was prepared last, which is used again if it fits.

    Yields
    ------
    PhaseReached or PreparedScans
        Each phase, and what was prepared newly.

    Returns
    -------
    PreparedScans or None
        The scans on one grid; None if the layers share one already.
    """
    if selection.reference is None:
        return None
    prepared = kept.serve(selection, config) if kept is not None else None
    if prepared is not None:
        return prepared
    for event in align_selection(selection, config):
        if isinstance(event, Volume):
            prepared = PreparedScans(selection, config, event)
            yield prepared
        else:
            yield event
    return prepared


class AlignmentForm(QGroupBox):
    """What is done to scans on different grids; out of sight where they share one.

    Parameters
    ----------
    viewer
        Where an alignment is looked at.
    """

    changed = Signal()
    """Scans are to be aligned in another way."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__("Alignment")
        self._selection: Selection | None = None
        self.prepared: PreparedScans | None = None
        self.line = make_line("", "How the scans are brought onto one grid")
        self.way_box, self.reference_box = Combo(), Combo()
        self.way_box.addItems(list(_WAYS))
        name_widget(self.way_box, "How scans are aligned", str(AlignConfig.model_fields["registration"].description))
        name_widget(self.reference_box, "Onto the grid of", str(AlignConfig.model_fields["reference"].description))
        for box in (self.way_box, self.reference_box):
            box.activated.connect(self._tell)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("How", self.way_box)
        form.addRow("Onto", self.reference_box)
        self._rows = QWidget()
        self._grid = QGridLayout(self._rows)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(1, 1)
        self.texts: dict[str, str] = {}
        self.check = AlignmentCheck(viewer)
        column = QVBoxLayout(self)
        column.addWidget(self.line)
        column.addLayout(form)
        column.addWidget(self._rows)
        column.addWidget(self.check)
        self.hide()

    @property
    def config(self) -> AlignConfig:
        """What is chosen."""
        reference = self.reference_box.currentText()
        return AlignConfig(
            reference="auto" if reference in ("", AUTO) else reference,
            registration=_WAYS[self.way_box.currentText()],
        )

    def show_for(self, selection: Selection | None) -> None:
        """Show what is done to a selection, and what was done if it was prepared."""
        self._selection = selection
        self.setVisible(selection is not None and selection.reference is not None)
        if selection is None or selection.reference is None:
            self.check.look_at(None)
            return
        wanted = self.config.reference
        names = [AUTO, *selection.arrays]
        if [self.reference_box.itemText(i) for i in range(self.reference_box.count())] != names:
            self.reference_box.clear()
            self.reference_box.addItems(names)
            self.reference_box.setCurrentText(wanted if wanted in names else AUTO)
        self._show_result()

    def keep(self, prepared: PreparedScans) -> None:
        """Show what was prepared, and keep it for the next run."""
        self.prepared = prepared
        self._show_result()

    def _show_result(self) -> None:
        selection = self._selection
        assert selection is not None
        prepared = self.prepared.serve(selection, self.config) if self.prepared is not None else None
        alignment = prepared.volume.alignment if prepared is not None else None
        reference = selection.reference
        if alignment is None or prepared is None:
            grids = {grid_key(place.grid) for _, place in selection.arrays.values()}
            what = f"{len(grids)} different grids" if len(grids) > 1 else "one grid"
            self.line.setText(f"The scans lie on {what}. Segment brings them onto the grid of {reference}.")
            self._fill({})
            self.check.look_at(None)
            return
        self.line.setText(
            f"All scans were brought onto the grid of {reference}, for the model only: the layers stay as they are. "
            "Choose another way to undo it."
        )
        self._fill({m: describe_scan(alignment, m) for m in alignment.scans if m != reference})
        self.check.look_at(prepared)

    def _fill(self, texts: dict[str, str]) -> None:
        if texts == self.texts:
            return
        self.texts = texts
        while item := self._grid.takeAt(0):
            if widget := item.widget():
                widget.hide()
                widget.deleteLater()
        for row, (modality, text) in enumerate(texts.items()):
            self._grid.addWidget(QLabel(modality), row, 0)
            self._grid.addWidget(make_line(text, f"How {modality} was aligned"), row, 1)

    def _tell(self, _: int = 0) -> None:
        self.changed.emit()


def grid_key(grid: Any) -> tuple[Any, ...]:
    """Return what tells two grids apart."""
    return (grid.shape, *np.round(grid.affine, 3).ravel().tolist())


def describe_scan(alignment: Alignment, modality: str) -> str:
    """Say in a few words how a scan got onto the grid of the reference."""
    scan: AlignedScan = alignment.scans[modality]
    if scan.how == "registered":
        shift_mm, angle_deg = alignment.find_move(modality)
        text = f"registered: moved {shift_mm:.1f} mm, turned {angle_deg:.1f}°"
        if scan.before is not None and scan.after is not None:
            text += f" (similarity {scan.before:.2f} → {scan.after:.2f})"
    elif scan.how == "scanner coordinates":
        text = "by scanner coordinates"
        if scan.before is not None:
            text += f"; registration found no better place (similarity {scan.before:.2f})"
    else:
        text = "shares the grid"
    if not lie_alike(scan.grid, alignment.scans[alignment.reference].grid):
        text += f"; resampled from {' x '.join(f'{side:.2g}' for side in scan.grid.spacing)} mm"
    if scan.coverage < 0.9:
        text += f"; shows {scan.coverage:.0%} of the head"
    return text


class AlignmentCheck(QWidget):
    """Shows the reference and another scan in turn, or in fields, in a layer that is there only meanwhile.

    Parameters
    ----------
    viewer
        Where the layer is shown.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._prepared: PreparedScans | None = None
        self._shown: list[Image] = []  # the layer while there is one; outlives the widget
        self._pair: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self.scan_box = Combo()
        name_widget(self.scan_box, "Scan to check", "Compare this scan with the reference")
        self.scan_box.activated.connect(self._show)
        self.buttons: dict[How, QPushButton] = {
            "flicker": QPushButton("Flicker"),
            "board": QPushButton("Checkerboard"),
        }
        tips = {
            "flicker": "Show the reference and this scan in turn: edges that jump are not aligned",
            "board": "Show fields of the reference and of this scan: edges that break are not aligned",
        }
        row = QHBoxLayout()
        for how, button in self.buttons.items():
            button.setCheckable(True)
            name_widget(button, button.text(), tips[how])
            button.clicked.connect(lambda on, how=how: self._toggle(how, on))
            row.addWidget(button)
        self.line = make_line("", "What is shown now")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.scan_box)
        column.addLayout(row)
        column.addWidget(self.line)
        self._timer = QTimer(self)
        self._timer.setInterval(FLICKER_MS)
        self._timer.timeout.connect(self._swap)
        follow(self, self._forget, viewer.layers.events.removed)
        when_destroyed(self, _take_away, viewer, self._shown)
        self.hide()

    @property
    def layer(self) -> Image | None:
        """The temporary layer, while it is there."""
        return self._shown[0] if self._shown else None

    def look_at(self, prepared: PreparedScans | None) -> None:
        """Offer the scans of what was prepared; what is shown of others is taken away."""
        before = self._prepared
        same = before is not None and prepared is not None and before.volume is prepared.volume
        self._prepared = prepared
        self.setVisible(prepared is not None)
        if same:
            return
        self.stop()
        others = [m for m in prepared.volume.modalities if m != prepared.selection.reference] if prepared else []
        chosen = self.scan_box.currentText()
        self.scan_box.clear()
        self.scan_box.addItems(others)
        if chosen in others:
            self.scan_box.setCurrentText(chosen)

    def stop(self) -> None:
        """Take the layer away."""
        self._timer.stop()
        self._pair = None
        for button in self.buttons.values():
            button.setChecked(False)
        self._tell("")
        _take_away(self._viewer, self._shown)

    def _toggle(self, how: How, on: bool) -> None:
        if not on:
            self.stop()
            return
        for other, button in self.buttons.items():
            button.setChecked(other == how)
        self._show()

    def _show(self, _: int = 0) -> None:
        """Make the pictures of the chosen scan, and show them in the way that is chosen."""
        how = next((how for how, button in self.buttons.items() if button.isChecked()), None)
        prepared, modality = self._prepared, self.scan_box.currentText()
        self._timer.stop()
        if how is None or prepared is None or not modality:
            return
        reference, volume = prepared.selection.reference or "", prepared.volume
        one, two = (even_out(volume.data[volume.modalities.index(name)]) for name in (reference, modality))
        self._pair = one, two
        if how == "board":
            self._draw(make_checkerboard(one, two, volume.spacing))
            self._tell(f"Fields of {reference} and {modality} in turn: edges should go on from one to the next.")
        else:
            self._turn = 1
            self._draw(one)
            self._swap()
            self._timer.start()

    def _swap(self) -> None:
        if self._pair is None or self._prepared is None:
            return
        names = self._prepared.selection.reference, self.scan_box.currentText()
        self._turn = 1 - self._turn
        self._draw(self._pair[self._turn])
        self._tell(f"Now {names[self._turn]}: edges should stay where they are.")

    def _draw(self, image_ZYX: NDArray[np.float32]) -> None:
        assert self._prepared is not None
        selection = self._prepared.selection
        if self.layer is not None:
            self.layer.data = selection.placement.to_layer(image_ZYX)
            return
        layers = self._viewer.layers
        active = unwrap_layer(layers.selection.active)
        layer = make_check_layer(image_ZYX, selection.placement, f"Alignment check [{selection.name}]", selection.name)
        self._shown.append(layer)
        self._viewer.add_layer(layer)
        if active is not None:
            layers.selection.active = active

    def _tell(self, text: str) -> None:
        self.line.setText(text)
        self.line.setVisible(bool(text))

    def _forget(self, event: Any) -> None:
        """Stop if the user has deleted the layer."""
        if self.layer is not None and unwrap_layer(event.value) is self.layer:
            self._shown.clear()
            self.stop()


def _take_away(viewer: napari.viewer.Viewer, shown: list[Image]) -> None:
    while shown:
        layer = shown.pop()
        if layer in viewer.layers:
            viewer.layers.remove(layer)

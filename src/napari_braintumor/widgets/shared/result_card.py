"""What a label layer of a model holds: its legend with milliliters, the regions, and what to do with them.

The card belongs to a layer and counts from it: the tumor layer that is selected, else the last one, as long as it is of
the case in work.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.segmenting.trust import read_trust
from napari_braintumor.layers import (
    KEY,
    Answer,
    Figures,
    Selection,
    case_of,
    explain_lock,
    figures_of,
    find_placement,
    follow_labels,
    is_result,
    is_result_of,
    kept_slices,
    replace_kept,
    show_region,
    shown_region,
    unwrap_layer,
)
from napari_braintumor.widgets.shared.dock import open_dock
from napari_braintumor.widgets.shared.following import follow
from napari_braintumor.widgets.shared.parts import Combo, copy_text, make_line, name_widget
from napari_braintumor.widgets.shared.saving import LabelSaver

if TYPE_CHECKING:
    import napari

COUNT_MS = 30
"""Between two bits of counting, where a layer is too large to be counted at once."""

COUNT_S = 0.02
"""How long one bit keeps the window waiting."""

_LEAST_ML = 0.05
"""Volumes are shown with one decimal; a smaller change is not shown."""


class ResultCard(QGroupBox):
    """What the tumor layer holds as it is now.

    Parameters
    ----------
    viewer
        Whose selected layer is shown.
    """

    reported = Signal(str)
    """A sentence for the dock to show."""

    failed = Signal(object, str)
    """A `Failure` for the dock to show, and what did not happen."""

    case_asked = Signal(object)
    """A result of another case than the one in work was selected: its layer."""

    tune_asked = Signal(object)
    """The layer from which a model is to learn."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__("Result")
        self._viewer = viewer
        self._figures: Figures | None = None
        self._work: Selection | None = None
        self._values: dict[str, QLabel] = {}
        self._build()
        self._counting = QTimer(self)
        self._counting.setInterval(COUNT_MS)
        self._counting.timeout.connect(self._count)
        follow_labels(viewer)
        layers = viewer.layers
        follow(self, self._choose, layers.selection.events.active, layers.events.removed)
        self._choose()

    @property
    def layer(self) -> Labels | None:
        """The tumor layer that is shown."""
        return self._figures.layer if self._figures is not None else None

    def work_on(self, selection: Selection | None) -> None:
        """Show no figures of other cases than the one that is worked on, unless their layer is selected."""
        self._work = selection
        self._choose()
        self._refresh()

    def save_to(self, path: Path, also: Collection[str] = (), on: str | None = None) -> None:
        """Write the layer's labels as they are now, with their record, in the background, and report it.

        Parameters
        ----------
        path
            The file.
        also
            Any of `EXTRAS`.
        on
            The modality on whose own grid they are written, if it has another one.
        """
        if self.layer is not None:
            self.saver.save_to(self.layer, path, also, on)

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        column = QVBoxLayout(self)
        self.headline = make_line("", "Result in words")
        self.legend = QWidget()
        self._grid = QGridLayout(self.legend)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(1, 1)
        self.trust_line = make_line("", "Trust in the model's answer")
        self.hand_line = make_line("", "Model against hand")
        self.kept_line = make_line("", "Slices that were kept")
        self.replace_button = QPushButton("Replace them too")
        name_widget(
            self.replace_button, "Replace them too", "Take the model's answer in these slices as well; Ctrl+Z undoes it"
        )
        self.replace_button.clicked.connect(self._replace)
        self.show_box = Combo()
        name_widget(
            self.show_box, "Show labels or a region", "A region is made of several labels; saving is not changed"
        )
        self.show_box.currentIndexChanged.connect(self._show_region)
        self.lock_line = make_line("", "Why the brush is locked")
        self.notes_line = make_line("", "Notes on this run")
        self.saver = LabelSaver(self._viewer, lambda: self.layer)
        self.saver.reported.connect(self.reported)
        self.saver.failed.connect(self.failed)
        self.save_button = self.saver.save_button
        self.copy_button = QPushButton("Copy record")
        name_widget(self.copy_button, "Copy record", "Copy volumes, model, settings and source as JSON")
        self.copy_button.clicked.connect(self._copy)
        self.correct_button = QPushButton("Correct…")
        name_widget(self.correct_button, "Correct", "Correct the tumor with strokes, brush and tools; review slices")
        self.correct_button.clicked.connect(self._correct)
        self.tune_button = QPushButton("Fine-tune…")
        name_widget(self.tune_button, "Fine-tune", "Correct some slices, then let the model learn from them")
        self.tune_button.clicked.connect(lambda: self.tune_asked.emit(self.layer))
        for widget in (
            self.headline,
            self.legend,
            self.trust_line,
            self.hand_line,
            self.kept_line,
            self.replace_button,
        ):
            column.addWidget(widget)
        for widget in (self.show_box, self.lock_line, self.notes_line):
            column.addWidget(widget)
        column.addWidget(self.correct_button)
        column.addWidget(self.saver)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy_button)
        buttons.addWidget(self.tune_button)
        column.addLayout(buttons)
        self.hide()

    # ---------------------------------------------------------------------------------------------- which layer

    def _choose(self, _: Any = None) -> None:
        """Show the selected tumor layer, else the last one if it is still there and of the case in work."""
        results = [unwrap_layer(layer) for layer in self._viewer.layers if is_result(layer)]
        active, last = unwrap_layer(self._viewer.layers.selection.active), self.layer
        if active in results:
            chosen = active
            if not self._fits(active):
                self.case_asked.emit(active)
        elif last in results and self._fits(last):
            chosen = last
        else:
            gone = last is not None and last not in results
            chosen = None if gone else next((layer for layer in reversed(results) if self._fits(layer)), None)
        self._follow(chosen)

    def _fits(self, layer: Any) -> bool:
        """Whether a layer is of the case in work."""
        return self._work is None or is_result_of(layer, self._work)

    def _follow(self, layer: Labels | None) -> None:
        if layer is not None and layer is self.layer:
            return
        if self._figures is not None:
            self._figures.events.changed.disconnect(self._refresh)
        self._figures = figures_of(layer) if layer is not None else None
        if self._figures is not None:
            self._figures.events.changed.connect(self._refresh)
        self._refresh()

    # ---------------------------------------------------------------------------------------------- what it holds

    def _count(self) -> None:
        """Go on counting a large layer, or stop."""
        if self._figures is None or self._figures.complete:
            self._counting.stop()
            self._refresh()
        else:
            self._figures.count_some(COUNT_S)

    def _refresh(self, _: Any = None) -> None:
        """Fill the card from the layer."""
        figures = self._figures
        self.setVisible(figures is not None)
        if figures is None:
            self._fill_rows([])
            for line in (
                self.headline,
                self.trust_line,
                self.hand_line,
                self.kept_line,
                self.lock_line,
                self.notes_line,
            ):
                line.setText("")
            return
        if not figures.complete and not self._counting.isActive():
            self._counting.start()
        answer = figures.answer
        assert answer is not None
        region_ml, label_ml = figures.region_ml, figures.label_ml
        other = "" if self._fits(figures.layer) else " This is not the case in work."
        self.headline.setText(f"{_headline(figures)}{other}")
        colors = figures.label_colors
        rows = [(colors[label], name, label_ml[label]) for label, name in sorted(figures.label_names.items())]
        why_not = {answer.label_names[answer.regions[r][0]]: reason for r, reason in answer.not_measurable.items()}
        lines = [(color, name, why_not[name] if np.isnan(ml) else f"{ml:.1f} mL") for color, name, ml in rows]
        lines += [
            ("", region, f"{region_ml[region]:.1f} mL" if region in region_ml else answer.not_measurable[region])
            for region in answer.regions
        ]
        self._fill_rows(lines)
        _say(self.trust_line, describe_trust(answer))
        _say(self.hand_line, describe_hands(figures))
        kept = len(kept_slices(figures.layer))
        _say(self.kept_line, describe_kept(kept))
        self.replace_button.setVisible(bool(kept))
        _say(self.notes_line, "\n".join(answer.notes))
        shown = shown_region(figures.layer)
        self._offer([region for region in answer.regions if region in region_ml], shown)
        _say(self.lock_line, explain_lock(shown) if shown is not None else "")

    def _fill_rows(self, lines: list[tuple[str, str, str]]) -> None:
        """Show a color, a name and a value a row; only the values change while it is painted."""
        keys = [f"{color} {name}" for color, name, _ in lines]
        if keys != list(self._values):
            while item := self._grid.takeAt(0):
                if widget := item.widget():
                    widget.deleteLater()
            self._values = {}
            labels = sum(1 for color, _, _ in lines if color)
            for i, (key, (color, name, _)) in enumerate(zip(keys, lines, strict=True)):
                row = i if color else i + 1
                if i == labels:
                    line = QFrame()
                    line.setFrameShape(QFrame.Shape.HLine)
                    self._grid.addWidget(line, i, 0, 1, 3)
                if color:
                    self._grid.addWidget(_make_swatch(color, name), row, 0)
                self._grid.addWidget(QLabel(name), row, 1)
                self._values[key] = value = QLabel()
                value.setAlignment(Qt.AlignmentFlag.AlignRight)
                value.setWordWrap(True)
                self._grid.addWidget(value, row, 2)
        for key, (_, _, text) in zip(keys, lines, strict=True):
            self._values[key].setText(text)

    def _offer(self, regions: list[str], shown: str | None) -> None:
        self.show_box.blockSignals(True)
        if [self.show_box.itemData(i) for i in range(self.show_box.count())] != [None, *regions]:
            self.show_box.clear()
            self.show_box.addItem("Show labels", None)
            for region in regions:
                self.show_box.addItem(f"Show {region}", region)
        self.show_box.setCurrentIndex([None, *regions].index(shown) if shown in regions else 0)
        self.show_box.blockSignals(False)

    # ---------------------------------------------------------------------------------------------- what to do

    def _show_region(self) -> None:
        """Color the layer by its labels, or all labels of one region alike; the labels themselves stay."""
        if self._figures is None or (answer := self._figures.answer) is None:
            return
        region = self.show_box.currentData()
        show_region(self._figures.layer, region, self._figures.label_colors, answer.regions.get(region, ()))
        self._refresh()

    def _replace(self) -> None:
        if self.layer is not None:
            replace_kept(self.layer)
            self._refresh()

    def _correct(self) -> None:
        from napari_braintumor.widgets.correcting.dock import CorrectDock

        if self.layer is not None:
            self._viewer.layers.selection.active = self.layer
            open_dock(self._viewer, CorrectDock)

    def _copy(self) -> None:
        if self._figures is not None:
            self._figures.settle()
            copy_text(json.dumps(self._figures.describe(), indent=1))
            self.reported.emit("The record is on the clipboard.")


def describe_trust(answer: Answer) -> str:
    """Say how far the model's answer can be trusted; empty if that is not known."""
    trust = read_trust(answer.record)
    return "" if trust is None else "\n".join(trust.lines())


def describe_hands(figures: Figures) -> str:
    """Hold what stands in a layer against what its model gave; empty where they are the same."""
    edited = figures.edited
    if not edited:
        return ""
    model_ml = figures.model_ml
    parts = [
        f"{region}: {ml:.1f} mL; model {model_ml.get(region, 0.0):.1f}, by hand {ml - model_ml.get(region, 0.0):+.1f}"
        for region, ml in figures.region_ml.items()
        if abs(ml - model_ml.get(region, 0.0)) >= _LEAST_ML
    ]
    parts.append(f"Slices edited by hand: {in_ranges(edited)}.")
    return "\n".join(parts)


def describe_kept(count: int) -> str:
    """Say how many slices the last run did not touch; empty if none."""
    if not count:
        return ""
    slices = "1 reviewed slice" if count == 1 else f"{count} reviewed slices"
    return f"{slices} kept: edited by hand, or marked as reviewed, since the last run."


def in_ranges(numbers: tuple[int, ...]) -> str:
    """Return rising numbers in words, those in a row as a range: ``3-5, 9``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _headline(figures: Figures) -> str:
    layer = figures.layer
    found = any(ml > 0 for ml in figures.label_ml.values())
    guess = "" if find_placement(layer).grid.spacing_known else " The voxel size is unknown, so mL are a guess."
    counting = "" if figures.complete else " Counting…"
    by = layer.metadata[KEY].get("by")
    whose = f"[{case_of(layer)}]{f' by {by}' if by else ''}"
    return f"{'Tumor' if found else 'No tumor found'} {whose}.{guess}{counting}"


def _make_swatch(color: str, name: str) -> QLabel:
    pixmap = QPixmap(14, 14)
    pixmap.fill(QColor(color))
    swatch = QLabel()
    swatch.setPixmap(pixmap)
    swatch.setAccessibleName(f"Color of {name}")
    return swatch


def _say(line: QLabel, text: str) -> None:
    line.setText(text)
    line.setVisible(bool(text))

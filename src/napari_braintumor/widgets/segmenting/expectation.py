"""What to expect of a model for the scans that are chosen: Dice of each region, by the kind of case."""

from __future__ import annotations

from collections.abc import Collection

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.widgets.shared.parts import literal, make_line


class Expectation(QWidget):
    """A row for each region; those that the scans cannot show are gray, with the reason.

    Attributes
    ----------
    texts
        The text about each region.
    """

    def __init__(self) -> None:
        super().__init__()
        self.headline = make_line("", "Expected Dice")
        self._rows = QWidget()
        self._grid = QGridLayout(self._rows)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(1, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.headline)
        column.addWidget(self._rows)
        self.texts: dict[str, str] = {}
        self._shown: tuple[ModelCard, frozenset[str]] | None = None
        self.hide()

    def show_for(self, card: ModelCard | None, modalities: Collection[str]) -> None:
        """Say what to expect of a model where these modalities are there; nothing without a model or a scan."""
        wanted = (card, frozenset(modalities)) if card is not None and modalities else None
        self.setVisible(wanted is not None)
        if wanted is None or wanted == self._shown:
            return
        self._shown = wanted
        card, used = wanted
        self.headline.setText(f"Expected Dice with {', '.join(m for m in card.modalities if m in used)}")
        while item := self._grid.takeAt(0):
            if widget := item.widget():
                widget.hide()
                widget.deleteLater()
        expected, missing = card.expected_dice(used), card.find_unmeasurable(used)
        regions = [region.name for region in card.regions]
        self.texts = {region: missing.get(region) or _describe(expected.get(region, ())) for region in regions}
        for row, (region, said) in enumerate(self.texts.items()):
            name, text = QLabel(region), make_line(said, f"Expected Dice of {region}")
            name.setTextFormat(Qt.TextFormat.PlainText)
            for column, label in enumerate((name, text)):
                label.setEnabled(region not in missing)
                label.setToolTip(literal("\n".join(map(_explain, expected.get(region, ())))))
                self._grid.addWidget(label, row, column)


def expected_range(card: ModelCard, modalities: Collection[str]) -> str:
    """Return the Dice of the outermost region with these modalities, from the least to the best kind of case."""
    means = [metric.mean for metric in card.expected_dice(modalities).get(card.regions[0].name, ())]
    if not means:
        return ""
    low, high = (f"{mean:.2f}" for mean in (min(means), max(means)))
    return f"Dice {low}" if low == high else f"Dice {low} to {high}"


def _describe(metrics: Collection[Metric]) -> str:
    return ", ".join(f"{metric.mean:.2f} {metric.kind}" for metric in metrics) or "not measured with these scans"


def _explain(metric: Metric) -> str:
    interval = "" if metric.low is None or metric.high is None else f", 95 % of {metric.low:.2f} to {metric.high:.2f}"
    seen = "patients that training never saw" if metric.held_out else "cases that guided the training"
    return f"{metric.kind}: {metric.data}, n = {metric.n}{interval}, {seen}"

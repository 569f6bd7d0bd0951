"""What comparing several models gave: a table of regions and models, to read and to copy."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QModelIndex, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.measuring.metrics import Metric, list_agreement_metrics
from napari_braintumor.engine.volumes import Comparison
from napari_braintumor.widgets.shared.parts import copy_text, in_words, make_line, name_widget
from napari_braintumor.widgets.shared.tables import TextTable, make_table_view

ROWS_SEEN = 12


class ComparisonTable(QWidget):
    """The figures of a comparison."""

    model_asked = Signal(str)
    """The name of the model whose row was chosen; empty for the reference."""

    def __init__(self) -> None:
        super().__init__()
        self.comparison: Comparison | None = None
        self.headline = make_line("", "Comparison in words")
        self.table = TextTable(numbers_from=2)
        self.view = make_table_view(self.table, "Comparison", "Click a row to see its model's layer")
        if (selection := self.view.selectionModel()) is not None:
            selection.currentRowChanged.connect(self._ask)
        if (side := self.view.verticalHeader()) is not None:
            side.hide()
        self.copy_button = QPushButton("Copy table")
        name_widget(
            self.copy_button, "Copy table", "Copy the table to paste it into a spreadsheet (tabs between cells)"
        )
        self.copy_button.clicked.connect(self._copy)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.headline, self.view, self.copy_button):
            column.addWidget(widget)
        column.addStretch(1)
        self.hide()

    def show_comparison(self, comparison: Comparison, badges: Mapping[str, str] | None = None) -> None:
        """Fill the table.

        Parameters
        ----------
        comparison
            The comparison.
        badges
            For models that are in doubt, why, in a few words.
        """
        self.comparison = comparison
        doubted = [f"{name}: {badge}." for name, badge in (badges or {}).items() if name in comparison.models]
        self.headline.setText(" ".join((describe_comparison(comparison), *doubted)))
        header, rows = tabulate(comparison, short=True)
        for cells, (_, name, *_) in zip(rows, tabulate(comparison)[1], strict=True):
            cells[1] += f" ({badges[name]})" if badges and name in badges else ""
        self.table.fill(rows, header, tabulate(comparison)[0])
        self.view.resizeColumnsToContents()
        self.view.resizeRowsToContents()
        heights = [self.view.rowHeight(row) for row in range(min(len(rows), ROWS_SEEN))]
        head, scroll = self.view.horizontalHeader(), self.view.horizontalScrollBar()
        extra = (head.sizeHint().height() if head else 0) + (scroll.sizeHint().height() if scroll else 0)
        self.view.setFixedHeight(sum(heights) + extra + 2 * self.view.frameWidth())
        self.show()

    def _ask(self, cell: QModelIndex) -> None:
        if self.comparison is not None and cell.isValid():
            name = tabulate(self.comparison)[1][cell.row()][1]
            self.model_asked.emit(name if name in self.comparison.models else "")

    def _copy(self) -> None:
        if self.comparison is not None:
            copy_text(comparison_as_tsv(self.comparison))


def describe_comparison(comparison: Comparison) -> str:
    """Return the most important of a comparison in a few words."""
    times = ", ".join(
        f"{number} {name} ({in_words(s)})"
        for number, (name, s) in enumerate(zip(comparison.models, comparison.seconds, strict=True), 1)
    )
    guess = "" if comparison.source.spacing_known else " The voxel size is unknown, so mL and mm are a guess."
    where = f"Where they disagree: {comparison.disagreement_ml:.1f} mL."
    compared = "" if comparison.reference_ml else " Without a reference nobody knows which is right."
    return f"[{comparison.name}] {times}. {where}{compared}{guess}"


def tabulate(comparison: Comparison, short: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a comparison: for each region each model that finds it, then the reference.

    Parameters
    ----------
    comparison
        The comparison.
    short
        Whether models are called by their numbers where little room is: in the header, and before their names.

    Returns
    -------
    tuple
        The header's cells, and the cells of each row.
    """
    models = comparison.models
    header = ["Region", "Model", "mL"]
    if comparison.reference_ml:
        header += [_head_column(metric, short) for metric in list_agreement_metrics()]
    header += [f"Dice {number}" if short else f"Dice with {name}" for number, name in enumerate(models, 1)]
    rows = []
    for region in comparison.regions:
        drawn = region in comparison.reference_ml
        for i, name in enumerate(models):
            if region not in comparison.volumes_ml[i]:
                continue
            row = [region, f"{i + 1} {name}" if short else name, f"{comparison.volumes_ml[i][region]:.2f}"]
            if drawn:
                against = comparison.against_reference[i]
                row += [metric.show(against[metric.name][region]) for metric in list_agreement_metrics()]
            elif comparison.reference_ml:
                row += [""] * len(list_agreement_metrics())
            for j in range(len(models)):
                dice = comparison.dice.get((min(i, j), max(i, j)), {}).get(region)
                row.append("" if dice is None else f"{dice:.3f}")
            rows.append(row)
        if drawn:
            row = [region, "reference", f"{comparison.reference_ml[region]:.2f}"]
            rows.append(row + [""] * (len(header) - len(row)))
    return header, rows


def _head_column(metric: Metric, short: bool) -> str:
    """Return the heading of a metric against the reference; Dice has columns against other models too."""
    if short:
        return metric.heading if metric.unit else f"{metric.title} ref."
    return f"{metric.heading} against the reference"


def comparison_as_tsv(comparison: Comparison) -> str:
    """Return the table of a comparison with tabs between its cells."""
    header, rows = tabulate(comparison)
    return "".join("\t".join(cells) + "\n" for cells in [header, *rows])

"""Names are shown to the letter, whatever Qt and Markdown would make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import QAbstractItemView, QCheckBox, QGroupBox, QLabel, QPushButton, QTextBrowser, QToolTip, QWidget

from napari_braintumor.engine.models.card import DataSource, Metric, ModelCard
from napari_braintumor.engine.models.card_text import card_as_markdown, escape_markdown
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.layers import layers_from_case
from napari_braintumor.widgets.models.dock import ModelsDock
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.shared.parts import literal, without_mnemonic
from napari_braintumor.widgets.training.dock import TrainDock

ODD = ("pat[old]", "<b>x</b>", "A&B", "a*b*", "_x_", "`c`", "x | y", "[l](http://x)", "\\n", "&lt;", "~~z~~", "<img>")


def shown_as_markdown(text: str) -> str:
    document = QTextDocument()
    document.setMarkdown(text)
    return document.toPlainText()


@pytest.mark.parametrize("name", ODD)
def test_markdown_shows_a_name_to_the_letter(name, qapp):
    assert shown_as_markdown(f"- **Name**: {escape_markdown(name)}\n") == f"Name: {name}"
    assert name in shown_as_markdown(f"| a | b |\n|---|---|\n| {escape_markdown(name)} | 1 |\n")


@pytest.mark.parametrize("name", ODD)
def test_a_tooltip_shows_a_name_to_the_letter(name, qapp):
    tip = literal(f"{name}\nmore")
    document = QTextDocument()
    if tip.startswith("<qt>"):
        document.setHtml(tip)
        assert document.toPlainText() == f"{name}\nmore"
    else:
        assert tip == f"{name}\nmore"
        assert "<" not in tip


def test_the_card_shows_names_to_the_letter(qapp):
    for name in ODD:
        metric = Metric(data=name, region="whole tumor", modalities=("FLAIR",), mean=0.5, n=1, held_out=True)
        source = DataSource(name=name, patients=1, license=name, defines=(), note=name)
        card = ModelCard(
            name="a", architecture="unet", modalities=("FLAIR",), metrics=(metric,), trained_on=(source,),
            limitations=f"Not for {name}.", license=name, held_out_patients=(name,), options={"width": name},
        )  # fmt: skip
        shown = shown_as_markdown(card_as_markdown(card))
        assert shown.count(name) == 8, name


def test_the_docks_show_names_to_the_letter(qtbot, synthetic_volume, monkeypatch):
    odd = "<b>x</b> & pat[old]"
    card = ModelCard(
        name="a", title=odd, architecture="unet", modalities=("T1", odd), accepts_missing=True,
        limitations=f"Not for {odd}.", parent=odd,
    )  # fmt: skip
    models = [
        StoredModel("a", Path("a.safetensors"), card),
        StoredModel(odd, Path("b.safetensors"), None, problem=f"'{odd}' is damaged."),
    ]
    monkeypatch.setattr(ModelStore, "list", lambda self: models)
    viewer = ViewerModel()
    for layer in layers_from_case(synthetic_volume(name=odd)):
        viewer.add_layer(Layer.create(*layer))
    docks: list[Any] = [SegmentDock(viewer), ModelsDock(viewer), TrainDock(viewer)]
    for dock in docks:
        qtbot.addWidget(dock)
        for index in range(2):  # each model of Segment's
            if isinstance(dock, SegmentDock):
                dock.model_choice.box.setCurrentIndex(index)
                dock.model_choice.card_view.part.expand(animate=False)
            _check_widgets(dock, odd)
    assert docks[0].slots["T1"].currentText().endswith(f"[{odd}]")
    assert docks[0].model_choice.box.itemText(0).startswith(odd)


def _check_widgets(dock: QWidget, odd: str) -> None:
    for widget in dock.findChildren(QWidget):
        tip = widget.toolTip()
        assert "<b>" not in tip, tip
        if isinstance(widget, QLabel) and odd in widget.text():
            assert widget.textFormat() == Qt.TextFormat.PlainText, widget.text()
        if isinstance(widget, QLabel) and widget.buddy() and "x</b>" in widget.text():
            assert without_mnemonic(odd) in widget.text()
        if isinstance(widget, QPushButton | QCheckBox | QGroupBox):
            text = widget.title() if isinstance(widget, QGroupBox) else widget.text()
            assert "& " not in text.replace("&&", "")
        if isinstance(widget, QTextBrowser) and widget.toPlainText():
            assert f"Not for {odd}." in widget.toPlainText()
        if isinstance(widget, QAbstractItemView) and (table := widget.model()) is not None:
            cells = [
                table.index(row, column) for row in range(table.rowCount()) for column in range(table.columnCount())
            ]
            assert not [cell for cell in cells if "<b>" in (cell.data(Qt.ItemDataRole.ToolTipRole) or "")]
    assert QToolTip.text() == ""

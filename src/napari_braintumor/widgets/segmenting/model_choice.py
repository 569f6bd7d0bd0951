"""Which model segments: a list with the figures of each, and the card of the chosen one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.card_text import architecture_title, headline_metric
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import DEFAULT_MODEL
from napari_braintumor.widgets.segmenting.expectation import expected_range
from napari_braintumor.widgets.shared.card_view import CardView
from napari_braintumor.widgets.shared.parts import Combo, in_words, literal, make_line, name_widget


class ModelChoice(QWidget):
    """Choose a model of the store."""

    changed = Signal()
    """Another model is chosen, or the store was read again."""

    def __init__(self) -> None:
        super().__init__()
        self._models: list[StoredModel] = []
        self.box = Combo()
        name_widget(self.box, "Model", "The model that draws the tumor")
        self.box.currentIndexChanged.connect(self._show_model)
        self.card_line = make_line("", "What the model is")
        self.card_view = CardView()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.box, self.card_line, self.card_view.part):
            column.addWidget(widget)

    @property
    def model(self) -> StoredModel | None:
        """The chosen model."""
        index = self.box.currentIndex()
        return self._models[index] if 0 <= index < len(self._models) else None

    @property
    def name(self) -> str:
        """What the chosen model is called in a config: its file, where another one has the same name."""
        model = self.model
        if model is None:
            return DEFAULT_MODEL
        alike = [stored for stored in self._models if stored.name == model.name]
        return model.name if len(alike) == 1 else str(model.path)

    def reload(self) -> None:
        """Read the store again, keeping the chosen model if it is still there."""
        before = self.model
        self._models = ModelStore().list()
        self.box.blockSignals(True)
        self.box.clear()
        for stored in self._models:
            self.box.addItem(describe_model(stored, None))
            tooltip = stored.problem or (describe_card(stored.card) if stored.card else "")
            self.box.setItemData(self.box.count() - 1, literal(tooltip), Qt.ItemDataRole.ToolTipRole)
        preferred = [before.path] if before else []
        preferred += [stored.path for stored in self._models if stored.name == DEFAULT_MODEL]
        preferred += [stored.path for stored in self._models if stored.card]
        if preferred:
            paths = [stored.path for stored in self._models]
            self.box.setCurrentIndex(next((paths.index(path) for path in preferred if path in paths), 0))
        self.box.blockSignals(False)
        self._show_model()

    def choose(self, path: Path) -> None:
        """Read the store again and choose the model of a file, if it is there."""
        self.reload()
        paths = [stored.path for stored in self._models]
        if path in paths:
            self.box.setCurrentIndex(paths.index(path))

    def describe_for(self, slices: int | None, modalities: Collection[str]) -> None:
        """Say of each model what to expect of it for these scans."""
        for index, stored in enumerate(self._models):
            self.box.setItemText(index, describe_model(stored, slices, modalities))

    def _show_model(self) -> None:
        model = self.model
        card = model.card if model else None
        if card is not None:
            self.card_line.setText(describe_card(card))
            more = filter(None, (*card.doubts, card.intended_use, card.limitations))
            self.card_line.setToolTip(literal("\n".join(more)))
        else:
            self.card_line.setText(model.problem if model else "No model is installed.")
        self.card_view.show_model(model)
        self.changed.emit()


def describe_model(stored: StoredModel, slices: int | None, modalities: Collection[str] = ()) -> str:
    """Return a model's row in the list: its title, Dice, and time on a CPU, where they are known.

    Parameters
    ----------
    stored
        The model.
    slices
        Of the scans, which the time depends on.
    modalities
        Of the scans, which the Dice depends on; without any, that of the card's largest set.

    Returns
    -------
    str
        One line.
    """
    card = stored.card
    if card is None:
        return f"{stored.name} (unusable)"
    measured = headline_metric(card)
    dice = expected_range(card, modalities) if modalities else f"Dice {measured.mean:.2f}" if measured else ""
    facts = [*card.badges, *([dice] if dice else [])]
    if card.cpu_seconds_per_slice and slices:
        facts.append(f"{in_words(max(1.0, card.cpu_seconds_per_slice * slices))} on a CPU")
    return " · ".join((card.title or stored.name, *facts))


def describe_card(card: ModelCard) -> str:
    """Return the most important of a card in a few words."""
    inputs = ", ".join(card.modalities) + (" or any of them" if card.accepts_missing else "")
    regions = ", ".join(region.name for region in card.regions)
    return " · ".join(filter(None, (*card.badges, architecture_title(card), inputs, regions, card.license)))

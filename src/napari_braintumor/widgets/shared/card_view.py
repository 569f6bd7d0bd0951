"""A model's card, to be read in a part of a dock that is closed at first."""

from __future__ import annotations

from qtpy.QtWidgets import QTextBrowser

from napari_braintumor.engine.models.card_text import card_as_markdown
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.widgets.shared.parts import make_collapsible

HEIGHT_PX = 260
INDENT_PX = 12


class CardView(QTextBrowser):
    """The card of one model, which is written only while it can be seen.

    Attributes
    ----------
    part
        The part of the dock that holds it, to be laid out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._model: StoredModel | None = None
        self.setAccessibleName("Model card")
        self.setMinimumHeight(HEIGHT_PX)
        self.setOpenExternalLinks(True)
        if (document := self.document()) is not None:
            document.setIndentWidth(INDENT_PX)
        self.part = make_collapsible("Model card", self)
        self.part.toggled.connect(self._write)

    def show_model(self, model: StoredModel | None) -> None:
        """Show a model's card; nothing of a model that has none."""
        self._model = model
        self.part.setVisible(model is not None and model.card is not None)
        self._write()

    def _write(self, _: bool = False) -> None:
        model = self._model
        if model is not None and model.card is not None and self.part.isExpanded():
            there = model.path.exists()  # it may have been deleted meanwhile
            self.setMarkdown(card_as_markdown(model.card, model.path if there else None))

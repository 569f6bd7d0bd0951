"""A question before models are used that nobody has validated, or whose training was stopped early."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.widgets.shared.parts import make_line, name_widget

_ACCEPTED: set[tuple[str, tuple[str, ...]]] = set()  # in this session: files of models, and what was doubted of them


class DoubtQuestion(QWidget):
    """Asks once for each model and session; out of sight while nothing is to be asked."""

    accepted = Signal()
    """The user wants to use the models all the same."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: tuple[StoredModel, ...] = ()
        self.line = make_line("", "Doubts about the model")
        self.button = QPushButton("Use it anyway")
        name_widget(self.button, "Use it anyway", "Go on; this is not asked again for the model until napari is closed")
        self.button.clicked.connect(self._accept)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.line)
        column.addWidget(self.button)
        self.hide()

    def settles(self, models: Sequence[StoredModel]) -> bool:
        """Return whether models may be used; otherwise ask."""
        doubted = [model for model in models if model.card and model.card.doubts]
        self._asked = tuple(model for model in doubted if _key(model) not in _ACCEPTED)
        lines = [f"'{model.name}': {' '.join(model.card.doubts)}" for model in self._asked if model.card]
        self.line.setText("\n".join([*lines, "Check what it draws with special care."]) if lines else "")
        self.setVisible(bool(self._asked))
        return not self._asked

    def withdraw(self) -> None:
        """Ask no more: another model is chosen."""
        self.settles(())

    def _accept(self) -> None:
        _ACCEPTED.update(map(_key, self._asked))
        self.withdraw()
        self.accepted.emit()


def _key(model: StoredModel) -> tuple[str, tuple[str, ...]]:
    return str(model.path), model.card.doubts if model.card else ()

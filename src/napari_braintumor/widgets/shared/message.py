"""What a dock last told, and the details of a failure to copy."""

from __future__ import annotations

from napari.utils.notifications import show_error
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.widgets.shared.jobs import Failure
from napari_braintumor.widgets.shared.parts import copy_text, make_line, name_widget


class Message(QWidget):
    """A line of text, out of sight while there is nothing to tell."""

    def __init__(self) -> None:
        super().__init__()
        self._failure: Failure | None = None
        self._line = make_line("", "Messages")
        self.details_button = QPushButton("Copy details")
        name_widget(self.details_button, "Copy details", "Copy the traceback and versions, to report the problem")
        self.details_button.clicked.connect(self._copy_details)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._line)
        column.addWidget(self.details_button)
        self.tell("")

    def text(self) -> str:
        """Return what was told."""
        return self._line.text()

    def tell(self, text: str) -> None:
        """Show a text in place of what was told before; nothing, if it is empty."""
        self._line.setText(text)
        self.setVisible(bool(text))
        self.details_button.hide()

    def add(self, text: str) -> None:
        """Show a text below what was told before."""
        self.tell("\n".join(filter(None, (self.text(), text))))

    def show_failure(self, failure: Failure, before: str = "") -> None:
        """Show why a job failed, here and among napari's notifications."""
        self._failure = failure
        self.tell(f"{before}{failure.text}")
        self.details_button.setVisible(bool(failure.details))
        show_error(failure.text)

    def _copy_details(self) -> None:
        if self._failure is not None:
            copy_text(f"{self._failure.text}\n\n{self._failure.details}")

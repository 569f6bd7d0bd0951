"""The last message of a dock, and the details of a failure to copy."""

from __future__ import annotations

from napari.utils.notifications import show_error
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.widgets.shared.jobs import Failure
from napari_braintumor.widgets.shared.parts import copy_text, make_line, name_widget


class Message(QWidget):
    """A line of text, hidden while there is no message."""

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
        self.show_text("")

    def text(self) -> str:
        """Return the message."""
        return self._line.text()

    def show_text(self, text: str) -> None:
        """Replace the message; an empty text hides it."""
        self._line.setText(text)
        self.setVisible(bool(text))
        self.details_button.hide()

    def add(self, text: str) -> None:
        """Add a text below the message."""
        self.show_text("\n".join(filter(None, (self.text(), text))))

    def show_failure(self, failure: Failure, before: str = "") -> None:
        """Show why a job failed, here and among napari's notifications."""
        self._failure = failure
        self.show_text(f"{before}{failure.text}")
        self.details_button.setVisible(bool(failure.details))
        show_error(failure.text)

    def _copy_details(self) -> None:
        if self._failure is not None:
            copy_text(f"{self._failure.text}\n\n{self._failure.details}")

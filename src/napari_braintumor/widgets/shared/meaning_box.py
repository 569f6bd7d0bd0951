"""What the numbers of a label layer mean, as the user says it."""

from __future__ import annotations

from napari_braintumor.engine.anatomy import CONVENTIONS
from napari_braintumor.widgets.shared.parts import Combo, name_widget

MEANINGS = {
    name: CONVENTIONS[name].meaning for name in ("brats2023", "brats2017", "brats2013", "whole", "core", "enhancing")
}
"""What may be said; keys of `CONVENTIONS`."""


class MeaningBox(Combo):
    """A list of label conventions.

    Parameters
    ----------
    name
        For screen readers.
    unsaid
        The first row, for labels whose numbers speak for themselves; empty if a convention must be chosen.
    """

    def __init__(self, name: str, unsaid: str = "") -> None:
        super().__init__()
        name_widget(self, name, "Which number stands for which tissue")
        if unsaid:
            self.addItem(unsaid, None)
        for key, text in MEANINGS.items():
            self.addItem(text, key)

    @property
    def convention(self) -> str | None:
        """A key of `CONVENTIONS`, or None."""
        key = self.currentData()
        return None if key is None else str(key)

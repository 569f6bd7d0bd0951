"""Notice when labels change, however they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Labels

from napari_braintumor.layers.editing import last_step


class LabelsWatch:
    """Notices when the labels of a layer change: by the brush, an edit, Ctrl+Z or other data.

    Parameters
    ----------
    changed
        What to call then.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self.layer: Labels | None = None
        self._step: Any = None

    def follow(self, layer: Labels | None) -> None:
        """Look at another layer from now on; None for no layer."""
        if self.layer is not None:
            for event in self._list_events(self.layer):
                event.disconnect(self._note)
            self.layer.events.set_data.disconnect(self._compare)
        self.layer = layer
        if layer is not None:
            self._step = last_step(layer)
            for event in self._list_events(layer):
                event.connect(self._note)
            layer.events.set_data.connect(self._compare)

    @staticmethod
    def _list_events(layer: Labels) -> tuple[Any, ...]:
        return layer.events.paint, layer.events.data, layer.events.labels_update

    def _note(self, _: Any = None) -> None:
        if self.layer is not None:
            self._step = last_step(self.layer)
            self._changed()

    def _compare(self, _: Any = None) -> None:
        """Tell undo and redo, of which napari says no more than that it draws anew, from a slider that moves."""
        if self.layer is not None and (step := last_step(self.layer)) is not self._step:
            self._step = step
            self._changed()

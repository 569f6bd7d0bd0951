"""Show a case that was read: layers made in the worker, shown one a turn, so that the window keeps reacting."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.layers import CaseLookedAt, CaseRead, CasesFound, OpeningEvent

if TYPE_CHECKING:
    import napari


@dataclass(frozen=True, eq=False)
class LayersMade:
    """A case, and the layers that show it; making the first one takes a second, in which napari loads its units."""

    read: CaseRead
    layers: tuple[Layer, ...]


def with_layers(
    generator: Callable[..., Generator[OpeningEvent, None, None]], *args: Any
) -> Generator[PhaseReached | CasesFound | CaseLookedAt | LayersMade, None, None]:
    """Make the layers of a case that is read by a generator; runs in a worker thread."""
    for event in generator(*args):
        if isinstance(event, CaseRead):
            yield LayersMade(event, tuple(Layer.create(*data) for data in event.layers))
        else:
            yield event


class LayersInTurn(QObject):
    """Adds layers one by one; adding one takes napari long, and the window reacts before the next one.

    Parameters
    ----------
    parent
        The widget that it belongs to.
    viewer
        Where the layers are shown.
    """

    done = Signal()
    """All layers are shown."""

    def __init__(self, parent: QObject, viewer: napari.viewer.Viewer) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._waiting: list[Layer] = []
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._show_next)

    @property
    def busy(self) -> bool:
        """Whether layers are still to be shown."""
        return bool(self._waiting)

    def show(self, layers: Sequence[Layer]) -> None:
        """Show these after those that are waiting."""
        self._waiting += layers
        self._timer.start(0)

    def _show_next(self) -> None:
        layer = self._waiting.pop(0)
        if not self._waiting:
            self._timer.stop()
        try:
            self._viewer.add_layer(layer)
        finally:
            if not self._waiting:
                self.done.emit()

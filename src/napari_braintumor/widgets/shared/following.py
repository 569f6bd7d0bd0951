"""Listen to a viewer's layers as long as a widget is there: viewers outlive docks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from napari.components import LayerList
from qtpy.QtCore import QObject


class _LastCall:
    """An action for when an object is gone. The class keeps it, so that no collector of cycles takes it before."""

    waiting: ClassVar[set[_LastCall]] = set()

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args
        self.waiting.add(self)

    def run(self, *_: object) -> None:
        self.waiting.discard(self)
        self.function(*self.args)


def when_destroyed(thing: QObject, function: Callable[..., Any], *args: Any) -> None:
    """Call a function when an object is gone.

    Connecting a closure to `destroyed` would not do: Python may already have cleared it when Qt calls, which crashes.
    """
    thing.destroyed.connect(_LastCall(function, args).run)


def follow(owner: QObject, callback: Callable[..., Any], *emitters: Any) -> None:
    """Connect a callback to emitters of napari's events until its owner is gone."""
    for emitter in emitters:
        emitter.connect(callback)
    when_destroyed(owner, _disconnect, callback, emitters)


def follow_names(owner: QObject, callback: Callable[..., Any], layers: LayerList) -> None:
    """Call a callback when a layer is renamed, whether it is open now or later, until its owner is gone."""

    def watch_new(event: Any) -> None:
        event.value.events.name.connect(callback)

    for layer in layers:
        layer.events.name.connect(callback)
    layers.events.inserted.connect(watch_new)
    when_destroyed(owner, _disconnect_names, callback, watch_new, layers)


def _disconnect(callback: Callable[..., Any], emitters: Iterable[Any]) -> None:
    # By its object: asked for a method, napari compares that object, which Qt has deleted, with those of other methods.
    for emitter in emitters:
        emitter.disconnect(getattr(callback, "__self__", callback))


def _disconnect_names(callback: Callable[..., Any], watch_new: Callable[..., Any], layers: LayerList) -> None:
    layers.events.inserted.disconnect(watch_new)
    _disconnect(callback, [layer.events.name for layer in layers])

"""Where models lie, as the user chose it in napari's Preferences, and a signal to all docks when the models change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_braintumor.engine.models.store import use_folder


class Models(QObject):
    """Notifies the docks of a viewer that the store has changed."""

    changed = Signal()


MODELS = Models()
"""The one that all docks listen to."""


def models_settings() -> Any | None:
    """Return napari's settings of this plugin's models, whose ``folder`` is a text, with an event, saved by napari.

    None where they would not count, since ``BRAINTUMOR_MODELS`` decides, or where napari is older than 0.9.

    Returns
    -------
    EventedModel or None
        The settings.
    """
    if os.environ.get("BRAINTUMOR_MODELS"):
        return None
    try:
        from napari.settings import get_plugin_settings

        return get_plugin_settings("napari-braintumor").models
    except (ImportError, KeyError):
        return None


def follow_preferences() -> None:
    """Keep the user's models where the Preferences say, now and when that changes."""
    settings = models_settings()
    if settings is not None:
        _use(settings.folder)
        settings.events.folder.connect(_follow)  # once: napari leaves out what is connected already


def _follow(event: Any) -> None:
    _use(event.value)
    MODELS.changed.emit()


def _use(folder: str) -> None:
    use_folder(Path(folder).expanduser() if folder.strip() else None)

"""Save the labels that a result card shows, and wait until they are there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from napari_braintumor.widgets.shared.result_card import ResultCard


def wait_for_saving(qtbot: Any, card: ResultCard, seconds: float = 60) -> None:
    """Wait until nothing is being written."""
    qtbot.waitUntil(lambda: not card.saver.is_busy, timeout=round(seconds * 1000))


def save_to(qtbot: Any, card: ResultCard, path: Path, also: Collection[str] = (), on: str | None = None) -> None:
    """Save the labels of a card."""
    card.save_to(path, also, on)
    wait_for_saving(qtbot, card)

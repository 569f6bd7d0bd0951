from __future__ import annotations

import pytest

from napari_braintumor.widgets.shared import doubts


@pytest.fixture(autouse=True)
def nothing_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new session, as far as questions are concerned that are asked once."""
    monkeypatch.setattr(doubts, "_ACCEPTED", set())

"""What is computed in the background: one job at a time, and never of an old state last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qtpy.QtCore import QObject

from napari_braintumor.widgets.measuring.latest import Latest


def test_what_is_asked_for_meanwhile_is_done_once_more_and_the_last_state_comes_last(qtbot: Any) -> None:
    dock, state, taken = QObject(), [0], []

    def compute(number: int) -> Iterator[int]:
        yield number

    latest = Latest(dock, "Compute", lambda: (compute, (state[0],), taken.append))
    assert latest.idle
    for number in range(5):
        state[0] = number
        latest.ask()
    qtbot.waitUntil(lambda: latest.idle, timeout=20_000)
    assert taken == [0, 4]
    nothing = Latest(dock, "Nothing", lambda: None)
    nothing.ask()
    assert nothing.idle

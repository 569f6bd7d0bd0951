"""Processes that docks start."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from napari_braintumor.widgets.shared import child

ASK = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
@pytest.mark.parametrize("here", [signal.SIG_IGN, signal.default_int_handler], ids=["in the background", "in front"])
def test_a_run_can_be_paused_however_napari_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here) -> None:
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", ASK))
    before = signal.signal(signal.SIGINT, here)
    try:
        with (tmp_path / "answer").open("wb") as answer:
            process = child.start_child(output=answer, errors=subprocess.DEVNULL)
            process.wait(60)
        assert signal.getsignal(signal.SIGINT) == here
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "answer").read_text().strip() == "True"

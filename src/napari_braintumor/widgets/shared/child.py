"""Commands of ours in processes that outlive the viewer."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread
from typing import IO, Any

COMMAND = (sys.executable, "-P", "-m", "napari_braintumor")  # -P: nothing is imported from the folder it is started in
_WINDOWS_FLAGS = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0)


def start_child(*arguments: str, output: IO[bytes], errors: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start a command of ours in a process that goes on when the viewer is closed.

    Parameters
    ----------
    *arguments
        The command and what it is given.
    output, errors
        Where its output and its messages go.

    Returns
    -------
    subprocess.Popen
        The process; somebody waits for it, so that it never stays as a zombie.
    """
    with _heeding_interrupts():
        process: subprocess.Popen[Any] = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=sys.platform != "win32",
            creationflags=_WINDOWS_FLAGS,
        )
    Thread(target=process.wait, daemon=True).start()
    return process


@contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """Let what is started here be interrupted, even if this program cannot be."""
    # A shell lets a program that it starts in the background ignore Ctrl+C, and children ignore what it ignores.
    is_deaf = current_thread() is main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if is_deaf:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_deaf:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

"""The lock of a run, and who holds it. The system takes a lock back when its process dies, however it dies."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

LOCK_S = 15.0
"""How long a lock is waited for that nobody seems to use."""


def acquire_lock(path: Path, is_used: Callable[[], bool], unless: Callable[[], bool]) -> FileLock:
    """Return a lock that is held, or one that is not when something has come true while waiting for it.

    Parameters
    ----------
    path
        The lock's file.
    is_used
        Whether its holder is still at work; then there is no use in waiting.
    unless
        What makes the lock needless.

    Returns
    -------
    FileLock
        See its `is_locked`.

    Raises
    ------
    Timeout
        If another process holds it.
    OSError
        If the file cannot be written.
    """
    lock = FileLock(path, thread_local=False)
    until = time.monotonic() + LOCK_S
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if unless():
                return lock
            # Helpers of a process that was killed hold its lock until they notice, some seconds later.
            if is_used() or time.monotonic() > until:
                raise
        else:
            return lock
        time.sleep(0.05)


def describe_process() -> dict[str, Any]:
    """Return what distinguishes this process from all others."""
    mine = psutil.Process()
    return {"host": platform.node(), "pid": mine.pid, "created": mine.create_time()}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine, as `describe_process` gave it, still runs.

    Returns
    -------
    bool
        False if another process has got its number since, or it is a zombie.

    Raises
    ------
    psutil.Error
        If there is no such process, or none that may be looked at.
    """
    found = psutil.Process(process["pid"])
    return bool(abs(found.create_time() - process["created"]) < 5 and found.status() != "zombie")

"""The lock of a run, and who holds it. The system takes a lock back when its process dies, however it dies."""

from __future__ import annotations

import json
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


def read_process(path: Path) -> dict[str, Any]:
    """Read what `describe_process` gave, as a run keeps it.

    Returns
    -------
    dict
        Its host, its number and when it was created.

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it is damaged.
    """
    process: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return process


def is_at_work(process_path: Path, events_path: Path, silent_s: float) -> bool:
    """Whether the process of a run lives, on this machine or, as far as can be seen, on another.

    Parameters
    ----------
    process_path
        The file of the process, see `read_process`.
    events_path
        The file that the run appends its events to.
    silent_s
        On another machine, a run that has written nothing for this many seconds is taken for dead.

    Returns
    -------
    bool
        False also if nothing is known of a process.
    """
    try:
        process = read_process(process_path)
        if process["host"] == platform.node():
            return is_alive(process)
        return time.time() - events_path.stat().st_mtime < silent_s
    except (OSError, ValueError, KeyError, psutil.Error):
        return False

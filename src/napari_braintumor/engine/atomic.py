"""Writing so that no half-written file is ever seen, and nothing is lost when writing fails or the power does.

Also which names are free, for what must not take the place of anything.
"""

from __future__ import annotations

import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from napari_braintumor.engine.errors import DataError

_LONGEST = 40
"""Characters of a file's name that its temporary name keeps, so that no name becomes too long for the file system."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path`, with the same ending, to write to; it takes `path`'s place when the block ends well.

    What was written is on the disk before it gets its name. Every call has a path of its own, so that threads,
    processes and machines that write one file at once do not mix: the last one to end wins.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    if path.is_dir():
        raise DataError(f"'{path}' is a folder. Give the name of a file to write.")
    temporary = _beside(path)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be written: {error.strerror or error}. Choose a folder that exists and may be written to."
        ) from error
    finally:
        with suppress(OSError):  # unlink(missing_ok=True) still raises where the folder is a file, or is gone
            temporary.unlink()


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder` to fill; it gets `folder`'s name, with all its files, when the block ends well.

    Yields
    ------
    Path
        The folder to fill.

    Raises
    ------
    FileExistsError
        If `folder` exists by then.
    OSError
        If it cannot be written.
    """
    temporary = _beside(folder)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                flush(path)
            else:
                _flush_folder(path)
        _flush_folder(temporary)
        _rename_new(temporary, folder)
        _flush_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename_new(temporary: Path, folder: Path) -> None:
    try:
        if not folder.exists():  # a rename may take the place of an empty folder
            temporary.rename(folder)
            return
    except OSError:
        if not folder.exists():
            raise
    raise FileExistsError(f"'{folder}' exists already")


def free_path(path: Path, ending: str = "") -> Path:
    """Return a path, or the same with a number before its ending, that nothing has: not even in other letter case."""
    taken = taken_names(path.parent)
    return next(each for each in numbered(path, ending) if fold(each.name) not in taken)


def numbered(path: Path, ending: str = "") -> Iterator[Path]:
    """Yield a path, then the same with ``_2``, ``_3`` and so on before its ending."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name.removesuffix(ending)}_{number}{ending}")


def taken_names(folder: Path) -> dict[str, Path]:
    """Return what lies in a folder by its folded name; nothing where there is no folder.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    return {fold(path.name): path for path in folder.iterdir()} if folder.exists() else {}


def fold(name: str) -> str:
    """Return a name as file systems compare it that see no difference between 'A' and 'a'."""
    return unicodedata.normalize("NFC", name).casefold()


def flush(path: Path) -> None:
    """Have a file's content on the disk before going on.

    Raises
    ------
    OSError
        If it cannot be written there.
    """
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def _beside(path: Path) -> Path:
    """Return a hidden path in the same folder that nobody else has, with the same ending."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.{path.name[-_LONGEST:]}")


def _flush_folder(folder: Path) -> None:
    """Have a folder's list of names on the disk, where the system can do that: not on Windows, not on every share."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

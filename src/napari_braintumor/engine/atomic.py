"""Atomic writing: nobody ever sees a half-written file, and nothing is lost if writing or the power fails.

Also finds free names, for files that must not replace anything.
"""

from __future__ import annotations

import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from napari_braintumor.engine.errors import DataError

_LONGEST = 40
"""Characters of a file name kept in its temporary name, so that it never gets too long for the file system."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, with the same suffix; it replaces `path` if the block succeeds.

    The data is flushed to disk before it gets its final name. Every call gets its own path, so threads, processes and
    machines that write the same file at once do not interfere: the last one to finish wins.

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
        raise DataError(f"'{path}' is a folder. Give a file name instead.")
    temporary = _beside(path)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be written: {error.strerror or error}. Choose an existing folder that you can write to."
        ) from error
    finally:
        with suppress(OSError):  # unlink(missing_ok=True) still raises if the folder is a file or is gone
            temporary.unlink()


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """Yield a new temporary folder to fill; it is renamed to `folder`, with all its files, if the block succeeds.

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


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Yield a new hidden folder in `parent`, to make files in that are then put into place; it is deleted at the end.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    temporary = _beside(parent / "new")
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(files: Sequence[Path], folder: Path) -> None:
    """Move finished files into a folder of the same file system, in this order, replacing those of the same name.

    Raises
    ------
    OSError
        If one of them cannot be moved.
    """
    for path in files:
        flush(path)
    for path in files:
        path.replace(folder / path.name)
    _flush_folder(folder)


def create_new(path: Path, text: str, through: Path) -> None:
    """Create a file that must not exist yet, with all of its text at once.

    Parameters
    ----------
    path
        The file.
    text
        Its text.
    through
        A folder on the same file system, in which it is written first.

    Raises
    ------
    FileExistsError
        If the file exists already.
    OSError
        If it cannot be written.
    """
    temporary = _beside(through / path.name)
    try:
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    finally:
        temporary.unlink(missing_ok=True)


def _rename_new(temporary: Path, folder: Path) -> None:
    try:
        if not folder.exists():  # a rename would replace an empty folder
            temporary.rename(folder)
            return
    except OSError:
        if not folder.exists():
            raise
    raise FileExistsError(f"'{folder}' exists already")


def find_free_path(path: Path, ending: str = "") -> Path:
    """Return the first free path: `path` itself, or with a number before its suffix. Letter case is ignored."""
    taken = list_taken_names(path.parent)
    return next(each for each in numbered(path, ending) if fold(each.name) not in taken)


def numbered(path: Path, ending: str = "") -> Iterator[Path]:
    """Yield a path, then the same path with ``_2``, ``_3`` and so on before its suffix."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name.removesuffix(ending)}_{number}{ending}")


def list_taken_names(folder: Path) -> dict[str, Path]:
    """Return the contents of a folder by folded name; nothing if there is no such folder.

    Returns
    -------
    dict
        The path of each file and folder by its name in folded case, see `fold`.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    return {fold(path.name): path for path in folder.iterdir()} if folder.exists() else {}


def fold(name: str) -> str:
    """Return a name as file systems that ignore letter case compare it."""
    return unicodedata.normalize("NFC", name).casefold()


def flush(path: Path) -> None:
    """Flush the content of a file to disk.

    Raises
    ------
    OSError
        If the file cannot be flushed.
    """
    with path.open("r+b") as file:  # Windows flushes only files opened for writing
        os.fsync(file.fileno())


def _beside(path: Path) -> Path:
    """Return a unique hidden path in the same folder, with the same suffix."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.{path.name[-_LONGEST:]}")


def _flush_folder(folder: Path) -> None:
    """Flush a folder's directory entries to disk, if the system can: Windows and some network shares cannot."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""CSV files that the commands write row by row."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from napari_braintumor.cli._console import console
from napari_braintumor.engine.atomic import find_free_path
from napari_braintumor.engine.errors import DataError


@contextmanager
def open_rows(path: Path | None, columns: Sequence[str], overwrite: bool) -> Iterator[Callable[..., None]]:
    """Yield a function that writes rows and flushes them to disk; without a path it writes nothing.

    Yields
    ------
    callable
        Takes rows, each a sequence of the values of the columns.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    if path is None:
        yield lambda *lines: None
        return
    if path.is_dir():
        raise DataError(f"'{path}' is a folder. Give the name of a file to write.")
    try:
        target = path if overwrite else find_free_path(path, path.suffix)
        with target.open("w" if overwrite else "x", newline="", encoding="utf-8", errors="backslashreplace") as file:
            if target != path:
                console.print(f"'{path}' already exists, so the table goes to '{target}'. (--overwrite replaces it.)")
            rows = csv.writer(file, lineterminator="\n")

            def write(*lines: Sequence[object]) -> None:
                rows.writerows(lines)
                file.flush()
                os.fsync(file.fileno())

            write(columns)
            yield write
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be written: {error.strerror or error}. Choose an existing folder that you can write to."
        ) from error

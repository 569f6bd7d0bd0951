"""Writing so that no half-written file is ever seen, and nothing is lost when writing fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_braintumor.engine.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path`, with the same ending, to write to; it takes `path`'s place when the block ends well.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    if path.is_dir():
        raise DataError(f"'{path}' is a folder. Expected was the name of a file to write.")
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be written: {error.strerror or error}. Choose a folder that exists and may be written to."
        ) from error
    finally:
        if temporary.exists():  # unlink(missing_ok=True) would still raise where the folder is none
            temporary.unlink()

"""The folder of a cohort's results, and the hidden one in it for what is unfinished."""

from __future__ import annotations

import json
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from napari_braintumor.engine.atomic import put_in_place
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.training.run_lock import describe_process, is_alive

UNFINISHED = ".unfinished"
_OWNER = "process.json"


class Workplace:
    """Where a process makes files before they are put into the folder of results.

    Parameters
    ----------
    output
        The folder of results.
    folder
        This process's own folder in the hidden one.
    """

    def __init__(self, output: Path, folder: Path) -> None:
        self.output, self.folder = output, folder

    def put(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write a file and put it into the folder of results, replacing the one of that name.

        Parameters
        ----------
        name
            Its path in the folder of results.
        write
            Writes it to the path it is given.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        target = self.output / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            made = self.folder / target.name
            write(made)
            put_in_place([made], target.parent)
        except OSError as error:
            raise DataError(
                f"'{target}' cannot be written: {error.strerror or error}. Make room there or give it write permission."
            ) from error
        return target

    def put_text(self, name: str, text: str) -> Path:
        """Write a text and put it into the folder of results, unless it is there already; see `put`."""
        target = self.output / name
        with suppress(OSError):
            if target.read_bytes() == text.encode("utf-8", "backslashreplace"):
                return target
        return self.put(name, lambda path: path.write_bytes(text.encode("utf-8", "backslashreplace")))


@contextmanager
def open_workplace(output: Path) -> Iterator[Workplace]:
    """Make the folder of results, and one for what is unfinished; what killed processes left there is deleted.

    Yields
    ------
    Workplace
        For this process.

    Raises
    ------
    DataError
        If the folder cannot be written to.
    """
    this = describe_process()
    word = re.sub(r"\W+", "-", platform.node())
    folder = output / UNFINISHED / f"{word}-{this['pid']}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _OWNER).write_text(json.dumps(this), encoding="utf-8")
        for other in (output / UNFINISHED).iterdir():
            if other != folder and other.is_dir() and _is_left(other):
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"The folder '{output}' cannot be written to: {error.strerror or error}. Choose another folder."
        ) from error
    try:
        yield Workplace(output, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            (output / UNFINISHED).rmdir()  # unless another process is at work there


def _is_left(folder: Path) -> bool:
    """Whether the process of this machine that made a folder is gone."""
    try:
        process = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        return process["host"] == platform.node() and not is_alive(process)
    except psutil.NoSuchProcess:
        return True
    except (OSError, ValueError, KeyError, psutil.Error):
        return False

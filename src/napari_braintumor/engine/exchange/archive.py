"""The files of a zip file or a folder, read in memory: nothing is unpacked to disk, so nothing can land anywhere."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from napari_braintumor.engine.errors import ModelError

MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 2**30
MAX_BYTES = 2**31
"""The limit for all members together, unpacked."""

SUSPICIOUS_RATIO = 200
UNSUSPICIOUS_BYTES = 64 * 2**20
"""Weights hardly compress: an archive beyond this size that grows this much is a zip bomb."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)


class Archive:
    """The files of a zip file or of a folder, by names with slashes.

    All names and sizes are checked when it is entered, before anything is unpacked.

    Parameters
    ----------
    source
        The zip file, its content, or a folder.
    name
        Its name in messages; default: the path's name.

    Raises
    ------
    ModelError
        On entering and on reading: if it cannot be read, is damaged, or holds what no honest archive does.
    """

    def __init__(self, source: Path | bytes, name: str = "") -> None:
        self._source = source
        self.name = name or (source.name if isinstance(source, Path) else "the archive")
        self._zip: zipfile.ZipFile | None = None
        self._sizes: dict[str, int] = {}

    def __enter__(self) -> Self:
        if isinstance(self._source, Path) and self._source.is_dir():
            self._sizes = dict(self._walk(self._source))
            self._check_sizes()
            return self
        try:
            self._zip = zipfile.ZipFile(self._source if isinstance(self._source, Path) else io.BytesIO(self._source))
        except OSError as error:
            raise ModelError(f"'{self.name}' cannot be read: {error.strerror or error}. Check the path.") from error
        except _DAMAGED as error:
            raise ModelError(
                f"'{self.name}' is damaged or not a zip file: {error}. Copy or download it again."
            ) from error
        try:
            self._check_members(self._zip.infolist())
        except ModelError:
            self._zip.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._zip is not None:
            self._zip.close()

    def names(self) -> list[str]:
        """Return the names of all files, sorted; folders are not among them."""
        return sorted(self._sizes)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes, as the archive states it.

        Returns
        -------
        int
            Bytes when unpacked.

        Raises
        ------
        ModelError
            If there is no such file.
        """
        if name not in self._sizes:
            raise ModelError(f"'{self.name}' holds no file '{shorten(name)}'. It is not complete: copy it again.")
        return self._sizes[name]

    def read(self, name: str, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
        """Return a file's content.

        Parameters
        ----------
        name
            One of `names`.
        max_bytes
            Larger files are refused before they are read.

        Returns
        -------
        bytes
            The file, unpacked.

        Raises
        ------
        ModelError
            If there is no such file, it is too large, or it is damaged.
        """
        size = self.size(name)
        if size > max_bytes:
            raise ModelError(
                f"'{shorten(name)}' in '{self.name}' has {size:,} bytes; expected at most {max_bytes:,}. "
                "Use the archive as it was published."
            )
        try:
            with self._open(name) as file:
                content = file.read(size + 1)
        except OSError as error:
            raise ModelError(
                f"'{shorten(name)}' in '{self.name}' cannot be read: {error.strerror or error}. Copy it again."
            ) from error
        except _DAMAGED as error:
            raise ModelError(
                f"'{shorten(name)}' in '{self.name}' is damaged: {error}. Copy or download it again."
            ) from error
        if len(content) != size:
            raise ModelError(
                f"'{shorten(name)}' in '{self.name}' does not have the size it declares. Copy or download it again."
            )
        return content

    def _open(self, name: str) -> BinaryIO:
        if self._zip is not None:
            return self._zip.open(name)  # type: ignore[return-value]
        assert isinstance(self._source, Path)
        return (self._source / name).open("rb")

    def _walk(self, folder: Path) -> Iterator[tuple[str, int]]:
        waiting = [""]
        seen = 0
        while waiting:
            inside = waiting.pop()
            try:
                with os.scandir(folder / inside) as entries:
                    for entry in entries:
                        seen += 1
                        self._check_count(seen)
                        name = f"{inside}/{entry.name}" if inside else entry.name
                        mode = entry.stat(follow_symlinks=False).st_mode
                        self._check_kind(name, mode)
                        if stat.S_ISDIR(mode):
                            waiting.append(name)
                        else:
                            yield name, entry.stat(follow_symlinks=False).st_size
            except OSError as error:
                raise ModelError(
                    f"The folder '{self.name}' cannot be read: {error.strerror or error}. Check the path."
                ) from error

    def _check_members(self, members: list[zipfile.ZipInfo]) -> None:
        self._check_count(len(members))
        for member in members:
            name = member.orig_filename  # `filename` is what zipfile made of it
            self._check_name(name)
            self._check_kind(name, member.external_attr >> 16)
            if member.flag_bits & 1:
                raise ModelError(f"'{shorten(name)}' in '{self.name}' is encrypted. Pack it without encryption.")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ModelError(
                    f"'{shorten(name)}' in '{self.name}' is packed in an unknown way. Pack it as a plain zip."
                )
            if member.is_dir():
                continue
            if name in self._sizes:
                raise ModelError(
                    f"'{self.name}' holds two files '{shorten(name)}', so it is unclear which is meant. "
                    "Use the archive as it was published."
                )
            self._sizes[name] = member.file_size
        self._check_sizes()
        packed = len(self._source) if isinstance(self._source, bytes) else self._source.stat().st_size
        if sum(self._sizes.values()) > max(UNSUSPICIOUS_BYTES, SUSPICIOUS_RATIO * packed):
            raise ModelError(
                f"'{self.name}' would grow to more than {SUSPICIOUS_RATIO} times its size, which no weights do. "
                "It is refused as a zip bomb."
            )

    def _check_sizes(self) -> None:
        total = sum(self._sizes.values())
        largest = max(self._sizes.values(), default=0)
        if largest > MAX_MEMBER_BYTES or total > MAX_BYTES:
            raise ModelError(
                f"'{self.name}' declares {total:,} bytes, the largest file {largest:,}; at most {MAX_BYTES:,} in all "
                f"and {MAX_MEMBER_BYTES:,} a file are read. Choose the model alone."
            )

    def _check_count(self, count: int) -> None:
        if count > MAX_MEMBERS:
            raise ModelError(
                f"'{self.name}' holds more than {MAX_MEMBERS:,} files, which no model does. Choose the model alone."
            )

    def _check_name(self, name: str) -> None:
        parts = name.removesuffix("/").split("/")
        if (
            "\\" in name
            or re.match(r"[A-Za-z]:", name)
            or any(ord(letter) < 32 for letter in name)
            or any(part in ("", ".", "..") for part in parts)
        ):
            raise ModelError(
                f"'{self.name}' holds a file '{shorten(name)}' that would lie outside it. It is refused as malicious."
            )

    def _check_kind(self, name: str, mode: int) -> None:
        if stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ModelError(
                f"'{shorten(name)}' in '{self.name}' is a link or a device, and only files are read. "
                "Put the file itself in its place."
            )


def shorten(name: str) -> str:
    """Shorten a name from a file for a message, and make it printable."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= 80 else f"{text[:77]}..."

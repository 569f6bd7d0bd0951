"""Fetch one file with pooch, in a thread that reports progress and can be stopped at any time."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.events import Downloaded

CHUNK_BYTES = 2**16
CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
TELL_EVERY_S = 0.1
LET_GO_S = 1.0
"""How long to wait for a download that is stopped; if its server hangs, it ends later by itself."""


class Fetch(Thread):
    """The download of one file by pooch, which checks it and moves it into place.

    For pooch this is the progress bar, which can stop the download on request or when a server sends too much.

    Parameters
    ----------
    source
        An address (http or https) or a path.
    target
        Where the file goes once it is complete and matches the checksum. Its folder exists.
    max_bytes
        Its size, or the largest allowed if there is no checksum.
    sha256
        The expected checksum; None if unknown.

    Attributes
    ----------
    done
        Bytes received, in steps of `CHUNK_BYTES`.
    total
        Bytes that the server announces; 0 if it does not. pooch sets it.
    error
        Why it ended early.
    """

    def __init__(self, source: str, target: Path, max_bytes: int, sha256: str | None = None) -> None:
        # A daemon: a server that hangs must not keep the program from ending.
        super().__init__(name=f"fetching {target.name}", daemon=True)
        self.max_bytes = max_bytes
        self.done = self.total = 0
        self.error: BaseException | None = None
        self._source, self._target, self._sha256 = source, target, sha256
        self._stop_asked = Event()

    def stop(self) -> None:
        """Ask it to end after the current chunk, or at the latest when the server times out."""
        self._stop_asked.set()

    def run(self) -> None:
        """Fetch the file; a failure is kept in `error`."""
        import pooch

        pooch.get_logger().setLevel(logging.WARNING)  # it would report on the terminal what `done` reports
        answers: list[Any] = []  # pooch leaves open those of a download that ends early
        fetch = pooch.HTTPDownloader(
            progressbar=self,
            chunk_size=CHUNK_BYTES,
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            headers={"User-Agent": "napari-braintumor", "Accept-Encoding": "identity"},
            hooks={"response": lambda answer, **_: answers.append(answer)},
        )
        known = f"sha256:{self._sha256}" if self._sha256 else None
        try:
            if is_address(self._source):
                check_address(self._source)
            else:
                fetch = self._copy
            pooch.retrieve(self._source, known, self._target.name, self._target.parent, downloader=fetch)
        except OSError as error:  # including those of requests
            self.error = self._explain(error)
        except ValueError as error:  # the checksum differs, and pooch deleted the file
            self.error = ModelError(
                f"'{self._target.name}' from {_place(self._source)} does not match its checksum: it was damaged or "
                "changed. Nothing of it was kept. Download it again, or from elsewhere."
            )
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits
            self.error = error
        finally:
            for answer in answers:
                answer.close()

    def update(self, more: int) -> None:
        """Count the bytes received."""
        if self._stop_asked.is_set():
            raise _Stopped
        self.done += more
        if max(self.total, self.done - CHUNK_BYTES) > self.max_bytes:
            raise ModelError(
                f"'{self._target.name}' from {_place(self._source)} is larger than the expected {self.max_bytes} "
                "bytes. Nothing of it was kept. Check the address, or get a newer catalogue."
            )

    def reset(self) -> None:
        """Reset the count, as pooch asks at the end."""
        self.done = 0

    def close(self) -> None:
        """Do nothing: there is no bar to close."""

    def _copy(self, source: str, output: str, _: object) -> None:
        try:
            given = Path(source).open("rb")  # noqa: SIM115
        except OSError as error:
            raise ModelError(
                f"'{self._target.name}' cannot be read in '{Path(source).parent}': {error.strerror}. "
                "Put it there, or name another folder."
            ) from error
        with given, Path(output).open("wb") as taken:
            while chunk := given.read(CHUNK_BYTES):
                taken.write(chunk)
                self.update(len(chunk))

    def _explain(self, error: OSError) -> ModelError | DataError:
        name, place = self._target.name, _place(self._source)
        answer = getattr(error, "response", None)
        explained: ModelError | DataError
        if answer is not None:
            explained = ModelError(
                f"{place} does not provide '{name}': {answer.status_code} {answer.reason}. Download it from elsewhere."
            )
        elif error.errno is not None:  # of this machine, not of requests
            explained = DataError(
                f"'{name}' cannot be saved in '{self._target.parent.parent}': {error.strerror}. Make room, and "
                "download it again."
            )
        else:
            explained = ModelError(
                f"{place} cannot be reached, or stopped answering, so '{name}' did not arrive. Check the connection "
                "and try again."
            )
        explained.__cause__ = error
        return explained


class _Stopped(Exception):
    """The download was stopped on request."""


def follow(fetch: Fetch) -> Generator[Downloaded, None, None]:
    """Run a fetch of a file whose size is known to its end, and stop it when the caller stops iterating.

    Yields
    ------
    Downloaded
        Several times a second, and at the end.

    Raises
    ------
    ModelError
        If the file cannot be fetched or is not what was expected.
    DataError
        If it cannot be written.
    """
    fetch.start()
    try:
        while fetch.is_alive():
            fetch.join(TELL_EVERY_S)
            yield Downloaded(min(fetch.done, fetch.max_bytes), fetch.max_bytes)
    finally:
        fetch.stop()
        fetch.join(LET_GO_S)
    if fetch.error is not None:
        raise fetch.error
    yield Downloaded(fetch.max_bytes, fetch.max_bytes)


def is_address(place: str | Path) -> bool:
    """Return True for anything with a scheme, such as ``https://``; everything else is a path."""
    return isinstance(place, str) and "://" in place


def check_address(address: str) -> None:
    """Refuse an address that is neither http nor https.

    Raises
    ------
    ModelError
        If it is something else.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:  # for example, brackets that do not match
        raise ModelError(f"'{address}' is not an address: {error}. Check it.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ModelError(f"'{address}' cannot be fetched. Expected an address with http or https, or a path.")


def _place(source: str) -> str:
    """Return a source for display, without the user name and password that an address may hold."""
    return f"'{urlsplit(source).hostname}'" if is_address(source) else f"'{Path(source).parent}'"

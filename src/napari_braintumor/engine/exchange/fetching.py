"""Fetching one file by pooch, in a thread that reports and can be left at any time."""

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
"""How long a download that is stopped is waited for; one whose server hangs ends later, by itself."""


class Fetch(Thread):
    """One file on its way, by pooch, which checks it and puts it into place.

    To pooch this is the progress bar: that is where it is stopped, and where a server that sends too much is left.

    Parameters
    ----------
    source
        An address (http or https) or a path.
    target
        Where the file goes when all of it is there and fits the checksum. Its folder exists.
    most_bytes
        How large it is, or at most where there is no checksum.
    sha256
        What it must be; None where that is not known.

    Attributes
    ----------
    done
        Bytes that have come, in steps of `CHUNK_BYTES`.
    total
        Bytes that the server announces; 0 if it does not. pooch sets it.
    error
        Why it ended early.
    """

    def __init__(self, source: str, target: Path, most_bytes: int, sha256: str | None = None) -> None:
        # A daemon: a server that hangs must not keep the program from ending.
        super().__init__(name=f"fetching {target.name}", daemon=True)
        self.most_bytes = most_bytes
        self.done = self.total = 0
        self.error: BaseException | None = None
        self._source, self._target, self._sha256 = source, target, sha256
        self._stop_asked = Event()

    def stop(self) -> None:
        """Ask it to end after its present chunk; at the latest when the server's time is up."""
        self._stop_asked.set()

    def run(self) -> None:
        """Fetch the file; what goes wrong is kept in `error`."""
        import pooch

        pooch.get_logger().setLevel(logging.WARNING)  # it would report on the terminal what `done` reports
        answers: list[Any] = []  # pooch does not close those of a download that ends early
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
        except OSError as error:  # of requests, too
            self.error = self._explain(error)
        except ValueError as error:  # the checksum differs, and pooch deleted the file
            self.error = ModelError(
                f"'{self._target.name}' from {_place(self._source)} does not fit its checksum: it was damaged or "
                "changed. Nothing of it was kept. Download it again, or from elsewhere."
            )
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits
            self.error = error
        finally:
            for answer in answers:
                answer.close()

    def update(self, more: int) -> None:
        """Count what came."""
        if self._stop_asked.is_set():
            raise _Stopped
        self.done += more
        if max(self.total, self.done - CHUNK_BYTES) > self.most_bytes:
            raise ModelError(
                f"'{self._target.name}' from {_place(self._source)} is larger than the expected {self.most_bytes} "
                "bytes. Nothing of it was kept. Check the address, or get a newer catalogue."
            )

    def reset(self) -> None:
        """Count anew, as pooch asks at the end."""
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
                f"{place} does not give '{name}': {answer.status_code} {answer.reason}. Download it from elsewhere."
            )
        elif error.errno is not None:  # of this machine, not of requests
            explained = DataError(
                f"'{name}' cannot be kept in '{self._target.parent.parent}': {error.strerror}. Make room, and download "
                "it again."
            )
        else:
            explained = ModelError(
                f"{place} cannot be reached, or stopped answering, so '{name}' did not arrive. Check the connection "
                "and try again."
            )
        explained.__cause__ = error
        return explained


class _Stopped(Exception):
    """Whoever wanted the file does not want it any more."""


def follow(fetch: Fetch) -> Generator[Downloaded, None, None]:
    """Run a fetch of a file whose size is known to its end, and stop it when nobody iterates any more.

    Yields
    ------
    Downloaded
        Several times a second, and at the end.

    Raises
    ------
    ModelError
        If the file cannot be had or is not what was expected.
    DataError
        If it cannot be written.
    """
    fetch.start()
    try:
        while fetch.is_alive():
            fetch.join(TELL_EVERY_S)
            yield Downloaded(min(fetch.done, fetch.most_bytes), fetch.most_bytes)
    finally:
        fetch.stop()
        fetch.join(LET_GO_S)
    if fetch.error is not None:
        raise fetch.error
    yield Downloaded(fetch.most_bytes, fetch.most_bytes)


def is_address(place: str | Path) -> bool:
    """Return True for what has a scheme, as ``https://``; everything else is a path."""
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
    except ValueError as error:  # for instance of brackets that do not match
        raise ModelError(f"'{address}' is not an address: {error}. Check it.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ModelError(f"'{address}' cannot be fetched. Expected an address with http or https, or a path.")


def _place(source: str) -> str:
    """Return where a source is, for people: without the name and password that an address may hold."""
    return f"'{urlsplit(source).hostname}'" if is_address(source) else f"'{Path(source).parent}'"

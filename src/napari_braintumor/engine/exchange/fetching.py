"""Fetching one file of known size and checksum, in a thread that can be left at any time, and going on with it later.

pooch holds the file against its checksum and puts it into place. What pooch does not do is here: going on with what
came before, telling bytes, stopping, and servers that hang, send too much or lead elsewhere.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from urllib.parse import SplitResult, urljoin, urlsplit

import pooch
import psutil
import requests
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as NoAnswerError

from napari_braintumor.engine.errors import DataError, ModelError

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
MOST_REDIRECTS = 5
CHUNK_BYTES = 2**18

_NUMBERS = itertools.count()


class Fetch(Thread):
    """A file on its way from the first of several places that has it.

    Parameters
    ----------
    sources
        Addresses (http or https) and paths, tried in this order.
    target
        Where the file goes when all of it is there and fits the checksum. Its folder is on the disk of `parts`.
    sha256, size
        What the file must be.
    parts
        A folder for what came so far, which is kept for the next time when this one ends early.

    Attributes
    ----------
    done
        Bytes that are there.
    notes
        Sentences on places that did not have it.
    error
        Why it ended early; a `BrainTumorError`, or a bug.
    """

    def __init__(self, sources: Sequence[str], target: Path, sha256: str, size: int, parts: Path) -> None:
        # A daemon: a server that hangs must not keep the program from ending.
        super().__init__(name=f"fetching {target.name}", daemon=True)
        self.done = 0
        self.notes: SimpleQueue[str] = SimpleQueue()
        self.error: BaseException | None = None
        self._sources, self._target, self._sha256, self._size, self._parts = sources, target, sha256, size, parts
        self._stop_asked = Event()

    def stop(self) -> None:
        """Ask it to end after its present chunk; at the latest when the server's time is up."""
        self._stop_asked.set()

    def run(self) -> None:
        """Fetch the file; what goes wrong is kept in `error`."""
        pooch.get_logger().setLevel(logging.WARNING)  # it would tell on the terminal what `done` tells
        *others, last = self._sources
        try:
            for source in others:
                try:
                    self._fetch(source)
                    return
                except ModelError as error:
                    self.notes.put(f"Another address is tried. {error}")
            self._fetch(last)
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits
            self.error = error

    def _fetch(self, source: str) -> None:
        folder, name = self._target.parent, self._target.name
        if self._stop_asked.is_set():
            raise _Stopped
        try:
            pooch.retrieve(source, f"sha256:{self._sha256}", name, folder, downloader=self._bring)
        except ValueError as error:  # pooch deleted it
            raise ModelError(
                f"'{name}' from {_place(source)} does not fit its checksum: it was damaged or changed. Nothing of it "
                "was kept. Download it again, or from elsewhere."
            ) from error
        except OSError as error:
            raise DataError(
                f"'{name}' cannot be kept in '{self._parts}': {error.strerror or error}. Make room, and download it "
                "again."
            ) from error

    def _bring(self, source: str, output: str, _: object) -> None:
        """Put the whole file, not yet checked, at `output`: what pooch calls a downloader."""
        part = _claim(self._parts, self._sha256)
        try:
            self._complete(part, source)
            part.replace(output)
        finally:
            _release(part, self._parts / f"{self._sha256}.part")

    def _complete(self, part: Path, source: str) -> None:
        name, have = self._target.name, part.stat().st_size
        self.done = have
        if have == self._size:
            return
        with _opened(source, name, have, self._size) as (start, read), part.open("r+b") as file:
            file.seek(start)
            file.truncate()
            self.done = start
            while chunk := read():
                if self._stop_asked.is_set():
                    raise _Stopped
                if self.done + len(chunk) > self._size:
                    file.truncate(0)
                    raise ModelError(
                        f"{_place(source)} sends more than the {self._size} bytes that the catalogue states for "
                        f"'{name}'. Nothing of it was kept. Get a newer catalogue, or download it from elsewhere."
                    )
                file.write(chunk)
                self.done += len(chunk)
        if self.done < self._size:
            raise ModelError(
                f"'{name}' broke off: {self.done} of {self._size} bytes came from {_place(source)}. Download it again: "
                "what came is kept, and it goes on from there."
            )


class _Stopped(Exception):
    """Whoever wanted the file does not want it any more."""


def read_small(address: str, most_bytes: int) -> bytes:
    """Read a small file from an address.

    Raises
    ------
    ModelError
        If it cannot be had, or is larger than `most_bytes`.
    """
    name = _split(address).path.rpartition("/")[2] or address
    content = bytearray()
    with _opened_address(address, name, 0) as (response, read):
        announced = response.headers.get("Content-Length", "")
        too_large = announced.isdecimal() and int(announced) > most_bytes
        while not too_large and (chunk := read()):
            content += chunk
            too_large = len(content) > most_bytes
    if too_large:
        raise ModelError(f"'{name}' from {_place(address)} is larger than {most_bytes} bytes. Check the address.")
    return bytes(content)


def is_address(place: str) -> bool:
    """Return True for what has a scheme, as ``https://``; everything else is a path."""
    return "://" in place


def check_address(address: str) -> None:
    """Refuse an address that is neither http nor https.

    Raises
    ------
    ModelError
        If it is something else.
    """
    parts = _split(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ModelError(f"'{address}' cannot be fetched. Expected was an address with http or https, or a path.")


@contextmanager
def _opened(source: str, name: str, have: int, size: int) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """Open a file behind what is there already; give where it really starts, and what reads its next bytes."""
    if not is_address(source):
        with _opened_path(Path(source), name, have) as read:
            yield have, read
        return
    with _opened_address(source, name, have) as (response, read):
        start = have if response.status_code == HTTPStatus.PARTIAL_CONTENT else 0
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and start + int(announced) != size:
            raise ModelError(
                f"'{name}' at {_place(source)} has {start + int(announced)} bytes, and the catalogue states {size}. "
                "Get a newer catalogue, or download it from elsewhere."
            )
        yield start, read


@contextmanager
def _opened_path(path: Path, name: str, start: int) -> Iterator[Callable[[], bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ModelError(
            f"'{name}' cannot be read in '{path.parent}': {error.strerror}. Put it there, or name another folder."
        ) from error
    with file:
        file.seek(start)
        yield lambda: file.read(CHUNK_BYTES)


@contextmanager
def _opened_address(address: str, name: str, have: int) -> Iterator[tuple[requests.Response, Callable[[], bytes]]]:
    check_address(address)
    headers = {"User-Agent": "napari-braintumor", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    place, timeouts = _place(address), (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
    try:
        with _Session() as session, session.get(address, headers=headers, stream=True, timeout=timeouts) as response:
            _check_answer(response, name, place, have)
            # Not `iter_content`, which waits for a whole chunk: a slow line would look like one that hangs.
            yield response, lambda: response.raw.read1(CHUNK_BYTES, decode_content=False) or b""
    except requests.TooManyRedirects as error:
        raise ModelError(f"{place} leads in circles. Download '{name}' from elsewhere.") from error
    except (requests.RequestException, HTTPError) as error:
        if isinstance(error, (requests.Timeout, NoAnswerError)):
            what = f"{place} did not answer in time"
        elif isinstance(error, requests.exceptions.SSLError):
            what = f"{place} could not prove who it is"
        else:
            what = f"{place} cannot be reached, or broke off"
        raise ModelError(
            f"{what}, so '{name}' did not come, or not all of it. Check the connection and try again: a download goes "
            "on where it stopped."
        ) from error


def _check_answer(response: requests.Response, name: str, place: str, have: int) -> None:
    code = response.status_code
    continued = code == HTTPStatus.PARTIAL_CONTENT and have > 0
    if code != HTTPStatus.OK and not continued:
        raise ModelError(f"{place} does not give '{name}': {code} {response.reason}. Download it from elsewhere.")
    if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise ModelError(f"{place} gives another part of '{name}' than was asked for. Download it from elsewhere.")


class _Session(requests.Session):
    """Follows few redirects, and only from http or https to the same or from http to https."""

    def __init__(self) -> None:
        super().__init__()
        self.max_redirects = MOST_REDIRECTS

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where an answer leads, or None.

        Raises
        ------
        ModelError
            If it leads where nothing is fetched from.
        """
        target = super().get_redirect_target(resp)
        if target is not None:
            here, there = _split(resp.url), _split(urljoin(resp.url, target))
            if there.scheme not in ("http", "https") or (here.scheme, there.scheme) == ("https", "http"):
                resp.close()  # nobody else will
                raise ModelError(
                    f"{_place(resp.url)} leads to '{there.scheme}:', where nothing is fetched from. "
                    "Download the file from elsewhere."
                )
        return target


def _place(source: str) -> str:
    """Return where a source is, for people: without the name and password that an address may hold."""
    if not is_address(source):
        return f"'{Path(source).parent}'"
    return f"'{_split(source).hostname}'"


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:  # for instance of brackets that do not match
        raise ModelError(f"'{address}' is no address: {error}. Check it.") from error


def _claim(folder: Path, sha256: str) -> Path:
    """Return a file that is this thread's alone, with what came of it before: renamed, which only one can do."""
    process = psutil.Process()
    own = folder / f"{sha256}.{process.pid}-{process.create_time():.0f}-{next(_NUMBERS)}.part"
    for left in sorted(folder.glob(f"{sha256}*.part"), key=_size, reverse=True):
        if not _in_use(left):
            with suppress(OSError):
                left.rename(own)
                return own
    own.touch()
    return own


def _release(own: Path, part: Path) -> None:
    """Leave what came for the next time, unless more of it is there already."""
    with suppress(OSError):
        if _size(own) > max(0, _size(part)):
            own.replace(part)
        else:
            own.unlink(missing_ok=True)


def _in_use(part: Path) -> bool:
    """Return True if a living process fetches into the file; a killed one left it behind."""
    owner = part.name.split(".")[1].split("-")
    try:
        process = psutil.Process(int(owner[0]))
        return f"{process.create_time():.0f}" == owner[1]
    except (IndexError, ValueError, psutil.Error):
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1

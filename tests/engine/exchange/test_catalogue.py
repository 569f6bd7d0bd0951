import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from napari_braintumor.engine.errors import DataError, DescriptionNeeded, ModelError
from napari_braintumor.engine.events import Downloaded, Installed, Noted
from napari_braintumor.engine.exchange import fetching
from napari_braintumor.engine.exchange.catalogue import (
    FILE_NAME,
    MAX_CATALOGUE_BYTES,
    Entry,
    download,
    downloads_folder,
    find_entry,
    read_catalogue,
)
from napari_braintumor.engine.exchange.fetching import CHUNK_BYTES
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.models.store import ModelStore

Handler = BaseHTTPRequestHandler

CARD = ModelCard(name="far", architecture="unet", options={"width": 4})


class Server:
    """A web server on this machine. What it gives is in `files`; `answers` takes a path's answering over."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()
        outer = self

        class _Answering(Handler):
            protocol_version = "HTTP/1.0"  # the connection's end is the answer's end

            def do_GET(self) -> None:
                path = unquote(self.path.split("?")[0])
                outer.asked.append(path)
                if path in outer.answers:
                    outer.answers[path](self)
                elif path in outer.files:
                    give(self, outer.files[path])
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
        self._http.handle_error = lambda *_: None  # clients go away in these tests
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def give(handler: Handler, content: bytes, send: int | None = None) -> None:
    """Answer with a file, or with its first bytes alone."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:send])


def give_without_length(content: bytes) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def lead_to(place: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.end_headers()

    return answer


@pytest.fixture(autouse=True)
def _only_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, short waiting, and a cache of the test's own."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("BRAINTUMOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BRAINTUMOR_CATALOGUE", raising=False)
    monkeypatch.setattr(fetching, "CONNECT_TIMEOUT_S", 5.0)
    monkeypatch.setattr(fetching, "READ_TIMEOUT_S", 5.0)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model file of about two chunks."""
    path = tmp_path_factory.mktemp("made") / "far.safetensors"
    weights = build_network("unet", in_channels=4, out_channels=3, options=CARD.options).state_dict()
    return save_model(path, weights, CARD).read_bytes()


@pytest.fixture
def entry(content: bytes, server: Server) -> Entry:
    server.files["/far.safetensors"] = content
    return make_entry(content, urls=[f"{server.address}/far.safetensors"])


def make_entry(content: bytes, **other: object) -> Entry:
    said = {"name": "far", "file": "far.safetensors", "bytes": len(content), "license": "CC0"}
    return Entry.model_validate(said | {"sha256": hashlib.sha256(content).hexdigest()} | other)


def moved(entry: Entry, **other: object) -> Entry:
    return entry.model_copy(update=other)


def run(entry: Entry, mirror: str | Path | None = None) -> list[object]:
    return list(download(entry, mirror=mirror))


def stored() -> list[Path]:
    folder = ModelStore().folder
    return sorted(folder.iterdir()) if folder.exists() else []


def parts() -> list[Path]:
    return sorted(downloads_folder().iterdir())


# What goes well


def test_a_download_ends_in_the_store_and_leaves_nothing_in_the_cache(entry: Entry, content: bytes) -> None:
    *events, last = run(entry)
    assert last == Installed("far", ModelStore().find("far").path)
    assert last.path.read_bytes() == content
    assert events[-1] == Downloaded(len(content), len(content))
    assert parts() == []


def test_a_model_that_is_there_already_is_not_fetched_again(entry: Entry, server: Server) -> None:
    run(entry)
    assert run(entry) == [Installed("far", ModelStore().find("far").path)]
    assert len(server.asked) == 1


def test_nothing_is_printed_on_the_terminal(entry: Entry, capfd: pytest.CaptureFixture[str]) -> None:
    run(entry)
    assert capfd.readouterr() == ("", "")


def test_a_download_whose_end_is_missing_is_not_taken_for_whole(entry: Entry, content: bytes, server: Server) -> None:
    server.answers["/far.safetensors"] = give_without_length(content[:-1])
    with pytest.raises(ModelError, match="does not match its checksum"):
        run(entry)
    assert stored() == parts() == []


def test_a_download_that_broke_off_leaves_nothing_and_can_be_done_again(
    entry: Entry, content: bytes, server: Server
) -> None:
    server.answers["/far.safetensors"] = lambda handler: give(handler, content, send=100_000)
    with pytest.raises(ModelError, match=r"stopped answering, so 'far.safetensors' did not arrive"):
        run(entry)
    assert stored() == parts() == []
    del server.answers["/far.safetensors"]
    assert isinstance(run(entry)[-1], Installed)


def test_two_downloads_of_one_file_do_not_disturb_each_other(entry: Entry, content: bytes, server: Server) -> None:
    together = threading.Barrier(2)

    def answer(handler: Handler) -> None:
        together.wait(5)
        give(handler, content)

    server.answers["/far.safetensors"] = answer
    one, two = download(entry), download(entry)
    next(one), next(two)
    assert isinstance(list(one)[-1], Installed)
    assert isinstance(list(two)[-1], Installed)
    assert [path.read_bytes() for path in stored()] == [content]
    assert parts() == []


def test_the_next_address_is_tried_where_one_fails(entry: Entry, server: Server) -> None:
    events = run(moved(entry, urls=(f"{server.address}/gone", *entry.urls)))
    notes = [event.text for event in events if isinstance(event, Noted)]
    assert notes == [
        "Another address is tried. '127.0.0.1' does not provide 'far.safetensors': 404 Not Found. "
        "Download it from elsewhere."
    ]
    assert isinstance(events[-1], Installed)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/far.safetensors", "/far.safetensors"])
def test_a_redirect_that_leads_nowhere_ends_in_a_sentence(entry: Entry, server: Server, place: str) -> None:
    server.answers["/far.safetensors"] = lead_to(place)
    with pytest.raises(ModelError, match=r"'127.0.0.1' (cannot be reached|does not provide)"):
        run(entry)
    assert stored() == parts() == []


def test_a_password_in_an_address_is_not_shown(entry: Entry, server: Server) -> None:
    address = server.address.replace("http://", "http://someone:secret@")
    with pytest.raises(ModelError, match="does not provide") as caught:
        run(moved(entry, urls=(f"{address}/gone",)))
    assert "secret" not in str(caught.value)


def test_a_redirect_is_followed(entry: Entry, server: Server) -> None:
    server.answers["/moved"] = lead_to("/far.safetensors")
    assert isinstance(run(moved(entry, urls=(f"{server.address}/moved",)))[-1], Installed)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_takes_the_place_of_the_addresses(entry: Entry, content: bytes, server: Server, slash: str) -> None:
    server.files["/mirror/far.safetensors"] = content
    assert isinstance(run(entry, mirror=f"{server.address}/mirror{slash}")[-1], Installed)
    assert server.asked == ["/mirror/far.safetensors"]


def test_a_folder_can_be_the_mirror(entry: Entry, content: bytes, server: Server, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "far.safetensors").write_bytes(content)
    assert isinstance(run(entry, mirror=mirror)[-1], Installed)
    assert server.asked == []
    assert (mirror / "far.safetensors").read_bytes() == content


def test_a_file_without_a_card_is_described_by_the_catalogue(server: Server, tmp_path: Path) -> None:
    network = build_network("unet", in_channels=4, out_channels=3, options=CARD.options)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    server.files["/weights.pt"] = (tmp_path / "weights.pt").read_bytes()
    said = {"file": "weights.pt", "urls": [f"{server.address}/weights.pt"], "kind": "checkpoint"}
    with pytest.raises(DescriptionNeeded):
        run(make_entry(server.files["/weights.pt"], **said))
    described = make_entry(server.files["/weights.pt"], **said, description=CARD.model_dump(mode="json"))
    assert isinstance(run(described)[-1], Installed)
    assert ModelStore().find("far").card.architecture == "unet"


# What goes wrong


def test_a_file_that_was_changed_is_refused_and_nothing_of_it_is_kept(
    entry: Entry, content: bytes, server: Server
) -> None:
    server.files["/far.safetensors"] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(
        ModelError, match=r"does not match its checksum: it was damaged or changed. Nothing of it was kept"
    ):
        run(entry)
    assert stored() == parts() == []


def test_a_server_that_hangs_ends_in_a_sentence(
    entry: Entry, content: bytes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "READ_TIMEOUT_S", 0.3)

    def answer(handler: Handler) -> None:
        give(handler, content, send=50_000)
        server.closing.wait(20)

    server.answers["/far.safetensors"] = answer
    begun = time.monotonic()
    with pytest.raises(ModelError, match=r"'127.0.0.1' cannot be reached, or stopped answering"):
        run(entry)
    assert time.monotonic() - begun < 3
    assert stored() == parts() == []


def test_a_server_that_never_answers_ends_in_a_sentence(
    entry: Entry, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "READ_TIMEOUT_S", 0.3)
    server.answers["/far.safetensors"] = lambda _: server.closing.wait(20)
    with pytest.raises(ModelError, match="stopped answering"):
        run(entry)


def test_a_slow_server_does_not_count_as_one_that_hangs(
    entry: Entry, content: bytes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "READ_TIMEOUT_S", 0.6)

    def answer(handler: Handler) -> None:
        give(handler, content, send=0)
        for start in (0, 10, 20, 30, 40):
            handler.wfile.write(content[start : start + 10])
            time.sleep(0.2)
        handler.wfile.write(content[50:])

    server.answers["/far.safetensors"] = answer
    assert isinstance(run(entry)[-1], Installed)


def test_more_than_was_declared_is_not_taken(entry: Entry, content: bytes, server: Server) -> None:
    server.answers["/far.safetensors"] = give_without_length(content + bytes(2 * CHUNK_BYTES))
    with pytest.raises(ModelError, match=rf"is larger than the expected {len(content)} bytes"):
        run(entry)
    assert stored() == parts() == []


def test_a_larger_file_is_refused_before_it_is_fetched(entry: Entry, content: bytes, server: Server) -> None:
    server.files["/far.safetensors"] = content + bytes(10)
    with pytest.raises(ModelError, match=rf"is larger than the expected {len(content)} bytes"):
        run(entry)
    assert stored() == parts() == []


def test_a_file_that_does_not_exist_is_reported_missing(entry: Entry, server: Server) -> None:
    with pytest.raises(ModelError, match=r"'127.0.0.1' does not provide 'far.safetensors': 404 Not Found"):
        run(moved(entry, urls=(f"{server.address}/gone",)))


def test_a_server_that_is_not_there_is_reported_unreachable(entry: Entry) -> None:
    with pytest.raises(ModelError, match=r"'127.0.0.1' cannot be reached"):
        run(moved(entry, urls=("http://127.0.0.1:9/far.safetensors",)))


@pytest.mark.parametrize("status", [401, 403, 416, 500, 503])
def test_an_answer_without_a_file_is_refused(entry: Entry, server: Server, status: int) -> None:
    server.answers["/far.safetensors"] = lambda handler: handler.send_error(status)
    with pytest.raises(ModelError, match=f"does not provide 'far.safetensors': {status}"):
        run(entry)


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://127.0.0.1/", "http://", "http://[::1"])
def test_a_mirror_that_is_not_an_address_is_refused(entry: Entry, mirror: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be fetched. Expected an address|is not an address"):
        run(entry, mirror=mirror)


def test_a_folder_without_the_file_is_named(entry: Entry, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'far.safetensors' cannot be read in '.*': No such file"):
        run(entry, mirror=tmp_path)


def test_a_download_that_is_canceled_leaves_nothing(entry: Entry, content: bytes, server: Server) -> None:
    half = len(content) // 2

    def answer(handler: Handler) -> None:
        give(handler, content, send=half)
        server.closing.wait(0.5)
        handler.wfile.write(content[half:])

    server.answers["/far.safetensors"] = answer
    events = download(entry)
    for event in events:
        if isinstance(event, Downloaded) and 0 < event.done < len(content):
            break
    events.close()
    assert stored() == parts() == []


def test_a_download_from_a_server_that_hangs_is_canceled_at_once(
    entry: Entry, content: bytes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "READ_TIMEOUT_S", 3)
    server.answers["/far.safetensors"] = lambda _: server.closing.wait(20)
    events = download(entry)
    assert [next(events) for _ in range(3)] == [Downloaded(0, len(content))] * 3
    begun = time.monotonic()
    events.close()
    assert time.monotonic() - begun < 2
    for thread in threading.enumerate():
        if isinstance(thread, fetching.Fetch):
            thread.join()
    assert stored() == parts() == []


def test_a_name_that_is_taken_is_reported_before_anything_is_fetched(entry: Entry, server: Server) -> None:
    save_model(ModelStore().folder / "far.safetensors", {"a": torch.zeros(3)}, CARD)
    with pytest.raises(ModelError, match="You already have another model 'far', so nothing was downloaded"):
        run(entry)
    assert server.asked == []


def test_a_file_that_is_not_a_model_is_refused_and_leaves_nothing(server: Server) -> None:
    server.files["/far.safetensors"] = b"not a model"
    with pytest.raises(ModelError, match="is not a model file"):
        run(make_entry(b"not a model", urls=[f"{server.address}/far.safetensors"]))
    assert stored() == parts() == []


def test_an_entry_without_an_address_needs_a_mirror(content: bytes) -> None:
    with pytest.raises(ModelError, match="states no address of 'far'"):
        run(make_entry(content))


def test_a_cache_that_cannot_be_written_to_is_named(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(DataError, match="downloads' cannot be written to"):
        run(entry)


# Catalogues


def write_catalogue(path: Path, *models: Entry | dict[str, object], **other: object) -> Path:
    said = [model if isinstance(model, dict) else model.model_dump(mode="json") for model in models]
    path.write_text(json.dumps({"format": 1, "models": said} | other))
    return path


def test_the_shipped_catalogue_can_be_read() -> None:
    assert read_catalogue() == []


def test_a_catalogue_is_read_from_a_file_a_folder_an_address_and_the_environment(
    entry: Entry, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_catalogue(tmp_path / FILE_NAME, entry)
    server.files["/lists/catalogue.json"] = path.read_bytes()
    assert read_catalogue(path) == read_catalogue(tmp_path) == read_catalogue(str(tmp_path)) == [entry]
    assert read_catalogue(f"{server.address}/lists/catalogue.json") == [entry]
    monkeypatch.setenv("BRAINTUMOR_CATALOGUE", str(path))
    assert read_catalogue() == [entry]


def test_a_file_beside_the_catalogue_needs_no_address(content: bytes, server: Server, tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / FILE_NAME, make_entry(content))
    (tmp_path / "far.safetensors").write_bytes(content)
    assert isinstance(run(read_catalogue(tmp_path)[0])[-1], Installed)
    ModelStore().remove("far")
    server.files |= {"/lists/all.json": path.read_bytes(), "/lists/far.safetensors": content}
    assert isinstance(run(read_catalogue(f"{server.address}/lists/all.json")[0])[-1], Installed)


def test_a_file_beside_the_catalogue_comes_before_addresses(
    entry: Entry, content: bytes, server: Server, tmp_path: Path
) -> None:
    write_catalogue(tmp_path / FILE_NAME, entry)
    (tmp_path / "far.safetensors").write_bytes(content)
    assert isinstance(run(read_catalogue(tmp_path)[0])[-1], Installed)
    assert server.asked == []


def test_an_unknown_name_lists_the_known_ones(entry: Entry) -> None:
    assert find_entry([entry], "far") == entry
    with pytest.raises(ModelError, match=r"no model 'near'. It has: far."):
        find_entry([entry], "near")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "red"}, "color: Extra inputs are not permitted"),
        ({"name": "../far"}, "name: String should match"),
        ({"name": "a" * 81}, "name: String should match"),
        ({"file": "../far.safetensors"}, "file: String should match"),
        ({"file": "/etc/passwd"}, "file: String should match"),
        ({"file": "a\\b.safetensors"}, "file: String should match"),
        ({"file": ".bashrc"}, "file: String should match"),
        ({"file": "a.zip\n"}, "file: String should match"),
        ({"urls": ["file:///etc/passwd"]}, "urls: .*begin with https"),
        ({"urls": ["/etc/passwd"]}, "urls: .*begin with https"),
        ({"urls": ["https://a\x1b[31m"]}, "urls: .*begin with https"),
        ({"urls": ["https://a"] * 11}, "urls: Tuple should have at most 10"),
        ({"bytes": 0}, "bytes: Input should be greater"),
        ({"bytes": -5}, "bytes: Input should be greater"),
        ({"bytes": 10**15}, "bytes: Input should be less"),
        ({"bytes": "12"}, "bytes: Input should be a valid integer"),
        ({"bytes": 1.5}, "bytes: Input should be a valid integer"),
        ({"sha256": "abc"}, "sha256: String should match"),
        ({"sha256": "../" * 21 + "a"}, "sha256: String should match"),
        ({"license": ""}, "license: String should have at least 1"),
        ({"title": "x\x1b[2J"}, "title: .*cannot be printed"),
        ({"title": "x" * 301}, "title: String should have at most 300"),
        ({"kind": "pickle"}, "kind: Input should be"),
        ({"description": {"name": "far"}}, "description.architecture: Field required"),
        ({"description": {"name": "far", "architecture": "unet", "run": "x"}}, "description.run: Extra inputs"),
    ],
)
def test_an_entry_with_an_absurd_value_is_refused(
    content: bytes, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_catalogue(tmp_path / "odd.json", make_entry(content).model_dump(mode="json") | change)
    place, _, problem = message.partition(": ")
    with pytest.raises(ModelError, match=rf"odd.json' is not a catalogue: models.0.{place}( = .*)?: {problem}"):
        read_catalogue(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 2, "models": []}',
        "[" * 100_000,
        '{"models": NaN}',
        "\xff",
    ],
)
def test_anything_but_a_catalogue_is_refused(server: Server, tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(text.encode("latin-1"))
    server.files["/odd.json"] = path.read_bytes()
    for source in (path, f"{server.address}/odd.json"):
        with pytest.raises(ModelError, match=r"odd.json' is not a catalogue"):
            read_catalogue(source)


def test_unknown_fields_and_names_given_twice_are_refused(content: bytes, tmp_path: Path) -> None:
    entry = make_entry(content)
    with pytest.raises(ModelError, match="not a catalogue: server = 'x': Extra inputs"):
        read_catalogue(write_catalogue(tmp_path / "a.json", entry, server="x"))
    with pytest.raises(ModelError, match="two models are called 'far'"):
        read_catalogue(write_catalogue(tmp_path / "a.json", entry, entry))


def test_a_catalogue_that_is_too_large_is_not_read(server: Server, tmp_path: Path) -> None:
    large = b" " * (MAX_CATALOGUE_BYTES + 2 * CHUNK_BYTES)
    (tmp_path / "large.json").write_bytes(large)
    server.files["/large.json"] = large
    server.answers["/untold.json"] = give_without_length(large)
    for source in (tmp_path / "large.json", f"{server.address}/large.json", f"{server.address}/untold.json"):
        with pytest.raises(ModelError, match=f"is larger than (the expected )?{MAX_CATALOGUE_BYTES} bytes"):
            read_catalogue(source)


def test_a_catalogue_that_cannot_be_fetched_is_reported(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.json' cannot be read: No such file"):
        read_catalogue(tmp_path / "none.json")
    with pytest.raises(ModelError, match=r"does not provide 'none.json': 404"):
        read_catalogue(f"{server.address}/none.json")
    with pytest.raises(ModelError, match="Expected an address with http or https, or a path"):
        read_catalogue("file:///etc/passwd")

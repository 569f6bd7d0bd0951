"""Nothing that is imported is ever run: while it is armed, a hook of Python tells what would leave the program."""

import io
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import BUNDLE_CARD, CARD, CORPUS, GRAPH_CARD, Hostile, bundle, graph, own, package, saved, weights, written

import napari_braintumor
from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.exchange import bioimageio, import_model, nnunet, onnx, recognize
from napari_braintumor.engine.exchange.monai import reading
from napari_braintumor.engine.exchange.state_dict import build_on_meta
from napari_braintumor.engine.models.store import ModelStore

TRUSTED = tuple(
    str(Path(folder).resolve())
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), Path(napari_braintumor.__file__).parent)
)
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "os.startfile",
    "subprocess.Popen",
    "socket.",
    "pty.spawn",
    "urllib.",
    "http.",
    "webbrowser.",
)
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


class Watch:
    """What happened since it was armed that no import may do."""

    def __init__(self) -> None:
        self.armed = False
        self.allowed = Path()
        self.seen: list[str] = []
        sys.addaudithook(self._hear)  # for good: a hook cannot be taken away

    @contextmanager
    def arm(self, allowed: Path) -> Iterator[None]:
        self.allowed, self.seen, self.armed = allowed.resolve(), [], True
        try:
            yield
        finally:
            self.armed = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed or not self._is_forbidden(event, arguments):
            return
        self.seen.append(f"{event} {arguments!r:.200}")
        raise PermissionError(event)

    def _is_forbidden(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event.startswith(FORBIDDEN):
            return True
        if event == "exec":
            file = getattr(arguments[0], "co_filename", "")
            return not (str(Path(file).resolve()).startswith(TRUSTED) or file.startswith("<frozen "))
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return bool(writes) and not self._is_inside(arguments[0])
        return event in CHANGING and not self._is_inside(arguments[0])

    def _is_inside(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return isinstance(path, int)  # opened before
        return Path(os.fsdecode(path)).resolve().is_relative_to(self.allowed)


@pytest.fixture(scope="module")
def watch() -> Watch:
    """Return a watch, after all has been imported that is imported late: importing runs code, of ours and of others."""
    assert all((bioimageio, nnunet, reading, recognize))
    build_on_meta("monai_segresnet", 4, 3, 3, {"init_filters": 8})
    build_on_meta("unet", 4, 3, 2, {"width": 2})
    onnx.openvino_core().read_model(graph())
    torch.load(io.BytesIO(saved({"a": torch.ones(1)})), weights_only=True)
    return Watch()


def test_the_corpus_is_large_and_every_file_has_a_name_of_its_own() -> None:
    assert len(CORPUS) >= 40
    assert len({each.name for each in CORPUS}) == len(CORPUS)


def test_without_the_evil_in_them_they_are_accepted(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    for name, path, card in (
        ("a", written(tmp_path / "a.pt", saved(weights())), CARD),
        ("b", written(tmp_path / "b.pth", saved(weights())), CARD),
        ("c", written(tmp_path / "c.onnx", graph()), GRAPH_CARD),
        ("d", bundle(tmp_path), BUNDLE_CARD),
        ("e", package(tmp_path), CARD),
        ("f", written(tmp_path / "f.safetensors", own(tmp_path, name="f")), CARD),
    ):
        found = import_model(path, card.model_copy(update={"name": name}), store)
        assert (found.name, found.path.parent) == (name, store.folder)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: bad.name)
def test_it_is_refused_with_a_sentence_and_nothing_is_run_or_written(
    bad: Hostile, tmp_path: Path, watch: Watch
) -> None:
    folder, store = tmp_path / "given", tmp_path / "store"
    folder.mkdir()
    path = bad.make(folder)
    before = {each: each.stat().st_size for each in tmp_path.rglob("*") if each.is_file()}
    with watch.arm(store), pytest.raises(BrainTumorError) as caught:
        import_model(path, description=bad.description, store=ModelStore(store))
    message = str(caught.value)
    assert watch.seen == []
    assert type(caught.value).__name__ != "DescriptionNeeded" or bad.description is None
    assert message.endswith((".", ")")), message
    assert message[0].isupper() or message[0] in "'"
    assert 20 < len(message) < 700, message
    assert message.isprintable(), message
    assert {each: each.stat().st_size for each in tmp_path.rglob("*") if each.is_file()} == before
    assert not list(tmp_path.rglob("executed"))
    assert not Path("/tmp/executed").exists()


def test_the_watch_would_hear_it(watch: Watch, tmp_path: Path) -> None:
    attempts = {
        "os.system": lambda: os.system("true"),
        "exec": lambda: exec("1"),
        "open": lambda: (tmp_path.parent / "outside").write_text("x"),
        "socket.": lambda: __import__("socket").socket(),
        "subprocess.Popen": lambda: __import__("subprocess").run(["true"], check=False),
        "os.mkdir": lambda: (tmp_path.parent / "made").mkdir(),
    }
    for event, attempt in attempts.items():
        with watch.arm(tmp_path), pytest.raises(PermissionError):
            attempt()
        assert watch.seen[0].startswith(event)
    with watch.arm(tmp_path):
        (tmp_path / "inside").write_text("x")
    assert watch.seen == []

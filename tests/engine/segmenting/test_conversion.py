import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import build_network, find_architecture
from napari_braintumor.engine.segmenting import conversion
from napari_braintumor.engine.segmenting.conversion import load_converted
from napari_braintumor.engine.segmenting.runtime import OpenVinoRunner


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINTUMOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    return save("unet", {"width": 4}, tmp_path)


def save(architecture: str, options: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(0)
    card = ModelCard(name=architecture.replace("_", "-"), architecture=architecture, options=options)
    network = build_network(architecture, in_channels=4, out_channels=3, options=options)
    return save_model(folder / f"{card.name}.safetensors", network.state_dict(), card)


def refuse(path: Path) -> NoReturn:
    raise AssertionError("The network was built although it had been converted before.")


def answer(model: object, side: int = 32) -> np.ndarray:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, side, side)).astype(np.float32))
    return OpenVinoRunner(model, (1, 4, side, side))(x).numpy()


def test_a_network_is_converted_once_in_a_process_of_its_own(unet: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(conversion, "_convert", refuse)  # in this process
    first = answer(load_converted(unet, "a" * 64))
    monkeypatch.setattr(conversion, "_convert_apart", refuse)
    assert np.array_equal(answer(load_converted(unet, "a" * 64)), first)
    assert [path.name[:40] for path in cache.iterdir()] == ["a" * 40]


@pytest.mark.parametrize(
    "newer", ["napari_braintumor.engine.segmenting.conversion.__version__", "openvino.__version__"]
)
def test_a_newer_version_of_the_program_or_of_openvino_converts_anew(
    converted_here: None, unet: Path, cache: Path, monkeypatch, newer: str
) -> None:
    first = answer(load_converted(unet, "a" * 64))
    monkeypatch.setattr(newer, "99.1.0")
    assert np.array_equal(answer(load_converted(unet, "a" * 64)), first)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.undo()
    monkeypatch.setenv("BRAINTUMOR_CACHE", str(cache))
    monkeypatch.setattr(conversion, "_convert_apart", refuse)
    assert np.array_equal(answer(load_converted(unet, "a" * 64)), first)


def test_where_no_process_can_be_started_the_network_is_converted_here(unet: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", str(cache / "no python"))
    assert answer(load_converted(unet, "a" * 64)).shape == (2, 3, 32, 32)
    assert not cache.exists()


def test_a_file_that_cannot_be_converted_is_reported(tmp_path: Path, cache: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(ModelError):
        load_converted(damaged, "a" * 64)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("unet", {"width": 4}),
        ("res_unet", {"width": 4}),
        ("u2net_small", {}),
        ("fcn8s", {"width": 8, "trunk_width": 4}),
    ],
)
def test_converted_networks_take_other_sizes_than_they_were_converted_at(
    converted_here: None, cache: Path, tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    path = save(architecture, options, tmp_path)
    model = load_converted(path, "b" * 64)
    side = 5 * find_architecture(architecture).divisor
    x = torch.randn(2, 4, side, side + find_architecture(architecture).divisor)
    with torch.inference_mode():
        expected = load_network(path)(x)
    given = OpenVinoRunner(model, (1, *x.shape[1:]))(x)
    assert torch.allclose(given, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "sha256.json"])
@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"x" + raw[1:], None])
def test_a_damaged_conversion_is_made_anew(
    converted_here: None, unet: Path, cache: Path, monkeypatch, name: str, damage: Callable[[bytes], bytes] | None
) -> None:
    first = answer(load_converted(unet, "c" * 64))
    (folder,) = cache.iterdir()
    path = folder / name
    raw = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(raw))
    assert np.array_equal(answer(load_converted(unet, "c" * 64)), first)
    monkeypatch.setattr(conversion, "_convert_apart", refuse)
    assert np.array_equal(answer(load_converted(unet, "c" * 64)), first)
    assert not list(cache.glob(".new-*"))


def test_where_nothing_can_be_kept_the_network_is_used_all_the_same(
    converted_here: None, unet: Path, cache: Path
) -> None:
    first = answer(load_converted(unet, "d" * 64))
    for path in cache.rglob("*"):
        if path.is_file():
            path.unlink()
    for folder in cache.iterdir():
        folder.rmdir()
    cache.rmdir()
    cache.write_text("a file where the folder should be")
    assert np.array_equal(answer(load_converted(unet, "d" * 64)), first)


def test_conversions_not_used_for_longest_go(
    converted_here: None, unet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, letter in enumerate("abc"):
        load_converted(unet, letter * 64)
        (kept,) = cache.glob(f"{letter}*/sha256.json")
        os.utime(kept, (1e9 + age, 1e9 + age))
    size = sum(path.stat().st_size for path in kept.parent.iterdir())
    monkeypatch.setattr(conversion, "MOST_BYTES", 2.5 * size)
    load_converted(unet, "b" * 64)  # used again
    load_converted(unet, "d" * 64)
    assert sorted(path.name[0] for path in cache.iterdir()) == ["b", "d"]


def test_what_else_lies_in_the_cache_is_left_alone(converted_here: None, unet: Path, cache: Path) -> None:
    load_converted(unet, "e" * 64)
    (folder,) = cache.iterdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "sha256.json").write_text(json.dumps({}))
    answer(load_converted(unet, "e" * 64))  # cannot be replaced, so it is not kept
    assert (folder / "notes.txt").read_text() == "mine"


def test_two_programs_may_convert_the_same_model_at_once(unet: Path, cache: Path) -> None:
    code = """
import sys
from pathlib import Path
from napari_braintumor.engine.segmenting.conversion import convert, load_converted
for letter in "abcdef":
    convert(Path(sys.argv[1]), letter * 64)
    assert load_converted(Path(sys.argv[1]), letter * 64) is not None
"""
    command = [sys.executable, "-c", code, str(unet)]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    assert sorted(path.name[0] for path in cache.iterdir()) == list("abcdef")

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_braintumor.engine import conversion
from napari_braintumor.engine.conversion import load_converted
from napari_braintumor.engine.registry import build_network, find_architecture
from napari_braintumor.engine.runtime import OpenVinoRunner


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINTUMOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small_unet() -> nn.Module:
    torch.manual_seed(0)
    return build_network("unet", in_channels=4, out_channels=3, options={"width": 4}).eval()


def refuse() -> nn.Module:
    raise AssertionError("The network was built although it had been converted before.")


def answer(model: object, side: int = 32) -> np.ndarray:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, side, side)).astype(np.float32))
    return OpenVinoRunner(model, (1, 4, side, side))(x).numpy()


def test_a_network_is_converted_once_and_then_read(cache: Path) -> None:
    first = answer(load_converted("a" * 64, 4, small_unet))
    assert np.array_equal(answer(load_converted("a" * 64, 4, refuse)), first)
    assert [path.name[:40] for path in cache.iterdir()] == ["a" * 40]


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("unet", {"width": 4}), ("res_unet", {"width": 4}), ("u2net_small", {}), ("fcn8s", {})],
)
def test_converted_networks_take_other_sizes_than_they_were_converted_at(
    cache: Path, architecture: str, options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    network = build_network(architecture, in_channels=2, out_channels=3, options=options).eval()
    model = load_converted("b" * 64, 2, lambda: network)
    side = 5 * find_architecture(architecture).divisor
    x = torch.randn(2, 2, side, side + find_architecture(architecture).divisor)
    with torch.inference_mode():
        expected = network(x)
    given = OpenVinoRunner(model, (1, *x.shape[1:]))(x)
    assert torch.allclose(given, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "sha256.json"])
@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"x" + raw[1:], None])
def test_a_damaged_conversion_is_made_anew(cache: Path, name: str, damage: Callable[[bytes], bytes] | None) -> None:
    first = answer(load_converted("c" * 64, 4, small_unet))
    (folder,) = cache.iterdir()
    path = folder / name
    raw = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(raw))
    assert np.array_equal(answer(load_converted("c" * 64, 4, small_unet)), first)
    assert np.array_equal(answer(load_converted("c" * 64, 4, refuse)), first)
    assert not list(cache.glob(".new-*"))


def test_where_nothing_can_be_kept_the_network_is_used_all_the_same(cache: Path) -> None:
    first = answer(load_converted("d" * 64, 4, small_unet))
    for path in cache.rglob("*"):
        if path.is_file():
            path.unlink()
    for folder in cache.iterdir():
        folder.rmdir()
    cache.rmdir()
    cache.write_text("a file where the folder should be")
    assert np.array_equal(answer(load_converted("d" * 64, 4, small_unet)), first)


def test_conversions_not_used_for_longest_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, letter in enumerate("abc"):
        load_converted(letter * 64, 4, small_unet)
        (kept,) = cache.glob(f"{letter}*/sha256.json")
        os.utime(kept, (1e9 + age, 1e9 + age))
    size = sum(path.stat().st_size for path in kept.parent.iterdir())
    monkeypatch.setattr(conversion, "MOST_BYTES", 2.5 * size)
    load_converted("b" * 64, 4, refuse)  # used again
    load_converted("d" * 64, 4, small_unet)
    assert sorted(path.name[0] for path in cache.iterdir()) == ["b", "d"]


def test_what_else_lies_in_the_cache_is_left_alone(cache: Path) -> None:
    load_converted("e" * 64, 4, small_unet)
    (folder,) = cache.iterdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "sha256.json").write_text(json.dumps({}))
    answer(load_converted("e" * 64, 4, small_unet))  # cannot be replaced, so it is not kept
    assert (folder / "notes.txt").read_text() == "mine"


def test_two_programs_may_convert_the_same_model_at_once(cache: Path) -> None:
    code = """
import torch
from napari_braintumor.engine.conversion import load_converted
from napari_braintumor.engine.registry import build_network
from napari_braintumor.engine.runtime import OpenVinoRunner
make = lambda: build_network("unet", in_channels=4, out_channels=3, options={"width": 4}).eval()
for letter in "abcdef":
    OpenVinoRunner(load_converted(letter * 64, 4, make), (1, 4, 32, 32))(torch.zeros(1, 4, 32, 32))
"""
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    assert sorted(path.name[0] for path in cache.iterdir()) == list("abcdef")

"""Networks converted for OpenVINO, kept in the user's cache: a model is converted once, not at each start."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import nn

MOST_BYTES = 2 * 2**30
"""What the cache may take; the models not used for longest go."""

EXAMPLE_SIDE = 64

_CONVERTING = Lock()
"""One at a time: a click while a dock warms up waits for what is nearly there."""

logger = logging.getLogger("napari_braintumor")


def cache_folder() -> Path:
    """Return where converted models are kept; ``BRAINTUMOR_CACHE`` in the environment moves it."""
    chosen = os.environ.get("BRAINTUMOR_CACHE")
    return Path(chosen) if chosen else user_cache_path("napari-braintumor", appauthor=False) / "converted"


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """Return the one core of OpenVINO, which is never let go.

    It gives the thread that makes it a stack for signals (openvinotoolkit/openvino, pull request 11894). Dropped by
    another thread, it would free that stack without taking it away, and the next signal that Python handles would end
    the process.
    """
    from openvino import Core

    return Core()


def load_converted(sha256: str, channels: int, build: Callable[[], nn.Module]) -> Any:
    """Return a network as a model of OpenVINO, converted now or before.

    Parameters
    ----------
    sha256
        Of the file that the network is in.
    channels
        Modalities that it takes.
    build
        Makes the network, in evaluation mode; called only if it has to be converted.

    Returns
    -------
    openvino.Model
        In float32, for images of any size that the network takes. A new one at each call.
    """
    import openvino

    folder = cache_folder() / f"{sha256[:40]}-{openvino.__version__.split('-')[0]}"
    with _CONVERTING:
        if (kept := _read(folder)) is not None:
            return kept
        network = build()
        model = _convert(network, channels)
        try:
            _write(model, folder)
        except (OSError, RuntimeError) as error:
            logger.info("The converted model is not kept: %s", error)
        else:
            if (kept := _read(folder)) is not None:
                return kept
    model.network = network  # whose weights the model goes on using
    return model


def _convert(network: nn.Module, channels: int) -> Any:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # Not openvino.convert_model: that reports its use to a web analytics service, and no scan's program should.
    example = torch.zeros(1, channels, EXAMPLE_SIDE, EXAMPLE_SIDE)
    decoder = TorchScriptPythonDecoder(network, example_input=example)
    front_end = FrontEndManager().load_by_framework("pytorch")
    return front_end.convert(front_end.load(decoder))


def _read(folder: Path) -> Any | None:
    """Read a model that was kept; None where there is none, or it is damaged."""
    try:
        expected = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
        if expected != _checksums(folder):
            return None
        model = openvino_core().read_model(folder / "model.xml")
    except (OSError, ValueError, RuntimeError):
        return None
    with suppress(OSError):
        (folder / "sha256.json").touch()  # was used now
    return model


def _write(model: Any, folder: Path) -> None:
    """Keep a model: written beside its place, and moved there when it is complete."""
    from openvino import save_model

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as name:
        new = Path(name) / "new"
        new.mkdir()
        save_model(model, new / "model.xml", compress_to_fp16=False)
        (new / "sha256.json").write_text(json.dumps(_checksums(new)), encoding="utf-8")
        _remove(folder)  # damaged, or it would have been read
        new.rename(folder)
    room = MOST_BYTES
    for kept in sorted(folder.parent.glob("*/sha256.json"), key=_last_used, reverse=True):
        room -= sum(each.stat().st_size for each in kept.parent.iterdir())
        if room < 0 and kept.parent != folder:
            _remove(kept.parent)


def _checksums(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.xml", "model.bin")}


def _last_used(kept: Path) -> float:
    try:
        return kept.stat().st_mtime
    except OSError:
        return 0.0


def _remove(folder: Path) -> None:
    """Remove a kept model, without looking at anything else that may lie there."""
    for name in ("sha256.json", "model.xml", "model.bin"):
        (folder / name).unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()

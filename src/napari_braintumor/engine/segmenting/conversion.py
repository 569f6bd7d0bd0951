"""Networks converted for OpenVINO, kept in the user's cache: a model is converted once, not at each start.

A conversion runs in a process of its own, ``python -m napari_braintumor.engine.segmenting.conversion``: it keeps
Python's lock for up to half a second at a time, in which a window would stand still, and takes memory that is better
given back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from platformdirs import user_cache_path

from napari_braintumor import __version__
from napari_braintumor.engine.devices import openvino_core
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.registry import ONNX
from napari_braintumor.engine.models.store import load_weights, read_card

MOST_BYTES = 2 * 2**30
"""What the cache may take; the models not used for longest go."""

EXAMPLE_SIDES = {2: 64, 3: 32}
"""Of the image that a network is traced with, by its dimensions."""

_CONVERTING = Lock()
"""One at a time: a click while a dock warms up waits for what is nearly there."""

logger = logging.getLogger("napari_braintumor")


def cache_folder() -> Path:
    """Return where converted models are kept; ``BRAINTUMOR_CACHE`` in the environment moves it."""
    chosen = os.environ.get("BRAINTUMOR_CACHE")
    return Path(chosen) if chosen else user_cache_path("napari-braintumor", appauthor=False) / "converted"


def load_converted(path: Path, sha256: str) -> Any:
    """Return a model's network as a model of OpenVINO, converted now or before.

    Parameters
    ----------
    path
        The model's file.
    sha256
        Of that file.

    Returns
    -------
    openvino.Model
        In float32, for images of any size that the network takes. A new one at each call.

    Raises
    ------
    ModelError
        If the file is damaged or its tensors do not fit its architecture.
    """
    if read_card(path).architecture == ONNX:
        return openvino_core().read_model(load_weights(path)["graph"].numpy().tobytes())
    folder = _folder(sha256)
    with _CONVERTING:
        if (kept := _read(folder)) is not None:
            return kept
        _convert_apart(path, sha256)
        if (kept := _read(folder)) is not None:
            return kept
    return _convert(path)  # nothing can be kept here, or no process be started


def convert(path: Path, sha256: str) -> None:
    """Convert a model and keep it.

    Raises
    ------
    ModelError
        As `load_converted`.
    OSError, RuntimeError
        If it cannot be kept.
    """
    _write(_convert(path), _folder(sha256))


def _convert_apart(path: Path, sha256: str) -> None:
    command = [sys.executable, "-m", "napari_braintumor.engine.segmenting.conversion", str(path), sha256]
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # of Windows
    try:
        told = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, creationflags=flags
        )
    except OSError as error:
        logger.info("No process can be started to convert the model: %s", error)
        return
    if told.returncode != 0:
        logger.info("The model could not be converted and kept:\n%s", told.stderr)


def _folder(sha256: str) -> Path:
    """Return where a model is kept: another version of OpenVINO or of the program may make another network of it."""
    import openvino

    return cache_folder() / f"{sha256[:40]}-{openvino.__version__.split('-')[0]}-{__version__}"


def _convert(path: Path) -> Any:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # Not openvino.convert_model: that reports its use to a web analytics service, and no scan's program should.
    network, card = load_network(path), read_card(path)
    example = torch.zeros(1, len(card.modalities), *(EXAMPLE_SIDES[card.spatial_dims],) * card.spatial_dims)
    decoder = TorchScriptPythonDecoder(network, example_input=example)
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(decoder))
    model.network = network  # whose weights it goes on using
    return model


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


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2])

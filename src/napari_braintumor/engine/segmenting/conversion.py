"""Networks converted for OpenVINO, cached for the user: a model is converted once, not at every start.

A conversion runs in its own process, ``python -m napari_braintumor.engine.segmenting.conversion``: it holds Python's
lock for up to half a second at a time, which would freeze a window, and takes memory that is then released.
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
from napari_braintumor.engine.models.model_file import load_weights, read_card
from napari_braintumor.engine.models.registry import ONNX

MOST_BYTES = 2 * 2**30
"""Size limit of the cache; the models unused for longest are removed."""

EXAMPLE_SIDES = {2: 64, 3: 32}
"""Side of the image that a network is traced with, by number of dimensions."""

_CONVERTING = Lock()
"""One conversion at a time: a click while a dock warms up waits for the conversion that is running."""

logger = logging.getLogger("napari_braintumor")


def cache_folder() -> Path:
    """Return where converted models are cached; the environment variable ``BRAINTUMOR_CACHE`` overrides it."""
    chosen = os.environ.get("BRAINTUMOR_CACHE")
    return Path(chosen) if chosen else user_cache_path("napari-braintumor", appauthor=False) / "converted"


def load_converted(path: Path, sha256: str) -> Any:
    """Return a model's network as an OpenVINO model, converted now or earlier.

    Parameters
    ----------
    path
        The model's file.
    sha256
        The checksum of that file.

    Returns
    -------
    openvino.Model
        In float32, for images of any size that the network accepts. A new object at each call.

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
    return _convert(path)  # the cache is not writable, or no process could be started


def convert(path: Path, sha256: str) -> None:
    """Convert a model and cache it.

    Raises
    ------
    ModelError
        As `load_converted`.
    OSError, RuntimeError
        If it cannot be cached.
    """
    _write(_convert(path), _folder(sha256))


def _convert_apart(path: Path, sha256: str) -> None:
    # -P: nothing is imported from the folder that it is started in
    command = [sys.executable, "-P", "-m", "napari_braintumor.engine.segmenting.conversion", str(path), sha256]
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows only
    try:
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, creationflags=flags
        )
    except OSError as error:
        logger.info("Could not start a process to convert the model: %s", error)
        return
    if finished.returncode != 0:
        logger.info("The model could not be converted and cached:\n%s", finished.stderr)


def _folder(sha256: str) -> Path:
    """Return where a model is cached. The path contains the versions that affect the result."""
    import openvino

    return cache_folder() / f"{sha256[:40]}-{openvino.__version__.split('-')[0]}-{__version__}"


def _convert(path: Path) -> Any:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # Not openvino.convert_model: it reports its use to a web analytics service, which medical software should not.
    network, card = load_network(path), read_card(path)
    example = torch.zeros(1, len(card.inputs), *(EXAMPLE_SIDES[card.spatial_dims],) * card.spatial_dims)
    decoder = TorchScriptPythonDecoder(network, example_input=example)
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(decoder))
    model.network = network  # the model keeps using its weights
    return model


def _read(folder: Path) -> Any | None:
    """Read a cached model; None if there is none or it is damaged."""
    try:
        expected = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
        if expected != _checksums(folder):
            return None
        model = openvino_core().read_model(folder / "model.xml")
    except (OSError, ValueError, RuntimeError):
        return None
    with suppress(OSError):
        (folder / "sha256.json").touch()  # mark as used now
    return model


def _write(model: Any, folder: Path) -> None:
    """Cache a model: write it to a temporary folder, and move it into place when it is complete."""
    from openvino import save_model

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as name:
        new = Path(name) / "new"
        new.mkdir()
        save_model(model, new / "model.xml", compress_to_fp16=False)
        (new / "sha256.json").write_text(json.dumps(_checksums(new)), encoding="utf-8")
        _remove(folder)  # it is damaged, or it would have been read
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
    """Remove a cached model, without touching anything else in its folder."""
    for name in ("sha256.json", "model.xml", "model.bin"):
        (folder / name).unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2])

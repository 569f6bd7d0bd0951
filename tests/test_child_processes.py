"""Processes that the program starts import nothing from the folder that they are started in.

People start napari in the folder of their scans; a file `random.py` there must not be run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import napari_braintumor
from dicom import Storage, affine_of, write_series
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.files.dicom.decoding import decode_files
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.segmenting.conversion import load_converted
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.widgets.training.child import check_plan

TRAPS = ("random", "json", "tempfile", "numpy", "pydicom", "torch", "typer", "napari_braintumor")
"""Modules that the processes import early on, each."""


@pytest.fixture
def trapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that processes are started in; where something of it is imported, `sprung` lies in it."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(
            "from pathlib import Path\n"
            "Path(__file__).with_name('sprung').touch()\n"
            "raise ImportError('from the folder of scans')\n"
        )
    monkeypatch.chdir(folder)
    return folder


def decode(folder: Path) -> None:
    values = np.random.default_rng(0).integers(0, 500, (2, 20, 16))
    affine = affine_of((0, 0, 1), shape=values.shape, spacing=(3.0, 1.0, 1.0))
    paths = write_series(folder / "series", values, affine, storage=Storage(syntax="jpeg2000"))
    assert [pixels.shape for _, pixels in decode_files(paths)] == [(1, 20, 16)] * 2


def convert(folder: Path) -> None:
    network = build_network("unet", in_channels=4, out_channels=3, options={"width": 4})
    card = ModelCard(name="small", architecture="unet", options={"width": 4})
    load_converted(save_model(folder / "small.safetensors", network.state_dict(), card), "5" * 64)


def check(folder: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        check_plan(TrainPlan(name="x", cases=(folder / "nowhere",), output=folder))


@pytest.mark.parametrize("start", [decode, convert, check])
def test_nothing_is_imported_from_the_folder_that_a_process_is_started_in(
    start: Callable[[Path], None], trapped: Path
) -> None:
    start(trapped)
    assert not (trapped / "sprung").exists()


def test_python_is_always_started_so_that_it_imports_nothing_from_there() -> None:
    found = [
        (path.name, after)
        for path in Path(napari_braintumor.__file__).parent.rglob("*.py")
        for after in re.findall(r"sys\.executable,(.{5})", path.read_text(encoding="utf-8"))
    ]
    assert {name for name, _ in found} >= {"child.py", "conversion.py", "decoding.py"}
    assert [name for name, after in found if after != ' "-P"'] == []

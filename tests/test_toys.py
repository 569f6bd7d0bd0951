"""A toy of each kind is added as a programmer would add it: to a copy of the package, by touching very few files.

Then a new Python trains the toy architecture with the toy loss to find the toy region in files of the toy format,
measures it with the toy metric, and opens the toy dock.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "write_endings.py"
PACKAGE = Path(import_module("napari_braintumor").__file__ or "").parent

ARCHITECTURE = '''
"""The mean of a neighborhood, weighed."""

from __future__ import annotations

from torch import Tensor, nn


class Toy(nn.Module):
    def __init__(self, *, in_channels: int, out_channels: int, spatial_dims: int = 2) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x_NMHW: Tensor) -> Tensor:
        return self.layer(x_NMHW)
'''

FORMAT = '''
"""NumPy's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_braintumor.engine.grid import default_grid


def read_toy(path: Path) -> tuple[Any, Any]:
    array = np.load(path)
    return array, default_grid(array.shape, (3, 1, 1), path=path, format="toy")


def write_toy(labels_ZYX: Any, _: Any, path: Path) -> None:
    np.save(path, labels_ZYX)
'''

FORMAT_ROW = """
    Format(
        name="toy",
        title="NumPy",
        suffixes=(".npy",),
        content=_foreign.FileKind("a NumPy file", "Give it a name in .npy."),
        always_scan=True,
        names_channels=False,
        read=toy.read_toy,
        count_channels=lambda _: (1, ()),
        write_labels=toy.write_toy,
    ),"""

DOCK = '''
"""A dock that says hello."""

from __future__ import annotations

from typing import Any

from napari_braintumor.widgets.shared.dock import Dock
from napari_braintumor.widgets.shared.parts import make_line


class ToyDock(Dock):
    title = "Toy"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.lay_out(make_line("hello", "A greeting"), ())
'''

LOSS = """

def toy_loss(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    TOYS.append(len(logits_NRHW))
    return (logits_NRHW.sigmoid() - target_NRHW).square().mean()


TOYS: list[int] = []
"""

METRIC_ROW = """
    Metric("false_vox", "false", "voxels", lambda ours, theirs, _: float(np.count_nonzero(ours & ~theirs))),"""

REGION_ROW = """
    Region(name="toy region", label=5, label_name="toy tissue", color="#123456", nested=False),"""

CHILD = """
import json, sys
from pathlib import Path

import numpy as np

from napari_braintumor import engine
from napari_braintumor.engine.events import CaseEvaluated
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.models.model_file import read_card
from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig
from napari_braintumor.engine.training.plan import TrainPlan

folder = Path(sys.argv[1])
for number, name in enumerate(("anna", "ben")):
    case = folder / "cases" / name
    case.mkdir(parents=True)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in (8, 48, 48)), indexing="ij")
    head = (0.5 * z) ** 2 + y**2 + x**2 < 0.8
    tumor, toy = (y - 0.2) ** 2 + x**2 < 0.1, (y + 0.4) ** 2 + x**2 < 0.05
    noise = np.random.default_rng(number).normal(0, 5, head.shape)
    np.save(case / f"{name}_flair.npy", ((100 + 60 * tumor - 60 * toy + noise) * head).astype(np.float32))
    np.save(case / f"{name}_seg_toy2026.npy", (2 * tumor + 5 * toy).astype(np.uint8))
plan = TrainPlan(
    name="toys", cases=(folder / "cases",), output=folder / "runs", validation=("ben",), architecture="toy",
    modalities=("FLAIR",), regions=("whole tumor", "toy region"), loss="toy", epochs=1, steps_per_epoch=2,
    batch_size=2, patch=(32, 32), augmentation="none", preview_every=0, device="cpu", workers=0, threads=1,
)
*_, trained = engine.train(plan)
card = read_card(trained.path)
model = SegmentConfig(model=str(trained.path), device="cpu", runtime="torch")
events = engine.evaluate(find_cases(folder / "cases"), EvaluateConfig(segmentation=model))
measured = [event for event in events if isinstance(event, CaseEvaluated)]

from napari.components import ViewerModel
from npe2 import PluginManifest
from qtpy.QtWidgets import QApplication

from napari_braintumor.engine.training import losses
from napari_braintumor.widgets.training.model_tab import ModelPage
from napari_braintumor.widgets.training.run_tab import RunPage

application = QApplication([])
manifest = PluginManifest.from_file(Path(engine.__file__).parents[1] / "napari.yaml")
commands = {command.id: command for command in manifest.contributions.commands}
opened = {}
for widget in manifest.contributions.widgets:
    module, _, name = commands[widget.command].python_name.partition(":")
    kind = getattr(__import__(module, fromlist=[name]), name)
    if name == "ToyDock":
        opened[widget.display_name] = kind(ViewerModel()).title
page, run_page = ModelPage(), RunPage()
print(json.dumps({
    "package": str(Path(engine.__file__).parents[1]),
    "card": [card.architecture, [(region.name, region.label) for region in card.regions]],
    "batches": losses.TOYS,
    "measured": {case.case: {key: sorted(values) for key, values in case.figures.items()} for case in measured},
    "docks": opened,
    "patterns": manifest.contributions.readers[0].filename_patterns,
    "architectures": [page.architecture_box.itemData(row) for row in range(page.architecture_box.count())],
    "regions": {name: box.isChecked() for name, box in page.region_boxes.items()},
    "losses": list(run_page.advanced.editors["loss"].choices),
}))
"""


class Copy:
    """A copy of the package, and which of its files were touched for what."""

    def __init__(self, folder: Path) -> None:
        self.package = folder / PACKAGE.name
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "*.gz"))
        self.touched: dict[str, set[str]] = {}

    def add(self, kind: str, name: str, text: str) -> None:
        """Add a file."""
        path = self.package / name
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.lstrip(), encoding="utf-8")
        self.touched.setdefault(kind, set()).add(name)

    def write_after(self, kind: str, name: str, line: str, text: str) -> None:
        """Write a text after the one place in a file where another stands."""
        path = self.package / name
        before, found, after = path.read_text(encoding="utf-8").partition(line)
        assert found, f"{name} has no '{line}'"
        path.write_text(before + found + text + after, encoding="utf-8")
        self.touched.setdefault(kind, set()).add(name)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The package with a toy of each kind."""
    copy = Copy(tmp_path_factory.mktemp("toys"))
    copy.add("architecture", "engine/networks/toy.py", ARCHITECTURE)
    copy.write_after(
        "architecture", "engine/models/registry.py", "ARCHITECTURES: Mapping[str, Architecture] = {",
        '\n    "toy": Architecture("Toy", "toy:Toy", Citation("Nobody", "10.1/1"), divisor=1, spatial_dims=(2,)),',
    )  # fmt: skip
    copy.add("format", "engine/files/toy.py", FORMAT)
    copy.write_after(
        "format", "engine/files/formats.py", "from napari_braintumor.engine.errors import DataError\n",
        "from napari_braintumor.engine.files import toy\n",
    )  # fmt: skip
    copy.write_after("format", "engine/files/formats.py", "FORMATS: list[Format] = [", FORMAT_ROW)
    copy.add("dock", "widgets/toy/__init__.py", '"""A toy."""\n')
    copy.add("dock", "widgets/toy/dock.py", DOCK)
    copy.write_after(
        "dock", "napari.yaml", "  commands:\n",
        "    - id: napari-braintumor.toy\n      title: Say hello\n"
        "      python_name: napari_braintumor.widgets.toy.dock:ToyDock\n",
    )  # fmt: skip
    copy.write_after(
        "dock", "napari.yaml", "  widgets:\n", "    - command: napari-braintumor.toy\n      display_name: Toy\n"
    )
    last = 'Region(name=CAVITY, label=4, label_name="resection cavity", color="#4aa3df", nested=False),'
    copy.write_after("region", "engine/anatomy.py", last, REGION_ROW)
    copy.write_after(
        "region", "engine/anatomy.py", "CONVENTIONS: Mapping[str, Convention] = {",
        '\n    "toy2026": Convention({WHOLE: (2,), "toy region": (5,)}, "2 tumor, 5 toy"),',
    )  # fmt: skip
    copy.write_after("metric", "engine/measuring/metrics.py", "METRICS: list[Metric] = [", METRIC_ROW)
    copy.write_after("loss", "engine/training/plan.py", "LossName = Literal[", '"toy", ')
    copy.write_after("loss", "engine/training/losses.py", "losses: dict[str, Loss] = {", '\n        "toy": toy_loss,')
    end = (copy.package / "engine/training/losses.py").read_text(encoding="utf-8")
    copy.write_after("loss", "engine/training/losses.py", end, LOSS)
    return copy


@pytest.fixture(scope="module")
def seen(copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a new Python says of it."""
    folder = tmp_path_factory.mktemp("work")
    own = {"BRAINTUMOR_MODELS": str(folder / "models"), "BRAINTUMOR_CACHE": str(folder / "converted")}
    environment = {**os.environ, **own, "PYTHONPATH": str(copy.package.parent), "QT_QPA_PLATFORM": "offscreen"}
    if not TOOL.exists():
        pytest.skip("not in a source tree")
    subprocess.run([sys.executable, str(TOOL), str(copy.package / "napari.yaml")], env=environment, check=True)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(folder)],
        env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["package"] == str(copy.package)
    return said


@pytest.mark.parametrize(
    ("kind", "most"),
    [("architecture", 2), ("format", 2), ("dock", 3), ("region", 2), ("metric", 2), ("loss", 2)],
)
def test_adding_one_touches_few_files(copy: Copy, kind: str, most: int) -> None:
    assert 1 <= len(copy.touched[kind]) <= most


@pytest.mark.slow
def test_a_toy_architecture_is_trained_with_a_toy_loss_to_find_a_toy_region(seen) -> None:
    assert seen["card"] == ["toy", [["whole tumor", 2], ["toy region", 5]]]
    assert len(seen["batches"]) >= 2


@pytest.mark.slow
def test_a_toy_metric_measures_the_toy_region_in_files_of_a_toy_format(seen) -> None:
    assert sorted(seen["measured"]) == ["anna", "ben"]
    assert {"*.npy", "*.NPY", "*.nii.gz"} <= set(seen["patterns"])
    assert all(figures["false_vox"] == ["toy region", "whole tumor"] for figures in seen["measured"].values())


@pytest.mark.slow
def test_the_docks_offer_them_and_the_toy_dock_opens(seen) -> None:
    assert seen["docks"] == {"Toy": "Toy"}
    assert "toy" in seen["architectures"]
    assert seen["regions"]["toy region"] is False
    assert "toy" in seen["losses"]

"""The plans behind the bundled models fit together, and the models' page says what the records say."""

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from napari_braintumor.engine.runs import read_plan
from napari_braintumor.engine.store import ModelStore, read_weights_sha256

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
RECORDS = sorted((TOOLS / "records").glob("*.json"))
pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="tools are not in the source distribution")


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_stages() -> dict[str, tuple[str, ...]]:
    return load_tool("make_model").STAGES if TOOLS.is_dir() else {}


@pytest.mark.parametrize(("name", "stages"), list_stages().items())
def test_each_training_of_a_model_goes_on_from_the_one_before_it_on_the_one_split(name, stages) -> None:
    plans = [read_plan(TOOLS / "plans" / f"{stage}.json") for stage in stages]
    split = json.loads((TOOLS / "split.json").read_text())
    for plan in plans:
        assert plan.name == name
        assert list(plan.held_out) == split["held_out"]
        assert list(plan.validation) == split["validation"]
    assert plans[0].start_from is None
    for before, after in pairwise(plans):
        assert Path(after.start_from) == before.output / name / "model.safetensors"
        assert (after.architecture, after.options) == (before.architecture, before.options)


def test_the_models_page_and_the_readme_tell_what_the_committed_records_say(tmp_path: Path) -> None:
    maker = load_tool("make_models_page")
    records = maker.read_records()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert maker.make_page(records) == (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert maker.fill_readme(readme, records) == readme
    maker.draw_cases(records, tmp_path / "cases.png")
    maker.draw_calibration(records, tmp_path / "calibration.png")
    maker.draw_gallery(records[0], tmp_path / "gallery.png")
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())


def test_every_bundled_model_ships_with_the_weights_that_were_measured() -> None:
    measured = {record["model"]: record["weights_sha256"] for record in map(json.loads, map(Path.read_text, RECORDS))}
    for model in ModelStore().list():
        if model.bundled:
            assert measured[model.name] == read_weights_sha256(model.path)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_holds_outlines_but_no_pixel_of_a_scan(path: Path) -> None:
    for lines in json.loads(path.read_text())["outlines"].values():
        assert set(lines) == {"region", "slice", "shape", "head", "reference", "predicted"}
        assert sum(len(line) for name in ("head", "reference", "predicted") for line in lines[name]) < 2000

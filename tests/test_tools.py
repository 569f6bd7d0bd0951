"""The plans behind the bundled models fit together, and the models' page says what the records say."""

import json
from pathlib import Path

import numpy as np
import pytest

import make_models_page
from label_core import find_depths
from make_model import STAGES
from napari_braintumor.engine.files.patients import WhoIsWho
from napari_braintumor.engine.models.model_file import read_weights_sha256
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.training.plan_files import read_plan

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
RECORDS = make_models_page.read_records()


@pytest.mark.parametrize(("name", "stages"), STAGES.items())
def test_each_training_of_a_model_goes_on_from_an_earlier_one_on_the_one_split(name, stages) -> None:
    plans = [read_plan(TOOLS / "plans" / f"{stage}.json") for stage in stages]
    split = json.loads((TOOLS / "split.json").read_text())
    for plan in plans:
        assert plan.name in (name, f"{name}-mixed")
        assert list(plan.held_out) == split["held_out"]
        assert list(plan.validation) == split["validation"]
    assert plans[0].start_from is None
    for number, plan in enumerate(plans[1:], 1):
        assert Path(plan.start_from) in [before.output / name / "model.safetensors" for before in plans[:number]]
        assert (plan.architecture, plan.options) == (plans[0].architecture, plans[0].options)


@pytest.mark.parametrize("path", sorted((TOOLS / "plans").glob("*_long.json")), ids=lambda path: path.stem)
def test_the_long_plans_have_the_one_split_and_know_who_is_who(path) -> None:
    split = json.loads((TOOLS / "split.json").read_text())
    plan = read_plan(path)
    assert list(plan.held_out) == split["held_out"]
    assert list(plan.validation) == split["validation"]
    assert plan.patients == split["patients"]
    who = WhoIsWho({}, plan.patients)
    assert who.find(["BraTS2021_01482"]) <= who.find(plan.held_out)
    assert who.find(["BraTS2021_01483"]) <= who.find(plan.validation)


def test_the_models_page_and_the_readme_say_what_the_committed_records_say(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert make_models_page.make_page(RECORDS) == (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert make_models_page.fill_readme(readme, RECORDS) == readme
    make_models_page.draw_cases(RECORDS, tmp_path / "cases.png")
    make_models_page.draw_calibration(RECORDS, tmp_path / "calibration.png")
    make_models_page.draw_gallery(RECORDS[0], tmp_path / "gallery.png")
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())


def test_every_bundled_model_ships_with_the_weights_that_were_measured() -> None:
    measured = {record["model"]: record["weights_sha256"] for record in RECORDS}
    for model in ModelStore().list():
        if model.bundled:
            assert measured[model.name] == read_weights_sha256(model.path)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["model"])
def test_a_record_holds_outlines_but_no_pixel_of_a_scan(record) -> None:
    for lines in record["outlines"].values():
        assert set(lines) == {"region", "slice", "shape", "head", "reference", "predicted"}
        assert sum(len(line) for name in ("head", "reference", "predicted") for line in lines[name]) < 2000


def test_the_core_of_a_tumor_without_enhancement_is_what_lies_deep_in_its_mask_and_nothing_where_all_is_thin() -> None:
    rows, columns = np.mgrid[:60, :60]
    disc = np.hypot(rows - 30, columns - 30) < 20  # 40 mm deep on a grid of 2 mm
    core = find_depths(np.stack([disc, np.zeros_like(disc)]), 0.3)
    assert core[0, 30, 30]
    assert not core[0, 30, 48]
    assert not core[1].any()
    assert 0.4 < core[0].sum() / disc.sum() < 0.6  # a rim of 0.3 of the radius leaves half of the area
    assert not find_depths(np.stack([(rows == 30) & (columns > 9)]), 0.3).any()

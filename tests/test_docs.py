"""The documents that are made by scripts say what the scripts say now."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "tools" / "records").glob("*.json"))


@pytest.fixture
def page_maker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    spec = importlib.util.spec_from_file_location("make_models_page", ROOT / "tools" / "make_models_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DOCS", tmp_path)
    return module


def test_the_models_page_is_that_of_the_committed_records(page_maker, tmp_path: Path) -> None:
    page_maker.main(page_maker.ordered(RECORDS))
    assert (tmp_path / "models.md").read_text() == (ROOT / "docs" / "models.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"models.md", "models_by_case.png", "models_gallery.png"}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_holds_outlines_but_no_pixel_of_a_scan(path: Path) -> None:
    record = json.loads(path.read_text())
    for lines in record["outlines"].values():
        assert set(lines) == {"region", "slice", "shape", "head", "reference", "predicted"}
        assert sum(len(line) for name in ("head", "reference", "predicted") for line in lines[name]) < 2000

from __future__ import annotations

import shutil
from doctest import DocTestFinder, DocTestRunner

import pytest

from napari_braintumor import engine


@pytest.mark.parametrize("name", ["segment", "segment_cohort", "train", "evaluate"])
def test_the_example_of_a_function_does_what_it_says(name, case_folder, toy_model, tmp_path, monkeypatch) -> None:
    for case in ("case0", "case1", "case2"):
        shutil.copytree(case_folder / case, tmp_path / "cases" / case)
    shutil.copy(toy_model, tmp_path / "my-model.safetensors")
    monkeypatch.chdir(tmp_path)
    (example,) = DocTestFinder(recurse=False).find(getattr(engine, name), name, globs={})
    assert example.examples
    wrong: list[str] = []
    DocTestRunner().run(example, out=wrong.append)
    assert not wrong, "".join(wrong)

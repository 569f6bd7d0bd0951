from dataclasses import replace

import numpy as np
import pytest

from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.training.case_cache import CaseCache
from napari_braintumor.engine.training.training_cases import load_training_case


@pytest.mark.parametrize(
    "names",
    [
        ("Müller", "Möller"),
        ("张伟", "李雷", "王芳"),
        ("a b", "a_b", "a-b", "a.b"),
        ("anna", "Anna", "ANNA"),
        ("ａ", "a", "á", "a\u0301x"),
        ("CON", "con1", "nul"),
    ],
)
def test_no_two_cases_share_a_cached_file_whatever_they_are_called(toy_plan, case_folder, tmp_path, names) -> None:
    """Also where file systems know no case, as on macOS and Windows."""
    case = find_cases(case_folder)[0]
    loaded = load_training_case(case, toy_plan)
    cache = CaseCache(0, tmp_path / "cache")
    kept = []
    for number, name in enumerate(names):
        marked = np.full_like(loaded.prepared.data, number)
        one = replace(loaded, name=name, prepared=replace(loaded.prepared, data=marked))
        kept.append(cache.keep(one, replace(case, name=name)))
    assert [int(one.prepared.data.max()) for one in kept] == list(range(len(names)))
    files = [path.name.casefold() for path in (tmp_path / "cache").iterdir()]
    assert len(set(files)) == 3 * len(names)
    assert all(name.isascii() for name in files)


def test_cases_of_one_name_and_group_in_two_folders_have_files_of_their_own(toy_plan, case_folder, tmp_path) -> None:
    case = find_cases(case_folder)[0]
    loaded = load_training_case(case, toy_plan)
    elsewhere = replace(case, images=tuple(replace(i, paths=(tmp_path / i.paths[0].name,)) for i in case.images))
    cache = CaseCache(0, tmp_path / "cache")
    for other in (case, elsewhere, replace(case, group="brats")):
        cache.keep(loaded, other)
    assert len(list((tmp_path / "cache").iterdir())) == 3 * 3

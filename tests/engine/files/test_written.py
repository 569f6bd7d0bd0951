import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.written import SIDECAR, corrected_folder, write_case
from napari_braintumor.engine.volumes import Volume


@pytest.fixture
def case(make_volume) -> tuple[Volume, np.ndarray]:
    volume, reference = make_volume(1)
    return volume, reference.labels


def test_a_written_case_comes_back_as_it_was(case, tmp_path: Path) -> None:
    volume, labels = case
    folder = write_case(tmp_path, volume, labels, "brats2023", patient="anna", reviewed=[6, 4, 6])
    (found,) = find_cases(tmp_path)
    assert folder == tmp_path / "case1"
    assert (found.name, found.patient, found.group) == ("case1", "anna", "corrected")
    assert found.reviewed == (4, 6)
    back, reference = read_case(found), read_reference(found)
    assert back.modalities == MODALITIES
    assert np.allclose(back.data, volume.data)
    assert np.allclose(back.source.affine, volume.source.affine)
    assert np.array_equal(reference.labels, labels)


def test_an_oblique_grid_with_swapped_axes_comes_back(oblique_grid, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = random.normal(size=(1, 6, 20, 16)).astype(np.float32)
    labels = (random.random((6, 20, 16)) > 0.8).astype(np.uint8)
    write_case(tmp_path, Volume(data, ("FLAIR",), oblique_grid, "tilted"), labels, "whole")
    (found,) = find_cases(tmp_path)
    assert np.allclose(read_case(found).data, data)
    assert np.array_equal(read_reference(found).regions["whole tumor"], labels > 0)


def test_whole_numbers_are_stored_as_such_and_an_unknown_voxel_size_stays_unknown(case, tmp_path: Path) -> None:
    import nibabel as nib

    volume, labels = case
    guessed = replace(volume, data=np.rint(volume.data), source=replace(volume.source, spacing_known=False))
    folder = write_case(tmp_path, guessed, labels, "brats2023")
    assert nib.load(folder / "flair.nii.gz").get_data_dtype() == np.int16
    assert not read_case(find_cases(tmp_path)[0]).source.spacing_known


def test_other_modalities_than_the_four_known_ones_are_kept(case, tmp_path: Path) -> None:
    volume, labels = case
    write_case(tmp_path, replace(volume, modalities=("T1", "DWI", "T2", "FLAIR")), labels, "brats2023")
    assert [image.modality for image in find_cases(tmp_path)[0].images] == ["T1", "DWI", "T2", "FLAIR"]


def test_the_same_case_written_again_takes_its_place(case, tmp_path: Path) -> None:
    volume, labels = case
    first = write_case(tmp_path, volume, labels, "brats2023", reviewed=[4])
    moved = replace(volume, source=replace(volume.source, affine=volume.source.affine @ np.diag([2, 1, 1, 1])))
    for again in (volume, volume.with_modalities(("FLAIR", "T1")), moved):
        assert write_case(tmp_path, again, labels[..., ::-1], "brats2023", reviewed=[5]) == first
        (found,) = find_cases(tmp_path)
        assert (found.reviewed, len(found.images)) == ((5,), len(again.modalities))
        assert np.array_equal(read_reference(found).labels, labels[..., ::-1])
        assert np.allclose(read_case(found).source.affine, again.source.affine)
        assert len(list(first.iterdir())) == len(again.modalities) + 2  # nothing of the old one is left
    assert [path.name for path in tmp_path.iterdir()] == ["case1"]


def test_a_case_of_an_older_version_is_known_again_by_its_images(case, tmp_path: Path) -> None:
    volume, labels = case
    path = write_case(tmp_path, volume, labels, "brats2023") / SIDECAR
    content = json.loads(path.read_text())
    del content["fingerprints"]
    path.write_text(json.dumps(content))
    write_case(tmp_path, volume, labels, "brats2023", reviewed=[5])
    assert [found.reviewed for found in find_cases(tmp_path)] == [(5,)]


@pytest.mark.parametrize(
    "names",
    [
        ("FLAIR", "FLAIR", "FLAIR"),
        ("张伟", "王芳", "李娜"),
        ("Müller", "Möller", "Mu\u0308ller"),
        ("anna", "ANNA", "Anna"),
        ("a/b", "a b", "a?b"),
        ("pat[1]", "pat(1)", "pat 1"),
        ("..", ".", ""),
        ("x" * 300, "x" * 299, "x" * 300 + "y"),
        ("scan\udce4", "scan\udcfc", "scan"),
        ("FLAIR", "FLAIR_2", "FLAIR"),
    ],
)
def test_no_case_takes_the_place_of_another_whatever_they_are_called(make_volume, tmp_path: Path, names) -> None:
    made = [make_volume(seed) for seed in range(3)]
    homes = [
        write_case(tmp_path, replace(volume, name=name), reference.labels, "brats2023")
        for name, (volume, reference) in zip(names, made, strict=True)
    ]
    assert len({home.name.casefold() for home in homes}) == 3
    for home, (volume, reference) in zip(homes, made, strict=True):
        assert home.parent == tmp_path
        (found,) = find_cases(home)
        assert np.allclose(read_case(found).data, volume.data)
        assert np.array_equal(read_reference(found).labels, reference.labels)
    assert len(find_cases(tmp_path)) == 3


def test_what_lies_in_a_case_s_folder_without_a_sidecar_is_left_alone(case, tmp_path: Path) -> None:
    (tmp_path / "case1").mkdir()
    (tmp_path / "case1" / "notes.txt").write_text("mine")
    (tmp_path / "case1_2").write_text("a file")
    home = write_case(tmp_path, *case, "brats2023")
    (home / "notes.txt").write_text("mine too")
    assert write_case(tmp_path, *case, "brats2023") == home == tmp_path / "case1_3"
    assert (tmp_path / "case1" / "notes.txt").read_text() == "mine"
    assert (home / "notes.txt").read_text() == "mine too"


def test_modalities_whose_names_make_one_file_name_keep_a_file_each(case, tmp_path: Path) -> None:
    volume, labels = case
    write_case(tmp_path, replace(volume, modalities=("T1-ce", "T1ce", "灌注", "labels")), labels, "brats2023")
    (found,) = find_cases(tmp_path)
    assert len({image.paths for image in found.images}) == 4
    assert np.array_equal(read_reference(found).labels, labels)


KILLED_AT_EVERY_STEP = """
import os, sys
from pathlib import Path
import numpy as np
from napari_braintumor.engine import atomic
from napari_braintumor.engine.files import written
from napari_braintumor.engine.files.written import write_case
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.volumes import Volume

folder, again = Path(sys.argv[1]), sys.argv[2] == "again"
data = np.random.default_rng(0).normal(100, 10, (2, 3, 8, 8)).astype(np.float32)
volume, labels = Volume(data, ("T1", "FLAIR"), default_grid((3, 8, 8), (1, 1, 1)), "case"), np.ones((3, 8, 8), np.uint8)

def write(here, reviewed):
    write_case(here, volume, labels * (reviewed + 1), "brats2023", reviewed=[reviewed])

steps = [(os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "write_text")]
for number in range(1, 100):
    here = folder / str(number)
    if again:
        write(here, 0)
    child = os.fork()
    if not child:
        left = [number]
        def dying(move):
            def wrapper(*args, **kwargs):
                left[0] -= 1
                if not left[0]:
                    os._exit(9)
                return move(*args, **kwargs)
            return wrapper
        for place, name in steps:
            setattr(place, name, dying(getattr(place, name)))
        write(here, 1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(number)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills copies of a process")
@pytest.mark.parametrize("again", [False, True])
def test_a_process_that_is_killed_at_any_moment_leaves_the_old_case_or_the_new_one_whole(tmp_path: Path, again) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED_AT_EVERY_STEP, str(tmp_path), "again" if again else "new"]
    steps = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert steps > 8
    seen = []
    for number in range(1, steps + 1):
        home = tmp_path / str(number)
        found = find_cases(home) if any(path.name[0] != "." for path in home.iterdir()) else []
        seen.append([case.reviewed for case in found])
        for case in found:
            assert read_case(case).modalities == ("T1", "FLAIR")
            assert read_reference(case).labels.max() == case.reviewed[0] + 1
    before = [(0,)] if again else []
    assert sorted(seen) == seen
    assert seen[0] == before
    assert seen[-1] == [(1,)]
    assert {tuple(each) for each in seen} == {tuple(before), ((1,),)}


def test_two_that_write_one_name_at_once_get_a_folder_each(make_volume, tmp_path: Path) -> None:
    made = [make_volume(seed) for seed in range(4)]

    def write(case) -> Path:
        volume, reference = case
        return write_case(tmp_path, replace(volume, name="FLAIR"), reference.labels, "brats2023")

    with ThreadPoolExecutor(4) as pool:
        homes = list(pool.map(write, made))
    assert len(set(homes)) == 4
    for home, (volume, _) in zip(homes, made, strict=True):
        assert np.allclose(read_case(find_cases(home)[0]).data, volume.data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: (labels[:5], "brats2023", None), r"The labels \(5, 72, 64\) and the scan .* differ in shape"),
        (lambda labels: (labels + 6, "brats2023", None), "contains the values 6, 7, 8, 9"),
        (lambda labels: (labels * 0, "brats2023", None), "The labels of 'case1' are empty"),
        (lambda labels: (labels, "brats2023", [40]), "Slice 40 is marked as reviewed, but the scan has only 12 slices"),
        (lambda labels: (labels, "klingon", None), "no label convention 'klingon'"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_and_nothing_is_left(case, tmp_path: Path, change, message: str) -> None:
    volume, labels = case
    labels, convention, reviewed = change(labels)
    with pytest.raises(DataError, match=message):
        write_case(tmp_path / "new", volume, labels, convention, reviewed=reviewed)
    assert not (tmp_path / "new").exists()


def test_an_empty_slice_that_was_reviewed_teaches_that_there_is_no_tumor(case, tmp_path: Path) -> None:
    volume, labels = case
    write_case(tmp_path, volume, labels * 0, "brats2023", reviewed=[3])
    assert find_cases(tmp_path)[0].reviewed == (3,)


def test_a_folder_that_cannot_be_written_is_reported_and_nothing_is_left(case, tmp_path: Path) -> None:
    volume, labels = case
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="The case cannot be written to"):
        write_case(tmp_path / "taken", volume, labels, "brats2023")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {"T1": "../secret.nii.gz"}}, "does not describe a case: images.T1 = .*: String should match"),
        ({"convention": "klingon"}, "unknown label convention 'klingon'"),
        ({"labels": "gone.nii.gz"}, "'gone.nii.gz' is missing next to"),
        ({"color": "red"}, "does not describe a case: color = .*: Extra inputs"),
        ({"images": {}}, "does not describe a case: images"),
    ],
)
def test_a_damaged_sidecar_is_refused(case, tmp_path: Path, change: dict, message: str) -> None:
    path = write_case(tmp_path, *case, "brats2023") / SIDECAR
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (found,) = find_cases(tmp_path)
    with pytest.raises(DataError, match=message):
        read_case(found)


def test_another_program_s_case_json_is_left_alone(case_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(case_folder / "case0", tmp_path / "case0")
    for text in ('{"id": 7}', "not json"):
        (tmp_path / "case0" / SIDECAR).write_text(text)
        assert find_cases(tmp_path)[0].group == "other"


def test_the_user_s_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRAINTUMOR_CASES", str(tmp_path / "mine"))
    assert corrected_folder() == tmp_path / "mine"
    monkeypatch.delenv("BRAINTUMOR_CASES")
    assert corrected_folder().name == "corrected"

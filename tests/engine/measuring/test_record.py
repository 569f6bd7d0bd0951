import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.record import (
    are_intact,
    describe_segmentation,
    read_written,
    save_segmentation,
)
from napari_braintumor.engine.volumes import Segmentation


@pytest.fixture
def segmentation() -> Segmentation:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3] = 3
    grid = default_grid((4, 5, 6), (2, 1, 1))
    return Segmentation(
        labels, {3: "enhancing tumor"}, {3: "#ffffff"}, {"enhancing tumor": (3,)}, {"enhancing tumor": 0.002}, grid
    )


def test_labels_and_record_are_written_side_by_side(segmentation, tmp_path: Path) -> None:
    labels, record = save_segmentation(segmentation, tmp_path / "new" / "folder")
    assert labels.name == "case_tumor.nii.gz"
    assert np.asarray(nib.load(labels).dataobj).sum() == 3
    assert json.loads(record.read_text()).items() >= describe_segmentation(segmentation).items()
    assert json.loads(record.read_text())["volumes_ml"] == {"enhancing tumor": 0.002}


def test_another_kind_of_file_can_be_asked_for(segmentation, tmp_path: Path) -> None:
    assert save_segmentation(segmentation, tmp_path, ".tif")[0].name == "case_tumor.tif"


def test_a_folder_that_cannot_be_written_to_is_named(segmentation, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"'.*taken' cannot be written to"):
        save_segmentation(segmentation, tmp_path / "taken")


@pytest.fixture
def result_of(segmentation, tmp_path: Path) -> Callable[..., Segmentation]:
    """Make a result of a scan on disk."""

    def make(scan: str, name: str = "anna", label: int = 3) -> Segmentation:
        path = tmp_path / "scans" / scan
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(scan)
        labels = segmentation.labels // 3 * label
        return replace(segmentation, labels=labels, name=name, source=replace(segmentation.source, path=path))

    return make


def values_of(path: Path) -> int:
    return int(np.asarray(nib.load(path).dataobj).sum())


def test_labels_of_the_same_scan_that_nobody_changed_are_replaced(result_of, tmp_path: Path, monkeypatch) -> None:
    first, record = save_segmentation(result_of("a.nii"), tmp_path / "out")
    assert save_segmentation(result_of("a.nii", label=1), tmp_path / "out") == (first, record)
    assert values_of(first) == 1
    monkeypatch.chdir(tmp_path)
    relative = result_of("a.nii")
    relative = replace(relative, source=replace(relative.source, path=Path("scans/a.nii")))
    assert save_segmentation(relative, Path("out"))[0].resolve() == first
    assert sorted(path.name for path in first.parent.iterdir()) == ["anna_tumor.json", "anna_tumor.nii.gz"]


def hand_edit(labels: Path, record: Path) -> None:
    image = nib.load(labels)
    nib.save(nib.Nifti1Image(np.full(image.shape, 2, np.uint8), image.affine), labels)


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param(hand_edit, id="labels-edited"),
        pytest.param(lambda labels, record: record.unlink(), id="no-record"),
        pytest.param(lambda labels, record: record.write_text("[]"), id="another-record"),
        pytest.param(lambda labels, record: record.write_text('{"written": 7}'), id="strange-record"),
        pytest.param(lambda labels, record: record.write_bytes(b"\xff\xfe"), id="broken-record"),
        pytest.param(lambda labels, record: labels.with_name("anna_tumor.tif").write_text("mine"), id="other-format"),
        pytest.param(lambda labels, record: labels.with_name("anna_tumor.png").write_text("mine"), id="picture"),
        pytest.param(lambda labels, record: labels.rename(labels.with_name("ANNA_tumor.nii.gz")), id="letter-case"),
        pytest.param(lambda labels, record: (labels.unlink(), labels.mkdir()), id="a-folder"),
    ],
)
def test_what_was_changed_or_not_written_here_is_never_replaced(result_of, tmp_path: Path, meanwhile) -> None:
    labels, record = save_segmentation(result_of("a.nii"), tmp_path / "out")
    meanwhile(labels, record)
    before = {path: path.is_file() and path.read_bytes() for path in labels.parent.iterdir()}
    again, record_2 = save_segmentation(result_of("a.nii", label=1), tmp_path / "out")
    assert (again.name, record_2.name) == ("anna_tumor_2.nii.gz", "anna_tumor_2.json")
    assert values_of(again) == 1
    assert {path: path.is_file() and path.read_bytes() for path in before} == before
    assert save_segmentation(result_of("a.nii", label=1), tmp_path / "out")[0] == again


def test_edited_labels_are_replaced_where_that_is_asked_for(result_of, tmp_path: Path) -> None:
    labels, record = save_segmentation(result_of("a.nii"), tmp_path / "out")
    for edit in (hand_edit, lambda labels, record: record.unlink()):
        edit(labels, record)
        assert save_segmentation(result_of("a.nii", label=1), tmp_path / "out", overwrite=True)[0] == labels
        assert values_of(labels) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "cases",
    [
        [("a/t1.nii", "anna"), ("b/t1.nii", "anna"), ("c/t1.nii", "anna")],
        [("a.nii", "anna"), ("b.nii", "ANNA"), ("c.nii", "Anna")],
        [("a.nii", "a/b"), ("b.nii", "a:b"), ("c.nii", "a_b")],
        [("a.nii", "张" * 90), ("b.nii", "张" * 91), ("c.nii", "张" * 92)],
        [("a.nii", "../out/x"), ("b.nii", ".._out_x"), ("c.nii", "\udce4")],
    ],
)
def test_cases_of_one_name_never_take_each_other_s_place(result_of, tmp_path: Path, cases, overwrite) -> None:
    for folder in "abc":
        (tmp_path / "scans" / folder).mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        written = [
            save_segmentation(result_of(scan, name, label), tmp_path / "out", overwrite=overwrite)
            for label, (scan, name) in enumerate(cases, 1)
        ]
        assert [values_of(labels) for labels, _ in written] == [1, 2, 3]
        assert len({labels.name.casefold() for labels, _ in written}) == 3
        assert all(path.parent == tmp_path / "out" for pair in written for path in pair)
        assert len(list((tmp_path / "out").iterdir())) == 6


def test_another_scan_that_came_to_lie_at_the_same_place_is_another_case(result_of, tmp_path: Path) -> None:
    labels, _ = save_segmentation(result_of("incoming.nii"), tmp_path / "out")
    (tmp_path / "scans" / "incoming.nii").write_text("the next patient's")
    other, _ = save_segmentation(result_of("incoming.nii", label=1), tmp_path / "out", overwrite=True)
    assert (other.name, values_of(labels), values_of(other)) == ("anna_tumor_2.nii.gz", 3, 1)


def test_a_picture_that_was_drawn_on_is_kept_like_labels(result_of, tmp_path: Path) -> None:
    def draw(path: Path) -> None:
        path.write_text("a picture")

    for _ in range(2):
        labels, _ = save_segmentation(result_of("a.nii"), tmp_path / "out", picture=draw)
        assert labels.name == "anna_tumor.nii.gz"
    save_segmentation(result_of("a.nii"), tmp_path / "out")
    assert save_segmentation(result_of("a.nii"), tmp_path / "out", picture=draw)[0] == labels
    (tmp_path / "out" / "anna_tumor.png").write_text("with an arrow")
    assert save_segmentation(result_of("a.nii"), tmp_path / "out", picture=draw)[0].name == "anna_tumor_2.nii.gz"


def test_writing_that_fails_leaves_no_record_behind(result_of, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        save_segmentation(result_of("a.nii"), tmp_path / "out", ".png")
    assert list((tmp_path / "out").iterdir()) == []


class Killed(BaseException):
    """The process is gone: nothing that comes after this changes a file."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die before the `step`-th change to the folder's files."""
    left = [step]

    def dying(change: Callable) -> Callable:
        def wrapper(*arguments, **options):
            left[0] -= 1
            if left[0] <= 0:
                raise Killed
            return change(*arguments, **options)

        return wrapper

    for place, name in ((Path, "replace"), (Path, "unlink"), (os, "link"), (shutil, "rmtree")):
        monkeypatch.setattr(place, name, dying(getattr(place, name)))


@pytest.mark.parametrize("there", [False, True], ids=["new", "in place of an earlier one"])
def test_wherever_writing_is_killed_the_next_one_gives_what_one_gives(result_of, tmp_path: Path, there) -> None:
    out, died = tmp_path / "out", 0
    for step in range(1, 30):
        shutil.rmtree(out, ignore_errors=True)
        if there:
            save_segmentation(result_of("a.nii", label=1), out)
        try:
            with pytest.MonkeyPatch.context() as monkeypatch:
                kill_at(monkeypatch, step)
                save_segmentation(result_of("a.nii"), out)
        except Killed:
            died += 1
            files, _ = read_written(out / "anna_tumor.json") if (out / "anna_tumor.json").exists() else ({}, None)
            there_now = {name: sha256 for name, sha256 in files.items() if (out / name).exists()}
            assert are_intact(out / "anna_tumor.json", there_now)  # no file contradicts its record
        labels, record = save_segmentation(result_of("a.nii"), out)
        assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {labels.name, record.name}
        assert labels.name == "anna_tumor.nii.gz"
        assert values_of(labels) == 3
        assert are_intact(record, read_written(record)[0])
    assert 5 <= died < 25


def test_a_record_says_what_else_it_is_given_and_files_are_named_as_asked(segmentation, tmp_path: Path) -> None:
    names = lambda number: f"sub-1_desc-tumor{number}_dseg"  # noqa: E731
    (tmp_path / "sub-1_desc-tumor1_dseg.nii.gz").write_bytes(b"somebody's")
    labels, record = save_segmentation(segmentation, tmp_path, more={"key": "abc"}, naming=names)
    assert labels.name == "sub-1_desc-tumor2_dseg.nii.gz"
    assert json.loads(record.read_text())["key"] == "abc"

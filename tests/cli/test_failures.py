"""What the command line does when something is wrong: with a case, an option, or a file that is there already."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_braintumor.cli import app
from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model
from toy_cases import make_case, write_case

run = CliRunner().invoke


def read_rows(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


def break_header(path: Path) -> None:
    path.write_bytes(b"not a scan")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def fill_with_nan(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), path)


def cut_off_a_slice(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., :-1], image.affine), path)


def cut_off_a_slice_and_say_no_place(path: Path) -> None:
    image = nib.load(path)
    cut = nib.Nifti1Image(np.asarray(image.dataobj)[..., :-1], None)
    cut.header.set_zooms(image.header.get_zooms())
    nib.save(cut, path)


@pytest.fixture
def cohort(case_folder, tmp_path) -> Path:
    """Three cases, of which the second can be broken."""
    for name in ("case1", "case2", "case7"):
        shutil.copytree(case_folder / name, tmp_path / "cohort" / name)
    return tmp_path / "cohort"


@pytest.mark.parametrize(
    "harm",
    [break_header, cut_short, fill_with_nan, cut_off_a_slice_and_say_no_place],
    ids=lambda harm: harm.__name__,
)
@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_one_bad_file_costs_one_case_and_is_listed_at_the_end(cohort, toy_model, tmp_path, command, harm) -> None:
    harm(cohort / "case2" / "case2_t1.nii.gz")
    output = tmp_path / ("out" if command == "segment" else "table.csv")
    result = run(app, [command, str(cohort), "-o", str(output), "-m", str(toy_model)])
    assert result.exit_code == 1, result.output
    said, _, listed = result.output.partition("1 of 3 cases failed:\n")
    assert "case2: " in said
    assert listed.startswith("  case2: ")
    assert len(listed.splitlines()) == 1
    if command == "segment":
        assert {path.name.partition("_")[0] for path in output.glob("*_tumor*")} == {"case1", "case7"}
    else:
        assert {row["case"] for row in read_rows(output)} == {"case1", "case7"}


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_a_scan_on_a_grid_of_its_own_costs_no_case(cohort, toy_model, tmp_path, command) -> None:
    cut_off_a_slice(cohort / "case2" / "case2_t1.nii.gz")
    output = tmp_path / ("out" if command == "segment" else "table.csv")
    result = run(app, [command, str(cohort / "case2"), "-o", str(output), "-m", str(toy_model)])
    assert result.exit_code == 0, result.output
    assert "T1 was brought onto the grid of T1ce" in " ".join(result.output.split())
    if command == "segment":
        whole = nib.load(cohort / "case2" / "case2_t1ce.nii.gz")
        assert nib.load(output / "case2_tumor.nii.gz").shape == whole.shape
    else:
        assert {row["case"] for row in read_rows(output)} == {"case2"}


@pytest.mark.parametrize("error", [MemoryError(), EOFError("x"), ZeroDivisionError("division by zero")], ids=repr)
def test_an_error_that_nobody_expected_costs_one_case_and_its_traceback_is_printed_on_demand(
    cohort, toy_model, tmp_path, monkeypatch, error
) -> None:
    from napari_braintumor.engine.cohorts import casework

    works = casework.read_case

    def read(case, config):
        if case.name == "case2":
            raise error
        return works(case, config)

    monkeypatch.setattr(casework, "read_case", read)
    command = ["segment", str(cohort), "-o", str(tmp_path / "out"), "-m", str(toy_model)]
    result = run(app, command)
    assert result.exit_code == 1
    assert "1 of 3 cases failed:" in result.output
    assert ("not enough memory" if isinstance(error, MemoryError) else type(error).__name__) in result.output
    assert "Traceback" not in result.output
    assert "--verbose prints where it happened" in result.output
    assert "in read\n    raise error" in run(app, [*command, "--verbose"]).output


def test_a_path_of_several_that_holds_no_case_fails_and_the_others_are_segmented(cohort, toy_model, tmp_path) -> None:
    (cohort / "case2" / "case2_t1.nii.gz").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    paths = [str(cohort / "case7"), str(tmp_path / "notes.txt"), str(tmp_path / "nowhere"), str(cohort / "case1")]
    result = run(app, ["segment", *paths, "-o", str(tmp_path / "out"), "-m", str(toy_model)])
    assert result.exit_code == 1
    assert "2 of 4 cases failed:" in result.output
    assert "notes.txt" in result.output
    assert "nowhere" in result.output
    assert {path.name for path in (tmp_path / "out").glob("*.gz")} == {"case1_tumor.nii.gz", "case7_tumor.nii.gz"}
    none = run(app, ["segment", *paths[1:3], "-m", str(toy_model)])
    assert none.exit_code == 1
    assert "None of these paths holds a case" in none.output


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_ctrl_c_keeps_what_is_done(cohort, toy_model, tmp_path, monkeypatch, command) -> None:
    from napari_braintumor.engine.cohorts import casework
    from napari_braintumor.engine.measuring import evaluation

    place = casework if command == "segment" else evaluation
    works, calls = place.segment, []

    def interrupted(*arguments, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return works(*arguments, **settings)

    monkeypatch.setattr(place, "segment", interrupted)
    break_header(cohort / "case1" / "case1_t1.nii.gz")
    write_case(cohort, *make_case(8))
    write_case(cohort, *make_case(9))
    output = tmp_path / ("out" if command == "segment" else "table.csv")
    result = run(app, [command, str(cohort), "-o", str(output), "-m", str(toy_model)])
    assert result.exit_code == 130, result.output
    assert "Stopped" in result.output
    assert "1 of 5 cases failed:\n  case1" in result.output
    if command == "segment":
        assert "2 of 5 cases are written" in result.output
        assert len(list(output.glob("*.nii.gz"))) == 2
    else:
        assert "mean over cases" in result.output
        assert len(read_rows(output)) == 6


def test_a_table_grows_case_by_case_and_survives_a_kill(cohort, toy_model, tmp_path) -> None:
    table = tmp_path / "table.csv"
    code = (
        "import os, sys\nfrom napari_braintumor.cli import app\n"
        "from napari_braintumor.engine.measuring import evaluation\n"
        "works, calls = evaluation.segment, []\n"
        "def killed(*a, **k):\n    calls.append(1)\n    if len(calls) == 3: os._exit(9)\n    return works(*a, **k)\n"
        "evaluation.segment = killed\nsys.argv = ['x', *sys.argv[1:]]\napp()\n"
    )
    command = [sys.executable, "-c", code, "evaluate", str(cohort), "-o", str(table), "-m", str(toy_model)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 9
    assert [row["case"] for row in read_rows(table)] == ["case1"] * 3 + ["case2"] * 3


def test_names_with_commas_and_brackets_stay_one_field_of_the_table(case_folder, toy_model, tmp_path) -> None:
    volume, reference = make_case(7)
    names = ['a, "b"', "pat[old]", "[red]x[", ":smile:", "Müller 张伟"]
    for name in names:
        write_case(tmp_path / "cohort", replace(volume, name=name), reference)
    table = tmp_path / "table [bold].csv"
    result = run(app, ["evaluate", str(tmp_path / "cohort"), "-o", str(table), "-m", str(toy_model)])
    assert result.exit_code == 0, result.output
    rows = read_rows(table)
    assert len({row["case"] for row in rows}) == len(names)
    assert all(None not in row and float(row["dice"]) >= 0 for row in rows)


def test_a_table_that_is_there_is_kept_and_another_name_taken(case_folder, toy_model, tmp_path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("mine")
    command = ["evaluate", str(case_folder / "case7"), "-o", str(table), "-m", str(toy_model)]
    result = run(app, command)
    assert result.exit_code == 0, result.output
    assert table.read_text() == "mine"
    assert f"goes to '{tmp_path / 'table_2.csv'}'" in result.output
    assert len((tmp_path / "table_2.csv").read_text().splitlines()) == 4
    assert run(app, [*command, "--overwrite"]).exit_code == 0
    assert table.read_text() == (tmp_path / "table_2.csv").read_text()


@pytest.mark.parametrize("place", ["", "missing/table.csv", "file/table.csv"])
def test_a_table_that_cannot_be_written_is_reported_before_anything_is_measured(
    case_folder, toy_model, tmp_path, place
) -> None:
    (tmp_path / "file").write_text("a file")
    result = run(app, ["evaluate", str(case_folder / "case7"), "-o", str(tmp_path / place), "-m", str(toy_model)])
    assert result.exit_code == 1
    assert "is a folder" in result.output or "cannot be written" in result.output
    assert "case7:" not in result.output


def test_labels_that_were_corrected_by_hand_are_kept_and_said(case_folder, toy_model, tmp_path) -> None:
    command = ["segment", str(case_folder / "case7"), "-o", str(tmp_path), "-m", str(toy_model)]
    first, again = run(app, command), run(app, command)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "so it was kept" not in again.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case7_tumor.json", "case7_tumor.nii.gz"]
    labels = tmp_path / "case7_tumor.nii.gz"
    image = nib.load(labels)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0, image.affine), labels)
    mine = labels.read_bytes()
    for _ in range(2):
        kept = run(app, command)
        assert kept.exit_code == 0
        assert "case7_tumor_2.nii.gz" in kept.output
        assert "was edited" in kept.output
        assert labels.read_bytes() == mine
    assert len(list(tmp_path.iterdir())) == 4
    assert run(app, [*command, "--overwrite"]).exit_code == 0
    assert labels.read_bytes() != mine


def test_the_same_name_from_two_places_is_two_results(toy_model, tmp_path) -> None:
    for visit, seed in (("before", 1), ("after", 7)):
        volume, _ = make_case(seed)
        write_case(tmp_path / visit, replace(volume, name="anna"))
    for visit in ("before", "after"):
        result = run(app, ["segment", str(tmp_path / visit), "-o", str(tmp_path / "out"), "-m", str(toy_model)])
        assert result.exit_code == 0, result.output
    sources = {json.loads(path.read_text())["source"] for path in (tmp_path / "out").glob("*.json")}
    assert sources == {str(tmp_path / v / "anna" / "anna_t1.nii.gz") for v in ("before", "after")}
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_a_demo_never_takes_the_place_of_a_picture_that_is_there(case_folder, toy_model, tmp_path) -> None:
    (tmp_path / "case7_tumor.png").write_text("mine")
    result = run(app, ["demo", str(case_folder / "case7"), "-o", str(tmp_path), "-m", str(toy_model)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "case7_tumor.png").read_text() == "mine"
    assert "case7_tumor_2.png" in result.output
    assert (tmp_path / "case7_tumor_2.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--modalities", "T1,T1"], "T1 is named twice"),
        (["--modalities", "T1ce,t1gd"], "T1ce is named twice"),
        (["--modalities", "T1,ADC"], "'ADC' is not a known modality"),
        (["--modalities", ","], "No modality is named"),
        (["--min-volume-ml", "-1"], "min_volume_ml"),
        (["--device", "abacus"], "device = 'abacus'"),
        (["--min-volume-ml", "few"], "--min-volume-ml"),
        (["--color", "red"], "No such option"),
    ],
)
@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_a_command_that_is_not_understood_ends_with_2(case_folder, toy_model, command, options, message) -> None:
    result = run(app, [command, str(case_folder / "case7"), "-m", str(toy_model), *options])
    assert result.exit_code == 2, result.output
    assert message in result.output


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("segment", ["--format", "mhd"], "Labels cannot be written as 'mhd'"),
        ("segment", ["--spacing", "1,1"], "'1,1' is not a voxel size"),
        ("segment", ["--spacing", "a,1,1"], "'a,1,1' is not a voxel size"),
        ("evaluate", ["--labels", "klingon"], "There is no label convention 'klingon'"),
        ("evaluate", ["--convention", "volumes"], "There is no convention 'volumes'"),
    ],
)
def test_an_impossible_option_ends_with_2(case_folder, toy_model, command, options, message) -> None:
    result = run(app, [command, str(case_folder / "case7"), "-m", str(toy_model), *options])
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_a_stated_voxel_size_is_used_and_labels_stay_on_the_scan_s_grid(case_folder, toy_model, tmp_path) -> None:
    options = ["-m", str(toy_model), "-o", str(tmp_path)]
    result = run(app, ["segment", str(case_folder / "case7"), *options, "--spacing", "6,1,1"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "case7_tumor.json").read_text())["spacing_zyx_mm"] == [6, 1, 1]
    scan = nib.load(case_folder / "case7" / "case7_t1.nii.gz")
    assert np.array_equal(nib.load(tmp_path / "case7_tumor.nii.gz").affine, scan.affine)
    wrong = run(app, ["segment", str(case_folder / "case7"), *options, "--spacing", "600,1,1"])
    assert wrong.exit_code == 1
    assert "are not possible for a scan" in wrong.output


def test_the_convention_of_masks_can_be_stated(case_folder, toy_model, tmp_path) -> None:
    shutil.copytree(case_folder / "case7", tmp_path / "case7")
    (path,) = (path for path in (tmp_path / "case7").iterdir() if "seg" in path.name or "mask" in path.name)
    mask = path.rename(tmp_path / "case7" / "case7_seg.nii.gz")
    image = nib.load(mask)
    nib.save(nib.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.uint8), image.affine), mask)
    command = ["evaluate", str(tmp_path / "case7"), "-m", str(toy_model)]
    assert run(app, command).exit_code == 1
    stated = run(app, [*command, "--labels", "whole"])
    assert stated.exit_code == 0, stated.output
    assert "whole tumor" in stated.output
    assert "tumor core" not in stated.output


NAMES = ["pat[old]", "[red]anna[/red]", "[/]", ":warning:", "a [link=http://x]b", "Müller 张伟"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_stand(toy_model, tmp_path, name) -> None:
    volume, reference = make_case(7)
    folder = name.replace("/", "∕").replace("http:∕∕", "")
    write_case(tmp_path, replace(volume, name=folder), reference)
    out = tmp_path / f"out {folder}"
    for command in (["segment", "-o", str(out)], ["demo", "-o", str(out)], ["evaluate", "-o", str(out / "t.csv")]):
        result = run(app, [command[0], str(tmp_path / folder), *command[1:], "-m", str(toy_model)])
        assert result.exit_code == 0, result.output
        if command[0] != "evaluate":
            assert str(out) in result.output
    break_header(tmp_path / folder / f"{folder}_t1.nii.gz")
    broken = run(app, ["segment", str(tmp_path / folder), "-m", str(toy_model)])
    assert broken.exit_code == 1
    assert f"'{folder}_t1.nii.gz'" in broken.output


@pytest.mark.skipif(sys.platform != "linux", reason="only there names are bytes")
def test_a_name_that_is_not_text_costs_nothing(toy_model, tmp_path) -> None:
    volume, _ = make_case(7)
    folder = write_case(tmp_path, volume)
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller")
    Path(strange).mkdir()
    for path in folder.iterdir():
        path.rename(Path(strange) / path.name.replace("case7", os.fsdecode(b"M\xfcller")))
    folder.rmdir()
    result = run(app, ["segment", strange, "-o", str(tmp_path / "out"), "-m", str(toy_model)])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.fixture
def model_with(toy_model, models_folder) -> Callable[..., str]:
    """Put a model into the store that is the toy with some of its card changed."""

    def make(**changes: object) -> str:
        card = read_card(toy_model).model_copy(update=changes)
        save_model(models_folder / f"{card.name}.safetensors", load_weights(toy_model), card)
        return card.name

    return make


def test_a_model_that_needs_a_second_thought_says_so_everywhere(
    model_with, case_folder, tmp_path, converted_here
) -> None:
    name = model_with(name="doubtful", metrics=(), stopped_at=0.25)
    said = [
        run(app, ["models", "show", name]),
        run(app, ["models", "list"]),
        run(app, ["segment", str(case_folder / "case7"), "-m", name, "-o", str(tmp_path)]),
        run(app, ["demo", str(case_folder / "case7"), "-m", name, "-o", str(tmp_path)]),
    ]
    for result in said:
        assert result.exit_code == 0, result.output
        words = " ".join(result.output.split())
        assert "It was never validated" in words
        assert "stopped early, after 25%" in words


def test_a_model_whose_name_is_taken_is_installed_under_another(model_with, toy_model, tmp_path) -> None:
    model_with(version="0.0.1")
    taken = run(app, ["models", "install", str(toy_model)])
    assert taken.exit_code == 1
    assert "There is another model 'toy' already" in taken.output
    assert "--name NEW" in taken.output
    result = run(app, ["models", "install", str(toy_model), "--name", "toy-2"])
    assert result.exit_code == 0, result.output
    assert "Installed as 'toy-2'" in result.output
    assert "toy-2" in run(app, ["models", "list"]).output
    again = run(app, ["models", "install", str(toy_model), "--name", "toy-2"])
    assert "There is another model 'toy-2' already" in again.output
    wrong = run(app, ["models", "install", str(toy_model), "--name", "a/b"])
    assert wrong.exit_code == 1
    assert "'a/b' cannot be the name of a model" in wrong.output


def test_weights_of_another_program_can_be_given_a_name_too(model_with, toy_model, tmp_path) -> None:
    package = tmp_path / "toy.zip"
    assert run(app, ["models", "export", str(toy_model), str(package), "--kind", "bioimageio"]).exit_code == 0
    model_with(version="0.0.1")
    assert "--name NEW" in run(app, ["models", "install", str(package)]).output
    result = run(app, ["models", "install", str(package), "--name", "packed"])
    assert "Installed as 'packed'" in result.output


def test_an_exported_file_never_takes_the_place_of_one_that_is_there(toy_model, tmp_path) -> None:
    target = tmp_path / "mine.safetensors"
    target.write_text("mine")
    command = ["models", "export", str(toy_model), str(target)]
    kept = run(app, command)
    assert kept.exit_code == 1
    assert "already exists. Choose another name, or replace it with --overwrite" in kept.output
    assert target.read_text() == "mine"
    assert run(app, [*command, "--overwrite"]).exit_code == 0
    assert read_card(target).name == "toy"


def test_a_damaged_model_is_listed_with_its_problem_as_it_stands(models_folder) -> None:
    models_folder.mkdir()
    (models_folder / "[red]x.safetensors").write_bytes(b"broken")
    result = run(app, ["models", "list"])
    assert result.exit_code == 0, result.output
    assert "[red]x" in result.output
    assert "unusable" in result.output


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_a_copy_in_the_place_of_a_missing_scan_is_refused_as_in_the_dock(cohort, toy_model, tmp_path, command) -> None:
    shutil.copy(cohort / "case2" / "case2_t1.nii.gz", cohort / "case2" / "case2_t1ce.nii.gz")
    result = run(app, [command, str(cohort), "-o", str(tmp_path / "out"), "-m", str(toy_model)])
    assert result.exit_code == 1
    assert "1 of 3 cases failed:\n  case2: T1 and T1ce hold the same image" in result.output

"""The `train` command: what it prints, how it ends, and how it is stopped."""

import shutil

from typer.testing import CliRunner

from napari_braintumor.cli import app

run = CliRunner().invoke


def write_plan(plan, folder) -> str:
    path = folder / "plan.json"
    path.write_text(plan.model_dump_json())
    return str(path)


def test_a_damaged_case_is_listed_at_the_end_and_the_exit_status_tells(toy_plan, case_folder, tmp_path) -> None:
    cases = tmp_path / "cases"
    for number in (0, 1, 6):
        shutil.copytree(case_folder / f"case{number}", cases / f"case{number}")
    next((cases / "case1").glob("*flair*")).write_bytes(b"nonsense")
    update = {"cases": (cases,), "output": tmp_path / "runs", "epochs": 1, "steps_per_epoch": 1, "held_out": ()}
    result = run(app, ["train", write_plan(toy_plan.model_copy(update=update), tmp_path)])
    assert result.exit_code == 1
    lines = result.output.strip().splitlines()
    assert lines[-2] == "Left out, as their files cannot be used:"
    assert lines[-1].startswith("  case1 is left out: ")
    assert (tmp_path / "runs" / "toy" / "model.safetensors").exists()
    checked = run(app, ["train", write_plan(toy_plan.model_copy(update=update), tmp_path), "--check"])
    assert checked.exit_code == 0, checked.output
    assert "case1 is left out: " in checked.output

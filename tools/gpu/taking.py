"""Bring in what `tools/gpu/run` left: runs to go on with, and the figures for the benchmarks' page.

Everything is checked first, and a run that is further on already is not replaced. Plans get their own cases back, so a
run goes on with `napari-braintumor train RUN`, on a CPU too. Usage:

    .venv/bin/python tools/gpu/take RESULTS DATA [--runs FOLDER] [--replace]
"""

import argparse
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from safetensors import SafetensorError, safe_open

from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.models.model_file import read_card
from napari_braintumor.engine.training.checkpoints import STATE_KEY
from napari_braintumor.engine.training.plan_files import read_plan
from napari_braintumor.engine.training.runs import Run
from slimming import restore

ROOT = Path(__file__).parents[2]
FILES = {
    *("plan.json", "split.json", "events.jsonl", "log.txt", "model.safetensors"),
    "checkpoint.slim.safetensors",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what the run left")
    parser.add_argument("data", type=Path, help="folder that the plans' cases start from")
    parser.add_argument("--runs", type=Path, help="where runs go; the plans' own output if not given")
    parser.add_argument("--replace", action="store_true", help="replace runs even where they are further on")
    options = parser.parse_args()
    judge_tests(options.results / "tests.xml")
    with TemporaryDirectory() as folder:
        for run in unpack(options.results, Path(folder)):
            place(run, options.data, options.runs, options.replace)
    figures = options.results / "gpu.json"
    if figures.exists():
        take_figures(figures, ROOT / "benchmarks")


def judge_tests(path: Path) -> None:
    """Describe the result of the tests.

    Raises
    ------
    SystemExit
        If there is no word of them.
    """
    try:
        suite = next(ElementTree.parse(path).iter("testsuite"))
        counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    except (OSError, ElementTree.ParseError, StopIteration, KeyError) as error:
        print(f"tests: '{path}' says nothing of them ({error}); they were stopped or did not begin")
        return
    print("tests: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def unpack(results: Path, folder: Path) -> list[Path]:
    """Unpack the runs into a folder; nothing but a run's known files comes out.

    Raises
    ------
    SystemExit
        If a part is missing or something else is in it.
    """
    parts = sorted(results.glob("runs.zip.*"), key=lambda part: int(part.suffix[1:]))
    if not parts:
        raise SystemExit(f"'{results}' holds no runs.zip.0: the training left nothing, or this is another folder.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
        names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise SystemExit(f"The parts in '{results}' do not make an archive: {error}. Is one missing?") from None
    with archive:
        for name in names:
            path = PurePosixPath(name)
            if len(path.parts) != 2 or path.name not in FILES or path.parts[0] in ("..", "/"):
                raise SystemExit(f"'{name}' does not belong into the results of a run.")
        if broken := archive.testzip():
            raise SystemExit(f"'{broken}' is damaged.")
        archive.extractall(folder)
    return sorted(path.parent for path in folder.glob("*/plan.json"))


def place(run: Path, data: Path, runs: Path | None, replace: bool) -> None:
    """Check a run and put it where its plan says, with its own cases."""
    try:
        plan = read_plan(run / "plan.json")
        own = next(
            p for p in map(read_plan, sorted((ROOT / "tools" / "plans").glob("*_long.json"))) if p.name == plan.name
        )
        if (run / "model.safetensors").exists():
            read_card(run / "model.safetensors")
    except StopIteration:
        raise SystemExit(f"There is no long plan for '{run.name}' in tools/plans.") from None
    except BrainTumorError as error:
        raise SystemExit(f"'{run.name}': {error}") from None
    slimmed = run / "checkpoint.slim.safetensors"
    if slimmed.exists():
        restore(slimmed, run / "checkpoint.safetensors")
        slimmed.unlink()
    steps = count_steps(run)
    target = (runs or ROOT / own.output) / run.name
    if target.exists() and count_steps(target) >= steps and not replace:
        print(f"{run.name}: {steps} steps; '{target}' has {count_steps(target)} already and stays as it is")
        return
    text = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    text |= {"cases": [str((data / case).resolve()) for case in own.cases], "output": str(target.parent.resolve())}
    text["start_from"] = own.start_from
    (run / "plan.json").write_text(json.dumps(text, indent=1), encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run, target)
    print(f"{run.name}: {steps} of {plan.epochs * plan.steps_per_epoch} steps, {Run(target).status}, in '{target}'")


def count_steps(run: Path) -> int:
    """Return the steps that a run has taken; 0 without a checkpoint."""
    try:
        with safe_open(run / "checkpoint.safetensors", framework="pt") as file:
            return int(json.loads(file.metadata()[STATE_KEY])["step"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return 0


def take_figures(figures: Path, benchmarks: Path) -> None:
    """Put the measurements among the benchmarks' records, and update their page."""
    sys.path.insert(0, str(benchmarks))
    from run import compose

    record = json.loads(figures.read_text(encoding="utf-8"))
    if record["machine"]["cores"] and record["result"]["device"] == record["machine"]["cpu"]:
        print("figures: of a rehearsal without a card, so they are not kept")
        return
    (benchmarks / "records" / "gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (benchmarks / "results.md").write_text(compose(benchmarks / "records"), encoding="utf-8")
    print(f"figures: of {record['result']['device']}, in 'benchmarks/results.md'")

"""Test, measure and train on a bare GPU machine that has no network and is available for minutes only.

It needs nothing but this repository with the folder that `tools/gpu/pack` made, and the machine's own Python with
PyTorch. First the tests marked `cuda`, then the measurements, then the packed plans' trainings for all the time that is
left, all at the same time, each stopped cleanly. Results are a few files in the output folder, for `tools/gpu/take`.
The exit status is 0 if tests and measurements passed and every training left something. Usage:

    python3 tools/gpu/run [--minutes 9] [--device cuda] [--out FOLDER] [--parts tests measurements trainings] [--finish]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
TESTS_SHARE = {"cuda": 0.25, "cpu": 0.35}
MEASURING_SHARE = {"cuda": 0.28, "cpu": 0.25}
"""Of the whole time, at most; what they do not need, the trainings get."""

PARTS = ("tests", "measurements", "trainings")

CLOSING_S = 30.0
"""For stopping the last training and writing the results."""

THREADS = {"OMP_NUM_THREADS": "4"}
"""Of each training: several share the machine's cores."""

STARTING_S = 45.0
"""For a training's imports, its data and its first batch, and at the end its last validation."""

SLACK = {"cuda": 1.0, "cpu": 4.0}
"""A rehearsal is about whether all of it runs: on a busy CPU, tests and measurements may take so much longer."""

MIN_S = {"cuda": 30.0, "cpu": 0.0}
"""Less than this is not worth a training's start; a rehearsal starts each of them, for as long as it takes."""

PATIENCE_S = {"cuda": 20.0, "cpu": 120.0}
"""How long a training that was asked to stop may take to write its checkpoint."""

PART_BYTES, MAX_PARTS = 15 * 2**20, 4
"""Results come back as few files of limited size."""

REHEARSAL = {"device": "cpu", "threads": 1, "batch_size": 2, "steps_per_epoch": 1000, "preview_every": 0}
"""Of a plan: a few steps and no validation, which takes minutes on a CPU."""


class Bench:
    """What all steps share: the clock, the report, and the environment of what is started.

    Parameters
    ----------
    options
        Of the command line.
    work
        A folder for files that stay on the machine.
    """

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work, self.out = options, work, options.out
        self.started = time.monotonic()
        self.end = self.started + 60 * options.minutes - CLOSING_S
        self.report = (self.out / "report.txt").open("w", encoding="utf-8")
        self.failures: list[str] = []
        site = work / "site"
        paths = [ROOT / "src", site, ROOT / "tools", ROOT / "tools" / "gpu", ROOT / "benchmarks"]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONUNBUFFERED": "1",
            "BRAINTUMOR_MODELS": str(work / "models"),
            "BRAINTUMOR_CACHE": str(work / "converted"),
            "MPLBACKEND": "Agg",
            **({"BRAINTUMOR_REHEARSAL": "1"} if options.device == "cpu" else {}),
        }

    @property
    def seconds_left(self) -> float:
        """Until the results must be written."""
        return self.end - time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, and add it to the report."""
        line = f"[{time.monotonic() - self.started:5.0f} s] {text}"
        print(line, flush=True)
        print(line, file=self.report, flush=True)

    def run(self, what: str, command: list[str], seconds: float) -> bool:
        """Run a command for a limited time, its output into the report; False if it failed or was stopped."""
        self.say(f"{what}, for at most {seconds:.0f} s")
        log = self.work / "words.txt"
        with log.open("wb") as words:
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=words, stderr=subprocess.STDOUT)
            try:
                status = process.wait(max(1.0, seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                status = None
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            print(f"    {line}", flush=True)
            print(f"    {line}", file=self.report, flush=True)
        if status != 0:
            self.failures.append(what)
            self.say(f"{what}: {'time was up' if status is None else f'failed with status {status}'}")
        return status == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses it on a small scale")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ROOT / "gpu_results")))
    parser.add_argument("--pack", type=Path, default=ROOT / "gpu_pack", help="what tools/gpu/pack made")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to do; all of it if not given")
    parser.add_argument(
        "--finish", action="store_true", help="let each training's rate come to its end in the time there is"
    )
    options = parser.parse_args()
    options.out, options.pack = options.out.resolve(), options.pack.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        bench = Bench(options, Path(work))
        install(bench)
        look(bench)
        if "tests" in options.parts:
            test(bench)
        if "measurements" in options.parts:
            measure(bench)
        if "trainings" in options.parts:
            train(bench)
            write_results(bench)
        bench.say(f"failed: {', '.join(bench.failures)}" if bench.failures else "everything passed")
    raise SystemExit(1 if bench.failures else 0)


def install(bench: Bench) -> None:
    """Unpack the wheels into a folder that only this run uses."""
    wheels = sorted(map(str, (bench.options.pack / "wheels").glob("*.whl")))
    kind = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *kind, "--target", str(bench.work / "site"), *wheels]
    if not bench.run("installing the wheels", command, 60):
        raise SystemExit("The wheels cannot be installed. Was the pack made for this Python?")


def look(bench: Bench) -> None:
    """Describe this machine in the report."""
    code = "import sys, torch, monai; print(sys.version.split()[0], torch.__version__, monai.__version__)"
    if bench.options.device == "cuda":
        code += "; print(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0))"
    if not bench.run("looking at the machine", [sys.executable, "-c", code], 60):
        raise SystemExit(f"There is no torch with {bench.options.device} here.")


def test(bench: Bench) -> None:
    """Run the tests that need a card; on the CPU those of them that do not really need one."""
    results = bench.out / "tests.xml"
    kind = ["-m", "cuda", "-q", "-p", "no:cacheprovider", "-W", "default", f"--junitxml={results}"]
    command = [sys.executable, "-m", "pytest", "tests/engine/test_cuda.py", *kind]
    device = bench.options.device
    bench.run("tests marked cuda", command, SLACK[device] * TESTS_SHARE[device] * 60 * bench.options.minutes)


def measure(bench: Bench) -> None:
    """Measure use and training as far as there is time."""
    seconds = MEASURING_SHARE[bench.options.device] * 60 * bench.options.minutes
    settings = ["--device", bench.options.device, "--seconds", f"{0.8 * seconds:.0f}"]
    plans = [str(plan) for plan in packed_plans(bench)]
    place = ["--data", str(bench.options.pack / "cases"), "--output", str(bench.out / "gpu.json")]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *settings, *place, "--plans", *plans]
    bench.run("measuring", command, SLACK[bench.options.device] * seconds)


def packed_plans(bench: Bench) -> list[Path]:
    """Return the plans, the one that gets most time first."""
    return sorted((bench.options.pack / "plans").glob("*.json"))


def train(bench: Bench) -> None:
    """Train by all plans at the same time, each in a process: small networks leave a large card half idle."""
    seconds = bench.seconds_left
    if seconds < MIN_S[bench.options.device]:
        bench.say("no time is left for trainings")
        return
    trainings = [Training(bench, path, seconds) for path in packed_plans(bench)]
    bench.say(f"training {', '.join(training.name for training in trainings)} for {seconds:.0f} s")
    end = time.monotonic() + seconds
    patience = PATIENCE_S[bench.options.device]
    while any(training.is_running for training in trainings) and time.monotonic() < end + patience:
        if time.monotonic() >= end:
            for training in trainings:
                training.ask_to_stop()
        time.sleep(0.2)
    for training in trainings:
        training.end()


class Training:
    """One plan's training in a process of its own.

    Parameters
    ----------
    bench
        Says and notes what becomes of it.
    path
        The packed plan.
    seconds
        How long it may take, with its start.
    """

    def __init__(self, bench: Bench, path: Path, seconds: float) -> None:
        self.bench = bench
        plan = json.loads(path.read_text(encoding="utf-8"))
        if bench.options.finish:
            plan["minutes"] = max(seconds - STARTING_S, seconds / 2) / 60
        if bench.options.device == "cpu":
            plan |= REHEARSAL
        self.name, self.batch_size = str(plan["name"]), int(plan["batch_size"])
        self.run = bench.work / "runs" / self.name
        changed = bench.work / path.name
        changed.write_text(json.dumps(plan), encoding="utf-8")
        places = ["--data", str(bench.options.pack / "cases"), "--output", str(self.run.parent)]
        command = [sys.executable, "-m", "napari_braintumor", "train", str(changed), *places]
        self.words = bench.work / f"{self.name}.txt"
        with self.words.open("wb") as words:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=bench.environment | THREADS, stdout=words, stderr=subprocess.STDOUT
            )

    @property
    def is_running(self) -> bool:
        """Whether its process is."""
        return self.process.poll() is None

    def ask_to_stop(self) -> None:
        """Ask it to write its checkpoint and stop, once it has begun."""
        if self.is_running and has_begun(self.run):
            (self.run / "stop").touch()

    def end(self) -> None:
        """Kill it if it still runs, and put what it said into the report."""
        if self.is_running:
            self.process.kill()
        self.process.wait()
        log = self.run / "log.txt"
        self.bench.say(f"{self.name}: {describe_pace(self.run, self.batch_size)}")
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
            self.bench.say(f"    {line[21:]}")
        if self.process.returncode != 0 or not (self.run / "checkpoint.safetensors").exists():
            self.bench.failures.append(f"training {self.name}")
            self.bench.say(self.words.read_text(encoding="utf-8", errors="replace")[-3000:])


def has_begun(run: Path) -> bool:
    """Whether a training has tried its first batch: stopped before that, it would leave nothing."""
    events = run / "events.jsonl"
    return events.exists() and '"Verified"' in events.read_text(encoding="utf-8")


def describe_pace(run: Path, batch_size: int) -> str:
    """Return the speed of a training from its events: between validations, and overall."""
    times: list[tuple[float, bool]] = []
    events = run / "events.jsonl"
    for line in events.read_text(encoding="utf-8").splitlines() if events.exists() else []:
        event = json.loads(line)
        if event["event"] in ("BatchDone", "EpochDone"):
            times.append((event["time"], event["event"] == "BatchDone"))
    steps = sum(is_batch for _, is_batch in times)
    if steps < 3:
        return f"{steps} steps"
    gaps = [after - before for (before, first), (after, second) in pairwise(times) if first and second]
    middle = sorted(gaps)[len(gaps) // 2] if gaps else float("inf")
    whole = (steps - 1) * batch_size / (times[-1][0] - times[0][0])
    return (
        f"{steps} steps of {batch_size}: {batch_size / max(middle, 1e-9):.0f} slices/s by the median step, "
        f"{whole:.0f} slices/s all in all, validations included"
    )


def write_results(bench: Bench) -> None:
    """Write the runs into parts of limited size, checkpoints last and only as long as there is room."""
    archive = bench.work / "runs.zip"
    room = PART_BYTES * MAX_PARTS - 2**20
    runs = sorted((bench.work / "runs").glob("*/plan.json"))
    order = [str(json.loads(plan.read_text(encoding="utf-8"))["name"]) for plan in packed_plans(bench)]
    runs = sorted((plan.parent for plan in runs), key=lambda run: order.index(run.name))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as stored:
        for run in runs:
            for name in ("plan.json", "split.json", "events.jsonl", "log.txt", "model.safetensors"):
                if (run / name).exists():
                    stored.write(run / name, f"{run.name}/{name}")
        for run, slimmed in slim(bench, runs):
            stored.fp.flush()  # type: ignore[union-attr]
            if archive.stat().st_size + slimmed.stat().st_size > room:
                bench.say(f"there is no room for the checkpoint of {run.name}; its model is there")
                continue
            stored.write(slimmed, f"{run.name}/checkpoint.slim.safetensors")
    for old in bench.out.glob("runs.zip.*"):
        old.unlink()
    with archive.open("rb") as whole:
        for number in range(MAX_PARTS):
            if part := whole.read(PART_BYTES):
                (bench.out / f"runs.zip.{number}").write_bytes(part)
    for file in sorted(bench.out.iterdir()):
        bench.say(f"{file.name}: {file.stat().st_size / 2**20:.2f} MiB")


def slim(bench: Bench, runs: list[Path]) -> list[tuple[Path, Path]]:
    """Return runs with their checkpoints in a third of the size, made by a process that knows torch."""
    pairs = [(run, bench.work / f"{run.name}.safetensors") for run in runs if (run / "checkpoint.safetensors").exists()]
    code = "import sys; from pathlib import Path; from slimming import slim\nfor s, t in zip(sys.argv[1::2], "
    code += "sys.argv[2::2]): slim(Path(s), Path(t))"
    paths = [str(path) for run, target in pairs for path in (run / "checkpoint.safetensors", target)]
    bench.run("packing the checkpoints", [sys.executable, "-c", code, *paths], 60)
    return [(run, target) for run, target in pairs if target.exists()]

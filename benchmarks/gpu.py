"""Part gpu: what a CUDA card gains over the processor beside it, and over plain MONAI on the same card.

For a machine that is available for minutes only: each figure is written as soon as it is measured, and what there is
no time for is left out. Usage, beside that as a part of `run.py`:

    python benchmarks/gpu.py --device cuda --seconds 150 --plans PLAN.json ... --data FOLDER --output gpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, repeat
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from measuring import describe_machine, make_table

if TYPE_CHECKING:
    import torch

    from napari_braintumor.engine.training.plan import TrainPlan
    from napari_braintumor.engine.training.training_cases import TrainingData

PLANS = sorted((Path(__file__).parents[1] / "tools" / "plans").glob("*_long.json"))
MAX_CASE_S = 0.5
MIN_SLICES = 3000.0
MAX_WAITING = 0.1
WARM_UP = 8
"""Steps before the clock starts."""


def measure(quick: bool) -> dict[str, Any]:
    """Measure on CUDA, with the v2 plans and the shared scans; quick takes a few seconds of each."""
    from measuring import data_folder

    result: dict[str, Any] = {}
    for _ in measure_steps("cuda", 30.0 if quick else 600.0, PLANS, data_folder(), result):
        pass
    return result


def measure_steps(
    device: str, seconds: float, plans: Sequence[Path], data: Path, result: dict[str, Any]
) -> Iterator[str]:
    """Measure one thing after the other while there is time.

    Parameters
    ----------
    device
        ``"cuda"``, or ``"cpu"`` to see that it runs.
    seconds
        How long all of it may take.
    plans
        Whose trainings are timed.
    data
        Folder that their cases start from.
    result
        Filled step by step.

    Yields
    ------
    str
        What was done, in words.
    """
    end = time.monotonic() + seconds
    result |= {"device": describe_card(device), "cores": os.cpu_count(), "cases": {}, "clicks": {}, "training": []}
    share = 0.5 * seconds / max(1, len(plans))
    loaded: list[TrainingData] = []

    def left() -> float:
        return end - time.monotonic()

    def time_plan(path: Path) -> None:
        result["training"].append(row := {"plan": path.stem})
        time_training(path, data, device, min(share, left()), row, loaded)

    def time_use(side: str) -> None:
        result["clicks"][side] = time_clicks(side, left())
        for name in ("ours", "plain MONAI"):
            if left() > 0:
                result["cases"].setdefault(side, {})[name] = time_case(name, side, left())

    trainings: list[tuple[str, Callable[[], None]]] = [
        (path.stem, lambda path=path: time_plan(path))  # type: ignore[misc]
        for path in plans
    ]
    # The default model's training first: what the rest of the machine's time goes to.
    tasks = [*trainings[:1], (f"use on {device}", lambda: time_use(device)), *trainings[1:]]
    if device != "cpu":
        tasks.append(("use on cpu", lambda: time_use("cpu")))
    for name, task in tasks:
        if left() < 0:
            yield f"no time is left for {name}"
            continue
        try:
            task()
        except Exception:  # noqa: BLE001  one figure less: the machine is at hand for too short a time to give up the others
            yield f"{name} failed:\n{traceback.format_exc()}"
        else:
            yield f"{name} is measured, {left():.0f} s are left"


def describe_card(device: str) -> str:
    """Return the name of the card, or of the processor."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else str(describe_machine()["cpu"])


# ------------------------------------------------------------------------------------------------------- use


def time_case(name: str, device: str, patience_s: float) -> dict[str, float | None]:
    """Time the sample case from files to a file: the first run, and the median of the later ones.

    Parameters
    ----------
    name
        ``"ours"`` or ``"plain MONAI"``.
    device
        Where the network runs.
    patience_s
        No further run is begun after this.
    """
    import torch

    from napari_braintumor.engine.files.sample import sample_folder
    from napari_braintumor.engine.settings import DEFAULT_MODEL

    with TemporaryDirectory() as folder:
        pipeline: Any
        if name == "ours":
            from our_pipeline import OurPipeline

            pipeline = OurPipeline(DEFAULT_MODEL, folder, device=device)
        else:
            from monai_pipeline import MonaiPipeline

            pipeline = MonaiPipeline(DEFAULT_MODEL, device)
        torch.set_num_threads(os.cpu_count() or 1)
        started, seconds = time.monotonic(), []
        while not seconds or (len(seconds) < 4 and time.monotonic() - started < patience_s):
            begun = time.perf_counter()
            pipeline(str(sample_folder()), str(Path(folder) / "labels.nii.gz"))
            seconds.append(round(time.perf_counter() - begun, 3))
    return {"first": seconds[0], "later": median(seconds[1:]) if seconds[1:] else None, "runs": len(seconds)}


def time_clicks(device: str, patience_s: float) -> dict[str, float]:
    """Time the engine's part of a first and a second click, in a fresh process."""
    command = [sys.executable, __file__, "--clicks", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(patience_s, 1.0), check=True)
    except subprocess.TimeoutExpired:
        return {}
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return {}
    clicks: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return clicks


def click(device: str) -> dict[str, float]:
    """Segment the sample case twice, nothing of torch being loaded before."""
    from napari_braintumor.engine import segment
    from napari_braintumor.engine.files.cases import find_cases
    from napari_braintumor.engine.files.reading import read_case
    from napari_braintumor.engine.files.sample import sample_folder
    from napari_braintumor.engine.settings import SegmentConfig

    volume = read_case(find_cases(sample_folder())[0])
    seconds = {}
    for name in ("first", "second"):
        started = time.perf_counter()
        for _ in segment(volume, SegmentConfig(device=device)):  # type: ignore[arg-type]
            pass
        seconds[name] = round(time.perf_counter() - started, 3)
    return seconds


# -------------------------------------------------------------------------------------------------- training


def time_training(
    path: Path, data: Path, device: str, seconds: float, row: dict[str, Any], loaded: list[TrainingData]
) -> None:
    """Time training steps of a plan: with and without the making of batches, and as plain MONAI would take them.

    Parameters
    ----------
    path, data
        The plan, and the folder that its cases start from.
    device
        Where the network learns.
    seconds
        About how long all of it may take; what comes before the clock starts is not counted.
    row
        Filled figure by figure.
    loaded
        What was loaded before; the plans share it.
    """
    import torch

    from napari_braintumor.engine.training.device_batches import make_device_batches
    from napari_braintumor.engine.training.drawing import SliceDataset
    from napari_braintumor.engine.training.plan_files import read_plan
    from napari_braintumor.engine.training.training_cases import load_data

    plan = read_plan(path)
    plan = plan.model_copy(update={"cases": tuple(data / case for case in plan.cases)})
    if device == "cpu":
        plan = plan.model_copy(update={"batch_size": 4})
    if not loaded:
        with TemporaryDirectory() as folder:
            *_, found = load_data(plan, Path(folder))
        loaded.append(found)  # type: ignore[arg-type]
    where = torch.device(device)
    dataset = SliceDataset(loaded[0].training, (), plan)
    batches = make_device_batches(dataset, 0, 100_000, where)
    take = _our_step(plan, where)
    row |= {"batch": plan.batch_size, "drawn": time_steps(take, batches, where, seconds * 0.35, plan)}
    print(f"{path.stem}: {row['drawn']:.0f} slices/s", flush=True)
    same = next(batches)
    batches.close()  # type: ignore[attr-defined]  # what it made ahead goes
    row["same"] = time_steps(take, repeat(same), where, seconds * 0.2, plan)
    row["waiting"] = round(max(0.0, 1 - row["drawn"] / row["same"]), 3)
    print(f"{path.stem}: {row['waiting']:.0%} of the time is spent on making batches", flush=True)
    with _plain_loop(plan, loaded[0], where) as (plain, plain_batches):
        row["plain"] = time_steps(plain, plain_batches, where, seconds * 0.25, plan)
    print(f"{path.stem}: {row['plain']:.0f} slices/s by plain MONAI", flush=True)
    if device == "cuda":
        few = plan.model_copy(update={"batch_size": 16})
        torch.set_num_threads(os.cpu_count() or 1)
        on_cpu = make_device_batches(SliceDataset(loaded[0].validation, (), few), 0, 100_000, torch.device("cpu"))
        cpu = torch.device("cpu")
        row["cpu"] = time_steps(_our_step(few, cpu), on_cpu, cpu, seconds * 0.2, few, warm_up=1)
        print(f"{path.stem}: {row['cpu']:.0f} slices/s on the processor beside it", flush=True)


def _our_step(plan: TrainPlan, device: torch.device) -> Callable[[Any], Any]:
    import torch

    from napari_braintumor.engine.models.registry import build_network
    from napari_braintumor.engine.training.fit import Fit

    torch.manual_seed(0)
    channels = {"in_channels": len(plan.inputs), "out_channels": len(plan.regions)}
    return Fit(build_network(plan.architecture, options=plan.options, **channels), plan, device).take_step


@contextmanager
def _plain_loop(plan: TrainPlan, data: TrainingData, device: torch.device) -> Iterator[tuple[Callable[..., Any], Any]]:
    """Make the loop of `training_step` on a device, with as many workers as there are cores."""
    from napari_braintumor.engine.training.drawing import SliceDataset
    from training_step import PlainLoop

    class OnDevice(PlainLoop):
        def __init__(self) -> None:
            self.plan, self.parts = plan, data.training[::8]  # enough for its speed, and held twice
            self.dataset = SliceDataset(self.parts, (), plan)
            self.workers = max(0, min(15, (os.cpu_count() or 1) - 1)) if device.type == "cuda" else 0

        def take_step(self, batch: Any) -> float:
            return super().take_step({name: part.to(device) for name, part in batch.items()})

    loop = OnDevice()
    loop.start(0)
    loop.network.to(device)
    loop.known = loop.known.to(device)
    try:
        yield loop.take_step, loop.batches
    finally:
        del loop.batches  # ends its workers


def time_steps(
    take: Callable[[Any], Any],
    batches: Iterator[Any],
    device: torch.device,
    seconds: float,
    plan: TrainPlan,
    warm_up: int = WARM_UP,
) -> float:
    """Return slices learned from in a second.

    Parameters
    ----------
    take
        One step.
    batches
        What for.
    device
        Waited for at the end.
    seconds
        How long to go on behind the warm-up; at least one step is timed.
    plan
        Its batch size counts.
    warm_up
        Steps that are not timed.
    """
    import torch

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for batch in islice(batches, warm_up if device.type == "cuda" else 1):  # kernels are chosen, memory is taken
        take(batch)
    started, steps = wait(), 0
    for batch in batches:
        take(batch)
        steps += 1
        if time.perf_counter() - started > seconds:
            break
    return round(steps * plan.batch_size / (wait() - started), 1)


# -------------------------------------------------------------------------------------------------- the page


def describe(result: Mapping[str, Any]) -> str:
    """Return the section of the page.

    Parameters
    ----------
    result
        Of `measure`.
    """

    def figure(value: Any, digits: int = 2) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    uses = [
        [
            side,
            *(figure(result["clicks"].get(side, {}).get(which)) for which in ("first", "second")),
            *(
                figure(result["cases"].get(side, {}).get(name, {}).get(which))
                for name in ("ours", "plain MONAI")
                for which in ("first", "later")
            ),
        ]
        for side in dict.fromkeys((*result["clicks"], *result["cases"]))
        if result["clicks"].get(side) or result["cases"].get(side)
    ]
    training = [
        [
            row["plan"],
            str(row.get("batch", "–")),
            *(figure(row.get(name), 0) for name in ("drawn", "same", "plain", "cpu")),
            "–" if row.get("waiting") is None else f"{row['waiting']:.0%}",
        ]
        for row in result["training"]
    ]
    sections = [f"## On a GPU: {result['device']}"]
    if uses:
        sections += [
            make_table(
                [
                    *("on", "first click, s", "second click, s", "first case to file, s", "later, s"),
                    *("plain MONAI: first, s", "later, s"),
                ],
                uses,
            ),
            "The sample case, default model. A click is the engine's part in a fresh process, the first one with all "
            "imports; case to file reads and writes NIfTI. Plain MONAI is the pipeline of *From a case on disk to "
            "labels on disk*, on the same device. The processor beside the card has "
            f"{result['cores']} cores, all of them used. Aimed at: a case in {MAX_CASE_S} s.",
        ]
    sections += [
        make_table(
            [
                *("plan", "batch", "slices/s", "the same batch again, slices/s", "plain MONAI, slices/s"),
                *("on the processor, slices/s", "waiting for data"),
            ],
            training,
        ),
        "Training steps with everything that belongs to them; batches are drawn and varied on the card. The share of "
        "waiting is what a step gains when it gets the same batch again and again. Plain MONAI is CacheDataset, "
        "DataLoader with a worker for each core but one, and float32. Aimed at: U²-Net small "
        f"{MIN_SLICES:.0f} slices/s, waiting under {MAX_WAITING:.0%}.",
    ]
    return "\n\n".join(sections)


def main() -> None:
    """Measure what the command line asks for, and write the record after each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--plans", type=Path, nargs="*", default=PLANS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--clicks", choices=("cuda", "cpu"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clicks:
        print(json.dumps(click(options.clicks)))
        return
    result: dict[str, Any] = {}
    for done in measure_steps(options.device, options.seconds, options.plans, options.data, result):
        print(done, flush=True)
        record = {"part": "gpu", "date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), "result": result}
        options.output.write_text(json.dumps({**record, "others_share": 0.0}, indent=1) + "\n", encoding="utf-8")
    print(f"\n{describe(result)}")


if __name__ == "__main__":
    main()

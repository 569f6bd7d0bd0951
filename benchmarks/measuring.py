"""What all parts of the benchmarks share: runs in turn in children of their own, the matrix product, the machine.

No torch at import, so that a page can be made of records in no time.
"""

from __future__ import annotations

import gc
import os
import platform
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil

from napari_braintumor.engine.models.card_text import make_table
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import DEFAULT_MODEL

__all__ = [
    "MAX_OTHERS",
    "THREADS",
    "MatrixProduct",
    "Others",
    "Run",
    "Worker",
    "bundled_models",
    "data_folder",
    "describe_machine",
    "interleave",
    "judge",
    "limit_threads",
    "machine_as_text",
    "make_table",
    "peak_mb",
    "resident_mb",
    "summarize",
    "with_range",
]

THREADS = 2
"""What everything is measured with: the cores of a small laptop."""

T = TypeVar("T")

PACKAGES = ("napari-braintumor", "torch", "openvino", "monai", "napari", "numpy")
MAX_OTHERS = 0.05
"""Share of the cores that other programs may take; with more, waiting threads of torch make its times several-fold."""

PAUSE_S = 0.3
"""Before each run, so that the idle threads of the run before have stopped spinning."""


# --------------------------------------------------------------------------------------------------------- children


@dataclass(frozen=True)
class Run:
    """One run of a job in its child.

    Attributes
    ----------
    value
        What the job returned.
    seconds
        Wall time.
    cpu_seconds
        User and system time of the child and of what it started.
    peak_mb
        The most memory the child has had resident so far, above what it had after its imports.
    """

    value: Any
    seconds: float
    cpu_seconds: float
    peak_mb: float


class Worker:
    """A child process that makes its imports, and then runs its job whenever it is called.

    Two of them, called in turn, run A B A B ... with everything that a process keeps between runs, and without one
    seeing the memory or the threads of the other.

    Parameters
    ----------
    job
        ``module:Class``. The module's imports and the making of the class count as the import baseline; the instance
        is called for each run. It is limited to `THREADS` threads.
    **settings
        For the class.

    Attributes
    ----------
    import_mb
        Memory resident after the imports.
    """

    def __init__(self, job: str, **settings: Any) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, job, settings), daemon=True)
        self._process.start()
        theirs.close()  # or the end of a child that crashed would go unseen
        self.import_mb: float = self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()

    def __call__(self, **task: Any) -> Run:
        """Run the job once and wait for it.

        Raises
        ------
        RuntimeError
            If the job failed or the child is gone.
        """
        self._connection.send(task)
        run: Run = self._receive()
        return run

    def _receive(self) -> Any:
        try:
            answer, failure = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"The child is gone, with exit code {self._process.exitcode}.") from None
        if failure:
            raise RuntimeError(f"The job failed in its child:\n{failure}")
        return answer


def _serve(connection: Connection, job: str, settings: dict[str, Any]) -> None:
    """Run the job in the child."""
    try:
        limit_threads()
        module, _, name = job.partition(":")
        call = getattr(import_module(module), name)(**settings)
        gc.collect()
        imported_mb = resident_mb()
        connection.send((imported_mb, ""))
        while (task := connection.recv()) is not None:
            time.sleep(PAUSE_S)
            cpu_started, started = sum(os.times()[:4]), time.perf_counter()
            value = call(**task)
            seconds, cpu_seconds = time.perf_counter() - started, sum(os.times()[:4]) - cpu_started
            connection.send((Run(value, seconds, cpu_seconds, peak_mb() - imported_mb), ""))
    except EOFError:
        pass  # whoever asked is gone
    except Exception:  # noqa: BLE001  the parent raises it
        connection.send((None, traceback.format_exc()))


def limit_threads(threads: int = THREADS) -> None:
    """Limit this process to a number of cores and threads; call it before torch is imported.

    OpenVINO goes by the cores that a process may use, torch by the environment.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def resident_mb() -> float:
    """Return the memory that this process has resident now."""
    return float(psutil.Process().memory_info().rss) / 1e6


def peak_mb() -> float:
    """Return the most memory that this process has ever had resident."""
    with suppress(OSError):
        # Not getrusage, where Linux has it: a child's ru_maxrss starts at its parent's.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):
        return float(info.peak_wset) / 1e6
    import resource  # there is none on Windows

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


# ------------------------------------------------------------------------------------------------------------ rounds


def interleave(tasks: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run tasks in turn, A B C A B C ..., so that other load on the machine affects them all alike.

    Parameters
    ----------
    tasks
        By name.
    rounds
        How often each is run.

    Returns
    -------
    dict
        For each task what it returned, round by round.
    """
    results: dict[str, list[T]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            results[name].append(task())
    return results


class Others:
    """The share of the cores that other programs take while a ``with`` block runs, other guests of the host included.

    Attributes
    ----------
    share
        0 to 1, set at the block's end. What the block started counts as its own once it has ended.
    """

    share = 0.0

    def __enter__(self) -> Self:
        self._others, self._started = self._count(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        available = (time.perf_counter() - self._started) * (os.cpu_count() or 1)
        self.share = max(0.0, (self._count() - self._others) / available)

    @staticmethod
    def _count() -> float:
        times = psutil.cpu_times()  # Linux counts what a guest of this machine takes in user, too
        kinds = ("user", "nice", "system", "irq", "softirq", "steal")
        return sum(getattr(times, kind, 0.0) for kind in kinds) - sum(os.times()[:4])


def summarize(first: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Return a job's record: the first run by itself, medians of the others, and the peak over all.

    Parameters
    ----------
    first
        The child's first run, with all that is loaded, converted or compiled once.
    runs
        Those behind it.
    """
    return {
        "first_seconds": round(first.seconds, 3),
        "seconds": round(median(run.seconds for run in runs), 3),
        "cpu_seconds": round(median(run.cpu_seconds for run in runs), 3),
        "peak_mb": round(max(run.peak_mb for run in (first, *runs))),
        "all_seconds": [round(run.seconds, 3) for run in runs],
    }


class MatrixProduct:
    """The rate at which this process multiplies two square float32 matrices with torch: what the cores can do.

    Parameters
    ----------
    side
        Rows and columns.
    """

    def __init__(self, side: int = 2048) -> None:
        import torch

        self._torch = torch
        self._a, self._b, self._product = (torch.rand(side, side) for _ in range(3))
        self.gflop = 2 * side**3 / 1e9

    def seconds(self) -> float:
        """Multiply once and return how long it took; for rounds with other tasks."""
        with self._torch.inference_mode():
            started = time.perf_counter()
            self._torch.mm(self._a, self._b, out=self._product)
            return time.perf_counter() - started

    def gflops(self, repeats: int = 5) -> float:
        """Return GFLOP/s, the median of several products behind one that does not count."""
        self.seconds()
        return self.gflop / median(self.seconds() for _ in range(repeats))


# ----------------------------------------------------------------------------------------------------- data, machine


def data_folder() -> Path:
    """Return the folder of the real scans, as for the tests: ``BRAINTUMOR_DATA``, or ``shared/data`` beside us.

    Raises
    ------
    SystemExit
        If it is not there.
    """
    folder = Path(os.environ.get("BRAINTUMOR_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        raise SystemExit(f"No real scans at '{folder}'; set BRAINTUMOR_DATA to their folder.")
    return folder


def bundled_models(quick: bool) -> list[str]:
    """Return the names of the bundled models, the default first; quick takes that alone."""
    others = sorted(model.name for model in ModelStore().list() if model.bundled and model.name != DEFAULT_MODEL)
    return [DEFAULT_MODEL] if quick else [DEFAULT_MODEL, *others]


def describe_machine() -> dict[str, Any]:
    """Describe the machine: processor, cores, memory, system, and the versions that matter."""
    packages = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": packages,
    }


def machine_as_text(machine: Mapping[str, Any]) -> str:
    """Return the hardware of `describe_machine` in one line."""
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['system']}"


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# -------------------------------------------------------------------------------------------------------------- text


def with_range(values: Sequence[float], digits: int = 2) -> str:
    """Return the median of some values, with the least and the most."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def judge(target: str, met: Mapping[str, bool]) -> str:
    """Return a line that says whether a target is met, and where not.

    Parameters
    ----------
    target
        In words.
    met
        For each row of the table, by what it is called.
    """
    missed = [name for name, is_met in met.items() if not is_met]
    if not missed:
        return f"- {target}: **met** in {len(met)} of {len(met)}"
    return f"- {target}: **missed** in {len(missed)} of {len(met)} ({'; '.join(missed)})"

"""A cohort on several processes or machines, by dask.distributed: a case is a task, and only paths travel.

Every worker loads the model once and does one case at a time, from reading to writing. A task whose worker is lost goes
to another one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from threading import Lock
from typing import Any

from napari_braintumor.engine.cohorts.casework import close_case, open_case, segment_opened
from napari_braintumor.engine.cohorts.cohort_events import CohortEvent, CohortStarted
from napari_braintumor.engine.cohorts.ledger import Ledger
from napari_braintumor.engine.cohorts.plan import CohortPlan
from napari_braintumor.engine.cohorts.results import Result
from napari_braintumor.engine.cohorts.running import check_start
from napari_braintumor.engine.cohorts.workplace import open_workplace
from napari_braintumor.engine.devices import return_freed_memory
from napari_braintumor.engine.errors import BrainTumorError, SettingsError, describe_failure, describe_origin
from napari_braintumor.engine.files.case_files import CaseFiles

RETRIES = 3
"""How often a case is given to another worker when its worker was lost."""

_BUSY_S = 0.5
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class _Answer:
    """What a worker says of a case: a result that was there or took so many seconds, or why there is none."""

    result: Result | None = None
    seconds: float | None = None
    reason: str = ""
    details: str = ""


def segment_on_cluster(
    plan: CohortPlan, workers: int | None = None, scheduler: str | None = None
) -> Generator[CohortEvent, None, None]:
    """Segment the cases of a plan on several workers, each unless it has a result already.

    Parameters
    ----------
    plan
        What is to be done. Its paths must lead to the same files on all machines.
    workers
        Start so many processes on this machine, which share its cores.
    scheduler
        Use the workers of this scheduler instead, such as ``tcp://10.0.0.1:8786``.

    Yields
    ------
    CohortEvent
        As `segment_cohort`, without the progress within a case.

    Raises
    ------
    BrainTumorError
        If dask.distributed is missing, the scheduler does not answer, or as `segment_cohort`.
    """
    if find_spec("distributed") is None:
        raise SettingsError("dask.distributed is not installed. Run 'pip install napari-braintumor[cluster]'.")
    from distributed import as_completed

    model = check_start(plan)
    ledger = Ledger(plan)
    with ExitStack() as stack:
        work = stack.enter_context(open_workplace(plan.output))
        client = _connect(stack, workers, scheduler)
        yield CohortStarted(len(plan.cases), plan.output)
        alone = replace(plan, cases=(), output=plan.output.resolve())
        threads = max(1, (os.cpu_count() or 1) // workers) if workers else None
        futures = {
            client.submit(_segment, case, alone, model, threads, key=f"{case.name}-{number}", pure=False): case
            for number, case in enumerate(plan.cases)
        }
        try:
            for future in as_completed(futures):
                case = futures.pop(future)
                yield _enter(ledger, case, future)
                future.release()
                ledger.write_table(work)
                yield ledger.progress(max(1, len(client.scheduler_info()["workers"])))
        finally:
            for future in futures:
                future.cancel()
            done = ledger.close(work)
    yield done


def _enter(ledger: Ledger, case: CaseFiles, future: Any) -> CohortEvent:
    from distributed import KilledWorker

    try:
        answer: _Answer = future.result()
    except KilledWorker:
        return ledger.enter_failure(
            case.name,
            f"{RETRIES + 1} workers ended without a word while they segmented it, perhaps for lack of memory. Use "
            "fewer workers a machine.",
        )
    except Exception as error:  # noqa: BLE001  one case must not stop the others
        return ledger.enter_error(case.name, error)
    if answer.result is None:
        return ledger.enter_failure(case.name, answer.reason, answer.details)
    return ledger.enter_result(case.name, answer.result, answer.seconds)


def _connect(stack: ExitStack, workers: int | None, scheduler: str | None) -> Any:
    """Return a client of a scheduler, or of workers that are started here and end with the block."""
    import dask
    from distributed import Client, LocalCluster

    quiet = {"distributed.scheduler.allowed-failures": RETRIES, "distributed.admin.log-length": 0}
    stack.enter_context(dask.config.set(quiet))
    if scheduler is not None:
        try:
            return stack.enter_context(Client(scheduler, timeout="20s"))
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"The scheduler '{scheduler}' does not answer. Start it with 'dask scheduler', and give the address "
                "that it prints."
            ) from error
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    stack.enter_context(cluster)
    return stack.enter_context(Client(cluster))


def _segment(case: CaseFiles, plan: CohortPlan, model: str, threads: int | None) -> _Answer:
    """Do a case in a worker. Errors become words there, because not all of them can travel."""
    try:
        with _ONE_AT_A_TIME:
            _limit_threads(threads)
            return _do(case, plan, model)
    except Exception as error:  # noqa: BLE001
        details = "" if isinstance(error, BrainTumorError) else describe_origin(error)
        return _Answer(reason=describe_failure(error), details=details)
    finally:
        return_freed_memory()


def _do(case: CaseFiles, plan: CohortPlan, model: str) -> _Answer:
    began = time.perf_counter()
    with open_workplace(plan.output) as work:
        while (found := open_case(case, plan, model, work.folder.parent)) is None:
            time.sleep(_BUSY_S)  # the worker that had it is ending, or another run is at it
        if isinstance(found, Result):
            return _Answer(found)
        result = close_case(found, segment_opened(found), plan, work.folder)
        return _Answer(result, time.perf_counter() - began)


def _limit_threads(threads: int | None) -> None:
    """Let workers of one machine share its cores."""
    if threads is None:
        return
    import torch

    from napari_braintumor.engine.devices import openvino_core

    torch.set_num_threads(threads)
    if find_spec("openvino") is not None:
        openvino_core().set_property("CPU", {"INFERENCE_NUM_THREADS": threads})

"""Run a cohort: while the network sees a case, the next one is read and prepared, and the last one is written."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from napari_braintumor.engine.cohorts.casework import Opened, close_case, open_case, release
from napari_braintumor.engine.cohorts.cohort_events import CaseProgressed, CaseStarted, CohortEvent, CohortStarted
from napari_braintumor.engine.cohorts.ledger import Ledger
from napari_braintumor.engine.cohorts.plan import CohortPlan
from napari_braintumor.engine.cohorts.results import Result, check_plan
from napari_braintumor.engine.cohorts.workplace import Workplace, open_workplace
from napari_braintumor.engine.devices import return_freed_memory
from napari_braintumor.engine.events import Segmented, SlicesDone
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.volumes import Segmentation

AHEAD = 1
"""Cases that are read and prepared while the network sees another one; each takes its memory."""

_BUSY_S = 0.2
"""How long a case that another process is at work on is left alone, at least."""


def segment_cohort(plan: CohortPlan) -> Generator[CohortEvent, None, None]:
    """Segment the cases of a plan, each unless it has a result already.

    Results that the network has given are written also where iteration is stopped or interrupted. A case that fails
    costs only itself. Several processes may work on the same results; each case is done by one of them.

    Parameters
    ----------
    plan
        What is to be done.

    Yields
    ------
    CohortEvent
        `CohortStarted`, then for each case `CaseDone` or `CaseFailed`, and `CohortDone` last.

    Raises
    ------
    BrainTumorError
        If the model or the settings cannot be used, or the folder cannot be written to.
    """
    model = check_start(plan)
    ledger = Ledger(plan)
    with open_workplace(plan.output) as work:
        yield CohortStarted(len(plan.cases), plan.output)
        run = _Run(plan, model, work, ledger)
        try:
            yield from run.go_through()
        except KeyboardInterrupt:
            yield from run.take_written()
            raise
        finally:
            run.end()
            gc.unfreeze()
            done = ledger.close(work)
    yield done


def check_start(plan: CohortPlan) -> str:
    """Check what can be checked before the first case, and return the checksum of the model's file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    BrainTumorError
        If the model does not exist, or the settings contradict each other.
    """
    check_plan(plan)
    return file_sha256(ModelStore().find(plan.config.segmentation.model).path)


class _Run:
    """Three threads: this one runs the network, one opens cases ahead of it, one writes behind it."""

    def __init__(self, plan: CohortPlan, model: str, work: Workplace, ledger: Ledger) -> None:
        self.plan, self.model, self.work, self.ledger = plan, model, work, ledger
        self._reading, self._writing = ThreadPoolExecutor(1, "reading"), ThreadPoolExecutor(1, "writing")
        self._opened: deque[tuple[CaseFiles, Future[Result | Opened | None]]] = deque()
        self._written: deque[tuple[CaseFiles, Future[Result], float]] = deque()

    def go_through(self) -> Iterator[CohortEvent]:
        """Do all cases; those that another process has claimed come last."""
        waiting, number = deque(self.plan.cases), 0
        began = time.perf_counter()
        while waiting or self._opened:
            while waiting and len(self._opened) <= AHEAD:
                self._open(waiting.popleft())
            case, future = self._opened.popleft()
            try:
                found = future.result()
                del future  # it holds what it gave
                if found is None:
                    time.sleep(_BUSY_S)
                    waiting.append(case)
                    continue
                number += 1
                if isinstance(found, Result):
                    yield self.ledger.enter_result(case.name, found, None)
                else:
                    segmentation = yield from self._run_network(found, number)
                    before = [*self.take_written()]  # so that no more than one is waiting to be written
                    self._write(found, segmentation, time.perf_counter() - began)
                    del segmentation
                    yield from before
                del found
            except Exception as error:  # noqa: BLE001  one case must not stop the others
                yield self.ledger.enter_error(case.name, error)
            return_freed_memory()
            if number == 1:
                gc.freeze()  # what was loaded for the first case stays, so collections need not look at it
            began = time.perf_counter()
            self.ledger.write_table(self.work)
            yield self.ledger.progress()
        yield from self.take_written()

    def take_written(self) -> Iterator[CohortEvent]:
        """Wait for what is being written."""
        while self._written:
            case, future, seconds = self._written.popleft()
            try:
                yield self.ledger.enter_result(case.name, future.result(), seconds)
            except Exception as error:  # noqa: BLE001  one case must not stop the others
                yield self.ledger.enter_error(case.name, error)
            yield self.ledger.progress()

    def end(self) -> None:
        """Let go of what was opened ahead, and enter what was written."""
        self._reading.shutdown(cancel_futures=True)
        for _, future in self._opened:
            if not future.cancelled() and future.exception() is None and isinstance(found := future.result(), Opened):
                release(found.claim)
        for _ in self.take_written():
            pass
        self._writing.shutdown()

    def _open(self, case: CaseFiles) -> None:
        future = self._reading.submit(open_case, case, self.plan, self.model, self.work.folder.parent)
        self._opened.append((case, future))

    def _write(self, opened: Opened, segmentation: Segmentation, seconds: float) -> None:
        future = self._writing.submit(close_case, opened, segmentation, self.plan, self.work.folder)
        self._written.append((opened.case, future, seconds))

    def _run_network(self, opened: Opened, number: int) -> Generator[CohortEvent, None, Segmentation]:
        try:
            yield CaseStarted(opened.case.name, number)
            for event in opened.events:
                if isinstance(event, SlicesDone):
                    yield CaseProgressed(opened.case.name, event.done, event.total)
                elif isinstance(event, Segmented):
                    return event.segmentation
        except BaseException:
            release(opened.claim)
            raise
        raise AssertionError("the engine ended without a segmentation")

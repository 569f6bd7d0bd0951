"""Run a cohort: while the network sees a case, the next one is read and prepared, and the last one is written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.cohorts.bids import list_dataset_files
from napari_braintumor.engine.cohorts.cohort_events import (
    CaseDone,
    CaseProgressed,
    CaseStarted,
    CohortDone,
    CohortEvent,
    CohortProgressed,
    CohortStarted,
)
from napari_braintumor.engine.cohorts.fingerprints import find_key
from napari_braintumor.engine.cohorts.plan import CohortPlan
from napari_braintumor.engine.cohorts.report import write_report
from napari_braintumor.engine.cohorts.results import ENTITIES, Result, check_plan, find_place, find_result, save_result
from napari_braintumor.engine.cohorts.rows import CaseRow, write_table
from napari_braintumor.engine.cohorts.workplace import Workplace, open_workplace
from napari_braintumor.engine.errors import BrainTumorError, DataError, describe_failure, describe_origin
from napari_braintumor.engine.events import CaseFailed, Segmented, SegmentEvent, SlicesDone, Started
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.segment import segment
from napari_braintumor.engine.volumes import Segmentation, Volume

TABLE, REPORT = "volumes.csv", "report.html"

AHEAD = 1
"""Cases that are read and prepared while the network sees another one; each takes its memory."""


@dataclass(frozen=True, eq=False)
class _Opened:
    """A case that is prepared: its segmentation goes on with `events`."""

    volume: Volume
    key: str
    events: Iterator[SegmentEvent]


def segment_cohort(plan: CohortPlan) -> Generator[CohortEvent, None, None]:
    """Segment the cases of a plan, each unless it has a result already.

    Results that the network has given are written also where iteration is stopped or interrupted. A case that fails
    costs only itself.

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
    yield from _Run(plan).events()


class _Run:
    def __init__(self, plan: CohortPlan) -> None:
        self.plan = plan
        self.rows: dict[str, CaseRow] = {}  # of each case that is over
        self._reused = 0
        self._segmented_s: list[float] = []

    def events(self) -> Iterator[CohortEvent]:
        plan = self.plan
        check_plan(plan)
        model = file_sha256(ModelStore().find(plan.config.segmentation.model).path)
        with open_workplace(plan.output) as work:
            yield CohortStarted(len(plan.cases), plan.output)
            reading = ThreadPoolExecutor(1, "reading")
            writing = ThreadPoolExecutor(1, "writing")
            pending: deque[tuple[CaseFiles, Future[Result], float]] = deque()
            try:
                yield from self._go_through(model, work, reading, writing, pending)
            except KeyboardInterrupt:
                while pending:
                    yield self._take_written(*pending.popleft())
                raise
            finally:
                reading.shutdown(cancel_futures=True)
                for each in pending:
                    self._take_written(*each)
                writing.shutdown()
                table, report = self._write_tables(work)
        failed = sum(row.result is None for row in self.rows.values())
        yield CohortDone(len(self.rows) - failed - self._reused, self._reused, failed, table, report)

    def _go_through(
        self,
        model: str,
        work: Workplace,
        reading: ThreadPoolExecutor,
        writing: ThreadPoolExecutor,
        pending: deque[tuple[CaseFiles, Future[Result], float]],
    ) -> Iterator[CohortEvent]:
        waiting = deque(self.plan.cases)
        opened: deque[tuple[CaseFiles, Future[Result | _Opened]]] = deque()
        last = time.perf_counter()
        for number in range(1, len(self.plan.cases) + 1):
            while waiting and len(opened) <= AHEAD:
                case = waiting.popleft()
                opened.append((case, reading.submit(self._open, case, model)))
            case, future = opened.popleft()
            found: Result | _Opened | None = None
            segmentation = None
            try:
                found = future.result()
                del future
                if isinstance(found, Result):
                    self._reused += 1
                    yield self._take_result(case, found, reused=True)
                else:
                    yield CaseStarted(case.name, number)
                    for event in found.events:
                        if isinstance(event, SlicesDone):
                            yield CaseProgressed(case.name, event.done, event.total)
                        elif isinstance(event, Segmented):
                            segmentation = event.segmentation
                    assert segmentation is not None
                    while pending:  # so that no more than one is waiting to be written
                        yield self._take_written(*pending.popleft())
                        yield self._progress()
                    now = time.perf_counter()
                    written = writing.submit(self._save, case, found, segmentation, work)
                    pending.append((case, written, now - last))
            except Exception as error:  # noqa: BLE001  one case must not stop the others
                yield self._take_failure(case, error)
            del found, segmentation  # they are large
            last = time.perf_counter()
            self._write_table(work)
            yield self._progress()
        while pending:
            yield self._take_written(*pending.popleft())
            yield self._progress()

    # ------------------------------------------------------------------------------------------- in other threads

    def _open(self, case: CaseFiles, model: str) -> Result | _Opened:
        """Look for a case's result, else read the case and go on until the network could start."""
        if case.problem is not None:
            raise DataError(case.problem)
        config = self.plan.config
        place = find_place(case, self.plan)
        key = find_key(case, config, model)
        if not self.plan.overwrite and (result := find_result(place, key)) is not None:
            return result
        volume = read_case(case, config.aligning)
        if config.spacing is not None:
            volume = volume.with_spacing(config.spacing)
        events = segment(volume, config.segmentation)
        for event in events:
            if isinstance(event, Started):
                break
        return _Opened(volume, key, events)

    def _save(self, case: CaseFiles, opened: _Opened, segmentation: Segmentation, work: Workplace) -> Result:
        return save_result(case, opened.volume, segmentation, opened.key, self.plan, work.folder)

    # ------------------------------------------------------------------------------------------- what came of them

    def _take_written(self, case: CaseFiles, written: Future[Result], seconds: float) -> CohortEvent:
        try:
            result = written.result()
        except Exception as error:  # noqa: BLE001  one case must not stop the others
            return self._take_failure(case, error)
        self._segmented_s.append(seconds)
        return self._take_result(case, result, reused=False)

    def _take_result(self, case: CaseFiles, result: Result, *, reused: bool) -> CaseDone:
        self.rows[case.name] = CaseRow(case.name, result)
        return CaseDone(case.name, reused, result.record, result.files, result.content)

    def _take_failure(self, case: CaseFiles, error: Exception) -> CaseFailed:
        reason = describe_failure(error)
        self.rows[case.name] = CaseRow(case.name, reason=reason)
        return CaseFailed(case.name, reason, "" if isinstance(error, BrainTumorError) else describe_origin(error))

    def _progress(self) -> CohortProgressed:
        done, total = len(self.rows), len(self.plan.cases)
        recent = self._segmented_s[-20:]
        left_s = round((total - done) * sum(recent) / len(recent), 1) if recent else None
        return CohortProgressed(done, total, 0.0 if done == total else left_s)

    def _write_tables(self, work: Workplace) -> tuple[Path | None, Path | None]:
        """Write what is known of all cases so far."""
        rows = self._known()
        if self.plan.bids is not None:
            results = [(row.content[ENTITIES], row.measured) for row in rows if ENTITIES in row.content]
            labels: Mapping[str, str] = next((row.content["labels"] for row in rows if row.content), {})
            for name, text in list_dataset_files(self.plan.bids, self.plan.output, results, labels).items():
                work.put_text(name, text)
        if not self.plan.tables:
            return None, None
        return self._write_table(work), work.put(REPORT, lambda path: write_report(rows, path))

    def _write_table(self, work: Workplace) -> Path | None:
        """Write the table after every case, so that it can be looked at meanwhile."""
        if not self.plan.tables:
            return None
        return work.put_text(TABLE, write_table(self._known(), self.plan.output))

    def _known(self) -> list[CaseRow]:
        return [self.rows[case.name] for case in self.plan.cases if case.name in self.rows]

"""The ledger of a run: what came of each case, the progress, and the table and report made of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napari_braintumor.engine.cohorts.bids import list_dataset_files
from napari_braintumor.engine.cohorts.cohort_events import CaseDone, CohortDone, CohortProgressed
from napari_braintumor.engine.cohorts.marks import Mark, read_marks
from napari_braintumor.engine.cohorts.plan import CohortPlan
from napari_braintumor.engine.cohorts.report import write_report
from napari_braintumor.engine.cohorts.results import ENTITIES, Result
from napari_braintumor.engine.cohorts.rows import CaseRow, write_table
from napari_braintumor.engine.cohorts.workplace import Workplace
from napari_braintumor.engine.errors import BrainTumorError, DataError, describe_failure, describe_origin
from napari_braintumor.engine.events import CaseFailed

TABLE, REPORT = "volumes.csv", "report.html"

_RECENT = 20
"""Cases by whose time the time left is estimated."""


class Ledger:
    """What came of each case of a plan.

    Parameters
    ----------
    plan
        The cases, and what is written of them.
    """

    def __init__(self, plan: CohortPlan) -> None:
        self.plan = plan
        self._rows: dict[str, CaseRow] = {}
        self._reused: set[str] = set()
        self._seconds: list[float] = []

    def enter_result(self, case: str, result: Result, seconds: float | None) -> CaseDone:
        """Enter a result; without the seconds that it took, it was there already."""
        self._rows[case] = CaseRow(case, result)
        if seconds is None:
            self._reused.add(case)
        else:
            self._seconds.append(seconds)
            self._reused.discard(case)
        return CaseDone(case, seconds is None, result.record, result.files, result.content)

    def enter_error(self, case: str, error: Exception) -> CaseFailed:
        """Enter what went wrong with a case."""
        details = "" if isinstance(error, BrainTumorError) else describe_origin(error)
        return self.enter_failure(case, describe_failure(error), details)

    def enter_failure(self, case: str, reason: str, details: str = "") -> CaseFailed:
        """Enter why a case failed."""
        self._rows[case] = CaseRow(case, reason=reason)
        return CaseFailed(case, reason, details)

    def progress(self, at_once: int = 1) -> CohortProgressed:
        """Return how many cases are over, and how long the others will take if so many are done at once."""
        done, total = len(self._rows), len(self.plan.cases)
        recent = self._seconds[-_RECENT:]
        left_s = round((total - done) * sum(recent) / len(recent) / at_once, 1) if recent else None
        return CohortProgressed(done, total, 0.0 if done == total else left_s)

    def write_table(self, work: Workplace) -> Path | None:
        """Write the table of all cases so far, so that it can be looked at meanwhile."""
        if not self.plan.tables:
            return None
        return work.put_text(TABLE, write_table(self._list_rows(), self.plan.output))

    def close(self, work: Workplace) -> CohortDone:
        """Write the table, the report, and in BIDS the dataset's own files.

        Returns
        -------
        CohortDone
            What came of the cases that are over.
        """
        rows = self._list_rows()
        report = None
        if self.plan.bids is not None:
            results = [(row.content[ENTITIES], row.measured) for row in rows if ENTITIES in row.content]
            labels: Mapping[str, str] = next((row.content["labels"] for row in rows if row.content), {})
            for name, text in list_dataset_files(self.plan.bids, self.plan.output, results, labels).items():
                work.put_text(name, text)
        if self.plan.tables:
            report = work.put(REPORT, lambda path: write_report(rows, path))
        failed = sum(row.result is None for row in rows)
        return CohortDone(
            len(rows) - failed - len(self._reused), len(self._reused), failed, self.write_table(work), report
        )

    def _list_rows(self) -> list[CaseRow]:
        marks: dict[str, Mark] = {}
        with suppress(DataError):  # the window that writes them says so
            marks = read_marks(self.plan.output)
        rows = [self._rows[case.name] for case in self.plan.cases if case.name in self._rows]
        return [replace(row, mark=str(marks.get(row.case, ""))) for row in rows]

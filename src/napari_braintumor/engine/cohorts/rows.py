"""A row for each case of a cohort: what the table and the report say of it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_braintumor.engine.cohorts.results import MEASURED, Result
from napari_braintumor.engine.measuring.measurements import MEASUREMENTS
from napari_braintumor.engine.segmenting.trust import Trust, read_trust

FAILED, LOW_TRUST, NO_TUMOR = "failed", "low trust", "no tumor"
NOT_SHOWN, GUESSED, NOTES = "not measurable", "size guessed", "notes"
"""What the report can be filtered by."""

_FIRST = ("case", "status", "flags")
_MARK = "mark"
_TRUST = ("trust", "dice_low", "dice_high", "trust_reasons")
_LAST = ("modalities", "model", "model_version", "labels", "notes", "reason")


@dataclass(frozen=True)
class CaseRow:
    """What is known of a case.

    Attributes
    ----------
    case
        Its name.
    result
        Its result; None if it failed.
    reason
        Why it failed.
    mark
        What a person said of it, and whether it was corrected; empty if nothing.
    """

    case: str
    result: Result | None = None
    reason: str = ""
    mark: str = ""

    @property
    def content(self) -> Mapping[str, Any]:
        """What the record of the result says; empty if the case failed."""
        return {} if self.result is None else self.result.content

    @property
    def flags(self) -> tuple[str, ...]:
        """What a person should look at."""
        if self.result is None:
            return (FAILED,)
        volumes = self.content.get("volumes_ml") or {}
        found = {
            LOW_TRUST: self.trust is not None and self.trust.word == "low",
            NO_TUMOR: not any(volumes.values()),
            NOT_SHOWN: bool(self.content.get("not_measurable")),
            GUESSED: not self.content.get("spacing_known", True),
            NOTES: bool(self.content.get("notes")),
        }
        return tuple(flag for flag, holds in found.items() if holds)

    @property
    def measured(self) -> dict[str, str]:
        """Each measurement of each region, by ``region_measurement``."""
        return {
            f"{region.replace(' ', '_')}_{each.name}": each.write(values.get(each.name))
            for region, values in self.content.get(MEASURED, {}).items()
            for each in MEASUREMENTS
        }

    @property
    def trust(self) -> Trust | None:
        """How far the result can be trusted, if its record says so."""
        return read_trust(self.content)


def write_table(rows: Sequence[CaseRow], output: Path) -> str:
    """Return ``volumes.csv``: a row for each case, in their order.

    Parameters
    ----------
    rows
        The cases.
    output
        The folder of the table; the paths of labels are relative to it.

    Returns
    -------
    str
        CSV. Columns of measurements are those of any case; cells that a case does not have are empty.
    """
    measured = list(dict.fromkeys(column for row in rows for column in row.measured))
    trust = list(_TRUST) if any(row.trust is not None for row in rows) else []
    text = io.StringIO()
    marks = [_MARK] if any(row.mark for row in rows) else []
    writer = csv.DictWriter(text, [*_FIRST, *marks, *trust, *measured, *_LAST], restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        said = row.content
        writer.writerow(
            {
                "case": row.case,
                "status": FAILED if row.result is None else "done",
                "flags": "; ".join(row.flags),
                **({_MARK: row.mark} if marks else {}),
                **_describe_trust(row.trust),
                **row.measured,
                "modalities": " ".join(said.get("modalities_used", ())),
                "model": said.get("model", ""),
                "model_version": said.get("model_version", ""),
                "labels": "" if row.result is None else _relative(row.result.files[0], output),
                "notes": " ".join(said.get("notes", ())),
                "reason": row.reason,
            }
        )
    return text.getvalue()


def _describe_trust(trust: Trust | None) -> dict[str, str]:
    if trust is None:
        return {}
    outermost = next(iter(trust.regions.values()))
    values = (trust.word, f"{outermost.low:.3f}", f"{outermost.high:.3f}", "; ".join(trust.reasons))
    return dict(zip(_TRUST, values, strict=True))


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()

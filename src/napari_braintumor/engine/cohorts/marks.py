"""What a person says of results, and which were corrected: kept in the folder of results, never beside the scans."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.cohorts.results import Result
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.formats import find_suffix
from napari_braintumor.engine.measuring.record import read_record

ACCEPTED, TO_CORRECT, EXCLUDED = "accepted", "to correct", "excluded"
MARKS = (ACCEPTED, TO_CORRECT, EXCLUDED)

FOLDER = ".cohort"
"""The folder, in that of results, of what a window keeps of a cohort; hidden, so that nobody takes it for cases."""

_FILE = "marks.json"
_BIDS = re.compile(r"_desc-([A-Za-z0-9]+)_dseg$")


@dataclass(frozen=True)
class Mark:
    """What a person did with a result.

    Attributes
    ----------
    word
        One of `MARKS`; empty if nothing was said.
    corrected
        The file of the corrected labels, relative to the folder of results; empty if there is none.
    """

    word: str = ""
    corrected: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.word, "corrected" if self.corrected else "")))


def read_marks(output: Path) -> dict[str, Mark]:
    """Read the marks of a folder of results.

    Parameters
    ----------
    output
        The folder of results.

    Returns
    -------
    dict
        By the name of the case; empty if nothing was marked.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    path = output / FOLDER / _FILE
    try:
        found = json.loads(path.read_bytes())
        marks = {str(case): Mark(str(each["word"]), str(each["corrected"])) for case, each in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"The marks in '{path}' cannot be read. Restore the file, or delete it and mark the cases again."
        ) from error
    return {case: mark for case, mark in marks.items() if mark.word in ("", *MARKS)}


def mark_case(output: Path, case: str, word: str) -> Mark:
    """Mark a case; an empty word takes the mark back.

    Parameters
    ----------
    output
        The folder of results.
    case
        Its name.
    word
        One of `MARKS`, or empty.

    Returns
    -------
    Mark
        The mark of the case now.

    Raises
    ------
    SettingsError
        If there is no such mark.
    DataError
        If the marks cannot be read or written.
    """
    if word not in ("", *MARKS):
        raise SettingsError(f"There is no mark '{word}'. Choose one of: {', '.join(MARKS)}.")
    return _change(output, case, word=word)


def note_correction(output: Path, case: str, corrected: Path) -> Mark:
    """Note where the corrected labels of a case are; see `mark_case`."""
    return _change(output, case, corrected=corrected.relative_to(output).as_posix())


def name_correction(result: Result) -> Path:
    """Return where the corrected labels of a result go: next to the model's, never over them."""
    name, suffix = result.record.stem, find_suffix(result.files[0])
    in_bids = _BIDS.sub(r"_desc-\1corrected_dseg", name)
    return result.record.with_name(f"{in_bids if in_bids != name else f'{name}_corrected'}{suffix}")


def read_correction(result: Result, labels: Path) -> Result:
    """Return the corrected labels of a result, with its picture.

    Parameters
    ----------
    result
        What the model made of the case.
    labels
        The file of the corrected labels.

    Returns
    -------
    Result
        The record of the corrected labels; the model's result if they are gone.
    """
    content = read_record(labels) if labels.is_file() else None
    if content is None:
        return result
    pictures = [result.picture.name] if result.picture is not None else []
    return Result(result.record, {**content, "written": {"files": [labels.name, *pictures]}})


def find_corrected_cases(output: Path) -> Path:
    """Return the folder of the corrected cases, from which a model can learn."""
    return output / FOLDER / "corrected"


def _change(output: Path, case: str, **values: str) -> Mark:
    marks = read_marks(output)
    marks[case] = replace(marks.get(case, Mark()), **values)
    content = {name: {"word": mark.word, "corrected": mark.corrected} for name, mark in sorted(marks.items())}
    path = output / FOLDER / _FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"The mark cannot be written to '{path}': {error.strerror or error}. Make room there or give it write "
            "permission."
        ) from error
    return marks[case]

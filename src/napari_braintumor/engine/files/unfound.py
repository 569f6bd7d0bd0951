"""Why files make no case, in words that say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import call_file, capitalize, may_name_patient
from napari_braintumor.engine.files.formats import FORMATS, join_words
from napari_braintumor.engine.files.listing import describe_others
from napari_braintumor.engine.files.naming import HOW_TO_NAME
from napari_braintumor.engine.files.schemes import NamedFile

UNUSABLE = ("sequence", "tissue", "mask", "result")
"""Reasons to leave out a file without a note, if there is no image next to it."""

_OR_NAME = "name the channels in order: --modalities T1,T1ce,T2,FLAIR."


def explain_unused(item: NamedFile) -> str:
    """Say why a file that may be an image belongs to no case."""
    if item.why_not == "unclear":
        between = " or ".join(item.words.unclear)
        return f"The name of '{item.path.name}' may mean {between}. Keep only the right one in the name, or {_OR_NAME}"
    if item.why_not == "channel":
        return (
            f"'{item.path.name}' is channel {(item.number or 0) + 1} of a case in nnU-Net's layout, and no "
            f"dataset.json next to it says which modality that is. Add one, or {_OR_NAME}"
        )
    if item.why_not == "unnamed":
        return f"'{item.path.name}' does not say which modality it is. {HOW_TO_NAME}"
    return item.why_not or ""


def explain_nothing_found(paths: Sequence[Path], found: Sequence[NamedFile], others: Sequence[Path]) -> DataError:
    """Return the error for paths without a case."""
    scanned = any(map(may_name_patient, others))  # then folders too may be named after the patient
    where = "the chosen place" if scanned else ", ".join(f"'{path}'" for path in paths)
    if missed := [item for item in found if item.kind is None and item.why_not not in UNUSABLE]:
        return DataError(explain_unused(missed[0]))
    if any(item.why_not == "result" for item in found):
        return DataError(
            f"{capitalize(where)} contains only results of this program. Choose the scans that they were made from."
        )
    if any(item.why_not == "sequence" for item in found):
        first = next(item.path.name for item in found if item.why_not == "sequence")
        return DataError(
            f"{capitalize(where)} contains no T1, T1ce, T2 or FLAIR, only other sequences such as '{first}'. "
            "At least one of the four is needed."
        )
    if found:
        return DataError(
            f"{capitalize(where)} contains only masks, no images. At least one modality of the scan is needed."
        )
    if foreign := describe_others(others):
        path, what = foreign[0]
        count = sum(kind == what for _, kind in foreign)
        more = f" and {count - 1} more of its kind" if count > 1 else ""
        read = join_words(each.title for each in FORMATS)
        return DataError(
            f"{capitalize(where)} contains no {read} scan. {capitalize(call_file(path))}{more}: {what.name}. "
            f"{what.remedy}"
        )
    return DataError(
        f"No case was found in {where}. Expected {join_words((each.words for each in FORMATS), 'and')} files "
        "named as in BraTS, LGG, BIDS, Decathlon or nnU-Net, or by modality (t1, t1ce, t2, flair)."
    )

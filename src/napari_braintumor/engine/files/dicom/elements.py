"""Read the elements of a DICOM header: nothing that is written there can make a reading fail."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, TypeVar

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from napari_braintumor.engine.files.dicom.quiet import FAULTS

_Kind = TypeVar("_Kind")

_MOST_LETTERS = 64


def first_given(*values: _Kind | None) -> _Kind | None:
    """Return the first of these values that is there; None if none is."""
    return next((value for value in values if value is not None), None)


def read_value(data: Dataset, key: str | int) -> Any:
    """Return an element's value; None if it is missing, empty or cannot be understood."""
    try:
        value = data.get(key) if isinstance(key, str) else data[Tag(key)].value
    except FAULTS:
        return None
    return None if value in ("", b"") else value


def read_items(data: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty if it is missing."""
    value = read_value(data, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def read_item(data: Dataset, keyword: str) -> Dataset:
    """Return the first item of a sequence; empty if it is missing."""
    return next(iter(read_items(data, keyword)), Dataset())


def find_group(keyword: str, frame: Dataset, shared: Dataset) -> Dataset:
    """Return a functional group, of the frame or else of all frames; empty if there is none."""
    return next((items[0] for each in (frame, shared) if (items := read_items(each, keyword))), Dataset())


def read_texts(data: Dataset, keyword: str) -> list[str]:
    """Return all values of an element as text, in upper case and on one line each."""
    value = read_value(data, keyword)
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return [clean_text(str(each)).upper() for each in values if each is not None]


def read_text(data: Dataset, keyword: str) -> str:
    """Return an element's value as text on one line; empty if it is missing."""
    value = read_value(data, keyword)
    return "" if value is None else clean_text(str(value))


def clean_text(text: str) -> str:
    """Return text on one line, without what cannot be printed."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:_MOST_LETTERS]


def read_number(data: Dataset, key: str | int) -> float | None:
    """Return an element's first number."""
    value = read_value(data, key)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")[0]
    elif hasattr(value, "__iter__") and not isinstance(value, str):
        value = next(iter(value), None)
    try:
        number = float(value)
    except FAULTS:
        return None
    return number if isfinite(number) else None


def read_whole_number(data: Dataset, keyword: str) -> int | None:
    """Return an element's first number without its fraction; None if there is none."""
    number = read_number(data, keyword)
    return None if number is None else int(number)


def read_numbers(data: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return so many numbers of an element; None if it has another count, or one is not finite."""
    value = read_value(data, keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__iter__"):
        return None
    try:
        numbers = tuple(float(each) for each in value)
    except FAULTS:
        return None
    return numbers if len(numbers) == count and all(map(isfinite, numbers)) else None


def format_date(text: str) -> str:
    """Return a date of DICOM as ``YYYY-MM-DD``; empty if it is none."""
    match = re.match(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", text)
    return "-".join(match.groups()) if match else ""

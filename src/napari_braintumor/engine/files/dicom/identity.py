"""Who a DICOM file names, so that it can be kept out of everything that is shown or written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset

from napari_braintumor.engine.anatomy import MODALITY_OF
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.vocabulary import PLANES, SEQUENCES, fold_word

_FEWEST_LETTERS = 3
_FEWEST_JOINED = 5
"""Shorter words are only looked for as whole words: ``lee`` is in ``sleep``."""
_KEPT = MODALITY_OF.keys() | SEQUENCES | PLANES | {"brain", "head", "mri", "anonymous", "anonymized", "unknown"}


@dataclass(frozen=True)
class Identity:
    """What names a patient. It is never stored, logged or shown, unless the user asks for it.

    Attributes
    ----------
    name, number
        PatientName in the order of the file, and PatientID; empty where the file does not say.
    words
        What no text may contain, folded: the parts of the name, other names and numbers of the patient, and the date
        of birth.
    """

    name: str
    number: str
    words: frozenset[str]

    def is_in(self, text: str) -> bool:
        """Whether a text, such as the name of a folder, contains any of the words, even joined to others."""
        if self.strip_from(text) != text:
            return True
        joined = {_join(text, spelled) for spelled in (False, True)}
        long = [word for word in self.words if len(word) >= _FEWEST_JOINED]
        return any(_join(word, spelled) in each for word in long for spelled in (False, True) for each in joined)

    def strip_from(self, text: str) -> str:
        """Return a text without the words; it is unchanged if it contains none."""
        if not self.words:
            return text
        pattern = "|".join(sorted(map(_spell, self.words), key=len, reverse=True))
        stripped = re.sub(rf"(?i)(?<![^\W_])(?:{pattern})(?![^\W_])", " ", text)
        return text if stripped == text else " ".join(stripped.split()).strip(" ^_-,")


def find_identity(data: Dataset) -> Identity:
    """Return whom a data set names; elements that cannot be understood count as missing."""
    name, number = _text(data, "PatientName"), _text(data, "PatientID")
    whole = [number, _text(data, "AccessionNumber"), *_text(data, "OtherPatientIDs").split("\\")]
    words = {fold_word(part) for part in re.split(r"[\^=\s,]+", name)} | {fold_word(part) for part in whole}
    parts = [part for part in re.split(r"[\^=\s,]+", name) if part]
    words |= {fold_word(" ".join(each)) for each in (parts, parts[::-1])}
    if born := re.fullmatch(r"(\d{4})\D?(\d\d)\D?(\d\d)", _text(data, "PatientBirthDate")):
        year, month, day = born.groups()
        words |= {f"{year}-{month}-{day}", f"{day}-{month}-{year}", f"{month}-{day}-{year}"}
    return Identity(
        " ".join(part for part in re.split(r"[\^=\s]+", name) if part),
        number,
        frozenset(word for word in words if len(word) >= _FEWEST_LETTERS and word not in _KEPT),
    )


def read_identity(paths: Iterable[Path]) -> Identity | None:
    """Read whom DICOM files name, taken together; None if none of them can be read."""
    from napari_braintumor.engine.files.dicom.headers import read_dataset, read_header

    found = []
    for path in paths:
        with suppress(DataError):
            read_header(path)  # of a damaged header it is unknown what it does not say
            found.append(find_identity(read_dataset(path, pixels=False)))
    if not found:
        return None
    first = next((each for each in found if each.name or each.number), found[0])
    return replace(first, words=frozenset().union(*(each.words for each in found)))


def _text(data: Dataset, keyword: str) -> str:
    try:
        value = data.get(keyword)
    except Exception:  # noqa: BLE001  whatever a broken element raises, it names nobody
        return ""
    return "" if value is None else str(value).strip()


def _spell(word: str) -> str:
    """Return a pattern for a word however its parts are joined: ``doe jane`` is also ``Doe_Jane``."""
    return r"[\W_]*".join(re.escape(part) for part in re.split(r"[\W_]+", word) if part)


def _join(text: str, spelled: bool) -> str:
    """Return the letters and digits of a text without accents; with `spelled`, of an umlaut an e is left."""
    text = unicodedata.normalize("NFC", text).casefold()
    if spelled:
        text = text.translate({ord(umlaut): f"{vowel}e" for umlaut, vowel in zip("äöüø", "aouo", strict=True)})
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if letter.isalnum())

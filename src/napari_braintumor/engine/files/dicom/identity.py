"""Who a DICOM file names, so that it can be kept out of everything that is shown or written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from napari_braintumor.engine.anatomy import MODALITY_OF
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.vocabulary import PLANES, SEQUENCES, fold_word

_FEWEST_LETTERS = 3
_KEPT = MODALITY_OF.keys() | SEQUENCES | PLANES | {"brain", "head", "mri", "anonymous", "anonymized", "unknown"}


@dataclass(frozen=True)
class Identity:
    """What names a patient. It is never stored, logged or shown, unless the user asks for it.

    Attributes
    ----------
    name, number
        PatientName in the order of the file, and PatientID; empty where the file does not say.
    words
        What no text may contain, folded: the parts of the name, and other names and numbers of the patient.
    """

    name: str
    number: str
    words: frozenset[str]

    def is_in(self, text: str) -> bool:
        """Whether a text contains any of the words."""
        return self.strip_from(text) != text

    def strip_from(self, text: str) -> str:
        """Return a text without the words; it is unchanged if it contains none."""
        if not self.words:
            return text
        pattern = "|".join(sorted(map(_spell, self.words), key=len, reverse=True))
        stripped = re.sub(rf"(?i)(?<![^\W_])(?:{pattern})(?![^\W_])", " ", text)
        return text if stripped == text else " ".join(stripped.split()).strip(" ^_-,")


NOBODY = Identity("", "", frozenset())


def find_identity(data: Dataset) -> Identity:
    """Return whom a data set names; elements that cannot be understood count as missing."""
    name, number = _text(data, "PatientName"), _text(data, "PatientID")
    whole = [number, _text(data, "AccessionNumber"), *_text(data, "OtherPatientIDs").split("\\")]
    words = {fold_word(part) for part in re.split(r"[\^=\s,]+", name)} | {fold_word(part) for part in whole}
    words |= {fold_word(" ".join(re.split(r"[\^=\s,]+", name)).strip())}
    return Identity(
        " ".join(part for part in re.split(r"[\^=\s]+", name) if part),
        number,
        frozenset(word for word in words if len(word) >= _FEWEST_LETTERS and word not in _KEPT),
    )


def read_identity(path: Path) -> Identity:
    """Read whom a DICOM file names; nobody, if it cannot be read."""
    from napari_braintumor.engine.files.dicom.headers import read_dataset

    try:
        return find_identity(read_dataset(path, pixels=False))
    except DataError:
        return NOBODY


def _text(data: Dataset, keyword: str) -> str:
    try:
        value = data.get(keyword)
    except Exception:  # noqa: BLE001  whatever a broken element raises, it names nobody
        return ""
    return "" if value is None else str(value).strip()


def _spell(word: str) -> str:
    """Return a pattern for a word however its parts are joined: ``doe jane`` is also ``Doe_Jane``."""
    return r"[\W_]*".join(re.escape(part) for part in re.split(r"[\W_]+", word) if part)

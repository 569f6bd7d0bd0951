"""What the name of a case or a folder says about the patient and the time."""

from __future__ import annotations

import re
import unicodedata

from napari_braintumor.engine.files.vocabulary import ID, OF_ANYBODY, WEAK, fold_word

_DATE = r"(?:19|20)\d{2}[-_. ]?(?:0[1-9]|1[0-2])[-_. ]?(?:0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6}|[-_T ]\d{4,6})?"
_TIME = (
    rf"{_DATE}|(?:0[1-9]|[12]\d|3[01])[-.](?:0[1-9]|1[0-2])[-.](?:19|20)\d{{2}}"
    r"|(?:scan|time|time[-_ ]?point|tp|ses|session|visit|exam|study|week|wk|month|mo|day|year|fu|follow[-_ ]?up)"
    r"[-_ ]?\d{1,4}(?:[-_]\d{1,2})?"
    r"|baseline|follow[-_ ]?up|fu|bl|pre|post|(?:pre|post)[-_ ]?(?:op|operative|operation|surgery|resection|rt|xrt|"
    r"treatment|therapy|chemo|tx)|before|after|initial|recurrence|progression|t\d{1,2}|ses[-_](?:pre|post|[a-z]+)"
)
_TIME_BEHIND = re.compile(rf"(?i)(?P<who>.*[^\W_])[-_. ]+(?:{_TIME})")
_TIME_JOINED = re.compile(r"(?i)(?P<who>.*\d)(?:scan|time|timepoint|tp|visit|ses|session)\d{1,3}")
_ONLY_TIME = re.compile(rf"(?i)(?:{_TIME})(?:[-_. ]+(?:{_TIME}))*")


def find_patient(case: str) -> str:
    """Return the patient of a freely named case: its name without the parts that distinguish visits.

    TCGA numbers are the same in every data set, so no split may separate them.

    Returns
    -------
    str
        The patient's name; the case's own name if nothing in it distinguishes visits.
    """
    case = unicodedata.normalize("NFC", case)
    match = re.search(r"(?<![A-Z0-9])TCGA[-_.]([A-Z0-9]{2})[-_.]([A-Z0-9]{4})(?![A-Z0-9])", case, re.IGNORECASE)
    if match:
        return f"TCGA_{match[1]}_{match[2]}".upper()
    while match := _TIME_BEHIND.fullmatch(case) or _TIME_JOINED.fullmatch(case):
        who = re.sub(r"(?i)[-_. ]+(?:ses|session|visit|time|timepoint)$", "", match["who"])
        if {fold_word(word) for word in re.findall(r"[^\W_]+", who)} <= WEAK | ID | OF_ANYBODY:
            return case  # 'glioma_scan_12' and 'glioma_scan_13' may be two patients
        case = who
    return case


def is_time(name: str) -> bool:
    """Whether a name gives only a time, not a patient: ``2019-03-12``, ``baseline``, ``ses-2``."""
    return bool(_ONLY_TIME.fullmatch(name))


def is_collection_name(folder: str) -> bool:
    """Whether a folder's name is that of a collection and not of a patient: ``data``, ``train``."""
    return fold_word(folder) in OF_ANYBODY

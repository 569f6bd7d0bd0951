"""What a series shows, by its headers alone: one of the four modalities, or a scan that is none of them, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_braintumor.engine.files.naming import read_contrast, read_words
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.files.splitting import split_words
from napari_braintumor.engine.files.vocabulary import GRADIENT_ECHOES, ONLY_ALONE, SERIES_KINDS, fold_word

FEWEST_SLICES = 3

LEAST_B = 10.0
"""s/mm²; less is not diffusion weighting: scanners count images without it by b-values of a thousandth."""

_OF_DIFFUSION = "a map computed from a diffusion scan"
_OF_PERFUSION = "a perfusion scan, or a map computed from one"
_PART_OF_SIGNAL = "a susceptibility or phase image"
_VESSELS = "a picture of vessels"
_PART_OF_DIXON = "an image of fat, or of water and fat against each other"

_IMAGE_TYPES = {
    **dict.fromkeys(("LOCALIZER", "SURVEY"), "a scout"),
    **dict.fromkeys(("ADC", "EADC", "FA", "RA", "TENSOR", "DIFFUSION_ANISO"), _OF_DIFFUSION),
    **dict.fromkeys(("DIFFUSION", "TRACEW", "TRACE"), "a diffusion scan"),
    **dict.fromkeys(("PERFUSION", "PERFUSION_ASL", "ASL", "PBP", "GBP", "DSC", "DCE"), _OF_PERFUSION),
    **dict.fromkeys(("CBV", "RCBV", "RELCBV", "CORRCBV", "CBF", "RCBF", "RELCBF"), _OF_PERFUSION),
    **dict.fromkeys(("MTT", "RELMTT", "TTP", "TMAX", "T0", "KTRANS"), _OF_PERFUSION),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"), _PART_OF_SIGNAL),
    **dict.fromkeys(("SWI", "MNIP", "MIN IP"), _PART_OF_SIGNAL),
    **dict.fromkeys(("MIP", "MAX IP", "PROJECTION IMAGE", "PCA", "TOF", "VELOCITY MAP", "VELOCITY"), _VESSELS),
    **dict.fromkeys(("FAT", "F", "FF", "FAT_FRACTION", "OPP_PHASE", "OUT_PHASE", "OP"), _PART_OF_DIXON),
    "SUBTRACTION": "the difference of two scans",
    **dict.fromkeys(("T1 MAP", "T2 MAP", "T2_STAR MAP", "R2_STAR MAP", "B0 MAP", "B0", "B1"), "a map"),
    "FMRI": "a scan of brain function",
    "SPECTROSCOPY": "a spectrum",
    "SCREEN SAVE": "a picture for people, not a scan",
}
"""Values of ImageType that say what a series is, from the third on; Siemens, GE and Philips use these among others."""

_TECHNIQUES = {
    "scout": "a scout",
    "diffusion": "a diffusion scan",
    "perfusion": _OF_PERFUSION,
    "vessels": _VESSELS,
    "susceptibility": _PART_OF_SIGNAL,
    "proton density": "a proton density scan",
    "short inversion": "an inversion recovery that is not FLAIR",
}
"""What the headers' technique says a series is, see `dicom.techniques`; `echo planar` only says that it is none."""

_KINDS = {
    "CT": "a CT scan",
    "PT": "a PET scan",
    "NM": "a scan of nuclear medicine",
    "US": "an ultrasound",
    "CR": "an X-ray picture",
    "DX": "an X-ray picture",
    "OT": "a picture for people, not a scan",
    "SC": "a picture for people, not a scan",
    "DOC": "a document",
    "SR": "a report",
    "PR": "the settings of a display",
    "KO": "a list of pictures",
    "SEG": "a segmentation",
    "RTSTRUCT": "a set of contours",
    "REG": "a registration",
    "RWV": "a table of values",
}
"""What objects of DICOM other than MR are called."""

_T1, _T2, _FLAIR = "T1", "T2", "FLAIR"
_SUFFIX_OF_PHILIPS = re.compile(r"(?i)\b(?:WIP\s+)?s(?=T[12]W)")


@dataclass(frozen=True)
class Guess:
    """What a series shows.

    Attributes
    ----------
    modality
        One of `MODALITIES`; None if it is none of them, or if nothing says which.
    reason
        Why, in a few words that follow a colon.
    sure
        False if a person should look at it.
    other
        What it is, if it is none of the modalities, such as "a scout"; else empty.
    """

    modality: str | None
    reason: str
    sure: bool = True
    other: str = ""


def guess_examination(series: Sequence[Series]) -> tuple[Guess, ...]:
    """Guess what the series of one patient on one day show, in the order given.

    Each is looked at by itself, see `guess_modality`. Then the T1 scans are compared: contrast agent stays, so a T1
    after one with contrast agent has it too; and of two T1 with one description the later one, with other scans
    between them, is probably the one with contrast agent. Both remain unsure.

    Returns
    -------
    tuple of Guess
        One for each series.
    """
    guesses = [guess_modality(each) for each in series]
    scans = [each for each, guess in zip(series, guesses, strict=True) if guess.modality]
    if len(scans) > 2 and all(each.contrast for each in scans):  # typed in once for all, so it tells nothing
        silent = [replace(each, contrast=None) for each in series]
        again = [guess_modality(each) for each in silent]
        if {_T1, "T1ce"} <= {guess.modality for guess in again} or sum(g.modality == _T1 for g in again) > 1:
            note = "; the contrast agent is stated for every series, even the first"
            guesses = [
                replace(new, reason=new.reason + note, sure=False) if new.modality != old.modality else new
                for new, old in zip(again, guesses, strict=True)
            ]
            series = silent
    return tuple(_place_after_contrast(series, guesses))


def guess_modality(series: Series) -> Guess:
    """Guess what a series shows from its headers: its description, the contrast agent, TE, TR and TI, and ImageType.

    Words count first; times that cannot belong to what they say make the guess unsure, or win where they leave no
    doubt: only FLAIR has a long inversion time. The times are those of common clinical protocols (for brain tumors
    Ellingson et al. 2015, doi:10.1093/neuonc/nov095), with wide margins.

    Returns
    -------
    Guess
        Unsure if words and times disagree, or if only the times of a T1 or T2 speak.
    """
    if series.kind not in ("MR", ""):
        what = _KINDS.get(series.kind, f"an object of the kind {series.kind}")
        return Guess(None, what, other=what)
    if other := _find_other(series):
        return other
    words, source = _read_texts(series)
    contrast = read_contrast(series.description) if series.description else None
    by_times = _read_times(series)
    times = _describe_times(series)
    if words is None and by_times is None:
        return Guess(None, "neither the description nor the times say which modality it is", sure=False)
    if words is None:
        assert by_times is not None
        if by_times not in (_T1, _T2, _FLAIR):
            return Guess(None, f"{times} are those of {by_times}", sure=False, other=by_times)
        guess = Guess(by_times, f"{times} are those of {_with_article(by_times)}", sure=by_times == _FLAIR)
    else:
        base = _T1 if words == "T1ce" else words
        if by_times in (None, base):
            agreed = f", and {times} fit" if by_times else ""
            guess = Guess(base, f"the {source} says {_say(words)}{agreed}")
        elif by_times not in (_T1, _T2, _FLAIR):
            doubt = f"the {source} says {base}, but {times} are those of {by_times}"
            guess = Guess(None, doubt, False, by_times) if base == _T2 else Guess(base, doubt, sure=False)
        else:
            doubt = f"the {source} says {base}, but {times} are those of {_with_article(by_times)}"
            guess = Guess(_FLAIR if by_times == _FLAIR else base, doubt, sure=False)
    return _with_contrast(guess, series, contrast) if guess.modality == _T1 else guess


def _with_contrast(guess: Guess, series: Series, says: bool | None) -> Guess:
    """Tell T1 with contrast agent from T1 without: by words, else by what the headers state."""
    if says:
        clash = "" if series.contrast is not False else ", but the headers state that no agent was given"
        with_agent = "" if "with contrast" in guess.reason else "; the description says with contrast agent"
        return replace(guess, modality="T1ce", reason=guess.reason + with_agent + clash, sure=guess.sure and not clash)
    if says is None and series.contrast:
        return replace(guess, modality="T1ce", reason=f"{guess.reason}; the headers state a contrast agent")
    return guess


def _find_other(series: Series) -> Guess | None:
    """Return what a series is if it is certainly none of the modalities."""

    def left_out(other: str) -> Guess:
        return Guess(None, other, other=other)

    words = {fold_word(word) for word in split_words(series.description)}
    named = read_words(series.description)
    kinds = {word: kind for kind, members in SERIES_KINDS.items() for word in words & members}
    if named.modality:
        kinds = {word: kind for word, kind in kinds.items() if word not in ONLY_ALONE}
    found = {*kinds.values(), *_read_image_type(series)}
    found |= {what for technique, what in _TECHNIQUES.items() if technique in series.techniques}
    if (series.b_value or 0) >= LEAST_B:
        found.add("a diffusion scan")
    if named.modality == _T2 and found == {_TECHNIQUES["proton density"]} and _read_times(series) == _T2:
        found.clear()  # the later echo of a scan of proton density and T2
    if found:
        return left_out(next(kind for kind in (*SERIES_KINDS, _PART_OF_DIXON) if kind in found))
    if "echo planar" in series.techniques:
        return left_out("an echo planar scan, as of diffusion, perfusion or brain function")
    if named.modality == _T2 and words & GRADIENT_ECHOES:
        return left_out("a susceptibility or phase image")
    if named.other_sequence:
        return left_out("none of T1, T1ce, T2 and FLAIR")
    if series.format == "dicom" and series.problem is None and 0 < series.slices < FEWEST_SLICES:
        return left_out(f"a scan of only {series.slices} slice{'s' if series.slices > 1 else ''}")
    return None


def _read_image_type(series: Series) -> set[str]:
    """Return what ImageType says a series is; Philips adds to some values, as in ``ADC_UNSPECIFIED``."""
    values = {form for value in series.image_type[2:] for form in (value, value.partition("_")[0])}
    return {_IMAGE_TYPES[value] for value in values if value in _IMAGE_TYPES}


def _read_texts(series: Series) -> tuple[str | None, str]:
    """Return the modality that the description names, else the protocol or the sequence, and which of them it was."""
    source = "description" if series.format == "dicom" else "name"
    for text, where in (
        (series.description, source),
        (series.protocol, "protocol"),
        (series.sequence_name, "sequence"),
    ):
        text = _SUFFIX_OF_PHILIPS.sub("", text)
        words = read_words(text)
        if words.modality:
            # A protocol's name is that of the whole examination, often 'brain with contrast'.
            plain = _T1 if where != source and words.modality == "T1ce" else words.modality
            return plain, where
        if set(words.unclear) == {_T1, _FLAIR}:  # GE's T1 FLAIR is a T1 with an inversion pulse
            te = series.echo_time_ms
            return (_T1 if te is None or te < 60 else _FLAIR), where
        if set(words.unclear) == {_T2, _FLAIR}:
            ti = series.inversion_time_ms
            return (_FLAIR if ti and ti >= 1400 else _T2) if ti else None, where
    return None, source


def _read_times(series: Series) -> str | None:
    """Return what the echo, repetition and inversion times are those of; None if they fit several, or are missing."""
    te, tr, ti = series.echo_time_ms, series.repetition_time_ms, series.inversion_time_ms or 0.0
    flip = series.flip_angle_deg or 90.0
    if te is None or tr is None:
        return None
    if ti:
        if ti >= 1400:
            return _FLAIR if te >= 60 and tr >= 3500 else None
        if ti >= 350:
            return _T1 if te <= 40 else None
        return "a scan with a short inversion time (STIR)" if tr >= 1500 else None
    if tr >= 1800:
        if te >= 60:
            return _T2
        if te <= 6 and (series.volumetric or flip <= 20):  # MPRAGE without its inversion time
            return _T1
        return "a proton density scan" if te <= 50 else None
    if te >= 12 and flip <= 45:
        return "a scan weighted by T2*"
    if (te <= 12 and tr <= 15) or (te <= 30 and 200 <= tr <= 1200):
        return _T1
    return None


def _describe_times(series: Series) -> str:
    times = {"TE": series.echo_time_ms, "TR": series.repetition_time_ms, "TI": series.inversion_time_ms}
    parts = [f"{name} {value:.4g} ms" for name, value in times.items() if value]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _with_article(modality: str) -> str:
    return f"a {modality}"


def _say(modality: str) -> str:
    return "T1 with contrast agent" if modality == "T1ce" else modality


# ------------------------------------------------------------------------------------------------- order of the scans


def _place_after_contrast(series: Sequence[Series], guesses: Sequence[Guess]) -> list[Guess]:
    """Find T1 scans that nobody describes as with contrast agent, though their place among the others says so."""
    result = list(guesses)
    numbered = [i for i, each in enumerate(series) if each.number is not None]
    agent = [i for i in numbered if guesses[i].modality == "T1ce"]
    open_ones = [
        i
        for i in numbered
        if guesses[i].modality == _T1
        and series[i].contrast is None
        and read_contrast(series[i].description) is None
        and not _is_computed(series[i])
    ]
    if agent:
        first = min(agent, key=lambda i: series[i].number or 0)
        for i in open_ones:
            if (series[i].number or 0) > (series[first].number or 0):
                reason = f"{guesses[i].reason}; it follows series {series[first].number}, which has contrast agent"
                result[i] = replace(guesses[i], modality="T1ce", reason=reason, sure=False)
        return result
    for i in open_ones:
        alike = [j for j in open_ones if _is_alike(series[i], series[j]) and j != i]
        before = [j for j in alike if (series[j].number or 0) < (series[i].number or 0)]
        if before and any(_is_between(series, before[0], k, i) and guesses[k].modality != _T1 for k in numbered):
            reason = (
                f"{guesses[i].reason}; series {series[before[0]].number} is the same scan before other sequences, "
                "so this one is probably with contrast agent"
            )
            result[i] = replace(guesses[i], modality="T1ce", reason=reason, sure=False)
    return result


def _is_computed(series: Series) -> bool:
    return "DERIVED" in series.image_type


def _is_alike(one: Series, two: Series) -> bool:
    """Whether two series have one description, apart from a number behind it that counts repeats."""
    first, second = (re.sub(r"[\W_]+", " ", text.description.casefold()).strip() for text in (one, two))
    return bool(first) and first == second


def _is_between(series: Sequence[Series], first: int, middle: int, last: int) -> bool:
    return (series[first].number or 0) < (series[middle].number or 0) < (series[last].number or 0)

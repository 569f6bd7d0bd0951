"""What the words of a file name say: modality or mask, processing, patient and time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from napari_braintumor.engine.anatomy import CONVENTIONS, MODALITIES, MODALITY_OF
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.splitting import split_words
from napari_braintumor.engine.files.vocabulary import (
    BY_HAND,
    CONTRAST,
    CONTRAST_BEHIND,
    CORRECTED,
    ID,
    MASK,
    NOT,
    OTHER_SEQUENCES,
    PLAIN,
    PLANES,
    PROCESSED,
    REGISTERED,
    SEQUENCES,
    SEQUENCES_BEHIND,
    STRIPPED,
    T1_SEQUENCES,
    TARGET,
    TISSUE,
    TREATMENT,
    TUMOR,
    UNCLEAR_T2,
    WEAK,
    fold_word,
)

HOW_TO_NAME = (
    "Put the modality into the file's name (t1, t1ce, t2, flair), or name the channels: --modalities T1,FLAIR,T1ce, "
    "or OME channel names."
)


@dataclass(frozen=True)
class Words:
    """What the words of a name say.

    Attributes
    ----------
    modality
        One of `MODALITIES`; None if the words name none, or several.
    unclear
        The modalities that the words may mean, if they are ambiguous.
    other_sequence
        Whether they name a sequence that is not one of `MODALITIES`.
    mask, tissue
        Whether they name a mask, and whether it is a mask of the brain or its tissues.
    processing
        Those of ``stripped``, ``unstripped``, ``registered``, ``corrected`` and ``processed`` that apply.
    rest
        The remaining words: patient and time. Unicode as written, composed.
    series
        The numbers in `rest` that may count a scanner's series instead.
    protocol
        Whether the words name details of a sequence.
    convention
        The convention of a mask.
    """

    modality: str | None = None
    unclear: tuple[str, ...] = ()
    other_sequence: bool = False
    mask: bool = False
    tissue: bool = False
    processing: frozenset[str] = frozenset()
    rest: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    protocol: bool = False
    convention: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What the files of one case have in common: the remaining words, without those that identify nobody."""
        left = list(self.rest)
        for number in self.series:
            left.remove(number)
        words = tuple(word.casefold() for word in left)
        return tuple(word for word in words if word not in WEAK) or (words if set(words) & ID else ())


def find_modality(text: str) -> str | None:
    """Find the modality in a name, such as that of a file or a layer.

    Parameters
    ----------
    text
        Read word by word, ignoring letter case: ``BraTS-GLI-00000-000-t1c`` is T1ce, ``5_t2_flair`` is FLAIR, and
        ``FLAIR_reg_T1``, which was registered to T1, is FLAIR.

    Returns
    -------
    str or None
        One of `MODALITIES`, or None if the name has no modality or more than one.
    """
    return read_words(text).modality


def read_contrast(text: str) -> bool | None:
    """Find whether a name says that contrast agent was given.

    Parameters
    ----------
    text
        ``AX T1 POST GAD`` says so, ``T1 vor KM`` and ``t1_nativ`` say the contrary.

    Returns
    -------
    bool or None
        None if it does not say.
    """
    words = [fold_word(part) for part in split_words(text)]
    named = [i for i, word in enumerate(words) if word in MODALITY_OF or word in T1_SEQUENCES]
    contrast, plain = _read_contrast(words, min(named, default=0))
    if plain:
        return False
    return bool(contrast) or read_words(text).modality == "T1ce" or None


def read_modalities(names: Sequence[str]) -> tuple[str, ...]:
    """Read a list of modalities given by the user, such as those of a file's channels or those to use.

    Parameters
    ----------
    names
        Names that `find_modality` understands, in any letter case.

    Returns
    -------
    tuple of str
        In the order given.

    Raises
    ------
    DataError
        If a name is not a modality, a modality is given twice, or there is none.
    """
    found: list[str] = []
    for name in names:
        modality = find_modality(name)
        if modality is None:
            raise DataError(
                f"'{name}' is not a known modality. Expected {', '.join(MODALITIES)} or another common name."
            )
        if modality in found:
            raise DataError(f"{modality} is named twice ({', '.join(names)}). Name each modality once.")
        found.append(modality)
    if not found:
        raise DataError(f"No modality is named. Expected one or more of {', '.join(MODALITIES)}.")
    return tuple(found)


def read_owner(text: str) -> str:
    """Return whose scan it is by name: the name without modality, sequence, processing and mask.

    Two names belong to one case only if this is equal, or empty for one of them.

    Returns
    -------
    str
        What is left of the name, joined by underscores; empty if nothing is.
    """
    words = read_words(text)
    return "_".join((*words.key, *words.series))


def may_be_mask(text: str) -> bool:
    """Whether a name contains a word for a mask or a tumor. Some scans have such names, so check the content too."""
    return bool({fold_word(part) for part in split_words(text)} & (MASK | TUMOR))


def read_words(text: str, times: Iterable[int] = ()) -> Words:
    """Read the words of a name.

    Parameters
    ----------
    text
        A name without its suffix.
    times
        Positions of words that are known to be a time point, whatever else they may mean.

    Returns
    -------
    Words
        What each word means.
    """
    parts = split_words(text)
    lower = [fold_word(part) for part in parts]
    known = set(times)
    words = ["" if i in known else word for i, word in enumerate(lower)]
    target, dropped = _registration_target(words)
    seen = ["" if i in dropped else word for i, word in enumerate(words)]
    modality, used, unclear = _read_modality(seen)
    if target and modality is None and not unclear:
        modality, used, unclear = _read_modality(words)
    present = set(seen) - {""}
    mask = bool(MASK & present)
    tumor = bool(TUMOR & present) or "gtv" in present
    tissue = bool(TISSUE & present) and not tumor
    first = min(used, default=len(words))
    processing, processed = _read_processing(seen, first, bool(dropped))
    drop = used | dropped | processed
    for i, word in enumerate(seen):
        behind = i > first and word in SEQUENCES_BEHIND
        hand = mask and (word in BY_HAND or word in TUMOR or word in CONVENTIONS)
        if word in SEQUENCES or word in PLANES or behind or word in MASK or word == "ome" or hand:
            drop.add(i)
    left = [i for i in range(len(parts)) if i not in drop]
    other = bool(OTHER_SEQUENCES & present)
    return Words(
        modality=None if other else modality,
        unclear=unclear,
        other_sequence=other,
        mask=mask,
        tissue=tissue,
        processing=processing,
        rest=tuple(parts[i] for i in left),
        series=tuple(parts[i] for i in left if _may_count_series(lower, i, first)),
        protocol=bool(present & (SEQUENCES | PLANES)),
        convention=next((word for word in lower if word in CONVENTIONS), None) if mask else None,
    )


def read_folder(names: Sequence[str]) -> list[Words]:
    """Read the names in a folder together, because one name can make another clear.

    In ``pat_t1_flair`` and ``pat_t1_t2`` the common t1 is a time point; so is ``post`` after T1 if it also follows
    FLAIR.

    Returns
    -------
    list of Words
        One for each name, in the order given.
    """
    split = [[fold_word(part) for part in split_words(name)] for name in names]
    starts: dict[tuple[str, ...], set[str]] = defaultdict(set)
    ends: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for words in split:
        if _registration_target(words)[1]:
            continue
        places = [i for i, word in enumerate(words) if word in MODALITY_OF]
        for i in places:
            if words[i] in ("t1", "t2"):
                for table, part, around in ((starts, words[: i + 1], words[i + 1 :]), (ends, words[i:], words[:i])):
                    if (modality := _read_modality(around)[0]) and set(around) & MODALITY_OF.keys():
                        table[tuple(part)].add(modality)
    after: set[str] = set()
    for words in split:
        modality, used, _ = _read_modality(words)
        if modality in ("T2", "FLAIR"):
            after |= {"pre", "post"} & set(words[min(used) :])
    found = []
    for name, words in zip(names, split, strict=True):
        times = {i for i, word in enumerate(words) if word in after}
        start = next((s for i in range(1, len(words)) if len(starts.get(s := tuple(words[:i]), ())) > 1), None)
        end = next((e for i in range(1, len(words)) if len(ends.get(e := tuple(words[i:]), ())) > 1), None)
        if start:
            times.add(len(start) - 1)
        elif end:
            times.add(len(words) - len(end))
        found.append(read_words(name, times))
    return found


# -------------------------------------------------------------------------------------------------------- meanings


def _read_modality(words: Sequence[str]) -> tuple[str | None, set[int], tuple[str, ...]]:
    """Return the modality that words name, the words that name it, and the candidates if it is ambiguous."""
    named = {i: MODALITY_OF[word] for i, word in enumerate(words) if word in MODALITY_OF}
    for i, pair in enumerate(pairwise(words)):
        if pair in {("dark", "fluid"), ("da", "fl"), ("dark", "fl")}:
            named |= {i: "FLAIR", i + 1: "FLAIR"}
    if not named:
        named = {i: "T1" for i, word in enumerate(words) if word in T1_SEQUENCES}
    contrast, plain = _read_contrast(words, min(named, default=-1))
    found = set(named.values())
    used = {*named, *contrast, *plain} if found & {"T1", "T1ce"} else set(named)
    if not found and {"post", "postcontrast"} & set(words) and not plain and not TREATMENT & set(words):
        return "T1ce", contrast | {i for i, word in enumerate(words) if word == "post"}, ()
    if found == {"T1", "T1ce"} or (found == {"T1"} and contrast and not plain):
        return "T1ce", used, ()
    if found == {"T2", "FLAIR"}:
        return "FLAIR", used, ()
    if found == {"T2"} and UNCLEAR_T2 & set(words):
        return None, used, ("T2", "FLAIR")
    if len(found) == 1:
        return found.pop(), used, ()
    return None, used, tuple(sorted(found))


def _read_contrast(words: Sequence[str], first: int) -> tuple[set[int], set[int]]:
    """Return which words say that contrast agent was given, and which that it was not."""
    contrast, plain = set(), {i for i, word in enumerate(words) if word in PLAIN}
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        if word in CONTRAST or (i > first >= 0 and word in CONTRAST_BEHIND and following not in TREATMENT):
            before = {words[i - 1], words[i - 2] if i > 1 else ""} if i else set()
            if words[i - 1 : i] and (words[i - 1] in NOT or (words[i - 1] == "w" and "o" in before)):
                plain |= {i - 1, i}
            else:
                contrast.add(i)
        elif word == "pre" and i > first >= 0 and following not in TREATMENT:
            plain.add(i)
        elif word == "post" and following in CONTRAST:
            contrast.add(i)
    return contrast, plain


def _registration_target(words: Sequence[str]) -> tuple[str | None, set[int]]:
    """Find what an image was registered to: ``reg_T1``, ``to_t1``, ``in_FLAIR_space``. These words say nothing else."""
    named = [i for i, word in enumerate(words) if word in MODALITY_OF or word in T1_SEQUENCES]
    for i, word in enumerate(words):
        if word not in TARGET or not any(place < i for place in named):
            continue
        start = i
        while i < len(words) and (words[i] in TARGET or words[i] == "space"):
            i += 1
        end = i
        while end < len(words) and (end in named or words[end] in ("space", "w") or words[end] in CONTRAST_BEHIND):
            end += 1
        if end > i and i in named and (word != "2" or start - 1 in named):
            return words[i], set(range(start, end))
    if words and words[-1] == "space" and len(named) > 1 and named[-1] == len(words) - 2:
        before = _read_modality(words[:-2])[0]
        if before and _read_modality(words)[0] is None:  # 'flair_t1_space', but not 't2_flair_space'
            return words[-2], {len(words) - 2, len(words) - 1}
    return None, set()


def _read_processing(words: Sequence[str], first: int, to_another: bool) -> tuple[frozenset[str], set[int]]:
    """Return how an image was processed, and which words say so."""
    done, used = {"registered"} if to_another else set(), set()
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        if word in ("with", "no") and following in ("skull", "head"):
            used |= {i, i + 1}
            done |= {"stripped"} if word == "no" else set()
        elif (word == "skull" and following in STRIPPED) or (word == "hd" and following == "bet"):
            used.add(i)
        elif word == "brain" and following in TUMOR | {"mri", "mr", "scan"}:
            continue
        elif word in STRIPPED:
            done.add("stripped")
            used.add(i)
        elif word in REGISTERED:
            done.add("registered")
            used.add(i)
        elif word in CORRECTED or word in PROCESSED or word == "unstripped":
            done.add("corrected" if word in CORRECTED else "processed" if word in PROCESSED else word)
            used.add(i)
    return frozenset(done), used


def _may_count_series(words: Sequence[str], place: int, first: int) -> bool:
    """Whether a number may count series: at the front or after the modality, and too short for a date."""
    word = words[place]
    if not word.isdecimal() or len(word) > 4 or (place and words[place - 1] in ID):
        return False
    return place == 0 or place > first

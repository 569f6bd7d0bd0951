"""Take a file name apart into words."""

from __future__ import annotations

import re
import unicodedata

from napari_braintumor.engine.anatomy import MODALITY_OF
from napari_braintumor.engine.files.vocabulary import OTHER_SEQUENCES, PLANES, SEQUENCES, fold_word

_ANY = "|".join(sorted((*MODALITY_OF, "darkfluid"), key=len, reverse=True))
_JOINED = [
    re.compile(pattern)
    for pattern in (
        rf"(?P<a>{_ANY})(?P<b>2|to|in|reg)(?P<c>{_ANY})",
        rf"(?P<a>reg|coreg|to|in)(?P<b>{_ANY})",
        r"(?P<a>whole|tumou?r|lesion|brain|skull)(?P<b>mask|seg|segm|segmentation|labels?)",
        rf"(?P<a>{_ANY})(?P<b>space|reg|warped|brain|bet|masked|bias)",
        rf"(?P<a>{_ANY})(?P<b>(?:post|pre|no|with)?contrast|(?:post|pre)(?:op)?|gad|gd|km)",
        rf"(?P<a>{'|'.join(sorted(PLANES, key=len, reverse=True))})(?P<b>(?:{_ANY})\w*)",
        rf"(?P<a>{_ANY})(?P<b>{'|'.join(sorted(SEQUENCES | PLANES, key=len, reverse=True))})\w{{0,3}}",
    )
]
_RESLICED = re.compile(rf"r{{1,2}}(?P<b>{_ANY})")  # SPM's name for resliced images


def split_words(text: str) -> list[str]:
    """Split a name into words: letters of any script and digits; ``FLAIR2T1`` and ``AxT1`` come apart too."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"(?i)(?<![^\W_])w/o(?![^\W_])", " without ", text)
    text = re.sub(r"(?i)(?<![^\W_])t2\s?\*", " t2star ", text)
    text = re.sub(r"(?i)\+\s?(c|gd|gad|gado|ce|km|contrast)(?![^\W_])", " contrast ", text)
    text = re.sub(r"(?i)(?<![^\W\d_])(c|gd|km|ce)\+", " contrast ", text)
    text = re.sub(r"(?i)(?<![^\W\d_])(c|gd|km)-(?=$|[_\s.])", " native ", text)
    parts = "".join(letter if _is_letter(letter) else " " for letter in text).split()
    return [piece for part in parts for piece in _take_apart(part)]


def _is_letter(letter: str) -> bool:
    kind = unicodedata.category(letter)[0]
    return kind in "LMN" or (kind == "S" and not letter.isascii())


def _take_apart(part: str) -> list[str]:
    word = fold_word(part)
    if len(word) != len(part) or word in MODALITY_OF or word in OTHER_SEQUENCES:
        return [part]
    if match := _RESLICED.fullmatch(word):
        return ["resliced", part[match.start("b") :]]
    for pattern in _JOINED:
        if match := pattern.fullmatch(word):
            spans = [match.span(name) for name in ("a", "b", "c") if name in match.re.groupindex]
            return [piece for start, end in spans for piece in _take_apart(part[start:end])]
    return [part]

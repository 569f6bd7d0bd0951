"""The patient of each case, even if two data sets use different names for one person."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

from napari_braintumor.engine.models.card import ModelCard


class WhoIsWho:
    """The patients of cases, based on case names and on what a plan or a card states about them.

    Parameters
    ----------
    cases
        The patient that each case's name gives.
    stated
        The patient for names of cases or patients; the patient may also be given as the name of a case. A case stands
        for all cases of its patient, unless all of these are stated and are not all the same person: then the statement
        overrides the names.
    """

    def __init__(self, cases: Mapping[str, str], stated: Mapping[str, str]) -> None:
        self._cases = {_composed(name): _composed(patient) for name, patient in cases.items()}
        stated = {_composed(name): _composed(patient) for name, patient in stated.items()}
        self._table = stated
        self._stated = {*stated, *stated.values()}
        members: dict[str, list[str]] = defaultdict(list)
        for name, patient in self._cases.items():
            members[patient].append(name)
        self._nodes: dict[str, frozenset[str]] = {}
        for patient, names in members.items():
            people = {stated.get(name) for name in names}
            are_separate = None not in people and len(people) > 1 and patient not in stated
            self._nodes[patient] = frozenset(names if are_separate else [patient])
        self._united: dict[str, str] = {}
        ends: set[str] = set()
        for name, patient in stated.items():
            for one in self._find_nodes(name):
                for other in self._find_nodes(patient):
                    self._united[self._root(one)] = self._root(other)
            ends |= self._find_nodes(patient)
        begins = {node for name in stated for node in self._find_nodes(name)}
        groups: dict[str, set[str]] = defaultdict(set)
        for node in (*ends, *begins):
            groups[self._root(node)].add(node)
        self._called = {root: min((group & ends) - begins or group & ends or group) for root, group in groups.items()}

    def extended(self, stated: Mapping[str, str]) -> WhoIsWho:
        """Return a copy that also includes statements of an earlier plan or card; the statements of this one win."""
        return WhoIsWho(self._cases, {**stated, **self._table})

    def patient_of(self, case: str) -> str:
        """Return the patient of a case or of another name, always by the same name."""
        nodes = self._find_nodes(_composed(case), case_first=True)
        return self._call(min(nodes))

    def find(self, names: Iterable[str]) -> set[str]:
        """Return the patients that names of patients or cases stand for, whether or not they are among the cases."""
        return {self._call(node) for name in names for node in self._find_nodes(_composed(name))}

    def knows(self, name: str) -> bool:
        """Whether a name stands for a case that exists."""
        here = {self._root(node) for nodes in self._nodes.values() for node in nodes}
        return any(self._root(node) in here for node in self._find_nodes(_composed(name)))

    def find_similar(self, name: str) -> str | None:
        """Return an existing case or patient that an unknown name may be a misspelling of, or None.

        Stated names and the patients they stand for are never treated as misspellings.

        Returns
        -------
        str or None
            The existing name; None if no name is that close.
        """
        name = _composed(name)
        here = dict.fromkeys([*self._nodes, *self._cases])
        if name in here or self._table.get(name, name if name in self._table.values() else None) == name:
            return None
        return next((other for other in here if _are_similar(name, other)), None)

    @property
    def stated(self) -> dict[str, str]:
        """The patient of every stated name: enough to distinguish them from other cases later."""
        table = {name: self._call(min(self._find_nodes(name))) for name in sorted(self._stated)}
        table |= {node: self._call(node) for name in sorted(self._stated) for node in self._find_nodes(name)}
        return {name: patient for name, patient in table.items() if name != patient}

    def _find_nodes(self, name: str, case_first: bool = False) -> frozenset[str]:
        """Return what a name stands for: a patient, or its cases if they are different people."""
        if name in self._nodes and not (case_first and name in self._cases):
            return self._nodes[name]
        if name in self._cases:
            nodes = self._nodes[self._cases[name]]
            return frozenset([name]) if name in nodes else nodes
        return frozenset([name])

    def _root(self, node: str) -> str:
        while (further := self._united.get(node, node)) != node:
            node = further
        return node

    def _call(self, node: str) -> str:
        root = self._root(node)
        return self._called.get(root, root)


def is_held_out(case: str, card: ModelCard, who: WhoIsWho) -> bool | None:
    """Whether a model was trained without the patient of a case, under any name; None if its card does not say."""
    patient = who.patient_of(case)
    if patient in who.find((*card.training_patients, *card.validation_patients)):
        return False
    return True if patient in who.find(card.held_out_patients) else None


def _composed(name: str) -> str:
    """Return a name with composed accents: macOS stores them decomposed."""
    return unicodedata.normalize("NFC", name)


def _are_similar(name: str, other: str) -> bool:
    """Whether a name may be a misspelling: different case, punctuation or zeros, a part, or one letter off."""
    if _bare(name) == _bare(other):
        return True
    short, long = sorted((name, other), key=len)
    if long.startswith(short) and not long[len(short)].isalnum():
        return True
    letters, others = _letters(name), _letters(other)
    # Different numbers are different people.
    return _numbers(name) == _numbers(other) and min(len(letters), len(others)) > 3 and _is_one_slip(letters, others)


def _bare(name: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    return ".".join(part.lstrip("0") or "0" if part.isdigit() else part for part in re.findall(r"\d+|[^\W\d_]+", plain))


def _numbers(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def _letters(name: str) -> str:
    return "".join(re.findall(r"[^\W\d_]+", name.casefold()))


def _is_one_slip(one: str, other: str) -> bool:
    """Whether one letter is changed, added or missing, or two neighboring letters are swapped."""
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return max(len(one), len(other)) < 2 or (len(one) == 2 and one == other[::-1])

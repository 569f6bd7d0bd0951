"""Group freely named files of a folder into cases: files whose names give the same patient and time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_braintumor.engine.files.naming import read_words
from napari_braintumor.engine.files.owners import find_patient, is_collection_name, is_time
from napari_braintumor.engine.files.schemes import NamedFile

_SHOWN = 4


@dataclass
class Draft:
    """The files of one case, before one is chosen for each modality.

    Attributes
    ----------
    images, masks
        Files that may be used.
    left
        Files that may not be used, each with the reason.
    """

    case: str
    patient: str
    group: str
    root: Path
    images: list[NamedFile] = field(default_factory=list)
    masks: list[NamedFile] = field(default_factory=list)
    left: list[NamedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None


def group_folder(items: Sequence[NamedFile]) -> list[Draft]:
    """Split the files of a folder into cases.

    Files belong to one case if their names differ only in modality, sequence, processing and series number. Files
    whose names contain nothing else join the only case in the folder. If numbers may count either series or patients,
    the problem of the case says so.

    Returns
    -------
    list of Draft
        One for each case.
    """
    root = items[0].root
    images = [item for item in items if item.kind not in (None, "mask") or item.channels]
    by_key: dict[tuple[str, ...], list[NamedFile]] = defaultdict(list)
    for item in images:
        by_key[item.words.key].append(item)
    notes = _join_unnamed(by_key, root)
    drafts = []
    for key, members in by_key.items():
        for part, problem in _split_series(members):
            draft = _draft_of(part, key, root)
            draft.notes += notes.get(key, [])
            draft.problem = problem
            drafts.append(draft)
    if len(drafts) > 1 and max(Counter(item.kind for item in images).values()) == 1:
        for draft in drafts:
            rest = [item.path.name for item in images if item not in draft.images]
            draft.notes.append(
                f"By name, {_list(rest)} in the same folder {_are(rest)} taken for another patient or time point. "
                "Give the files of one case the same name if they belong together."
            )
    _share_masks(drafts, [item for item in items if item.kind == "mask"])
    leave_out(drafts, [item for item in items if item.kind is None and not item.channels])
    return drafts


def leave_out(drafts: Sequence[Draft], items: Iterable[NamedFile]) -> None:
    """Add files that are not used to the case in the same folder, whose notes will say so."""
    for item in items:
        if drafts:
            own = next((draft for draft in drafts if item.words.key and _key(draft) == item.words.key), drafts[0])
            own.left.append(item)


def describe_left(items: Sequence[NamedFile]) -> list[str]:
    """Describe which files of a case are not used, and why."""
    notes = []
    by_reason: dict[str, list[str]] = defaultdict(list)
    for item in items:
        if item.why_not != "tissue":
            by_reason[item.why_not or ""].append(item.path.name)
    for reason, names in by_reason.items():
        were = f"{_list(names)} {_are(names)} left out"
        if reason == "sequence":
            notes.append(f"{were}: not one of T1, T1ce, T2 and FLAIR.")
        elif reason == "unclear":
            notes.append(f"{were}: the name may mean several modalities. Keep only the right one in the name.")
        elif reason == "mask":
            notes.append(f"{were}: only the main mask drawn by people is the reference in this data set.")
        elif reason == "result":
            notes.append(
                f"{were}: this program's own result. To use it as the reference, replace 'tumor' by 'seg' in its name."
            )
        elif reason in ("unnamed", "channel"):
            notes.append(f"{were}: the name contains neither a modality (t1, t1ce, t2, flair) nor a mask (seg).")
        else:
            notes.append(f"{were}: {reason}")
    return notes


def name_folder(root: Path) -> tuple[str, str]:
    """Return the names of a folder's case and patient: ``P7/2019-03-12`` is patient P7 at that date."""
    parts = [root.name]
    while is_time(parts[0]) and (root := root.parent).name and not is_collection_name(root.name):
        parts.insert(0, root.name)
    return "_".join(parts), find_patient(parts[0])


def list_names(names: Sequence[str]) -> str:
    """Return names in quotes with the right verb: ``'a' and 'b' were``."""
    return f"{_list(names)} {_are(names)}"


def _list(names: Sequence[str]) -> str:
    shown = [f"'{name}'" for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        return f"{', '.join(shown)} and {len(names) - _SHOWN} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _are(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _key(draft: Draft) -> tuple[str, ...]:
    return next((item.words.key for item in draft.images if item.words.key), ())


def _join_unnamed(by_key: dict[tuple[str, ...], list[NamedFile]], root: Path) -> dict[tuple[str, ...], list[str]]:
    """Let images whose names give no patient join those that do, if only one case is possible."""
    nameless = by_key.get((), [])
    folder = read_words(root.name).key
    named = [key for key in by_key if key]
    alike = [key for key in named if key == folder] or (named if len(named) == 1 else [])
    if not nameless or len(alike) != 1:
        return {}
    (key,) = alike
    taken = {(item.kind, item.words.processing) for item in by_key[key]}
    if any((item.kind, item.words.processing) in taken or item.channels for item in nameless):
        return {}
    del by_key[()]
    names = [item.path.name for item in nameless]
    first = by_key[key][0].path.name
    by_key[key] = [*by_key[key], *nameless]
    if key == folder:
        return {}
    return {key: [f"{_list(names)} {_are(names)} taken for the same patient as '{first}', based only on the folder."]}


def _split_series(members: list[NamedFile]) -> list[tuple[list[NamedFile], str | None]]:
    """Split files that share a name by numbers that count patients or time points, not series."""
    by_number: dict[tuple[str, ...], list[NamedFile]] = defaultdict(list)
    for item in members:
        by_number[item.words.series].append(item)
    numbered = [files for number, files in by_number.items() if number]
    if len(by_number) == 1 or not numbered:
        return [(members, None)]
    apart = [(files, None) for files in by_number.values()]
    if any(len(files) > 1 for files in numbered):
        return list(apart)
    kinds = Counter((item.kind, item.words.processing) for item in members)
    protocol = any(item.words.protocol for item in members)
    padded = any(number.startswith("0") and len(number) > 2 for key in by_number for number in key)
    if max(kinds.values()) > 1:
        return [(members, None)] if protocol and not padded else list(apart)
    if len(numbered) == 1 or (protocol and not padded):
        return [(members, None)]
    first, second = (files[0].path.name for files in numbered[:2])
    return [
        (
            members,
            f"'{first}' and '{second}' may be series of one patient or scans of two. Put the scans of each patient in "
            "a separate folder and leave out the numbers, as in 't1.nii.gz' and 'flair.nii.gz'.",
        )
    ]


def _draft_of(members: list[NamedFile], key: tuple[str, ...], root: Path) -> Draft:
    folder, owner = name_folder(root)
    rests = [item.words.rest for item in members if item.words.key] or [item.words.rest for item in members]
    unnamed = len(members) == 1 and not members[0].words.modality and members[0].case
    series = members[0].words.series if len({item.words.series for item in members}) == 1 else ()
    if key or series or unnamed:
        if len({tuple(word.casefold() for word in rest) for rest in rests}) == 1:
            case = "_".join(rests[0])
        else:
            case = "_".join(dict.fromkeys(word for word in rests[0] if word.casefold() in key or word in series))
        patient = find_patient(case)
        if is_time(case) and not is_collection_name(root.name):
            case, patient = f"{folder}_{case}", owner
    else:
        case, patient = folder, owner
    return Draft(case, patient, members[0].group, root, members)


def _share_masks(drafts: list[Draft], masks: list[NamedFile]) -> None:
    """Give every mask to the case of the same name, and a mask without a name to the only case."""
    for mask in masks:
        full = (*mask.words.key, *mask.words.series)
        own = [d for d in drafts if _key(d) == mask.words.key and (len(drafts) == 1 or _full(d) == full)]
        if not own:
            own = [d for d in drafts if _key(d) == mask.words.key]
        folder = read_words(drafts[0].root.name).key if drafts else ()
        alone = len(drafts) == 1 and (not full or (mask.words.key == folder and not _key(drafts[0])))
        if len(own) == 1 or alone:
            (own or drafts)[0].masks.append(mask)
        elif drafts:
            drafts[0].notes.append(
                f"Mask '{mask.path.name}' was left out: by name it belongs to a different case than "
                f"'{drafts[0].images[0].path.name}'. If they belong together, give both the same name."
            )


def _full(draft: Draft) -> tuple[str, ...]:
    numbers = {item.words.series for item in draft.images}
    return (*_key(draft), *(numbers.pop() if len(numbers) == 1 else ()))

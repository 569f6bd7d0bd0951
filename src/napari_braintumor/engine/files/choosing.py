"""Choose one of several versions of each scan: a consistent set that never mixes stripped and unstripped scans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from napari_braintumor.engine.files.grouping import Draft, list_names
from napari_braintumor.engine.files.schemes import NamedFile


def choose_images(draft: Draft) -> tuple[list[NamedFile], list[str], str | None]:
    """Choose one file for each modality.

    Skull-stripped versions are chosen if all modalities have one, otherwise the complete set, otherwise the larger set.
    Within a set, registered images come first, then bias-corrected ones.

    Returns
    -------
    images
        The chosen images.
    notes
        What was left out, and why.
    problem
        Why no choice is possible, or None.
    """
    images = [item for item in draft.images if not item.channels]
    images, notes = _choose_derivative(images)
    kinds = {item.kind for item in images}
    sets = {side: [item for item in images if ("stripped" in item.words.processing) == side] for side in (True, False)}
    if len(kinds) == len(images):
        if all(sets.values()) and draft.group == "other":
            stripped, whole = ([item.path.name for item in sets[side]] for side in (True, False))
            notes.append(
                f"By name {list_names(stripped)} skull-stripped, but {list_names(whole)} not. "
                "Results are best if all scans of a case are preprocessed in the same way."
            )
        return images, notes, None
    complete = {side: {item.kind for item in files} == kinds for side, files in sets.items()}
    covered = {side: len({item.kind for item in files}) for side, files in sets.items()}
    side = max((True, False), key=lambda side: (complete[side], covered[side]))
    chosen, problem = _best_of_each(sets[side], draft)
    left = [item.path.name for item in images if item not in chosen]
    if left and not problem:
        names = [item.path.name for item in chosen]
        notes.append(
            f"{list_names(left)} left out: among the versions of the scans, {list_names(names)} used as a set."
        )
    return chosen, notes, problem


def choose_masks(draft: Draft) -> tuple[list[NamedFile], list[str], str | None]:
    """Choose the mask, or the masks of a stack's slices; returns notes and a problem like `choose_images`."""
    masks = sorted(draft.masks, key=lambda item: item.number or 0)
    notes: list[str] = []
    if draft.group == "brats" and masks:
        best = min(item.rank for item in masks)
        left = [item.path.name for item in masks if item.rank > best]
        masks = [item for item in masks if item.rank == best]
        if left:
            notes.append(f"{list_names(left)} left out in favor of the mask '{masks[0].path.name}'.")
        if masks[0].path.name.lower().split(".")[-3:][0].endswith("glistrboost") or "automated" in masks[0].path.name:
            notes.append(f"Mask '{masks[0].path.name}' was made by a program and not corrected by people.")
    if len({item.number for item in masks}) != len(masks):
        return (
            masks[:1],
            notes,
            (
                f"Case '{draft.case}' has two masks: '{masks[0].path.name}' and '{masks[1].path.name}'. "
                "A case has one mask. Move or rename the other."
            ),
        )
    return masks, notes, None


def _choose_derivative(images: list[NamedFile]) -> tuple[list[NamedFile], list[str]]:
    """Prefer raw images to those below ``derivatives``, and take only one version of the latter."""
    versions: dict[str, list[NamedFile]] = defaultdict(list)
    for item in images:
        versions[item.derived].append(item)
    if len(versions) < 2:
        return images, []
    best = max(versions, key=lambda version: (version == "", len({item.kind for item in versions[version]})))
    left = [item.path.name for version, items in versions.items() if version != best for item in items]
    return versions[best], [
        f"{list_names(left)} left out: only one version is used, from 'derivatives' or the raw scans."
    ]


def _best_of_each(images: Sequence[NamedFile], draft: Draft) -> tuple[list[NamedFile], str | None]:
    chosen = []
    for kind in dict.fromkeys(item.kind for item in images):
        alike = sorted((item for item in images if item.kind == kind), key=_preference)
        chosen.append(alike[0])
        if len(alike) > 1 and _preference(alike[0]) == _preference(alike[1]) and draft.group != "bids":
            return chosen, (
                f"Case '{draft.case}' has two {kind} images: '{alike[0].path.name}' and '{alike[1].path.name}'. "
                "Expected one file for each modality. Move or rename one of them."
            )
    return chosen, None


def _preference(item: NamedFile) -> tuple[bool, ...]:
    done = item.words.processing
    return "unstripped" in done, "registered" not in done, "corrected" not in done, "processed" in done

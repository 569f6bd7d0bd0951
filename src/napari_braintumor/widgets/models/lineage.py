"""Which model was tuned from which."""

from __future__ import annotations

from collections.abc import Sequence

from napari_braintumor.engine.models.store import StoredModel


def describe_lineage(model: StoredModel, models: Sequence[StoredModel]) -> str:
    """Return in words what a model was tuned from, what was tuned from it, and which of them is missing."""
    if model.card is None:
        return ""
    chain, missing = trace_lineage(model, models)
    parts = [f"Tuned step by step: {' → '.join(chain)}."] if len(chain) > 1 else []
    if missing:
        parts.append(f"'{chain[0]}' was tuned from '{missing}', which is not among your models.")
    if children := list_children(model.name, models):
        parts.append(f"Tuned from it: {', '.join(children)}.")
    return " ".join(parts)


def trace_lineage(model: StoredModel, models: Sequence[StoredModel]) -> tuple[list[str], str]:
    """Return the names from a model's oldest known parent to itself, and the parent of that one if it is missing."""
    chain = [model.name]
    parent = model.card.parent if model.card else None
    while parent and parent not in chain:
        known = [m for m in models if m.name == parent and m.card is not None]
        if not known:
            return chain, parent
        chain.insert(0, parent)
        parent = known[-1].card.parent if known[-1].card else None
    return chain, ""


def list_children(name: str, models: Sequence[StoredModel]) -> list[str]:
    """Return the names of the models that were tuned from one."""
    return [model.name for model in models if model.card is not None and model.card.parent == name]


def find_parent(number: int, models: Sequence[StoredModel]) -> int | None:
    """Return which model another was tuned from; None where that is missing or, by mistake, descends from itself."""
    seen, at = {number}, number
    first: int | None = None
    while True:
        card = models[at].card
        parent = card.parent if card is not None else None
        found = [n for n, m in enumerate(models) if parent and m.name == parent and m.card is not None]
        if not found:
            return first
        at = found[-1]
        if at in seen:
            return None
        seen.add(at)
        first = at if first is None else first

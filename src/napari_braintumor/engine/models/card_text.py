"""A model's card as readable text: the same in the dock, on the command line and in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_braintumor.engine.models.card import VOLUME_DICE, Metric, ModelCard, SolidCore
from napari_braintumor.engine.models.model_file import read_weights_sha256
from napari_braintumor.engine.models.registry import ARCHITECTURES, IMPORTED


def architecture_title(card: ModelCard) -> str:
    """Return the display name of a card's architecture."""
    known = {**ARCHITECTURES, **IMPORTED}.get(card.architecture)
    return known.title if known else card.architecture


def headline_metric(card: ModelCard) -> Metric | None:
    """Return the figure to choose a model by: Dice of its outermost region on the largest data set it never saw.

    With all modalities, if that was measured.

    Returns
    -------
    Metric or None
        None if the model was measured on no data that it had not seen.
    """
    outermost = card.regions[0].name
    held_out = [m for m in card.metrics if m.held_out and m.region == outermost and m.measure == VOLUME_DICE]
    return max(held_out, key=lambda m: (m.modalities == card.modalities, m.n), default=None)


def describe_solid_core(rule: SolidCore) -> str:
    """Return in words the rule for tumors in which hardly any core is found."""
    return (
        f"if less than {rule.below_share:.0%} of the whole tumor is core, voxels deeper in it than "
        f"{rule.rim_share:.0%} of its greatest depth, and than {rule.rim_mm:g} mm, count as core too"
    )


def describe_context(card: ModelCard) -> str:
    """Return which slices besides its own a network sees, to follow a list; empty if none."""
    return "" if card.context_mm is None else f", with those {card.context_mm:g} mm above and below"


def card_as_markdown(card: ModelCard, path: Path | None = None) -> str:
    """Return everything on a card that a reader may want to know, as Markdown.

    Parameters
    ----------
    card
        The card.
    path
        The model's file, to show its size and checksum.

    Returns
    -------
    str
        Markdown that ends with a line break.
    """
    network = architecture_title(card)
    if card.options:
        network += f" ({', '.join(f'{name} {value}' for name, value in card.options.items())})"
    inputs = ", ".join(card.modalities) + (" or any of them" if card.accepts_missing else "")
    grid = " x ".join("own" if side is None else f"{side:g}" for side in card.spacing)
    cleaning = [f"components under {card.min_volume_ml:g} mL are removed"] if card.min_volume_ml else []
    cleaning += [f"less than {r.least_ml:g} mL of {r.name} is discarded" for r in card.regions if r.least_ml]
    if card.solid_core is not None:
        cleaning.append(describe_solid_core(card.solid_core))
    facts = {
        "Doubts": " ".join(card.doubts),
        "Model": f"{card.name}, version {card.version}" + (f", tuned from {card.parent}" if card.parent else ""),
        "Network": f"{network}, {card.parameters:,} parameters",
        "Takes": f"{inputs}; {card.plane} slices at {grid} mm (Z, Y, X){describe_context(card)}",
        "Seen with the skull": ", ".join(card.seen_with_skull or ()),
        "Finds": ", ".join(region.name for region in card.regions),
        "Probability threshold": f"{card.threshold:g}",
        "Post-processing": "; ".join(cleaning) or "none",
        "Time on two CPU cores": f"{card.cpu_seconds_per_slice:.3f} s per slice" if card.cpu_seconds_per_slice else "",
        "Intended use": card.intended_use,
        "Known failures": card.limitations,
        "License": card.license,
        "Made": card.created,
        "File": _describe_file(path) if path else "",
    }
    parts = ["\n".join(f"- **{name}**: {escape_markdown(text)}" for name, text in facts.items() if text)]
    if card.metrics:
        parts.append("### Measured\n" + _describe_metrics(card))
    if card.trained_on:
        sources = [(s.name, str(s.patients), ", ".join(s.defines), s.license, s.note) for s in card.trained_on]
        rows = [tuple(map(escape_markdown, source)) for source in sources]
        parts.append("### Trained on\n" + make_table(("set", "patients", "masks define", "license", ""), rows))
    patients = {
        "Chosen by": card.validation_patients,
        "Never seen": card.held_out_patients,
    }
    lines = [
        f"- **{who}** ({len(names)}): {escape_markdown(', '.join(names))}" for who, names in patients.items() if names
    ]
    if lines:
        parts.append("### Patients\n" + "\n".join(lines))
    if card.plans:
        parts.append(
            "### Trainings\n" + "\n".join(f"1. {escape_markdown(_describe_plan(plan))}" for plan in card.plans)
        )
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Escape Markdown in a text: names may contain brackets, tags and asterisks."""
    text = re.sub(r"([\\`*\[\]<>|&~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)  # inside a word it means nothing


def make_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _describe_metrics(card: ModelCard) -> str:
    """Return a row per figure, except Dice with fewer modalities, which goes into a table of modalities by regions."""
    rows, partial = [], []
    for m in card.metrics:
        if m.held_out and m.measure == VOLUME_DICE and m.modalities != card.modalities:
            partial.append(m)
            continue
        used = "all" if m.modalities == card.modalities else ", ".join(m.modalities)
        interval = f"{m.low:.2f} to {m.high:.2f}" if m.low is not None and m.high is not None else ""
        median = "" if m.median is None else f"{m.median:.3f}"
        seen = "no" if m.held_out else "yes"
        what = map(escape_markdown, (m.data, m.region, used, m.measure))
        rows.append((*what, f"{m.mean:.3f}", interval, median, str(m.n), seen))
    header = ("set", "region", "modalities", "measure", "mean", "95 % confidence", "median", "n", "seen in training")
    tables = [make_table(header, rows)] if rows else []
    if partial:
        tables.append("### With a subset of the modalities\nMean volume Dice, patients never seen:")
        tables.append(_arrange_by_modalities(partial))
    return "\n\n".join(tables)


def _arrange_by_modalities(metrics: Sequence[Metric]) -> str:
    means = {(m.modalities, m.data, m.region): f"{m.mean:.2f}" for m in metrics}
    columns = dict.fromkeys((m.data, m.region) for m in metrics)
    rows = [
        (escape_markdown(", ".join(modalities)), *(means.get((modalities, *column), "") for column in columns))
        for modalities in dict.fromkeys(m.modalities for m in metrics)
    ]
    return make_table(("modalities", *(escape_markdown(f"{data} {region}") for data, region in columns)), rows)


def _describe_file(path: Path) -> str:
    return f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, sha256 of its weights {read_weights_sha256(path)}"


def _describe_plan(plan: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in plan.items() if name not in ("name", "title"))

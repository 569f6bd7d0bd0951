"""Options that say what the numbers in labels mean: checked where they are read, the same for every command."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_braintumor.cli._console import check_usage
from napari_braintumor.engine.anatomy import CONVENTIONS, check_convention

NAMES = ", ".join(CONVENTIONS)


def check(convention: str | None) -> str | None:
    """Return a key of `CONVENTIONS` as it is; anything else ends the command."""
    if convention is not None:
        with check_usage():
            check_convention(convention)
    return convention


LabelsMean = Annotated[
    str | None,
    typer.Option(
        "--labels",
        callback=check,
        help=f"What the numbers in the labels mean, if their name or content does not say: {NAMES}.",
    ),
]
ReferenceMeans = Annotated[
    str | None, typer.Option("--reference-labels", callback=check, help="What the numbers in the reference mean.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

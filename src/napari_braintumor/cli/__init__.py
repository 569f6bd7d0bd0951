"""``napari-braintumor``: the engine from the command line, for one case or a whole cohort."""

from __future__ import annotations

import io
import sys

import typer

from napari_braintumor.cli import models
from napari_braintumor.cli.convert import convert
from napari_braintumor.cli.evaluate import evaluate
from napari_braintumor.cli.inspect import inspect
from napari_braintumor.cli.measure import measure
from napari_braintumor.cli.prepare import prepare
from napari_braintumor.cli.score import score
from napari_braintumor.cli.segment import demo, segment
from napari_braintumor.cli.train import train
from napari_braintumor.cli.visits import compare as compare_visits


def escape_unprintable() -> None:
    """Escape characters that the terminal cannot print, rather than fail over them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


app = typer.Typer(
    help="Segment brain tumors in MRI. Research only: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    callback=escape_unprintable,
)
for command in (inspect, prepare, segment, demo, measure, score, evaluate, train):
    app.command()(command)
app.command("compare-visits")(compare_visits)
app.command("convert-labels")(convert)
app.add_typer(models.app, name="models")

"""``prepare``: the scans of each case on one grid, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_braintumor.cli._console import (
    Cases,
    Channels,
    Failures,
    Out,
    Verbose,
    console,
    read_aligned,
    report_errors,
    split_modalities,
)
from napari_braintumor.cli._groups import AlignOptions, CaseOptions, expand_groups
from napari_braintumor.engine.files.prepared import write_prepared


@expand_groups
def prepare(
    cases: Cases,
    which: CaseOptions,
    aligning: AlignOptions,
    output: Out = Path("prepared"),
    modalities: Channels = None,
    interpolation: Annotated[str, typer.Option(help="linear or cubic.")] = "linear",
    verbose: Verbose = False,
) -> None:
    """Bring the scans of each case onto one grid; write them as NIfTI, with a record of how each got there.

    Segmenting does the same by itself. Each case gets a new folder, which is a case again; existing folders stay.
    """
    config = aligning.build(interpolation=interpolation)
    channels, failures = split_modalities(modalities), Failures(verbose)
    with report_errors():
        found = which.find(cases, channels, failures)
    with failures.report_end(len(found), output):
        for case in found:
            with failures.catch(case.name):
                volume = read_aligned(case, config)
                home = write_prepared(volume, output)
                shape = " x ".join(map(str, volume.shape))
                console.print(f"{volume.name}  {', '.join(volume.modalities)}  {shape} voxels: {home}")
                if volume.alignment is None:
                    console.print("  All scans share one grid, so they stay as they are.")
                for note in volume.notes:
                    console.print(f"  {note}")

"""``prepare``: the scans of each case on one grid, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_braintumor.cli._console import (
    N4,
    Cases,
    Channels,
    Failures,
    Out,
    Verbose,
    console,
    follow_phases,
    read_aligned,
    report_errors,
    split_modalities,
)
from napari_braintumor.cli._groups import AlignOptions, CaseOptions, expand_groups
from napari_braintumor.engine.files.prepared import write_prepared
from napari_braintumor.engine.inspecting.skull import see_skull
from napari_braintumor.engine.preparing.brain import HOW_TO_INSTALL, check_extraction
from napari_braintumor.engine.preparing.refining import refine
from napari_braintumor.engine.volumes import Volume


@expand_groups
def prepare(
    cases: Cases,
    which: CaseOptions,
    aligning: AlignOptions,
    output: Out = Path("prepared"),
    modalities: Channels = None,
    interpolation: Annotated[str, typer.Option(help="linear or cubic.")] = "linear",
    strip: Annotated[
        bool, typer.Option("--strip", help=f"Extract the brain of scans with the skull; needs {HOW_TO_INSTALL}.")
    ] = False,
    n4: N4 = False,
    verbose: Verbose = False,
) -> None:
    """Bring the scans of each case onto one grid; write them as NIfTI, with a record of how each got there.

    Segmenting does the same by itself, except for --strip and --n4, which change what is written. Each case gets a new
    folder, which is a case again; existing folders stay.
    """
    config = aligning.build(interpolation=interpolation)
    channels, failures = split_modalities(modalities), Failures(verbose)
    with report_errors():
        found = which.find(cases, channels, failures)
    with failures.report_end(len(found), output):
        for case in found:
            with failures.catch(case.name):
                volume = _refine(read_aligned(case, config), strip, n4)
                home = write_prepared(volume, output)
                shape = " x ".join(map(str, volume.shape))
                console.print(f"{volume.name}  {', '.join(volume.modalities)}  {shape} voxels: {home}")
                if volume.alignment is None:
                    console.print("  All scans share one grid, so they stay as they are.")
                for note in volume.notes:
                    console.print(f"  {note}")


def _refine(volume: Volume, strip: bool, n4: bool) -> Volume:
    if strip and not see_skull(volume):
        console.print(f"{volume.name}: the scans are skull-stripped already.")
        strip = False
    if strip:
        check_extraction(volume)
    return follow_phases(refine(volume, strip=strip, n4=n4))

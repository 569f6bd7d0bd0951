"""What may be done to the scans of a case before a network or another program sees them, if a person asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.preparing.bias import correct_bias
from napari_braintumor.engine.preparing.brain import extract_brain
from napari_braintumor.engine.volumes import Volume


def refine(volume: Volume, *, strip: bool = False, n4: bool = False) -> Iterator[PhaseReached | Volume]:
    """Extract the brain of a case, then correct slow changes of brightness in each of its scans.

    Parameters
    ----------
    volume
        The case.
    strip
        Set all but the brain to background, see `extract_brain`.
    n4
        Correct brightness, see `correct_bias`.

    Yields
    ------
    PhaseReached or Volume
        A phase before each part of the work, so that it can be shown and canceled; last the case, with a note on each
        thing that was done.

    Raises
    ------
    DataError
        If no brain is found.
    """
    if strip:
        yield PhaseReached("extracting the brain")
        volume = extract_brain(volume)
    if n4:
        data, done = volume.data.copy(), []
        for index, modality in enumerate(volume.modalities):
            yield PhaseReached(f"correcting the brightness of {modality}", index, len(volume.modalities))
            if (corrected := correct_bias(volume.data[index], volume.spacing)) is not None:
                data[index] = corrected
                done.append(modality)
        left = [modality for modality in volume.modalities if modality not in done]
        notes = [f"Slow changes of brightness were corrected (N4) in {', '.join(done)}."] if done else []
        notes += (
            [f"The brightness of {', '.join(left)} was left as it is: N4 needs a scanner's intensities."]
            if left
            else []
        )
        volume = replace(volume, data=data, notes=(*volume.notes, *notes))
    yield volume

"""Edits of the labels in a worker thread, one at a time; each becomes a single step that Ctrl+Z takes back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.layers import Edit, apply_labels, copy_labels
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.one_job import OneJob

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""From labels (Z, Y, X) to others."""


class Edits(OneJob):
    """Runs edits of one layer after another, and says in words what they did."""

    def begin(
        self,
        layer: Labels,
        words: str,
        change: Change,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Change a layer's labels in the background.

        Parameters
        ----------
        layer
            The layer.
        words
            What is done, as in "Holes filled".
        change
            Runs in a worker thread on a copy.
        before, after
            Called in the window before and after the labels are replaced.
        """
        if self.busy:
            return
        try:
            labels_ZYX = copy_labels(layer)
        except BrainTumorError as error:
            self.reported.emit(str(error))
            return
        job = Job(self, words, _change, change, labels_ZYX)

        def take(changed_ZYX: NDArray[np.uint8]) -> None:
            if not np.array_equal(copy_labels(layer), labels_ZYX):
                self.reported.emit("Nothing was changed, because the labels changed meanwhile. Do it again.")
                return
            if before is not None:
                before()
            edit = apply_labels(layer, changed_ZYX)
            if after is not None:
                after()
            self.reported.emit(describe(words, edit))

        self.start(job, take)


def _change(change: Change, labels_ZYX: NDArray[np.uint8]) -> Generator[Any, None, None]:
    yield change(labels_ZYX)


def describe(words: str, edit: Edit) -> str:
    """Say what an edit did, and which slices it left alone because they were reviewed."""
    if edit.voxels:
        count = "1 slice" if len(edit.slices) == 1 else f"{len(edit.slices)} slices"
        text = f"{words}: {count} changed. Ctrl+Z undoes it."
    else:
        text = f"{words}: nothing to change."
    if edit.locked:
        left = "1 reviewed slice was" if len(edit.locked) == 1 else f"{len(edit.locked)} reviewed slices were"
        text += f" {left} left as they were." if len(edit.locked) > 1 else f" {left} left as it was."
    return text

"""Write DICOM objects that belong together: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pydicom import Dataset

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.files.dicom.quiet import unheard


def save_objects(objects: Mapping[Path, Dataset]) -> None:
    """Write objects into files, none of which gets its name before all are written.

    Raises
    ------
    DataError
        If one of them cannot be written.
    """
    with unheard(), ExitStack() as stack:
        for path, made in objects.items():
            made.save_as(stack.enter_context(replacing(path)), enforce_file_format=True)

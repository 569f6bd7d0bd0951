"""A cache of prepared cases: in memory as far as the plan lets, on disk beyond."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.training.prepared import TrainingCase


class CaseCache:
    """Keeps cases in memory up to a bound, and those beyond it in files that the system maps as it needs them.

    Parameters
    ----------
    limit_bytes
        The bound.
    folder
        Takes the files.
    """

    def __init__(self, limit_bytes: float, folder: Path) -> None:
        self.left = limit_bytes
        self.folder = folder

    def keep(self, case: TrainingCase, files: CaseFiles) -> TrainingCase:
        """Return a case as it is, or with its arrays in files.

        Returns
        -------
        TrainingCase
            The same case, in memory or memory-mapped.

        Raises
        ------
        DataError
            If the files cannot be written.
        """
        self.left -= case.nbytes
        if self.left >= 0:
            return case
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            data, head, regions = (
                self._map(f"{_identify(files)}-{name}.npy", array)
                for name, array in (
                    ("image", case.prepared.data),
                    ("head", case.prepared.foreground),
                    ("regions", case.regions),
                )
            )
        except (OSError, DataError) as error:
            raise DataError(
                f"'{case.name}' cannot be cached in '{self.folder}': {error}. Make room there, or raise cache_gb."
            ) from error
        return replace(case, prepared=replace(case.prepared, data=data, foreground=head), regions=regions)

    def _map(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        path = self.folder / name
        with replacing(path) as temporary:  # another process may have mapped the one before
            np.save(temporary, array)
        mapped: NDArray[Any] = np.load(path, mmap_mode="r")
        return mapped


def _identify(case: CaseFiles) -> str:
    """Return what no two cases share and what every file system can hold, whatever they are called."""
    paths = [*(path for image in case.images for path in image.paths), *case.reference]
    identity = "\0".join((case.group, case.name, *(str(path.absolute()) for path in paths)))
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]

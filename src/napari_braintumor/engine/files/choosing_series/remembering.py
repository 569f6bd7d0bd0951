"""What the user chose from a table of series, kept for the next time: in the user's folder, never beside the scans.

A file holds digests of series and the modalities chosen for them, and nothing that names a patient or a path.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from platformdirs import user_data_path

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.choosing_series.rows import NO_MODALITY, SeriesRow
from napari_braintumor.engine.files.series import Series


def choices_folder() -> Path:
    """Return the folder of the user's choices; the environment variable ``BRAINTUMOR_CHOICES`` overrides it."""
    chosen = os.environ.get("BRAINTUMOR_CHOICES")
    return Path(chosen) if chosen else user_data_path("napari-braintumor", appauthor=False) / "choices"


def is_remembered(folder: Path) -> bool:
    """Whether anything was chosen for files in a folder."""
    return _path_for("folder", str(folder.absolute())).is_file()


def recall_choice(series: Sequence[Series]) -> dict[str, str]:
    """Read what the user chose for the series of a case.

    Parameters
    ----------
    series
        All series of the table; others may have been added since.

    Returns
    -------
    dict
        For the key of a series a modality, or `NO_MODALITY`; empty if nothing was chosen, or the file is damaged.
    """
    try:
        content = json.loads(_path_of(series).read_bytes())["series"]
        known = {str(key): str(modality) for key, modality in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {key: modality for key, modality in known.items() if modality in (*MODALITIES, NO_MODALITY)}


def remember_rows(rows: Sequence[SeriesRow]) -> None:
    """Write down what the user chose in a table of series; nothing chosen removes what was written.

    Raises
    ------
    DataError
        If the user's folder cannot be written to.
    """
    series = [row.series for row in rows]
    own = {row.key for row in rows}
    chosen = {key: modality for key, modality in recall_choice(series).items() if key not in own}  # of others beside it
    chosen |= {row.key: row.choice for row in rows if row.choice is not None}
    path = _path_of(series)
    try:
        if not chosen:
            with suppress(FileNotFoundError):
                path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"version": 1, "series": chosen}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"The choice of series cannot be kept in '{path.parent}': {error.strerror}. Make the folder writable, or "
            "set BRAINTUMOR_CHOICES to another one."
        ) from error


def _path_of(series: Sequence[Series]) -> Path:
    """Return the file for a case: named by its patient and day, or by the folder of files that name nobody."""
    first = series[0]
    patient = next((each.patient for each in series if each.patient), "")
    time = next((each.date or each.study for each in series if each.date or each.study), "")
    if patient or time:
        return _path_for("patient", patient, time)
    return _path_for("folder", str(first.paths[0].parent.absolute()))


def _path_for(*words: str) -> Path:
    digest = hashlib.blake2b("\0".join(words).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return choices_folder() / f"{digest}.json"

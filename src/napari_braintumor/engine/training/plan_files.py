"""Files of plans and splits: read in whichever Unicode an editor wrote them, and paths that may move with a run.

No torch here: docks and the command line read plans with this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.settings import describe_problem
from napari_braintumor.engine.training.plan import TrainPlan


def read_plan(path: Path) -> TrainPlan:
    """Read a plan from a JSON file.

    Returns
    -------
    TrainPlan
        The plan, validated.

    Raises
    ------
    SettingsError
        If it cannot be read, or has an unknown or impossible field.
    """
    try:
        return TrainPlan.model_validate_json(_read_json_text(path))
    except OSError as error:
        raise SettingsError(f"The plan '{path}' cannot be read: {error.strerror}. Check the path.") from error
    except (ValidationError, UnicodeDecodeError) as error:
        problem = describe_problem(error) if isinstance(error, ValidationError) else "it is not text"
        raise SettingsError(f"The plan '{path}' is not valid: {problem}. Correct it there.") from error


def _read_json_text(path: Path) -> str:
    """Read JSON in whichever Unicode an editor wrote it, with a byte order mark or without."""
    raw = path.read_bytes()
    return raw.decode(json.detect_encoding(raw))


def read_side(path: Path) -> dict[str, list[int] | None]:
    """Return the validation side of a run's ``split.json``: its cases, each with its slices or None for all.

    Returns
    -------
    dict
        Slice numbers by case, along Z from inferior; None stands for all slices.

    Raises
    ------
    SettingsError
        If the file is not one.
    """
    try:
        side: dict[str, list[int] | None] = json.loads(_read_json_text(path))["validation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"'{path}' is not the split.json of a run. Choose that of the run's folder.") from error
    return side


def make_paths_absolute(plan: TrainPlan, base: Path) -> TrainPlan:
    """Return a plan with absolute paths; relative ones start from a folder."""

    def absolute(path: Path) -> Path:
        return (base / path.expanduser()).resolve()

    return _with_paths(plan, absolute)


def make_paths_relative(plan: TrainPlan, folder: Path) -> TrainPlan:
    """Return a plan whose paths into a run's folder are relative to it, so that the folder can be moved."""
    return _with_paths(plan, lambda path: path.relative_to(folder) if path.is_relative_to(folder) else path)


def _with_paths(plan: TrainPlan, change: Callable[[Path], Path]) -> TrainPlan:
    update: dict[str, Any] = {"cases": tuple(change(path) for path in plan.cases), "output": change(plan.output)}
    if plan.vgg16 is not None:
        update["vgg16"] = change(plan.vgg16)
    if plan.start_from is not None and plan.start_from.endswith(".safetensors"):
        update["start_from"] = str(change(Path(plan.start_from)))
    if plan.fine_tuning is not None:
        replay = tuple(change(path) for path in plan.fine_tuning.replay)
        update["fine_tuning"] = plan.fine_tuning.model_copy(update={"replay": replay})
    return plan.model_copy(update=update)

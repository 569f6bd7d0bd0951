"""Options that several commands have, in groups, so that each is described once and means the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, get_type_hints

from napari_braintumor.cli._console import (
    N4,
    Device,
    Failures,
    KeepNames,
    MinVolume,
    Mirroring,
    Model,
    Onto,
    Registering,
    Runtime,
    Series,
    Skull,
    build_align_config,
    build_config,
    find_all,
)
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.choosing_series.changing import asks_to_choose
from napari_braintumor.engine.settings import DEFAULT_MODEL, AlignConfig, SegmentConfig

_HOW_TO_CHOOSE = "Choose one with --series T1=NUMBER; 'napari-braintumor inspect' lists the numbers."


@dataclass(frozen=True)
class CaseOptions:
    """Which series of a case are used, and how cases are named: for every command that takes cases."""

    series: Series = None
    keep_names: KeepNames = False

    def find(
        self, paths: Sequence[Path], modalities: tuple[str, ...] | None, failures: Failures, *, offer: bool = False
    ) -> list[CaseFiles]:
        """Find the cases of all paths, see `find_all`; where no series of a case fits, it says how to choose one."""
        found = find_all(paths, modalities, failures, keep_names=self.keep_names, picks=self.series, offer=offer)
        return [
            replace(case, problem=f"{case.problem} {_HOW_TO_CHOOSE}") if asks_to_choose(case) else case
            for case in found
        ]


@dataclass(frozen=True)
class AlignOptions:
    """How scans on different grids are brought onto one: for every command that reads scans."""

    onto: Onto = "auto"
    registration: Registering = "auto"

    def build(self, **more: Any) -> AlignConfig:
        """Return the settings, with more of them; see `build_align_config`."""
        return build_align_config(self.onto, self.registration, **more)


@dataclass(frozen=True)
class NetworkOptions:
    """The model and how it is run: for every command that segments cases."""

    model: Model = DEFAULT_MODEL
    device: Device = "auto"
    runtime: Runtime = "auto"
    mirroring: Mirroring = False
    min_volume_ml: MinVolume = None
    skull: Skull = "auto"
    n4: N4 = False

    def build(self, **more: Any) -> SegmentConfig:
        """Return the settings, with more of them; see `build_config`."""
        return build_config(
            model=self.model,
            device=self.device,
            runtime=self.runtime,
            test_time_mirroring=self.mirroring,
            min_volume_ml=self.min_volume_ml,
            skull=self.skull,
            n4=self.n4,
            **more,
        )


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of the groups among its parameters.

    Returns
    -------
    callable
        What Typer is shown: it takes the fields, and calls the command with the groups.
    """
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature(command, eval_str=True).parameters.items()
        if is_dataclass(parameter.annotation)
    }
    shown: list[Parameter] = []
    for name, parameter in signature(command, eval_str=True).parameters.items():
        if name not in groups:
            shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        shown += [
            Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
            for each in fields(groups[name])
        ]

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        command(**given)

    run.__signature__ = Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in shown}
    return run

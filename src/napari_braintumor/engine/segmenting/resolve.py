"""Check a volume, a model and settings against each other once; the result is ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from napari_braintumor.engine.devices import choose_device, openvino_core
from napari_braintumor.engine.errors import ModelError, SettingsError
from napari_braintumor.engine.inspecting.skull import see_skull
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.models.registry import ONNX, find_architecture, find_divisor
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.preparing.bias import check_correction
from napari_braintumor.engine.preparing.brain import HOW_TO_INSTALL, check_extraction
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume

FEW_SLICES = 5
"""A stack of this many slices or fewer shows only part of any tumor, so all slices are searched."""

SHEET_MM = 3.0
"""A component that spans less than this along Z is a sheet, not a tumor, however wide it is. So a search with slices
at most this far apart misses nothing that would be kept."""

_ROUNDING_MM = 1e-3


@dataclass(frozen=True, eq=False)
class SegmentTask:
    """Everything that is decided before the first voxel is read. Nothing in it needs to be checked again.

    Attributes
    ----------
    volume, config
        As given by the user; the volume without the modalities that are left out.
    card, path, sha256
        The model: its card, its file and the file's checksum.
    device, runtime
        Where the network runs, and what runs it: ``"openvino"`` or ``"torch"``.
    extracts_brain
        The brain is extracted before the case is prepared.
    divisor
        The sides of what the network sees must be multiples of this.
    search_step
        Tumor is searched for in every n-th slice; 1 searches all slices.
    threshold
        Probability above which a voxel belongs to a region.
    min_volume_ml
        Connected components of tumor smaller than this are removed.
    min_slices
        Connected components that span fewer slices are also removed, unless they touch the first or last slice.
    not_measurable
        Regions that are not drawn, each with the reason.
    notes
        Notes for the user before the network starts.
    """

    volume: AnyVolume
    config: SegmentConfig
    card: ModelCard
    path: Path
    sha256: str
    device: torch.device
    runtime: str
    extracts_brain: bool
    divisor: int
    search_step: int
    threshold: float
    min_volume_ml: float
    min_slices: int
    not_measurable: Mapping[str, str]
    notes: tuple[str, ...]


def resolve(volume: AnyVolume, config: SegmentConfig, all_regions: bool = False) -> SegmentTask:
    """Check a volume, a model and settings against each other, and decide how the volume is segmented.

    Parameters
    ----------
    volume
        One or more of the model's modalities, on one grid.
    config
        The model and how to run it.
    all_regions
        Also draw the regions that these modalities cannot show according to the model's card.

    Returns
    -------
    SegmentTask
        All that was decided; nothing is checked after it.

    Raises
    ------
    ModelError
        If the model does not exist, or does not fit the volume.
    SettingsError
        If the device, the runtime or the precision is not available or does not fit the model.
    """
    model = ModelStore().find(config.model)
    card = model.card
    assert card is not None
    check_modalities(card, volume)
    device, runtime = choose_where(card, config)
    check_precision(config.precision, runtime, device)
    min_volume_ml = card.min_volume_ml if config.min_volume_ml is None else config.min_volume_ml
    min_slices = choose_min_slices(volume, min_volume_ml)
    extracts_brain = config.skull == "strip" and bool(see_skull(volume))
    if extracts_brain:
        check_extraction(volume)
    if config.n4:
        check_correction(volume)
    left_out = find_left_out(card, volume, config)
    used = tuple(name for name in volume.modalities if name not in left_out)
    not_measurable = {} if all_regions else card.find_unmeasurable(used)
    return SegmentTask(
        volume=volume.with_modalities(used) if left_out else volume,
        config=config,
        card=card,
        path=model.path,
        sha256=file_sha256(model.path),
        device=device,
        runtime=runtime,
        extracts_brain=extracts_brain,
        divisor=find_divisor(card.architecture, card.options),
        search_step=choose_search_step(volume, config, min_volume_ml),
        threshold=config.threshold or card.threshold,
        min_volume_ml=min_volume_ml,
        min_slices=min_slices,
        not_measurable=not_measurable,
        notes=_first_notes(volume, card, left_out, not_measurable),
    )


def check_modalities(card: ModelCard, volume: AnyVolume) -> None:
    """Check that a model accepts a volume's modalities.

    Raises
    ------
    ModelError
        If the model needs modalities that the volume lacks, or takes slices of another thickness.
    """
    if card.spatial_dims == 2 and card.spacing[0] is not None:
        raise ModelError(
            f"The model '{card.name}' works on slices of {card.spacing[0]:g} mm, but a 2-D model must take slices as "
            "they are. Train it with a plan whose spacing along Z is null."
        )
    if missing := card.lacks(volume.modalities):
        raise ModelError(
            f"The model '{card.name}' needs {', '.join(card.modalities)}, but '{volume.name}' lacks "
            f"{', '.join(missing)}. Add the images, or choose a model that accepts missing modalities."
        )


def find_left_out(card: ModelCard, volume: AnyVolume, config: SegmentConfig) -> tuple[str, ...]:
    """Return the modalities of a volume that are not used because the model never saw them with the skull.

    Voxels are looked at only if that could be so.

    Returns
    -------
    tuple of str
        In the order of the model's; often empty.
    """
    if config.skull != "auto" or not card.leaves_out(volume.modalities, volume.modalities):
        return ()
    return card.leaves_out(volume.modalities, see_skull(volume))


def choose_where(card: ModelCard, config: SegmentConfig) -> tuple[torch.device, str]:
    """Return the device and the runtime for a model.

    Returns
    -------
    tuple
        The device, and ``"openvino"`` or ``"torch"``.

    Raises
    ------
    SettingsError
        If what was requested is not available, or the model cannot run on it.
    """
    requested, device = config.runtime, config.device
    if card.architecture == ONNX:
        if requested == "torch" or device not in ("auto", "cpu"):
            raise SettingsError(
                f"'{card.name}' is an ONNX graph, which OpenVINO runs on the CPU. Choose the device auto or cpu, and "
                "the runtime auto."
            )
        requested, device = "openvino", "cpu"
    elif not find_architecture(card.architecture).convertible:
        if requested == "openvino":
            raise SettingsError(f"'{card.name}' cannot be converted for OpenVINO. Choose the runtime auto or torch.")
        requested = "torch"
    chosen = choose_device(device)
    return chosen, choose_runtime(requested, chosen)


def choose_runtime(requested: str, device: torch.device) -> str:
    """Choose the runtime, ``"openvino"`` or ``"torch"``.

    Returns
    -------
    str
        ``"openvino"`` or ``"torch"``.

    Raises
    ------
    SettingsError
        If OpenVINO is requested but not installed, or is not used on this device.
    """
    installed = find_spec("openvino") is not None
    if requested == "auto":
        return "openvino" if installed and device.type == "cpu" else "torch"
    if requested == "openvino" and not installed:
        raise SettingsError("OpenVINO is not installed. Run 'pip install openvino', or choose the runtime torch.")
    if requested == "openvino" and device.type != "cpu":
        raise SettingsError(
            f"OpenVINO runs on the CPU here, not on '{device.type}'. Choose the device cpu, or the runtime torch."
        )
    return requested


def check_precision(requested: str, runtime: str, device: torch.device) -> None:
    """Raise an error for a reduced precision that a device does not support.

    Raises
    ------
    SettingsError
        If the precision is not supported.
    """
    if requested != "bfloat16":
        return
    if device.type == "cuda":
        able = torch.cuda.get_device_capability(device) >= (8, 0)
    elif runtime == "openvino":
        able = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    else:
        able = False  # torch would be slower than with float32
    if not able:
        raise SettingsError(
            f"bfloat16 is not supported here ({device.type}, {runtime}), so it would be slower, not faster. Choose the "
            "precision auto."
        )


def choose_min_slices(volume: AnyVolume, min_volume_ml: float) -> int:
    """Return the least number of slices that a tumor spans; 1 if thin tumor is kept."""
    if _keeps_thin_tumor(volume, min_volume_ml):
        return 1
    return max(1, int((SHEET_MM + _ROUNDING_MM) // volume.spacing[0]))


def choose_search_step(volume: AnyVolume, config: SegmentConfig, min_volume_ml: float) -> int:
    """Return the step between slices in which tumor is searched for; 1 searches all slices.

    All slices are searched if thin tumor is kept, if probabilities are requested, or if many slices are stored
    together, because reading some would then cost as much as reading all.

    Returns
    -------
    int
        Slices from one searched slice to the next.
    """
    if config.probabilities or volume.slab_slices > 1 or _keeps_thin_tumor(volume, min_volume_ml):
        return 1
    return max(1, int((config.search_step_mm + _ROUNDING_MM) // volume.spacing[0]))


def _keeps_thin_tumor(volume: AnyVolume, min_volume_ml: float) -> bool:
    """Return whether every voxel is kept, the stack has few slices, or the slice thickness is not known."""
    every_voxel_counts = round(min_volume_ml / volume.source.voxel_ml) <= 1
    return every_voxel_counts or not volume.source.spacing_known or volume.shape[0] <= FEW_SLICES


def _first_notes(
    volume: AnyVolume, card: ModelCard, left_out: tuple[str, ...], not_measurable: Mapping[str, str]
) -> tuple[str, ...]:
    notes = list(volume.notes)
    if left_out:
        names, (were, them) = " and ".join(left_out), ("were", "them") if len(left_out) > 1 else ("was", "it")
        needs = "" if find_spec("deepbet") else f"; it needs {HOW_TO_INSTALL}"
        notes.append(
            f"{names} {were} left out: {card.name} has never seen {names} with the skull. Extracting the brain "
            f"would let {them} be used (skull: strip{needs})."
        )
    ignored = [name for name in volume.modalities if name not in card.modalities]
    if ignored:
        notes.append(f"The model does not use {', '.join(ignored)}.")
    if not volume.source.spacing_known:
        notes.append("The voxel size is not known, so mm and mL are guesses.")
    notes += [f"{name.capitalize()} is not drawn: {reason}." for name, reason in not_measurable.items()]
    return tuple(notes)

"""A volume and a model in, events and a segmentation out; logits are thresholded chunk by chunk to bound memory."""

# N batch, M modality, R region, Z slice, Y row, X column

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import labels_by_region
from napari_braintumor.engine.errors import ModelError, SettingsError
from napari_braintumor.engine.events import Noted, Segmented, SegmentEvent, SlicesDone, Started
from napari_braintumor.engine.inspecting.inspection import inspect_few
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.registry import ONNX, find_architecture, find_divisor
from napari_braintumor.engine.models.store import ModelStore, file_sha256
from napari_braintumor.engine.preparing.components import SLAB_SLICES, Parts
from napari_braintumor.engine.preparing.transforms import (
    Survey,
    group_slices,
    prepare_slices,
    read_together,
    survey_for,
)
from napari_braintumor.engine.segmenting.conversion import load_converted
from napari_braintumor.engine.segmenting.runtime import (
    Ladder,
    choose_device,
    choose_runtime,
    describe_device,
    start_ladder,
    start_runner,
    with_room,
)
from napari_braintumor.engine.segmenting.windows import choose_window, in_network_order, run_windows
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume, Segmentation, Volume

CHUNK_SLICES = 8
"""Slices that go through the network together; logits of three such chunks are in memory at most."""

FEW_SLICES = 5
"""A stack of no more slices shows a tumor in part, wherever it lies, and is searched in full."""

OUTSIDE_HEAD = -30.0
"""The logit of air."""


def segment(volume: AnyVolume, config: SegmentConfig, all_regions: bool = False) -> Iterator[SegmentEvent]:
    """Segment a volume.

    Regions that the model's card says these modalities cannot show are not drawn; `Segmentation.not_measurable` names
    them.

    Parameters
    ----------
    volume
        One to all of the model's modalities on one grid.
    config
        The model and how to run it.
    all_regions
        Draw every region all the same: for measuring, since it is from there that the card knows.

    Yields
    ------
    SegmentEvent
        `Noted` for what the user should know, `Started` when the network is ready, `SlicesDone` after each chunk, and
        `Segmented` last.

    Raises
    ------
    BrainTumorError
        If the volume or the settings do not fit the model.
    """
    started = time.perf_counter()
    model = ModelStore().find(config.model)
    card = model.card
    assert card is not None
    check_modalities(card, volume)
    device, runtime = choose_where(card, config)
    notes: list[str] = []

    def note(text: str) -> Noted:
        notes.append(text)
        return Noted(text)

    yield from map(note, volume.notes)
    ignored = [name for name in volume.modalities if name not in card.modalities]
    if ignored:
        yield note(f"The model does not use {', '.join(ignored)}.")
    if not volume.source.spacing_known:
        yield note("The voxel size is not known, so mm and mL are guesses.")
    not_measurable = {} if all_regions else card.not_measurable(volume.modalities)
    for name, reason in not_measurable.items():
        yield note(f"{name.capitalize()} is not drawn: {reason}.")

    divisor = find_divisor(card.architecture, card.options)
    known = survey_for(card, volume, divisor)
    for text in inspect_few(known.thumbnails).findings:
        yield note(text)

    window = choose_window(card, known.head.shape, divisor) if card.spatial_dims == 3 else known.head.shape[1:]
    shape = (len(card.modalities), *in_network_order(window, card))
    sha256 = file_sha256(model.path)
    ladder = start_ladder(
        lambda: start_runner(model.path, sha256, runtime, device, shape, config.precision),
        lambda: start_runner(model.path, sha256, "torch", torch.device("cpu"), shape),
        config.batch_size,
    )
    yield from map(note, ladder.notes)
    yield Started(describe_device(ladder.runner.device), ladder.runner.runtime)
    voxel_ml = volume.source.voxel_ml
    min_volume_ml = card.min_volume_ml if config.min_volume_ml is None else config.min_volume_ml
    nesting = _zeros(volume, volume.shape, np.uint8)
    probabilities = _zeros(volume, (len(card.regions), *volume.shape), np.float16) if config.probabilities else None
    if card.spatial_dims == 3:
        yield from _look_through_windows(volume, card, known, ladder, config, window, note, nesting, probabilities)
    else:
        step = choose_search_step(volume, config, min_volume_ml)
        yield from _look_through_slices(volume, card, known, ladder, config, step, note, nesting, probabilities)

    leave_out(nesting, card, not_measurable)
    remove_islands(
        nesting, round(min_volume_ml / voxel_ml), config.keep_largest, largest_section(volume, min_volume_ml)
    )
    drop_small_regions(nesting, card, voxel_ml, not_measurable)
    counted = zip(card.regions, count_voxels(nesting, card), strict=True)
    volumes_ml = {region.name: n * voxel_ml for region, n in counted if region.name not in not_measurable}
    paint_labels(nesting, card)
    yield Segmented(
        Segmentation(
            labels=nesting,
            label_names={region.label: region.label_name for region in card.regions},
            label_colors={region.label: region.color for region in card.regions},
            regions=labels_by_region(card.regions),
            volumes_ml=volumes_ml,
            source=volume.source,
            name=volume.name,
            provenance={
                "program": "napari-braintumor",
                "model": card.name,
                "model_version": card.version,
                "model_sha256": sha256,
                "modalities_used": [name for name in card.modalities if name in volume.modalities],
                "settings": config.model_dump(mode="json"),
                "device": ladder.runner.device.type,
                "runtime": ladder.runner.runtime,
                "seconds": round(time.perf_counter() - started, 2),
                "notes": notes,
                "not_measurable": not_measurable,
                "intended_use": card.intended_use,
            },
            probabilities=probabilities,
            not_measurable=not_measurable,
        )
    )


def _look_through_slices(
    volume: AnyVolume,
    card: ModelCard,
    known: Survey,
    ladder: Ladder,
    config: SegmentConfig,
    step: int,
    note: Callable[[str], Noted],
    nesting: Any,
    probabilities: Any | None,
) -> Iterator[SlicesDone | Noted]:
    """Fill in what a 2-D network finds in the slices that hold head."""
    slices = np.flatnonzero(known.head.any((1, 2)))
    hits: list[int] = []
    noted, done = len(ladder.notes), 0
    for looked_at in _rounds(slices, hits, step):
        for chunk, logits_NRHW in predict(volume, card, known, looked_at, ladder, config.test_time_mirroring):
            found, logits_RZYX = restore(known, chunk, logits_NRHW, config.threshold or card.threshold)
            for index, plane in zip(chunk, found, strict=True):
                if plane.any():
                    nesting[known.box[0].start + index] = plane
                    hits.append(int(index))
            if probabilities is not None:
                for index, logits in zip(chunk, logits_RZYX.transpose(0, 1), strict=True):
                    probabilities[:, known.box[0].start + index] = with_room(torch.sigmoid, logits).half().cpu().numpy()
            yield from map(note, ladder.notes[noted:])
            noted = len(ladder.notes)
            done += len(chunk)
            yield SlicesDone(done, len(slices))
    if done < len(slices):
        yield SlicesDone(len(slices), len(slices))


def _look_through_windows(
    volume: AnyVolume,
    card: ModelCard,
    known: Survey,
    ladder: Ladder,
    config: SegmentConfig,
    window: tuple[int, int, int],
    note: Callable[[str], Noted],
    nesting: Any,
    probabilities: Any | None,
) -> Iterator[SlicesDone | Noted]:
    """Fill in what a 3-D network finds in the whole case."""
    slices, noted = len(known.head), len(ladder.notes)
    data_MZYX = torch.from_numpy(prepare_slices(volume, card.modalities, known, np.arange(slices)))
    running = run_windows(data_MZYX, card, window, lambda batch: _run(ladder, batch, card, config.test_time_mirroring))
    try:
        while True:
            done, windows = next(running)
            yield SlicesDone(slices * done // windows, slices)
    except StopIteration as ended:
        logits_RZYX = ended.value
    finally:
        running.close()
    yield from map(note, ladder.notes[noted:])
    outside = torch.from_numpy(~known.head)[:, None]
    logits_RZYX = nest_logits(logits_RZYX.transpose(0, 1)).masked_fill(outside, OUTSIDE_HEAD).transpose(0, 1)
    limit = _logit(config.threshold or card.threshold)
    for index in range(len(card.regions)):  # one at a time, on the case's own grid each is as large as a scan
        region_ZYX = known.restore_whole(logits_RZYX[index : index + 1])[0]
        for z, plane in enumerate(region_ZYX):
            inside = (plane > limit).numpy()
            if inside.any():
                nesting[z] = nesting[z] + inside
            if probabilities is not None:
                probabilities[index, z] = plane.sigmoid().half().numpy()


def warm_up(config: SegmentConfig) -> None:
    """Load the runtime, and convert the model if it has to be, so that the first segmentation starts sooner.

    Raises
    ------
    BrainTumorError
        If the settings do not fit this computer, or there is no such model.
    """
    model = ModelStore().find(config.model)
    assert model.card is not None
    if choose_where(model.card, config)[1] == "openvino":
        load_converted(model.path, file_sha256(model.path))


def choose_where(card: ModelCard, config: SegmentConfig) -> tuple[torch.device, str]:
    """Return the device and the runtime for a model.

    Raises
    ------
    SettingsError
        If what is wanted is not there, or the model cannot run on it.
    """
    wanted, device = config.runtime, config.device
    if card.architecture == ONNX:
        if wanted == "torch" or device not in ("auto", "cpu"):
            raise SettingsError(
                f"'{card.name}' is an ONNX graph, which OpenVINO runs on the CPU. Choose the device auto or cpu, and "
                "the runtime auto."
            )
        wanted, device = "openvino", "cpu"
    elif not find_architecture(card.architecture).convertible:
        if wanted == "openvino":
            raise SettingsError(f"'{card.name}' cannot be converted for OpenVINO. Choose the runtime auto or torch.")
        wanted = "torch"
    chosen = choose_device(device)
    return chosen, choose_runtime(wanted, chosen)


def check_modalities(card: ModelCard, volume: AnyVolume) -> None:
    """Hold a volume's modalities against what a model accepts.

    Raises
    ------
    ModelError
        If the model needs modalities that the volume lacks, or takes slices of another thickness.
    """
    if card.spatial_dims == 2 and card.spacing[0] is not None:
        raise ModelError(
            f"The model '{card.name}' works on slices of {card.spacing[0]:g} mm, but a 2-D model takes slices as they "
            "are. Train it with a plan whose spacing along Z is null."
        )
    if missing := card.lacks(volume.modalities):
        raise ModelError(
            f"The model '{card.name}' needs {', '.join(card.modalities)}, but '{volume.name}' lacks "
            f"{', '.join(missing)}. Add the images, or choose a model that accepts missing modalities."
        )


def choose_search_step(volume: AnyVolume, config: SegmentConfig, min_volume_ml: float) -> int:
    """Return how many slices on the next one lies that is searched for tumor; 1 looks at all slices.

    Tumor that appears in none of the slices searched is thinner than the step, but may be wide: so a step is taken only
    where one is asked for. All slices are looked at where no tumor is too small to be kept, where probabilities are
    wanted, in stacks of few slices, and where slices are stored many together: reading some would cost as much as
    reading all.
    """
    if config.probabilities or not min_volume_ml or not volume.source.spacing_known or volume.slab_slices > 1:
        return 1
    if volume.shape[0] <= FEW_SLICES:
        return 1
    return max(1, int(config.search_step_mm // volume.spacing[0]))


def _rounds(slices: NDArray[np.intp], hits: list[int], step: int) -> Iterator[NDArray[np.intp]]:
    """Yield the slices that are searched, and then those that are nearer than a step to one that was hit meanwhile."""
    searched = slices[step // 2 :: step]
    yield searched
    near = (np.abs(slices[:, None] - np.array(hits, np.intp)) < step).any(1)
    yield np.setdiff1d(slices[near], searched)


def predict(
    volume: AnyVolume,
    card: ModelCard,
    known: Survey,
    slices: NDArray[np.intp],
    ladder: Ladder,
    mirroring: bool,
) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
    """Run slices of a surveyed case through the network.

    While one chunk runs, the one before is with the caller and the next is read and prepared.

    Yields
    ------
    tuple
        The slices of the crop in a chunk, and their logits ``(N, R, y, x)`` on the crop.
    """
    worker = ThreadPoolExecutor(max_workers=1)
    waiting: tuple[NDArray[np.intp], Future[torch.Tensor]] | None = None
    try:
        for chunk, batch_NMHW in _prepared_chunks(volume, card, known, slices, max(CHUNK_SLICES, ladder.batch_size)):
            running = worker.submit(_run, ladder, batch_NMHW, card, mirroring)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = chunk, running
        if waiting is not None:
            yield waiting[0], waiting[1].result()
    finally:
        worker.shutdown(cancel_futures=True)


def _prepared_chunks(
    volume: AnyVolume, card: ModelCard, known: Survey, slices: NDArray[np.intp], size: int
) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
    """Yield slices in chunks of at most some size, with their images ``(N, M, y, x)``."""
    first = known.box[0].start
    together = read_together(volume) if volume.slab_slices > 1 else None
    slabs = _chunks(slices, size) if together is None else (s - first for s in group_slices(slices + first, together))
    for slab in slabs:
        if not len(slab):
            continue
        data_MZYX = prepare_slices(volume, card.modalities, known, slab)
        for chunk in _chunks(np.arange(len(slab)), size):
            yield slab[chunk], torch.from_numpy(np.ascontiguousarray(data_MZYX[:, chunk].swapaxes(0, 1)))


def _chunks(array: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


def _run(ladder: Ladder, batch: torch.Tensor, card: ModelCard, mirroring: bool) -> torch.Tensor:
    """Return the logits of a card's regions, of slices or of windows."""

    def run(images: torch.Tensor) -> torch.Tensor:
        return with_room(lambda output: to_regions(output, card), ladder(images))

    logits = run(batch)
    if not mirroring:
        return logits
    left_right = -1 if card.axes == "LPS zyx" else -3
    mirrored = run(batch.flip(left_right)).flip(left_right)
    if mirrored.device != logits.device:  # memory ran out in between
        logits, mirrored = logits.cpu(), mirrored.cpu()
    return (logits + mirrored) / 2


def to_regions(output: torch.Tensor, card: ModelCard) -> torch.Tensor:
    """Turn a network's output ``(N, C, ...)`` into the logits ``(N, R, ...)`` of a card's regions."""
    if card.channels is None:
        return output
    if card.activation == "sigmoid":
        return output[:, [channel for (channel,) in card.channels]]
    regions = []
    for inside in card.channels:
        outside = [channel for channel in range(output.shape[1]) if channel not in inside]
        regions.append(output[:, list(inside)].logsumexp(1) - output[:, outside].logsumexp(1))
    return torch.stack(regions, dim=1)


def restore(
    known: Survey, slices: NDArray[np.intp], logits_NRHW: torch.Tensor, threshold: float
) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Bring the logits of some slices back to the case's own grid and threshold them, on the device where they are.

    Returns
    -------
    tuple
        In how many of the nested regions each voxel lies, uint8 ``(len(slices), Y, X)``; and the logits
        ``(R, len(slices), Y, X)``, nested by `nest_logits`.
    """

    def restore_there(logits: torch.Tensor) -> tuple[NDArray[np.uint8], torch.Tensor]:
        outside = torch.from_numpy(~known.head[slices])[:, None].to(logits.device)
        logits_RZYX = known.restore(nest_logits(logits).masked_fill(outside, OUTSIDE_HEAD).transpose(0, 1))
        return (logits_RZYX > _logit(threshold)).sum(0, dtype=torch.uint8).cpu().numpy(), logits_RZYX

    return with_room(restore_there, logits_NRHW)


def nest_logits(logits_NRHW: torch.Tensor) -> torch.Tensor:
    """Make nested regions agree: no inner region is more likely than the one around it.

    Where a network contradicts itself, the logits of the regions concerned are averaged; elsewhere nothing changes.
    Taking the outer region's word alone would lose enhancing tumor where a missing modality hides the rest; taking the
    inner region's word alone would add its false alarms to the whole tumor.

    Parameters
    ----------
    logits_NRHW
        Regions outermost first.

    Returns
    -------
    Tensor
        The closest logits, in the least-squares sense, that do not rise from outer to inner regions.

    References
    ----------
    Barlow et al. 1972, Statistical Inference under Order Restrictions: the min-max formula of isotonic regression.
    """
    regions = logits_NRHW.shape[1]
    sums = torch.nn.functional.pad(logits_NRHW.cumsum(1), (0, 0, 0, 0, 1, 0))

    def mean(first: int, last: int) -> torch.Tensor:
        return (sums[:, last + 1] - sums[:, first]) / (last + 1 - first)

    fitted = []
    for region in range(regions):
        highest = [
            torch.stack([mean(outer, inner) for inner in range(region, regions)]).amax(0) for outer in range(region + 1)
        ]
        fitted.append(torch.stack(highest).amin(0))
    return torch.stack(fitted, dim=1)


def largest_section(volume: AnyVolume, ml: float) -> int:
    """Return how many voxels the largest slice through a sphere of some volume has on a case's grid."""
    radius_mm = (3000 * ml / (4 * np.pi)) ** (1 / 3)
    pixel_mm2 = 1000 * volume.source.voxel_ml / volume.spacing[0]
    return max(1, round(float(np.pi * radius_mm**2 / pixel_mm2)))


def remove_islands(nesting_ZYX: Any, min_vox: int, keep_largest: bool, section_vox: int | None = None) -> None:
    """Remove small connected tumors (26-neighborhood), in place.

    Of a tumor that reaches the first or the last slice, or lies in a stack of few slices, the stack shows a part only.
    It stays where that part is, in one of the slices, as large as the smallest tumor that is kept would be there.

    Parameters
    ----------
    nesting_ZYX
        In how many of the nested regions each voxel lies; what lies in any is connected. An array or a zarr array.
    min_vox
        Tumors of fewer voxels are removed.
    keep_largest
        Remove all but the largest.
    section_vox
        From `largest_section`; None goes by the voxels alone.
    """
    if min_vox <= 1 and not keep_largest:
        return
    parts = Parts(lambda start, stop: nesting_ZYX[start:stop] > 0, nesting_ZYX.shape[0], diagonal=True)
    kept = parts.sizes >= min_vox
    if section_vox is not None and not kept.all():
        areas, at_ends = parts.measure_slices()
        kept |= (areas >= section_vox) & (at_ends | (nesting_ZYX.shape[0] <= FEW_SLICES))
    if keep_largest and len(kept):
        kept &= np.arange(len(kept)) == parts.sizes.argmax()
    if kept.all():
        return
    for start, stop, mask in parts.keep(kept):
        nesting_ZYX[start:stop] = nesting_ZYX[start:stop] * mask


def count_voxels(nesting_ZYX: Any, card: ModelCard) -> list[int]:
    """Return how many voxels each of a model's nested regions has."""
    voxels = [0] * len(card.regions)
    for start, stop in _slabs(nesting_ZYX):
        slab = nesting_ZYX[start:stop]
        for index in range(len(voxels)):
            voxels[index] += int(np.count_nonzero(slab > index))
    return voxels


def leave_out(nesting_ZYX: Any, card: ModelCard, names: Collection[str]) -> None:
    """Count, in place, what lies in regions that are left out as the region around them that is not.

    So no voxel is painted as one of them; what lies in none of the others becomes 0, and what lies further in stays.
    """
    if not names:
        return
    innermost = [0]
    for number, region in enumerate(card.regions, start=1):
        innermost.append(innermost[-1] if region.name in names else number)
    _replace_numbers(nesting_ZYX, innermost)


def drop_small_regions(nesting_ZYX: Any, card: ModelCard, voxel_ml: float, left_out: Collection[str] = ()) -> None:
    """Empty, in place, the regions of which less was found than a card says is worth believing, and all within them."""
    if not any(region.least_ml for region in card.regions):
        return
    for index, (region, voxels) in enumerate(zip(card.regions, count_voxels(nesting_ZYX, card), strict=True)):
        if region.name not in left_out and voxels * voxel_ml < region.least_ml:
            for start, stop in _slabs(nesting_ZYX):
                nesting_ZYX[start:stop] = np.minimum(nesting_ZYX[start:stop], index)
            leave_out(nesting_ZYX, card, left_out)
            return


def paint_labels(nesting_ZYX: Any, card: ModelCard) -> None:
    """Turn, in place, the number of nested regions that a voxel lies in into the label of the innermost."""
    _replace_numbers(nesting_ZYX, [0, *(region.label for region in card.regions)])


def _replace_numbers(array_ZYX: Any, by: Sequence[int]) -> None:
    """Replace, in place, each number by that which stands in its place; 0 stays 0."""
    table = np.array(by, np.uint8)
    for start, stop in _slabs(array_ZYX):
        slab = array_ZYX[start:stop]
        if slab.any():
            array_ZYX[start:stop] = table[slab]


def _slabs(array: Any) -> Iterator[tuple[int, int]]:
    for start in range(0, array.shape[0], SLAB_SLICES):
        yield start, min(start + SLAB_SLICES, array.shape[0])


def _zeros(volume: AnyVolume, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array of zeros: of NumPy, or for a case that is streamed of zarr, compressed in memory."""
    if isinstance(volume, Volume):
        return np.zeros(shape, dtype)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *shape[-2:])
    return zarr.create_array(zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype=dtype, fill_value=0)


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))

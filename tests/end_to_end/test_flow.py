"""The flow of one click, as a trace of the calls: each part of the program is entered once, in order."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from napari.components import ViewerModel

from napari_braintumor import engine
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.layers import select_layers, update_or_add_labels
from napari_braintumor.widgets.segmenting.running import segment_selection
from open_layers import open_case
from toy_cases import make_case, write_case

PARTS = {
    "napari_braintumor.layers": "files or layers",
    "napari_braintumor.engine.files": "files or layers",
    "napari_braintumor.engine.segmenting.resolve": "resolve",
    "napari_braintumor.engine.preparing": "preparing",
    "napari_braintumor.engine.segmenting.network": "network",
    "napari_braintumor.engine.segmenting.regions": "regions",
    "napari_braintumor.engine.segmenting.cleaning": "cleaning",
}
WITHOUT_VOXELS = {
    ("network", "__init__"),  # loads the model
    ("regions", "empty"),  # makes the arrays that take the result
}
WAY = ["files or layers", "resolve", "preparing", "network", "regions", "cleaning", "files or layers"]


def find_part(frame: FrameType | None) -> str | None:
    name = frame.f_globals.get("__name__", "") if frame else ""
    return next((part for prefix, part in PARTS.items() if f"{name}.".startswith(f"{prefix}.")), None)


def is_within_a_part(frame: FrameType | None) -> bool:
    while frame is not None:
        if find_part(frame):
            return True
        frame = frame.f_back
    return False


@contextmanager
def traced(entered: list[tuple[str, str]]) -> Iterator[None]:
    """Note which part each call enters; what a part itself calls is its own affair, and so is when a generator ends."""
    generators: set[FrameType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_name
        if event != "call" or name == "<module>" or frame in generators:  # imports; only resumed
            return
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            generators.add(frame)
        if (part := find_part(frame)) and (part, name) not in WITHOUT_VOXELS and not is_within_a_part(frame.f_back):
            entered.append((part, name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.fixture
def config(tmp_path: Path) -> SegmentConfig:
    """A model of fresh weights that looks at all slices of a case at once."""
    torch.manual_seed(0)
    network = build_network("unet", in_channels=4, out_channels=3, options={"width": 2})
    card = ModelCard(name="fresh", architecture="unet", options={"width": 2})
    path = save_model(tmp_path / "fresh.safetensors", dict(network.state_dict()), card)
    return SegmentConfig(model=str(path), device="cpu", runtime="torch", search_step_mm=0, min_volume_ml=0)


def click_in_napari(config: SegmentConfig, _: Path) -> None:
    viewer = ViewerModel()
    layers = open_case(viewer, make_case(0, (6, 72, 64))[0])
    selection = select_layers(layers)
    *_, segmented = segment_selection(selection, config)
    update_or_add_labels(viewer, segmented.segmentation, selection.placement)


def segment_a_file(config: SegmentConfig, folder: Path) -> None:
    volume, reference = make_case(0, (6, 72, 64))
    (case,) = find_cases(write_case(folder, volume, reference))
    *_, segmented = engine.segment(read_case(case), config)
    write_labels(segmented.segmentation.labels, segmented.segmentation.source, folder / "tumor.nii.gz")


@pytest.mark.parametrize("work", [click_in_napari, segment_a_file])
def test_a_volume_enters_each_part_once_and_in_order(
    work: Callable[[SegmentConfig, Path], None], config: SegmentConfig, tmp_path: Path
) -> None:
    entered: list[tuple[str, str]] = []
    with traced(entered):
        work(config, tmp_path)
    assert [part for part, _ in groupby(part for part, _ in entered)] == WAY, entered

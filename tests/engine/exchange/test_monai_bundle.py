from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DynUNet, SegResNet, SwinUNETR
from scipy import ndimage
from tiny import TINY, store_tiny
from torch import nn

from napari_braintumor.engine import segment
from napari_braintumor.engine.errors import DataError, DescriptionNeeded, ModelError
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.exchange.monai import reading, writing
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.inspecting import foreground
from napari_braintumor.engine.models.card import ModelCard, SolidCore
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import load_weights, save_model
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.preparing.context import take_images
from napari_braintumor.engine.preparing.prepare import prepare_for
from napari_braintumor.engine.segmenting.cleaning import fill_solid_core
from napari_braintumor.engine.settings import SegmentConfig

_TENSOR = {
    "type": "object",
    "required": [
        "type",
        "format",
        "num_channels",
        "spatial_shape",
        "dtype",
        "value_range",
        "is_patch_data",
        "channel_def",
    ],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {"type": "string"},
        "modality": {"type": "string"},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1, "maxItems": 3},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_TEXTS = [
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "task",
    "description",
    "authors",
    "copyright",
    "data_source",
    "data_type",
    "image_classes",
    "label_classes",
    "pred_classes",
    "intended_use",
]
METADATA_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": [*_TEXTS, "changelog", "required_packages_version", "network_data_format"],
    "properties": {
        **{name: {"type": "string"} for name in _TEXTS},
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "eval_metrics": {"type": "object", "additionalProperties": {"type": "number"}},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"type": "object", "required": ["image"], "additionalProperties": _TENSOR},
                "outputs": {"type": "object", "required": ["pred"], "additionalProperties": _TENSOR},
            },
        },
    },
}
"""Written after the fields of MONAI's bundle specification, as the published schema cannot be fetched offline."""

PUBLIC_OPTIONS: dict[str, Any] = {
    "blocks_down": [1, 2, 2, 4],
    "blocks_up": [1, 1, 1],
    "init_filters": 16,
    "in_channels": 4,
    "out_channels": 3,
    "dropout_prob": 0.2,
}
PUBLIC_METADATA: dict[str, Any] = {
    "version": "0.5.3",
    "monai_version": "1.4.0",
    "name": "BraTS MRI segmentation",
    "task": "Multimodal Brain Tumor segmentation",
    "copyright": "Copyright (c) MONAI Consortium",
    "intended_use": "This is an example, not to be used for diagnostic purposes",
    "network_data_format": {
        "inputs": {
            "image": {"num_channels": 4, "channel_def": {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}},
        },
        "outputs": {
            "pred": {
                "num_channels": 3,
                "channel_def": {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"},
            },
        },
    },
}
PUBLIC_CONFIGURATION: dict[str, Any] = {
    "imports": ["$import os"],
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {"_target_": "SegResNet", **PUBLIC_OPTIONS},
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [240, 240, 160], "sw_batch_size": 1, "overlap": 0.5},
}
"""What the public bundle brats_mri_segmentation says, as far as it matters here."""


def write_bundle(
    folder: Path,
    weights: Any,
    metadata: dict[str, Any] = PUBLIC_METADATA,
    configuration: dict[str, Any] | None = PUBLIC_CONFIGURATION,
) -> Path:
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    if configuration is not None:
        (folder / "configs" / "inference.json").write_text(json.dumps(configuration))
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy in which one value, by keys with slashes, is another; None takes it away."""
    whole = copy.deepcopy(content)
    *keys, last = path.split("/")
    place: Any = whole
    for key in keys:
        place = place[int(key) if isinstance(place, list) else key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return whole


def make_segresnet() -> SegResNet:
    torch.manual_seed(0)
    return SegResNet(spatial_dims=3, **PUBLIC_OPTIONS).eval()


@pytest.fixture(scope="module")
def public_weights() -> dict[str, torch.Tensor]:
    return make_segresnet().state_dict()


def run_bundle(bundle: Path, case: Path, output: Path) -> nib.Nifti1Image:
    """Run a bundle as its page says, in a process of its own that has nothing of ours, and return its labels."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--bundle_root", ".", "--dataset_dir", str(case), "--output_dir", str(output), "--device", "cpu"]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = output.glob("*_seg.nii.gz")
    image: nib.Nifti1Image = nib.load(path)
    return image


def segment_sample(model: StoredModel, folder: Path | None = None) -> np.ndarray:
    """What our own pipeline finds, in the order of the file's own axes."""
    volume = read_case(find_cases(folder or sample_folder())[0])
    config = SegmentConfig(model=str(model.path), device="cpu", runtime="torch", search_step_mm=1)
    (done,) = (event for event in segment(volume, config) if isinstance(event, Segmented))
    return volume.source.to_source(done.segmentation.labels)


# ----------------------------------------------------------------------------------------------------------------- out


@pytest.mark.parametrize("name", ["glioma-unet", "glioma-res-unet", "glioma-u2net"])
def test_the_metadata_of_a_bundled_model_passes_monais_own_check(tmp_path: Path, name: str) -> None:
    from monai.bundle import verify_metadata

    bundle = writing.export(ModelStore().find(name), tmp_path / name)
    schema = tmp_path / "schema.json"  # what is there is not downloaded
    schema.write_text(json.dumps(METADATA_SCHEMA))
    digest = hashlib.sha256(schema.read_bytes()).hexdigest()
    metadata = str(bundle / "configs" / "metadata.json")
    verify_metadata(meta_file=metadata, filepath=str(schema), hash_val=digest, hash_type="sha256")


def test_the_schema_of_these_tests_finds_what_is_wrong() -> None:
    jsonschema.Draft7Validator.check_schema(METADATA_SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(PUBLIC_METADATA, METADATA_SCHEMA)


def test_a_bundle_has_all_parts_that_monai_asks_of_one(tmp_path: Path) -> None:
    from monai.bundle.properties import InferProperties

    bundle = writing.export(store_tiny(tmp_path, "unet"), tmp_path / "bundle")
    configuration = json.loads((bundle / "configs" / "inference.json").read_text())
    required = {part["id"] for part in InferProperties.values() if part["required"]}
    assert required <= configuration.keys()


@pytest.fixture
def case_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of a bundle that prepares images and paints labels."""
    monkeypatch.setitem(sys.modules, "scripts", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "scripts.head", foreground)
    spec = importlib.util.spec_from_file_location("case_of_a_bundle", Path(writing.__file__).with_name("case.py"))
    case = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(case)
    return case


@pytest.mark.parametrize("context_mm", [None, 3.0, 4.4])
def test_a_bundle_shows_its_network_the_same_images_as_we_do(context_mm: float | None, case_module: Any) -> None:
    card = ModelCard(name="a", architecture="unet", spacing=(None, 2.0, 2.0), context_mm=context_mm)
    (case,) = find_cases(sample_folder())
    prepared = prepare_for(card, read_case(case), 16)
    expected = take_images(prepared, np.arange(len(prepared.foreground)))
    prepare = case_module.PrepareCase(card.spacing, 16, card.normalization, card.axes, card.context_mm)
    files = [nib.load(image.paths[0]) for image in case.images]
    stacked = torch.from_numpy(np.stack([file.get_fdata(dtype=np.float32) for file in files]))
    image = MetaTensor(stacked, affine=torch.from_numpy(files[0].affine), meta={"filename_or_obj": ["a.nii.gz"]})
    found = prepare({"image": image})["image"].numpy()
    assert found.shape == (len(card.inputs), *prepared.foreground.shape)
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("sides", [(1.0, 1.0, 1.0), (3.0, 0.5, 0.4)])
def test_a_bundle_draws_the_core_of_a_tumor_in_which_hardly_any_was_found_as_we_do(sides, case_module) -> None:
    card = ModelCard(name="a", architecture="unet", solid_core=SolidCore(below_share=0.05, rim_share=0.3, rim_mm=1.5))
    paint = case_module.PaintCase([[0], [1], [2]], False, [2, 1, 3], 0.5, [0, 0, 0], 0.0, [0.05, 0.3, 1.5], card.axes)
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(14, 60, 70)), [4 / side for side in sides])
    ours = (noise > np.quantile(noise, 0.7)).astype(np.uint8)
    theirs = ours.copy()
    source = default_grid(ours.shape, sides)
    volume = SimpleNamespace(spacing=source.spacing, source=source)
    assert fill_solid_core(ours, SimpleNamespace(card=card, volume=volume, not_measurable={}))
    paint._clean(theirs, float(np.prod(sides)), list(sides))
    assert (ours == 2).any()
    assert np.array_equal(ours, theirs)


@pytest.mark.slow
def test_monai_runs_a_bundle_of_a_network_that_sees_the_slices_above_and_below(tmp_path: Path) -> None:
    model = store_tiny(tmp_path, "unet", context_mm=3.0)
    bundle = writing.export(model, tmp_path / "bundle")
    found = run_bundle(bundle, sample_folder(), tmp_path / "out")
    expected = segment_sample(model)
    assert expected.any()
    assert np.array_equal(np.asarray(found.dataobj), expected)


@pytest.mark.slow
def test_monai_runs_a_bundle_and_finds_the_same_labels(tmp_path: Path) -> None:
    model = ModelStore().find("glioma-unet")
    bundle = writing.export(model, tmp_path / "bundle")
    found = run_bundle(bundle, sample_folder(), tmp_path / "out")
    expected = segment_sample(model)
    assert np.array_equal(np.asarray(found.dataobj), expected)
    assert np.unique(expected).tolist() == [0, 1, 2, 3]
    source = nib.load(sample_folder() / "sample_t1.nii.gz")
    assert np.allclose(found.affine, source.affine)


@pytest.mark.slow
def test_monai_runs_a_bundle_on_scans_that_lie_otherwise(tmp_path: Path) -> None:
    """Axes swapped and flipped, and voxels of another size."""
    turned = tmp_path / "case"
    turned.mkdir()
    for name in ("t1", "t1ce", "t2", "flair"):
        image = nib.load(sample_folder() / f"sample_{name}.nii.gz")
        swap = np.array([[1, -1], [2, 1], [0, 1]])
        nib.save(image.as_reoriented(swap).slicer[::1, ::1, 5:90], turned / f"sample_{name}.nii.gz")
    model = ModelStore().find("glioma-u2net")
    bundle = writing.export(model, tmp_path / "bundle")
    found = run_bundle(bundle, turned, tmp_path / "out")
    assert np.array_equal(np.asarray(found.dataobj), segment_sample(model, turned))


@pytest.mark.slow
def test_monai_runs_a_bundle_of_a_three_dimensional_network(tmp_path: Path) -> None:
    model = store_tiny(
        tmp_path,
        "monai_segresnet",
        3,
        axes="RAS xyz",
        spacing=(4.0, 3.0, 3.0),
        window=(32, 48, 48),
        normalization="nonzero z-score",
        activation="softmax",
        channels=((1, 2, 3), (1, 3), (3,)),
        modalities=("T1ce", "T1", "T2", "FLAIR"),
    )
    bundle = writing.export(model, tmp_path / "bundle")
    found = run_bundle(bundle, sample_folder(), tmp_path / "out")
    expected = segment_sample(model)
    assert len(np.unique(expected)) > 1
    assert (np.asarray(found.dataobj) != expected).mean() < 1e-4  # windows are summed in another order


def test_a_zip_unpacks_into_a_folder_of_its_name(tmp_path: Path) -> None:
    path = writing.export(store_tiny(tmp_path, "unet"), tmp_path / "tiny.zip")
    with zipfile.ZipFile(path) as opened:
        assert {name.partition("/")[0] for name in opened.namelist()} == {"tiny"}
        assert {"tiny/configs/metadata.json", "tiny/models/model.pt", "tiny/docs/README.md"} <= set(opened.namelist())


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match="exists already"):
        writing.export(store_tiny(tmp_path, "unet"), tmp_path / "taken")


def test_a_bundle_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = store_tiny(tmp_path, "unet")
    before = set(tmp_path.iterdir())

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(DataError, match="No space left"):
        writing.export(model, tmp_path / "bundle")
    assert set(tmp_path.iterdir()) == before


def test_an_onnx_graph_is_not_packed(tmp_path: Path) -> None:
    card = ModelCard(name="graph", architecture="onnx")
    with pytest.raises(ModelError, match="Export it as ONNX"):
        writing.export(StoredModel("graph", tmp_path / "graph.safetensors", card), tmp_path / "bundle")


# ------------------------------------------------------------------------------------------------------------------ in


@pytest.mark.parametrize(("name", "suffix"), [("glioma-unet", ""), ("glioma-res-unet", ".zip"), ("glioma-u2net", "")])
def test_a_bundled_model_comes_back_as_it_was(tmp_path: Path, name: str, suffix: str) -> None:
    model = ModelStore().find(name)
    weights, card = reading.load(writing.export(model, tmp_path / f"bundle{suffix}"))
    assert card == model.card
    kept = load_weights(model.path)
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=pytest.mark.slow if name == "u2net" else ()) for name in TINY]
)
def test_every_architecture_comes_back_as_it_was(tmp_path: Path, architecture: str) -> None:
    dims = 3 if architecture in ("unet", "monai_dynunet", "monai_segresnet") else 2
    model = store_tiny(tmp_path, architecture, dims)
    weights, card = reading.load(writing.export(model, tmp_path / "bundle"))
    again = save_model(tmp_path / "again.safetensors", weights, card)
    image = torch.randn(1, 4, *(32,) * dims)
    assert torch.equal(load_network(again)(image), load_network(model.path)(image))


def test_the_public_bundle_for_brats_is_read(tmp_path: Path, public_weights: dict[str, torch.Tensor]) -> None:
    weights, card = reading.load(write_bundle(tmp_path / "brats_mri_segmentation", public_weights))
    assert len(weights) == 83
    assert card.parameters == 4_702_227
    assert card.name == "brats-mri-segmentation"
    assert card.architecture == "monai_segresnet"
    assert card.modalities == ("T1ce", "T1", "T2", "FLAIR")
    assert [region.name for region in card.regions] == ["whole tumor", "tumor core", "enhancing tumor"]
    assert (card.channels, card.activation) == (((1,), (0,), (2,)), "sigmoid")
    assert (card.spatial_dims, card.axes, card.spacing) == (3, "LPS xyz", (1.0, 1.0, 1.0))
    assert card.window == (160, 240, 240)
    assert card.normalization == "nonzero z-score"


def test_the_network_of_the_public_bundle_gives_what_monais_own_gives(
    tmp_path: Path, public_weights: dict[str, torch.Tensor]
) -> None:
    weights, card = reading.load(write_bundle(tmp_path / "bundle", public_weights))
    path = save_model(tmp_path / "imported.safetensors", weights, card)
    image = torch.randn(1, 4, 32, 40, 24)
    with torch.inference_mode():
        assert torch.allclose(load_network(path)(image), make_segresnet()(image), atol=1e-5)


@pytest.mark.parametrize(
    ("target", "options", "build"),
    [
        (
            "monai.networks.nets.DynUNet",
            TINY["monai_dynunet"],
            DynUNet,
        ),
        ("monai.networks.nets.swin_unetr.SwinUNETR", {"feature_size": 12, "img_size": [96, 96, 96]}, SwinUNETR),
    ],
)
def test_other_networks_of_monai_are_read(
    tmp_path: Path, target: str, options: dict[str, Any], build: type[nn.Module]
) -> None:
    described = {"spatial_dims": 3, "in_channels": 4, "out_channels": 3, **options}
    torch.manual_seed(0)
    network = build(**{key: value for key, value in described.items() if key != "img_size"}).eval()
    configuration = changed(PUBLIC_CONFIGURATION, "network_def", {"_target_": target, **described})
    weights, card = reading.load(write_bundle(tmp_path / "b", network.state_dict(), configuration=configuration))
    path = save_model(tmp_path / "imported.safetensors", weights, card)
    image = torch.randn(1, 4, 64, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(load_network(path)(image), network(image), atol=1e-5)


def test_classes_that_exclude_each_other_become_nested_regions(tmp_path: Path) -> None:
    options = {"init_filters": 8, "spatial_dims": 3, "in_channels": 4, "out_channels": 4}
    configuration = changed(PUBLIC_CONFIGURATION, "network_def", {"_target_": "SegResNet", **options})
    names = {"0": "background", "1": "necrosis", "2": "edema", "3": "enhancing tumor"}
    metadata = changed(PUBLIC_METADATA, "network_data_format/outputs/pred/channel_def", names)
    bundle = write_bundle(tmp_path / "bundle", SegResNet(**options).state_dict(), metadata, configuration)
    _, card = reading.load(bundle)
    assert (card.activation, card.channels) == ("softmax", ((1, 2, 3), (1, 3), (3,)))


def test_turning_resampling_and_windows_are_read(tmp_path: Path, public_weights: dict[str, torch.Tensor]) -> None:
    turned = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
    scaled = {"_target_": "Spacingd", "pixdim": [1.5, 2, -1]}
    steps = [*PUBLIC_CONFIGURATION["preprocessing"]["transforms"], turned, scaled]
    configuration = changed(PUBLIC_CONFIGURATION, "preprocessing/transforms", steps)
    configuration = changed(configuration, "inferer/roi_size", "$[96] * 3")
    _, card = reading.load(write_bundle(tmp_path / "bundle", public_weights, configuration=configuration))
    assert card.axes == "RAS xyz"
    assert card.spacing == (None, 2.0, 1.5)
    assert card.window is None


def test_a_description_is_believed_where_the_metadata_says_nothing(
    tmp_path: Path, public_weights: dict[str, torch.Tensor]
) -> None:
    metadata = changed(PUBLIC_METADATA, "network_data_format", None)
    bundle = write_bundle(tmp_path / "bundle", public_weights, metadata)
    described = ModelCard(
        name="theirs", architecture="unet", spatial_dims=3, axes="RAS xyz", normalization="nonzero z-score"
    )
    _, card = reading.load(bundle, described)
    assert (card.name, card.architecture, card.axes) == ("theirs", "monai_segresnet", "RAS xyz")
    assert card.options["init_filters"] == 16


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("network_data_format", None, "which image is which"),
        ("network_data_format/inputs/image/channel_def", {"0": "a", "1": "b"}, "which image is which"),
        ("network_data_format/inputs/image/channel_def", {"0": "T1", "1": "T1"}, "which image is which"),
        ("network_data_format/inputs/image/channel_def", {"0": "T1"}, "names 1 images, but its network has 4"),
        ("network_data_format/outputs/pred/channel_def", {"0": "liver"}, "what the network finds"),
        ("network_data_format/outputs/pred/channel_def", {"0": "whole tumor"}, "names 1 outputs, but .* 3"),
        ("network_data_format/outputs/pred/channel_def", ["liver"], "what the network finds"),
    ],
)
def test_metadata_that_says_too_little_needs_a_description(
    tmp_path: Path, public_weights: dict[str, torch.Tensor], path: str, value: Any, says: str
) -> None:
    bundle = write_bundle(tmp_path / "bundle", public_weights, changed(PUBLIC_METADATA, path, value))
    with pytest.raises(DescriptionNeeded, match=says):
        reading.load(bundle)


def test_other_ways_to_prepare_images_need_a_description(
    tmp_path: Path, public_weights: dict[str, torch.Tensor]
) -> None:
    steps = [{"_target_": "ScaleIntensityd", "keys": "image"}]
    configuration = changed(PUBLIC_CONFIGURATION, "preprocessing/transforms", steps)
    with pytest.raises(DescriptionNeeded, match="other ways are not supported"):
        reading.load(write_bundle(tmp_path / "bundle", public_weights, configuration=configuration))


def with_steps(*steps: Any) -> dict[str, Any]:
    """The public configuration with other steps behind the first."""
    first, normalize = PUBLIC_CONFIGURATION["preprocessing"]["transforms"]
    return changed(PUBLIC_CONFIGURATION, "preprocessing/transforms", [first, *steps, normalize])


TURNED = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
SCALED = {"_target_": "monai.transforms.Spacingd", "keys": "image", "pixdim": [1.5, 2, -1]}


@pytest.mark.parametrize(
    ("steps", "axes", "spacing"),
    [
        ((TURNED, SCALED), "RAS xyz", (None, 2.0, 1.5)),
        (({**TURNED, "axcodes": "LPS"}, SCALED), "LPS xyz", (None, 2.0, 1.5)),
        (({**TURNED, "axcodes": ["R", "A", "S"]}, {**SCALED, "pixdim": [1, 1, 3.0]}), "RAS xyz", (3.0, 1.0, 1.0)),
        (({**SCALED, "pixdim": [1, 1, 1]}, TURNED), "RAS xyz", (1.0, 1.0, 1.0)),
        ((TURNED, SCALED, {**TURNED, "axcodes": "PLS", "_disabled_": True}), "RAS xyz", (None, 2.0, 1.5)),
        ((TURNED, {**SCALED, "_target_": "SpacingD"}, {"_target_": "EnsureTyped"}), "RAS xyz", (None, 2.0, 1.5)),
    ],
)
def test_what_steps_say_of_the_grid_in_plain_values_is_read(
    tmp_path: Path, public_weights: dict[str, torch.Tensor], steps: Any, axes: str, spacing: Any
) -> None:
    _, card = reading.load(write_bundle(tmp_path / "b", public_weights, configuration=with_steps(*steps)))
    assert (card.axes, card.spacing) == (axes, spacing)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        *(
            (({**TURNED, "axcodes": codes}, SCALED), "does not say which way its images lie")
            for codes in ("PLS", "SAR", "ras", "LAS", "@axes", "$'RAS'", None, 7, ["R", "A"], {"a": "RAS"})
        ),
        (({**TURNED, "labels": [["R", "L"], ["A", "P"], ["I", "S"]]}, SCALED), "does not say which way its images lie"),
        ((TURNED, {**TURNED, "axcodes": "LPS"}, SCALED), "does not say which way its images lie"),
        ((SCALED,), "does not say which way its images lie"),
        *(
            ((TURNED, {**SCALED, "pixdim": pixdim}), "does not say at which voxel size")
            for pixdim in ("@pixdim", "$[1, 1, 1]", ["@x", 1, 1], [1, 1], 2, None, [True, 1, 1], [1, 1, 1e400], {})
        ),
        ((TURNED,), "does not say at which voxel size"),
        ((TURNED, SCALED, SCALED), "does not say at which voxel size"),
        ((SCALED, TURNED), "does not say at which voxel size"),
        ((TURNED, SCALED, "@more"), "is the expression '@more'"),
        ((TURNED, SCALED, {**SCALED, "_disabled_": "$@debug"}), "is the expression"),
        *(
            ((TURNED, SCALED, {"_target_": name}), f"by the step '{name.rpartition('.')[2]}'")
            for name in ("Flipd", "Rotate90d", "Resized", "Transposed", "ScaleIntensityd", "scripts.mine.Turn", "$open")
        ),
    ],
)
@pytest.mark.parametrize("name", ["BraTS MRI segmentation", "Glioma"])
def test_a_grid_that_is_not_said_in_plain_values_is_asked_for(
    tmp_path: Path, public_weights: dict[str, torch.Tensor], steps: Any, says: str, name: str
) -> None:
    metadata = {**PUBLIC_METADATA, "name": name}
    bundle = write_bundle(tmp_path / "bundle", public_weights, metadata, with_steps(*steps))
    with pytest.raises(DescriptionNeeded, match=re.escape(says)):
        reading.load(bundle)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"name": "Glioma", "task": "Glioma", "data_source": "https://www.med.upenn.edu/cbica/brats2018"}, True),
        ({"name": "Glioma", "task": "Glioma"}, False),
        ({"data_source": "Medical Segmentation Decathlon, Task01_BrainTumour (BraTS)"}, False),
    ],
)
def test_without_steps_that_turn_or_scale_only_what_is_for_brats_is_known(
    tmp_path: Path, public_weights: dict[str, torch.Tensor], changes: dict[str, str], known: bool
) -> None:
    metadata = {**PUBLIC_METADATA, "task": "Tumor", **changes}
    bundle = write_bundle(tmp_path / "bundle", public_weights, metadata)
    if known:
        assert reading.load(bundle)[1].spacing == (1.0, 1.0, 1.0)
    else:
        with pytest.raises(DescriptionNeeded, match="does not say which way its images lie"):
            reading.load(bundle)


def test_how_slices_of_a_two_dimensional_network_lie_is_asked_for(tmp_path: Path) -> None:
    options = {**PUBLIC_OPTIONS, "spatial_dims": 2}
    configuration = changed(with_steps(TURNED, SCALED), "network_def", {"_target_": "SegResNet", **options})
    bundle = write_bundle(tmp_path / "bundle", SegResNet(**options).state_dict(), configuration=configuration)
    with pytest.raises(DescriptionNeeded, match="does not say how its slices lie"):
        reading.load(bundle)
    described = ModelCard(name="theirs", architecture="unet", normalization="nonzero z-score")
    assert reading.load(bundle, described)[1].spatial_dims == 2


def test_intensities_that_are_scaled_by_stated_numbers_need_a_description(
    tmp_path: Path, public_weights: dict[str, torch.Tensor]
) -> None:
    configuration = changed(PUBLIC_CONFIGURATION, "preprocessing/transforms/1/subtrahend", [1, 2, 3, 4])
    with pytest.raises(DescriptionNeeded, match="other ways are not supported"):
        reading.load(write_bundle(tmp_path / "bundle", public_weights, configuration=configuration))


# -------------------------------------------------------------------------------------------------------------- hostile

TRAP = "$__import__('os').system('touch ran')"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("network_def/init_filters", TRAP, "is the expression"),
        ("network_def/blocks_down", [1, TRAP], "is the expression"),
        ("network_def/in_channels", "@channels", "is the expression"),
        ("network_def", TRAP, "no 'network_def'"),
        ("network_def", None, "no 'network_def'"),
        ("network_def/_target_", TRAP, "this plugin does not have"),
        ("network_def/_target_", "os.system", "this plugin does not have"),
        ("network_def/_target_", "evil.SegResNet", "this plugin does not have"),
        ("network_def/_target_", "monai.networks.netsevil.SegResNet", "this plugin does not have"),
        ("network_def/_target_", "scripts.net.Mine", "this plugin does not have"),
        ("network_def/init_filters", 10**9, "init_filters"),
        ("network_def/blocks_down", [10**6, 2, 2, 4], "blocks_down"),
        ("network_def/spatial_dims", 17, "spatial_dims"),
        ("network_def/surprise", 1, "surprise"),
        ("network_def/act", [[[[["relu"]]]]], "act"),
    ],
)
def test_a_configuration_is_never_evaluated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    public_weights: dict[str, torch.Tensor],
    path: str,
    value: Any,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = write_bundle(tmp_path / "b", public_weights, configuration=changed(PUBLIC_CONFIGURATION, path, value))
    with pytest.raises(ModelError, match=says):
        reading.load(bundle)
    assert not (tmp_path / "ran").exists()


def test_expressions_that_are_not_needed_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public_weights: dict[str, torch.Tensor]
) -> None:
    monkeypatch.chdir(tmp_path)
    configuration = {**PUBLIC_CONFIGURATION, "imports": [TRAP], "initialize": [TRAP], "run": [TRAP], "network": TRAP}
    reading.load(write_bundle(tmp_path / "bundle", public_weights, configuration=configuration))
    assert not (tmp_path / "ran").exists()


def test_scripts_of_a_bundle_are_never_run(tmp_path: Path) -> None:
    bundle = writing.export(store_tiny(tmp_path, "unet"), tmp_path / "bundle")
    for script in (bundle / "scripts").iterdir():
        script.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    reading.load(bundle)
    assert not (tmp_path / "ran").exists()


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="run code"):
        reading.load(write_bundle(tmp_path / "bundle", {"weight": _Trap()}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"convInit.conv.weight": None}, r"missing.*convInit\.conv\.weight"),
        ({"backdoor": torch.ones(3)}, r"unknown.*backdoor"),
        ({"convInit.conv.weight": torch.ones(2, 2)}, r"another shape.*convInit\.conv\.weight"),
        ({"convInit.conv.weight": torch.full((16, 4, 3, 3, 3), torch.inf)}, "not finite"),
        ({"convInit.conv.weight": "a text"}, "not a plain weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, public_weights: dict[str, torch.Tensor], change: dict[str, Any], says: str
) -> None:
    weights = {name: value for name, value in {**public_weights, **change}.items() if value is not None}
    with pytest.raises(ModelError, match=says):
        reading.load(write_bundle(tmp_path / "bundle", weights))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("configs/metadata.json", b"{", "cannot be read"),
        ("configs/metadata.json", b"[1, 2]", "no plain names and values"),
        ("configs/metadata.json", b'{"a":' * 100_000, "cannot be read"),
        ("configs/metadata.json", b'{"a":' * 50 + b"1" + b"}" * 50, "no plain names and values"),
        ("configs/metadata.json", b" " * 2_000_000, "2,000,000 bytes"),
        ("configs/metadata.json", None, "a MONAI bundle"),
        ("configs/inference.json", b"\xff\xfe", "cannot be read"),
        ("configs/inference.json", None, "its network is unknown"),
        ("models/model.pt", b"PK\x03\x04 and then nothing", "damaged"),
        ("models/model.pt", None, "holds no file"),
    ],
)
def test_files_that_are_damaged_or_missing_are_refused(
    tmp_path: Path, public_weights: dict[str, torch.Tensor], file: str, content: bytes | None, says: str
) -> None:
    path = write_bundle(tmp_path / "bundle", public_weights) / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ModelError, match=says):
        reading.load(tmp_path / "bundle")


def test_a_card_that_is_none_is_refused(tmp_path: Path, public_weights: dict[str, torch.Tensor]) -> None:
    metadata = {**PUBLIC_METADATA, "napari_braintumor": {"name": "../../evil", "architecture": "unet"}}
    with pytest.raises(ModelError, match="The card in 'bundle' is not valid: name"):
        reading.load(write_bundle(tmp_path / "bundle", public_weights, metadata))


def test_links_in_a_folder_are_not_followed(tmp_path: Path, public_weights: dict[str, torch.Tensor]) -> None:
    bundle = write_bundle(tmp_path / "bundle", public_weights)
    shutil.move(bundle / "models" / "model.pt", tmp_path / "elsewhere.pt")
    (bundle / "models" / "model.pt").symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(ModelError, match="is a link"):
        reading.load(bundle)


def test_a_zip_that_points_outside_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("../configs/metadata.json", "{}")
    path = tmp_path / "bundle.zip"
    path.write_bytes(stream.getvalue())
    with pytest.raises(ModelError, match="outside"):
        reading.load(path)

"""nnU-Net's plain U-Net, written here once more with its public names, gives what the imported model gives."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange import nnunet
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import save_model

KERNELS = [[3, 3, 3]] * 3
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
FEATURES = [4, 8, 12]


class Unit(nn.Module):
    def __init__(self, dims: int, channels: int, out: int, kernel: list[int], stride: list[int]) -> None:
        super().__init__()
        conv, norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"InstanceNorm{dims}d")
        self.conv = conv(channels, out, kernel, stride, [side // 2 for side in kernel])
        self.norm = norm(out, eps=1e-5, affine=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, nn.LeakyReLU(0.01))

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class Stack(nn.Module):
    def __init__(self, dims: int, channels: int, out: int, kernel: list[int], stride: list[int]) -> None:
        super().__init__()
        self.convs = nn.Sequential(Unit(dims, channels, out, kernel, stride), Unit(dims, out, out, kernel, [1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class PlainConvUNet(nn.Module):
    def __init__(self, channels: int, out: int, dims: int = 3) -> None:
        super().__init__()
        kernels, strides = [k[-dims:] for k in KERNELS], [s[-dims:] for s in STRIDES]
        self.encoder = nn.Module()
        self.encoder.stages = nn.Sequential(*(
            nn.Sequential(Stack(dims, before, here, kernel, stride))
            for before, here, kernel, stride in zip([channels, *FEATURES], FEATURES, kernels, strides, strict=False)
        ))  # fmt: skip
        self.decoder = nn.Module()
        self.decoder.encoder = self.encoder
        self.decoder.stages, self.decoder.transpconvs = nn.ModuleList(), nn.ModuleList()
        self.decoder.seg_layers = nn.ModuleList()
        for stage in (2, 1):
            below, here, stride = FEATURES[stage], FEATURES[stage - 1], strides[stage]
            self.decoder.transpconvs.append(getattr(nn, f"ConvTranspose{dims}d")(below, here, stride, stride))
            self.decoder.stages.append(Stack(dims, 2 * here, here, kernels[stage - 1], [1] * dims))
            self.decoder.seg_layers.append(getattr(nn, f"Conv{dims}d")(here, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for stage in self.encoder.stages:
            x = stage(x)
            kept.append(x)
        kept.pop()
        for up, stage in zip(self.decoder.transpconvs, self.decoder.stages, strict=True):
            x = stage(torch.cat((up(x), kept.pop()), 1))
        return self.decoder.seg_layers[-1](x)


def configuration(old: bool, dims: int = 3, **changes: Any) -> dict[str, Any]:
    kernels, strides = [k[-dims:] for k in KERNELS], [s[-dims:] for s in STRIDES]
    common = {
        "patch_size": [16, 32, 32][-dims:],
        "spacing": [2.0, 1.0, 1.0][-dims:],
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [True, True],
    }
    if old:
        said: dict[str, Any] = {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 4,
            "unet_max_num_features": 12,
            "n_conv_per_stage_encoder": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "pool_op_kernel_sizes": strides,
            "conv_kernel_sizes": kernels,
        }
    else:
        said = {
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": FEATURES,
                    "kernel_sizes": kernels,
                    "strides": strides,
                    "n_conv_per_stage": [2, 2, 2],
                    "n_conv_per_stage_decoder": [2, 2],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "nonlin": "torch.nn.LeakyReLU",
                },
            }
        }
    return {**common, **said, **changes}


STATED = configuration(False)["architecture"]
DATASET = {
    "channel_names": {"0": "FLAIR", "1": "T1ce"},
    "labels": {"background": 0, "whole tumor": [1, 2, 3], "enhancing tumor": [3], "tumor core": [2, 3]},
    "regions_class_order": [1, 3, 2],
}


def trained(
    parent: Path,
    network: nn.Module,
    configurations: dict[str, Any],
    dataset: dict[str, Any] = DATASET,
    name: str = "nnUNetTrainer__nnUNetPlans__3d_fullres",
    **plans: Any,
) -> Path:
    folder = parent / name
    (folder / "fold_0").mkdir(parents=True)
    content = {"configurations": configurations, "transpose_forward": [0, 1, 2], **plans}
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": {"scale": 65536.0},
            "logging": {
                "mean_fg_dice": [np.float64(0.5), np.float32(0.25)],
                "dice_per_class_or_region": [[np.float64(0.5), np.float64(0)]],
                "epochs": [np.int64(3), True, np.True_],
            },
            "_best_ema": np.float64(0.9),
            "current_epoch": 5,
            "init_args": {"plans": content, "device": torch.device("cuda"), "fold": 0},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
        },
        folder / "fold_0" / "checkpoint_final.pth",
    )
    return folder


def network(channels: int = 2, out: int = 3, dims: int = 3) -> nn.Module:
    torch.manual_seed(0)
    made = PlainConvUNet(channels, out, dims)
    for name, tensor in made.state_dict().items():
        if "norm" in name:
            tensor.add_(torch.randn(tensor.shape) * 0.2)
    return made.eval()


@pytest.mark.parametrize("old", [False, True], ids=["plans of today", "older plans"])
@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_a_trained_folder_gives_what_nnunets_network_gives(tmp_path: Path, old: bool, dims: int) -> None:
    reference = network(dims=dims)
    both = {"2d": configuration(old, 2), "3d_fullres": configuration(old, 3)}
    folder = trained(
        tmp_path, reference, both, name=f"nnUNetTrainer__nnUNetPlans__{'2d' if dims == 2 else '3d_fullres'}"
    )
    weights, card = nnunet.load(folder)
    assert (card.architecture, card.spatial_dims, card.modalities) == ("monai_dynunet", dims, ("FLAIR", "T1ce"))
    assert card.spacing == ((None, 1.0, 1.0) if dims == 2 else (2.0, 1.0, 1.0))
    assert card.window == (None if dims == 2 else (16, 32, 32))
    assert [region.name for region in card.regions] == ["whole tumor", "tumor core", "enhancing tumor"]
    assert (card.channels, card.normalization, card.axes) == (((0,), (2,), (1,)), "nonzero z-score", "LPS zyx")
    images = torch.randn(1, 2, *(16, 32, 64)[-dims:])
    given = load_network(save_model(tmp_path / "in.safetensors", weights, card))(images)
    assert (given - reference(images)).abs().max() < 1e-5


def test_a_zip_of_the_folder_does_too(tmp_path: Path) -> None:
    folder = trained(tmp_path, network(), {"3d_fullres": configuration(False)})
    with zipfile.ZipFile(tmp_path / "glioma.zip", "w") as file:
        for path in folder.rglob("*.*"):
            file.write(path, path.relative_to(tmp_path))
    weights, card = nnunet.load(tmp_path / "glioma.zip")
    assert card.name == "glioma"
    assert weights.keys() == nnunet.load(folder)[0].keys()


def test_classes_are_asked_for_and_come_in_by_a_description(tmp_path: Path) -> None:
    dataset = {**DATASET, "labels": {"background": 0, "edema": 1, "core": 2}}
    folder = trained(tmp_path, network(), {"3d_fullres": configuration(False)}, dataset)
    with pytest.raises(DescriptionNeeded, match="the labels edema, core, which do not state modalities and regions"):
        nnunet.load(folder)
    described = ModelCard(
        name="classes",
        architecture="monai_dynunet",
        spatial_dims=3,
        modalities=("FLAIR", "T1ce"),
        regions=GLIOMA_REGIONS[:2],
        activation="softmax",
        channels=((1, 2), (2,)),
        normalization="nonzero z-score",
    )
    _, card = nnunet.load(folder, described)
    assert (card.name, card.activation, card.channels, card.window) == (
        "classes",
        "softmax",
        ((1, 2), (2,)),
        (16, 32, 32),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization_schemes": ["CTNormalization"] * 2},
        {"use_mask_for_norm": [True, False]},
        {"previous_stage": "3d_lowres"},
        {
            "architecture": {
                **STATED,
                "arch_kwargs": {**STATED["arch_kwargs"], "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]},
            }
        },
        {"architecture": {**STATED, "arch_kwargs": {**STATED["arch_kwargs"], "n_conv_per_stage": [2, 3, 2]}}},
        {"architecture": {**STATED, "network_class_name": "ResidualEncoderUNet"}},
    ],
)
def test_what_is_computed_otherwise_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = trained(tmp_path, network(), {"3d_fullres": configuration(False, **changes)})
    with pytest.raises(ModelError, match="cannot be imported: its network is not one of nnU-Net's plain U-Nets"):
        nnunet.load(folder)


def test_weights_of_another_plan_are_refused(tmp_path: Path) -> None:
    other = configuration(False)
    other["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    with pytest.raises(ModelError, match=r"the tensor 'encoder.stages.2.*' has the shape"):
        nnunet.load(trained(tmp_path / "a", network(), {"3d_fullres": other}))
    with pytest.raises(ModelError, match=r"where \(4, 2, 3, 3, 3\) is expected|These weights are not those"):
        nnunet.load(trained(tmp_path / "b", network(channels=3), {"3d_fullres": configuration(False)}))
    with pytest.raises(ModelError, match="swapped axes"):
        nnunet.load(
            trained(tmp_path / "c", network(), {"3d_fullres": configuration(False)}, transpose_forward=[2, 0, 1])
        )


def test_two_configurations_of_one_network_are_distinguished_by_the_folders_name(tmp_path: Path) -> None:
    both = {
        "3d_lowres": configuration(False, spacing=[4.0, 2.0, 2.0]),
        "3d_fullres": {"inherits_from": "3d_lowres", "spacing": [2.0, 1.0, 1.0]},
    }
    assert nnunet.load(trained(tmp_path, network(), both))[1].spacing == (2.0, 1.0, 1.0)
    with pytest.raises(ModelError, match="may be any of the configurations 3d_lowres, 3d_fullres"):
        nnunet.load(trained(tmp_path, network(), both, name="renamed"))


def test_anything_but_a_trained_folder_is_refused(tmp_path: Path) -> None:
    folder = trained(tmp_path, network(), {"3d_fullres": configuration(False)})
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_5.pth")
    with pytest.raises(ModelError, match=r"holds no fold_0/checkpoint_final\.pth"):
        nnunet.load(folder)
    (folder / "fold_0" / "checkpoint_5.pth").rename(folder / "fold_0" / "checkpoint_best.pth")
    for content in ("[]", "{", "[" * 10**5, "{}", '{"configurations": []}', '{"configurations": {"a": 3}}'):
        (folder / "plans.json").write_text(content)
        with pytest.raises(ModelError, match=r"not JSON|no names and values|cannot be understood|not one of nnU"):
            nnunet.load(folder)
    (folder / "plans.json").unlink()
    with pytest.raises(ModelError, match=r"holds no plans\.json, so it is not a trained folder"):
        nnunet.load(folder)

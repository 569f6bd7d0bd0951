from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.card import ModelCard, name_inputs
from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.training.transfer import load_trunk, transfer_weights

NETWORKS = {
    "unet": {"width": 4},
    "res_unet": {"width": 4},
    "u2net_small": {},
    "fcn32s": {"width": 8, "trunk_width": 4},
    "fcn16s": {"width": 8, "trunk_width": 4},
    "fcn8s": {"width": 8, "trunk_width": 4},
}
MODALITIES = ("T1", "T1ce", "FLAIR")
REGIONS = ("whole tumor", "tumor core")


def make_network(architecture: str, modalities: int, regions: int) -> torch.nn.Module:
    torch.manual_seed(modalities * 10 + regions)
    options = NETWORKS[architecture]
    network = build_network(architecture, in_channels=modalities, out_channels=regions, options=options)
    return network.eval()


@pytest.fixture(params=NETWORKS)
def parent(request, tmp_path: Path) -> StoredModel:
    """A model of every architecture, of three modalities and two regions."""
    card = ModelCard(
        name="parent",
        architecture=request.param,
        options=NETWORKS[request.param],
        modalities=MODALITIES,
        regions=GLIOMA_REGIONS[:2],
    )
    path = save_model(tmp_path / "p.safetensors", make_network(request.param, 3, 2).state_dict(), card)
    return ModelStore().find(path)


def load(parent: StoredModel, modalities: tuple[str, ...], regions: tuple[str, ...]):
    card = parent.card
    network = make_network(card.architecture, len(modalities), len(regions))
    report = transfer_weights(network, card.architecture, card.options, modalities, regions, parent)
    return network.eval(), report


def run(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(x)


IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_same_channels_are_loaded_as_they_are(parent: StoredModel) -> None:
    network, report = load(parent, MODALITIES, REGIONS)
    assert not report.adapted
    assert len(report.loaded) == len(network.state_dict())
    assert report.describe() == [f"{len(report.loaded)} tensors loaded as they were."]


def test_fewer_modalities_in_another_order_answer_as_the_parent_without_the_rest(parent: StoredModel) -> None:
    whole, _ = load(parent, MODALITIES, REGIONS)
    part, report = load(parent, ("FLAIR", "T1"), REGIONS)
    without = IMAGE.clone()
    without[:, 1] = 0
    assert torch.allclose(run(part, IMAGE[:, [2, 0]]), run(whole, without), atol=1e-4)
    assert any("FLAIR, T1 carried over" in line for line in report.describe())


def test_a_new_modality_changes_nothing_at_first(parent: StoredModel) -> None:
    whole, _ = load(parent, MODALITIES, REGIONS)
    more, report = load(parent, ("T1", "DWI", "T1ce", "FLAIR"), REGIONS)
    wider = torch.cat([IMAGE[:, :1], torch.randn(1, 1, 64, 64), IMAGE[:, 1:]], dim=1)
    assert torch.allclose(run(more, wider), run(whole, IMAGE), atol=1e-4)
    assert any("DWI starts at zero" in line for line in report.describe())


def test_a_new_region_leaves_the_old_ones_as_they_were(parent: StoredModel) -> None:
    whole, _ = load(parent, MODALITIES, REGIONS)
    more, report = load(parent, MODALITIES, ("enhancing tumor", "whole tumor", "tumor core"))
    assert torch.allclose(run(more, IMAGE)[:, 1:], run(whole, IMAGE), atol=1e-4)
    assert any("enhancing tumor is new" in line for line in report.describe())


def test_regions_are_matched_by_name_not_by_place(parent: StoredModel) -> None:
    whole, _ = load(parent, MODALITIES, REGIONS)
    swapped, report = load(parent, MODALITIES, REGIONS[::-1])
    assert torch.allclose(run(swapped, IMAGE), run(whole, IMAGE).flip(1), atol=1e-4)
    assert report.adapted


def test_another_architecture_is_refused(parent: StoredModel) -> None:
    other = "unet" if parent.card.architecture != "unet" else "res_unet"
    with pytest.raises(ModelError, match=r"'parent' is a .*, but the plan's architecture is .*choose"):
        transfer_weights(make_network(other, 3, 2), other, NETWORKS[other], MODALITIES, REGIONS, parent)


def test_another_width_is_refused(tmp_path: Path) -> None:
    card = ModelCard(
        name="p", architecture="unet", options={"width": 4}, modalities=MODALITIES, regions=GLIOMA_REGIONS[:2]
    )
    stored = ModelStore().find(save_model(tmp_path / "p.safetensors", make_network("unet", 3, 2).state_dict(), card))
    wider = build_network("unet", in_channels=3, out_channels=2, options={"width": 8})
    with pytest.raises(ModelError, match=r"has the shape .* Use the options that it was made with: {'width': 4}"):
        transfer_weights(wider, "unet", {"width": 8}, MODALITIES, REGIONS, stored)


def vgg_state(trunk_width: int) -> dict[str, torch.Tensor]:
    network = make_network("fcn8s", 3, 2)
    return {f"features.{n}": t + 1 for n, t in network.features.state_dict().items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_trunk_is_loaded_from_either_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vgg{suffix}"
    state = vgg_state(4)
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    network = make_network("fcn8s", 2, 2)
    assert len(load_trunk(network, path)) == 26
    assert torch.allclose(network.features[2].weight, state["features.2.weight"])


def test_a_file_that_is_not_a_vgg_is_refused_and_nothing_in_it_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"features.0.weight": Trap()}, tmp_path / "evil.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("evil.pth", "text.safetensors", "other.safetensors", "absent.pth"):
        with pytest.raises(ModelError, match=f"'{name}' does not hold VGG-16 weights"):
            load_trunk(make_network("fcn8s", 2, 2), tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_only_fcn_has_a_trunk_to_load(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="only FCN has its trunk"):
        load_trunk(make_network("unet", 3, 2), tmp_path / "vgg.pth")


def test_slices_beside_change_nothing_at_first(parent: StoredModel) -> None:
    old, _ = load(parent, MODALITIES, REGIONS)
    new, report = load(parent, name_inputs(MODALITIES, 3.0), REGIONS)
    beside = torch.randn(1, 6, 64, 64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(run(new, torch.cat([IMAGE, beside], dim=1)), run(old, IMAGE), atol=1e-4)
    assert "T1 above, T1ce above, FLAIR above, T1 below, T1ce below, FLAIR below starts at zero" in str(report.adapted)

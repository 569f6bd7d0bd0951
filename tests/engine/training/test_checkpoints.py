from pathlib import Path

import pytest
import torch
from torch import nn

from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.training.checkpoints import load_checkpoint, save_checkpoint


def trained_pair() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    network, optimizer = trained_pair()
    save_checkpoint(tmp_path / "c.safetensors", {"network": network}, optimizer, {"step": 3, "score": 0.1})
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    fresh = torch.optim.AdamW(other.parameters(), 0.1)
    assert load_checkpoint(tmp_path / "c.safetensors", {"network": other}, fresh) == {"step": 3, "score": 0.1}
    for one, two in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    for index, values in optimizer.state_dict()["state"].items():
        for name, tensor in values.items():
            assert torch.equal(tensor, fresh.state_dict()["state"][index][name])


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    network, optimizer = trained_pair()
    save_checkpoint(tmp_path / "c.safetensors", {"network": network}, optimizer, {})
    with pytest.raises(ModelError, match="is of another architecture than the plan's"):
        load_checkpoint(tmp_path / "c.safetensors", {"network": nn.Linear(2, 2)}, optimizer)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    network, optimizer = trained_pair()
    (tmp_path / "c.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be read"):
        load_checkpoint(tmp_path / "c.safetensors", {"network": network}, optimizer)

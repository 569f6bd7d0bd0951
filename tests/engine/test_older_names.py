"""What earlier versions wrote in British spelling is still read; what is written now is American."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from napari_braintumor.engine.exchange.catalogue import Entry
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.models.card import DataSource, ModelCard
from napari_braintumor.engine.training.checkpoints import load_checkpoint, save_checkpoint
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.plan_files import read_plan
from napari_braintumor.engine.training.prepared import find_archived, read_archived, write_archive
from napari_braintumor.engine.training.training_cases import load_training_case

TO_BRITISH = {"license": "licence", "normalization": "normalisation", "optimizer": "optimiser"}


def spell_british(text: str) -> str:
    for american, british in TO_BRITISH.items():
        text = text.replace(american, british)
    return text


@pytest.mark.parametrize(
    "value",
    [
        ModelCard(
            name="a",
            architecture="unet",
            license="CC0",
            normalization="nonzero z-score",
            trained_on=(DataSource(name="b", patients=1, license="CC BY 4.0", defines=()),),
        ),
        TrainPlan(name="a", cases=("b",), license="CC0", optimizer="sgd"),
        Entry(name="a", title="A", file="a.zip", bytes=1, sha256="0" * 64, license="CC0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_old_names_are_read_and_new_ones_written(value) -> None:
    written = value.model_dump_json()
    older = spell_british(written)
    assert not any(british in written for british in TO_BRITISH.values())
    assert older != written
    assert type(value).model_validate_json(older) == value
    assert type(value).model_validate_json(written) == value


def test_a_plan_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"name": "a", "cases": ["b"], "optimiser": "adam", "licence": "CC0"}')
    assert (read_plan(path).optimizer, read_plan(path).license) == ("adam", "CC0")


def test_an_archive_of_an_earlier_version_is_read(toy_plan: TrainPlan, case_folder: Path, tmp_path: Path) -> None:
    case = load_training_case(find_cases(case_folder / "case0")[0], toy_plan)
    new, old = tmp_path / "new.cases.zip", tmp_path / "old.cases.zip"
    write_archive(new, toy_plan, [case])
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        assert "normalization" in json.loads(source.read("index.json"))["cases"]["case0"]
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, spell_british(content.decode()) if name == "index.json" else content)
    (found,) = find_archived(old)
    assert read_archived(found, toy_plan).prepared.normalization == "head z-score"


def test_a_checkpoint_of_an_earlier_version_keeps_its_moments(tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        network = nn.Linear(3, 2)
        return network, torch.optim.AdamW(network.parameters())

    network, optimizer = build()
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"network": network}, optimizer, {"step": 1})
    tensors = {spell_british(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"napari_braintumor_state": '{"step": 1}'})
    other, fresh = build()
    assert load_checkpoint(path, {"network": other}, fresh) == {"step": 1}
    moments, expected = fresh.state_dict()["state"], optimizer.state_dict()["state"]
    assert moments.keys() == expected.keys()
    assert all(torch.equal(moments[n]["exp_avg"], expected[n]["exp_avg"]) for n in expected)

from __future__ import annotations

import hashlib
import inspect
import io
import os
import re
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import TINY, store_tiny

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.errors import DataError, DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange import bioimageio, onnx
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import load_weights, save_model
from napari_braintumor.engine.models.registry import ARCHITECTURES
from napari_braintumor.engine.models.store import ModelStore, StoredModel

# bioimageio leaves the packages that it reads open, and its sigmoid takes the exponential of any logit.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    "ignore:overflow encountered in exp:RuntimeWarning",
)


def some(names: Iterable[str], quick: str) -> list[object]:
    """All of these, of which the quick suite takes one."""
    return [pytest.param(name, marks=() if name == quick else pytest.mark.slow) for name in names]


BUNDLED = some(("glioma-unet", "glioma-res-unet", "glioma-u2net"), "glioma-unet")
EVERY = some(TINY, "unet")
SOLID = some(("unet", "res_unet", "monai_segresnet", "monai_basicunet", "monai_dynunet"), "unet")


def assert_passes(package: Path) -> None:
    """Let the reference implementation validate the package, run it and compare what comes out."""
    from bioimageio.core import test_model

    mend_bioimageio_spec()
    summary = test_model(package, devices=["cpu"])
    failed = [(detail.name, detail.errors) for detail in summary.details if detail.status != "passed"]
    assert summary.status == "passed", failed


@cache
def mend_bioimageio_spec() -> None:
    """Let bioimageio.spec 0.5.12, which bioimageio.core 0.11 asks for, work with pydantic 2.14.

    It hands pydantic's serializers an argument too many, which pydantic refuses since; bioimageio.spec 0.5.14 does not.
    """
    from bioimageio.spec._internal import io_packaging
    from bioimageio.spec.model import v0_4

    for function in (io_packaging.package_file_descr_serializer, v0_4.package_weights):
        mended = re.sub(r"\binfo,  # pyright: ignore.*", "", inspect.getsource(function))
        made: dict[str, Any] = {}
        exec(mended, function.__globals__, made)
        function.__code__ = made[function.__name__].__code__


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection, and keep what bioimageio caches out of the user's folders."""
    import socket

    def refuse(*args: object) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("BIOIMAGEIO_CACHE_PATH", str(tmp_path_factory.getbasetemp() / "bioimageio"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("exported")
    return bioimageio.export(store_tiny(folder, "unet"), folder / "package.zip").read_bytes()


@pytest.fixture
def package(exported: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "package.zip"
    path.write_bytes(exported)
    return path


def change(package: Path, **files: bytes | None) -> Path:
    """Replace or remove files of a package, by names with ``__`` for the dot."""
    wanted = {name.replace("__", "."): content for name, content in files.items()}
    with zipfile.ZipFile(package) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(package, "w") as new:
        for name, content in {**kept, **wanted}.items():
            if content is not None:
                new.writestr(name, content)
    return package


def describe(package: Path) -> dict[str, Any]:
    with zipfile.ZipFile(package) as opened:
        described: dict[str, Any] = yaml.safe_load(opened.read("bioimageio.yaml"))
    return described


def redescribe(package: Path, described: dict[str, Any]) -> Path:
    return change(package, bioimageio__yaml=yaml.safe_dump(described).encode())


def rewrite_weights(package: Path, weights: dict[str, Any]) -> Path:
    """Replace the weights, with a checksum that fits them."""
    stream = io.BytesIO()
    torch.save(weights, stream)
    described = describe(package)
    described["weights"]["pytorch_state_dict"]["sha256"] = hashlib.sha256(stream.getvalue()).hexdigest()
    return redescribe(change(package, weights__pt=stream.getvalue()), described)


def read_weights(package: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(package) as opened:
        weights: dict[str, torch.Tensor] = torch.load(io.BytesIO(opened.read("weights.pt")), weights_only=True)
    return weights


def as_foreign(package: Path) -> Path:
    """Make a package look as if another program had made it."""
    described = describe(package)
    del described["config"]
    return redescribe(package, described)


# ----------------------------------------------------------------------------------------------------------------- out


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_passes_the_tests_of_bioimageio_core(tmp_path: Path, name: str) -> None:
    assert_passes(bioimageio.export(ModelStore().find(name), tmp_path / f"{name}.zip"))


@pytest.mark.parametrize("architecture", EVERY)
def test_every_architecture_passes_the_tests_of_bioimageio_core(tmp_path: Path, architecture: str) -> None:
    assert_passes(bioimageio.export(store_tiny(tmp_path, architecture), tmp_path / "package.zip"))


@pytest.mark.parametrize("architecture", SOLID)
def test_three_dimensional_networks_pass_the_tests_of_bioimageio_core(tmp_path: Path, architecture: str) -> None:
    axes = "RAS xyz" if architecture == "monai_segresnet" else "LPS zyx"
    assert_passes(bioimageio.export(store_tiny(tmp_path, architecture, 3, axes=axes), tmp_path / "package.zip"))


def test_no_architecture_is_left_out() -> None:
    assert TINY.keys() >= ARCHITECTURES.keys()


def test_a_network_of_classes_passes_the_tests_of_bioimageio_core(tmp_path: Path) -> None:
    channels = ((1, 2, 3), (1, 3), (3,))
    model = store_tiny(tmp_path, "unet", activation="softmax", channels=channels)
    assert_passes(bioimageio.export(model, tmp_path / "package.zip"))


def test_a_package_is_the_same_each_time(tmp_path: Path) -> None:
    model = store_tiny(tmp_path, "unet")
    first, second = (bioimageio.export(model, tmp_path / f"{n}.zip").read_bytes() for n in (1, 2))
    assert first == second


def test_the_example_shows_tumor_and_what_the_network_makes_of_it(tmp_path: Path) -> None:
    path = bioimageio.export(ModelStore().find("glioma-unet"), tmp_path / "package.zip")
    with zipfile.ZipFile(path) as opened:
        images, regions = (np.load(io.BytesIO(opened.read(f"test_{name}.npy"))) for name in ("input", "output"))
    assert images.shape[:2] == (1, 12)  # four modalities of a slice, of that above and of that below
    assert images.shape[2:] == regions.shape[2:]
    assert (regions[0] > 0.5).any((1, 2)).all()


@pytest.mark.slow
def test_images_that_the_sample_case_lacks_are_stood_in_for(tmp_path: Path) -> None:
    model = store_tiny(tmp_path, "unet", modalities=("ADC", "T1", "SWI"))
    assert_passes(bioimageio.export(model, tmp_path / "package.zip"))
    assert_passes(bioimageio.export(store_tiny(tmp_path, "unet", modalities=("ADC",)), tmp_path / "package.zip"))


def test_a_license_without_a_name_travels_as_a_file(tmp_path: Path) -> None:
    model = store_tiny(tmp_path, "unet", license="Ask the hospital.")
    path = bioimageio.export(model, tmp_path / "package.zip")
    assert describe(path)["license"]["source"] == "LICENSE.md"
    assert_passes(path)


def test_where_nothing_can_be_written_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        bioimageio.export(store_tiny(tmp_path, "unet"), tmp_path / "nowhere" / "package.zip")


def test_an_onnx_graph_is_not_packed(tmp_path: Path) -> None:
    card = ModelCard(name="graph", architecture="onnx")
    with pytest.raises(ModelError, match="Export it as ONNX"):
        bioimageio.export(StoredModel("graph", tmp_path / "graph.safetensors", card), tmp_path / "package.zip")


# ------------------------------------------------------------------------------------------------------------------ in


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    model = ModelStore().find(name)
    weights, card = bioimageio.load(bioimageio.export(model, tmp_path / "package.zip"))
    assert card == model.card
    kept = load_weights(model.path)
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("architecture", EVERY)
def test_every_architecture_comes_back_as_it_was(tmp_path: Path, architecture: str) -> None:
    dims = 3 if architecture in ("monai_dynunet", "monai_segresnet") else 2
    model = store_tiny(tmp_path, architecture, dims)
    weights, card = bioimageio.load(bioimageio.export(model, tmp_path / "package.zip"))
    again = save_model(tmp_path / "again.safetensors", weights, card)
    image = torch.randn(1, 4, *(64,) * dims)
    assert torch.equal(load_network(again)(image), load_network(model.path)(image))


def test_a_package_may_be_a_folder_or_lie_in_one(package: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(package) as opened:
        opened.extractall(tmp_path / "unpacked" / "inner")
    assert bioimageio.load(tmp_path / "unpacked")[1] == bioimageio.load(package)[1]


def test_a_package_of_another_program_needs_a_description(package: Path) -> None:
    with pytest.raises(DescriptionNeeded, match="does not state its modalities and regions"):
        bioimageio.load(as_foreign(package))


def test_a_package_of_another_program_is_read_as_it_is_described(package: Path) -> None:
    expected = read_weights(package)
    description = ModelCard(name="theirs", architecture="res_unet")
    weights, card = bioimageio.load(as_foreign(package), description)
    assert (card.name, card.architecture, card.options["width"]) == ("theirs", "unet", 2)
    assert card.parameters == sum(tensor.numel() for name, tensor in expected.items() if "running" not in name) - 18
    assert torch.equal(weights["head.weight"], expected["head.weight"])


def test_a_class_may_be_named_in_the_older_way(package: Path) -> None:
    described = describe(as_foreign(package))
    entry = described["weights"]["pytorch_state_dict"]
    entry["kwargs"] = entry["architecture"]["kwargs"]
    entry["architecture"] = "unet.py:UNet"
    _, card = bioimageio.load(redescribe(package, described), ModelCard(name="theirs", architecture="unet"))
    assert card.architecture == "unet"


def test_the_public_names_of_budas_network_are_known(tmp_path: Path) -> None:
    model = store_tiny(tmp_path, "buda_unet", modalities=("T1", "FLAIR", "T1ce"), regions=GLIOMA_REGIONS[:1])
    package = as_foreign(bioimageio.export(model, tmp_path / "package.zip"))
    described = describe(package)
    arguments = {"in_channels": 3, "out_channels": 1, "init_features": 2}
    described["weights"]["pytorch_state_dict"]["architecture"].update(callable="UNet", kwargs=arguments)
    assert model.card is not None
    _, card = bioimageio.load(redescribe(package, described), model.card.model_copy(update={"architecture": "unet"}))
    assert (card.architecture, card.options) == ("buda_unet", {"width": 2})


def test_a_network_that_is_not_known_is_refused(package: Path) -> None:
    described = describe(as_foreign(package))
    described["weights"]["pytorch_state_dict"]["architecture"]["callable"] = "MagicNet"
    with pytest.raises(ModelError, match="needs the network 'MagicNet', which this plugin does not have"):
        bioimageio.load(redescribe(package, described), ModelCard(name="theirs", architecture="unet"))


def test_a_network_with_another_number_of_images_is_refused(package: Path) -> None:
    description = ModelCard(name="theirs", architecture="unet", modalities=("T1", "T2"))
    with pytest.raises(ModelError, match="do not fit it as described"):
        bioimageio.load(as_foreign(package), description)


def with_graph(package: Path, folder: Path, **entry: Any) -> Path:
    """Add the network as ONNX, and name a class that nobody knows."""
    graph = onnx.export(store_tiny(folder, "unet"), folder / "graph.onnx").read_bytes()
    described = describe(as_foreign(package))
    described["weights"]["pytorch_state_dict"]["architecture"]["callable"] = "MagicNet"
    checksum = hashlib.sha256(graph).hexdigest()
    described["weights"]["onnx"] = {"source": "graph.onnx", "sha256": checksum, "opset_version": 18, **entry}
    return redescribe(change(package, graph__onnx=graph), described)


@pytest.mark.slow
def test_a_network_that_is_not_known_is_read_as_onnx(package: Path, tmp_path: Path) -> None:
    described = ModelCard(name="theirs", architecture="unet")
    weights, card = bioimageio.load(with_graph(package, tmp_path), described)
    assert (card.name, card.architecture, card.options) == ("theirs", "onnx", {"divisor": 16})
    assert weights["graph"].dtype == torch.uint8


@pytest.mark.slow
def test_a_graph_in_two_files_is_refused(package: Path, tmp_path: Path) -> None:
    path = with_graph(package, tmp_path, external_data={"source": "graph.onnx.data"})
    with pytest.raises(ModelError, match="in a second file"):
        bioimageio.load(path, ModelCard(name="theirs", architecture="unet"))


def test_other_formats_of_weights_are_refused(package: Path) -> None:
    described = describe(package)
    described["weights"] = {"torchscript": {"source": "weights.pt"}}
    with pytest.raises(ModelError, match="holds weights only as torchscript"):
        bioimageio.load(redescribe(package, described))


def test_weights_that_lie_elsewhere_are_not_fetched(package: Path) -> None:
    described = describe(package)
    described["weights"]["pytorch_state_dict"]["source"] = "https://example.org/weights.pt"
    with pytest.raises(ModelError, match="are not in it"):
        bioimageio.load(redescribe(package, described))


# -------------------------------------------------------------------------------------------------------------- hostile


def test_source_of_a_package_is_never_run(package: Path, tmp_path: Path) -> None:
    trap = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n".encode()
    bioimageio.load(change(package, unet__py=trap))
    bioimageio.load(as_foreign(package), ModelCard(name="theirs", architecture="unet"))
    assert not (tmp_path / "ran").exists()


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_a_pickle_with_code_is_refused_and_not_run(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="run code"):
        bioimageio.load(rewrite_weights(package, {"head.weight": _Trap()}))
    assert not (tmp_path / "ran").exists()


def test_a_missing_tensor_is_refused(package: Path) -> None:
    weights = read_weights(package)
    del weights["head.bias"]
    with pytest.raises(ModelError, match=r"missing.*head\.bias"):
        bioimageio.load(rewrite_weights(package, weights))


def test_an_extra_tensor_is_refused(package: Path) -> None:
    weights = {**read_weights(package), "backdoor": torch.ones(3)}
    with pytest.raises(ModelError, match=r"unknown.*backdoor"):
        bioimageio.load(rewrite_weights(package, weights))


def test_a_tensor_of_another_shape_is_refused(package: Path) -> None:
    weights = {**read_weights(package), "head.bias": torch.ones(7)}
    with pytest.raises(ModelError, match=r"another shape.*head\.bias"):
        bioimageio.load(rewrite_weights(package, weights))


def test_weights_that_are_not_numbers_are_refused(package: Path) -> None:
    weights = {**read_weights(package), "head.bias": torch.full((3,), torch.nan)}
    with pytest.raises(ModelError, match="not finite"):
        bioimageio.load(rewrite_weights(package, weights))


def test_weights_that_do_not_fit_their_checksum_are_refused(package: Path) -> None:
    stream = io.BytesIO()
    torch.save(read_weights(package), stream)
    with pytest.raises(ModelError, match="checksum"):
        bioimageio.load(change(package, weights__pt=stream.getvalue() + b" "))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"!!python/object/apply:os.system ['touch ran']", "cannot be read"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "refers to parts of itself"),
        (b"weights: " + b"[" * 5000, "cannot be read"),
        (b"weights: " + b"[" * 50 + b"]" * 50, "no plain names and values"),
        (b"- only\n- a list\n", "no plain names and values"),
        (b"weights: \xff\xfe\n", "cannot be read"),
        (b"#" * 2_000_000, "2,000,000 bytes"),
        (b"type: dataset\n", "but not a model"),
    ],
)
def test_a_description_that_is_none_is_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=says):
        bioimageio.load(change(package, bioimageio__yaml=text))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("spatial_dims", 7, "spatial_dims"),
        ("name", "../../etc/passwd", "name"),
        ("surprise", 1, "surprise"),
        ("architecture", "magic", "no architecture 'magic'"),
        ("architecture", "onnx", "ONNX"),
        ("options", {"width": 10**9}, "width"),
        ("options", {"evil": "$__import__('os')"}, "evil"),
    ],
)
def test_a_card_that_is_none_is_refused(package: Path, field: str, value: object, says: str) -> None:
    described = describe(package)
    described["config"]["napari_braintumor"]["card"][field] = value
    with pytest.raises(ModelError, match=says):
        bioimageio.load(redescribe(package, described))


def test_a_zip_without_a_description_is_not_a_package(package: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no bioimageio\.yaml"):
        bioimageio.load(change(package, bioimageio__yaml=None))


def test_a_package_that_was_cut_short_is_refused(package: Path) -> None:
    package.write_bytes(package.read_bytes()[:-4000])
    with pytest.raises(ModelError, match="damaged"):
        bioimageio.load(package)

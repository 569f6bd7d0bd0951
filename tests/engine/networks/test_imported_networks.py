"""Networks that were trained elsewhere: other axes, channels, z-scores and dimensions give labels all the same."""

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SegResNet
from monai.transforms import NormalizeIntensity

from napari_braintumor.engine import segment
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.errors import ModelError, SettingsError
from napari_braintumor.engine.events import Segmented, SlicesDone
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import IMPORTED, build_network, check_trainable, find_divisor
from napari_braintumor.engine.segmenting.network import to_regions
from napari_braintumor.engine.segmenting.regions import nest_logits
from napari_braintumor.engine.settings import SegmentConfig
from toy_cases import make_case

OPTIONS = {
    "buda_unet": {"width": 4},
    "monai_segresnet": {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "monai_unet": {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1},
    "monai_basicunet": {"features": [4, 4, 8, 8, 16, 4]},
    "monai_dynunet": {
        "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8],
    },
    "monai_swinunetr": {"feature_size": 12},
}  # fmt: skip
KINDS = [(name, IMPORTED[name].spatial_dims[-1]) for name in OPTIONS if IMPORTED[name].convertible]


def save(folder, architecture, dims, **more):
    torch.manual_seed(0)
    options = OPTIONS[architecture]
    card = ModelCard(
        name="imported", architecture=architecture, options=options, spatial_dims=dims, **more,
    )  # fmt: skip
    network = build_network(architecture, in_channels=4, out_channels=3, spatial_dims=dims, options=options)
    return save_model(folder / "imported.safetensors", network.state_dict(), card), network.eval()


def events_of(volume, path, **settings):
    settings = {"device": "cpu", "min_volume_ml": 0.0, **settings}
    return list(segment(volume, SegmentConfig(model=str(path), **settings)))


def labels_of(volume, path, **settings):
    last = events_of(volume, path, **settings)[-1]
    assert isinstance(last, Segmented)
    return last.segmentation.labels


@pytest.mark.parametrize(("architecture", "dims"), KINDS)
def test_both_runtimes_give_the_same_probabilities(tmp_path, converted_here, architecture: str, dims: int) -> None:
    volume, _ = make_case(3)
    path, _ = save(tmp_path, architecture, dims, window=(32, 64, 64) if dims == 3 else None)
    by_torch, by_default = (
        events_of(volume, path, runtime=runtime, probabilities=True)[-1].segmentation.probabilities.astype(float)
        for runtime in ("torch", "auto")
    )
    assert by_torch.std() > 1e-3
    np.testing.assert_allclose(by_default, by_torch, atol=2e-3)


def test_a_3d_model_of_monai_gives_what_a_plain_monai_pipeline_gives(tmp_path) -> None:
    volume, _ = make_case(4, (40, 56, 48), (1.0, 1.0, 1.0))
    path, network = save(
        tmp_path, "monai_segresnet", 3, axes="RAS xyz", normalization="nonzero z-score", window=(24, 32, 32),
        channels=((1,), (0,), (2,)), modalities=("T1ce", "T1", "T2", "FLAIR"),
    )  # fmt: skip
    assert isinstance(network, SegResNet)
    image = volume.with_modalities(("T1ce", "T1", "T2", "FLAIR")).data[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)
    image = NormalizeIntensity(nonzero=True, channel_wise=True)(image.copy())
    with torch.inference_mode():
        logits = SlidingWindowInferer((32, 32, 24), overlap=0.5, mode="gaussian")(image[None], network)[0]
    core, whole, enhancing = nest_logits(logits[[1, 0, 2]][None].flatten(3))[0].reshape(logits.shape)[[1, 0, 2]] > 0
    expected = np.zeros(image.shape[1:], np.uint8)
    for mask, label in ((whole, 2), (core, 1), (enhancing, 3)):
        expected[mask.numpy()] = label
    expected = expected.transpose(2, 1, 0)[:, ::-1, ::-1]
    head = volume.data.any(0)
    events = events_of(volume, path, runtime="torch")
    labels = events[-1].segmentation.labels
    # Convolutions see zeros beyond the crop, where the plain pipeline has the air of the frame.
    assert (labels == expected)[head].mean() > 0.97
    done = [event.done for event in events if isinstance(event, SlicesDone)]
    assert done == sorted(done)
    assert done[-1] == events[-2].total


def test_a_3d_model_works_at_its_own_spacing(tmp_path) -> None:
    volume, _ = make_case(5)
    path, _ = save(tmp_path, "monai_segresnet", 3, spacing=(2.0, 2.0, 2.0), window=(32, 64, 64))
    assert labels_of(volume, path, runtime="torch", probabilities=True).shape == volume.shape


def test_probabilities_of_a_3d_model_fit_its_labels(tmp_path) -> None:
    volume, _ = make_case(5)
    path, _ = save(tmp_path, "monai_unet", 3)
    result = events_of(volume, path, runtime="torch", probabilities=True)[-1].segmentation
    sure = np.abs(result.probabilities[0].astype(float) - 0.5) > 1e-3
    assert np.array_equal((result.probabilities[0] > 0.5)[sure], (result.labels > 0)[sure])


def test_classes_of_a_softmax_become_nested_regions() -> None:
    card = ModelCard(
        name="classes", architecture="monai_dynunet", activation="softmax", channels=((1, 2, 3), (1, 3), (3,))
    )
    output = torch.randn(2, 4, 8, 8) * 3
    probabilities = to_regions(output, card).sigmoid()
    classes = output.softmax(1)
    torch.testing.assert_close(probabilities[:, 0], 1 - classes[:, 0])
    torch.testing.assert_close(probabilities[:, 1], classes[:, 1] + classes[:, 3])
    torch.testing.assert_close(probabilities[:, 2], classes[:, 3])


def test_a_network_whose_trace_holds_for_one_size_only_runs_in_torch(tmp_path) -> None:
    volume, _ = make_case(3)
    path, _ = save(tmp_path, "monai_swinunetr", 2)
    assert labels_of(volume, path).shape == volume.shape
    with pytest.raises(SettingsError, match="cannot be converted for OpenVINO"):
        events_of(volume, path, runtime="openvino")


def test_networks_from_elsewhere_are_not_trained_here() -> None:
    check_trainable("unet")
    with pytest.raises(ModelError, match="MONAI SegResNet cannot be trained here"):
        check_trainable("monai_segresnet")


def test_strides_say_what_sides_must_be_multiples_of() -> None:
    assert find_divisor("monai_dynunet", {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}) == 4
    assert find_divisor("monai_unet", {"strides": [2, 2, 2]}) == 8
    assert find_divisor("onnx", {"divisor": 64}) == 64


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"activation": "softmax"}, "needs the channels"),
        ({"channels": ((0,), (1,))}, "channels of its own"),
        ({"channels": ((0, 1), (1,), (2,))}, "each region is one channel"),
        ({"axes": "RAS xyz"}, "only 3-D networks"),
        ({"window": (8, 8, 8)}, "greater than or equal to 16"),
    ],
)
def test_a_card_whose_channels_do_not_fit_is_refused(wrong, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ModelCard(name="a", architecture="unet", regions=GLIOMA_REGIONS, **wrong)

import pytest
import torch

from napari_braintumor.engine.networks.u2net import U2Net

# The published code's table, written out again: stage, levels (F for dilated), in, middle, out.
FULL = """1 7 3 32 64|2 6 64 32 128|3 5 128 64 256|4 4 256 128 512|5 F 512 256 512|6 F 512 256 512|5d F 1024 256 512|
4d 4 1024 128 256|3d 5 512 64 128|2d 6 256 32 64|1d 7 128 16 64"""
SMALL = """1 7 3 16 64|2 6 64 16 64|3 5 64 16 64|4 4 64 16 64|5 F 64 16 64|6 F 64 16 64|5d F 128 16 64|
4d 4 128 16 64|3d 5 128 16 64|2d 6 128 16 64|1d 7 128 16 64"""


def public_shapes(table: str, out_channels: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def add(prefix: str, channels: int, out: int) -> None:
        shapes[f"{prefix}.conv_s1.weight"] = (out, channels, 3, 3)
        shapes[f"{prefix}.conv_s1.bias"] = (out,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.bn_s1.{name}"] = (out,)
        shapes[f"{prefix}.bn_s1.num_batches_tracked"] = ()

    outputs = {}
    for row in table.replace("\n", "").split("|"):
        stage, kind, *numbers = row.split()
        channels, middle, out = map(int, numbers)
        outputs[stage] = out
        levels = 4 if kind == "F" else int(kind)
        add(f"stage{stage}.rebnconvin", channels, out)
        add(f"stage{stage}.rebnconv1", out, middle)
        for level in range(2, levels + 1):
            add(f"stage{stage}.rebnconv{level}", middle, middle)
        for level in range(2, levels):
            add(f"stage{stage}.rebnconv{level}d", 2 * middle, middle)
        add(f"stage{stage}.rebnconv1d", 2 * middle, out)
    for side, stage in enumerate(("1d", "2d", "3d", "4d", "5d", "6"), start=1):
        shapes[f"side{side}.weight"] = (out_channels, outputs[stage], 3, 3)
        shapes[f"side{side}.bias"] = (out_channels,)
    shapes["outconv.weight"] = (out_channels, 6 * out_channels, 1, 1)
    shapes["outconv.bias"] = (out_channels,)
    return shapes


@pytest.mark.parametrize(("size", "table"), [("full", FULL), ("small", SMALL)])
def test_names_and_shapes_are_those_of_the_published_code(size: str, table: str) -> None:
    with torch.device("meta"):
        state = U2Net(in_channels=3, out_channels=1, size=size).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == public_shapes(table, 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"in_channels": 3, "out_channels": 1, "size": "full"}, 44_009_869),
        ({"in_channels": 3, "out_channels": 1, "size": "small"}, 1_131_181),
        ({"in_channels": 4, "out_channels": 3, "size": "full"}, 44_038_155),
        ({"in_channels": 4, "out_channels": 3, "size": "small"}, 1_138_731),
        ({"in_channels": 4, "out_channels": 3, "size": "small", "spatial_dims": 3}, 3_398_955),
    ],
)
def test_the_network_has_the_known_number_of_weights(options, expected: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in U2Net(**options).parameters()) == expected


def test_training_gives_the_fused_map_and_six_sides_and_evaluation_the_fused_map_alone() -> None:
    network = U2Net(in_channels=1, out_channels=2, size="small")
    x = torch.rand(2, 1, 40, 33)
    outputs = network(x)
    assert [tuple(output.shape) for output in outputs] == [(2, 2, 40, 33)] * 7
    fused = network.eval()(x)
    assert fused.shape == (2, 2, 40, 33)


@pytest.mark.parametrize("options", [{"size": "medium"}, {"spatial_dims": 1}])
def test_an_impossible_option_is_refused(options) -> None:
    with pytest.raises(ValueError, match="must be"):
        U2Net(in_channels=1, out_channels=1, **options)

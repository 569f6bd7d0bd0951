import numpy as np
import pytest

from napari_braintumor.engine.inspecting.inspection import Inspection, inspect_thumbnails, make_thumbnail


def inspect(images: dict[str, np.ndarray]) -> Inspection:
    return inspect_thumbnails({name: make_thumbnail(image) for name, image in images.items()})


@pytest.fixture
def head() -> np.ndarray:
    """A noisy ball on air that is exactly zero."""
    random = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, 48),) * 3, indexing="ij")
    ball = sum(axis**2 for axis in axes) < 0.6
    return (random.normal(100, 10, ball.shape) * ball).astype(np.float32)


def test_a_blank_background_marks_a_skull_stripped_scan(head) -> None:
    air = np.abs(np.random.default_rng(1).normal(0, 4, head.shape)).astype(np.float32)
    assert inspect({"T1": head, "T2": head * 2}).skull_stripped
    assert not inspect({"T1": np.where(head > 0, head, air)}).skull_stripped


def test_scans_of_one_head_give_no_finding(head) -> None:
    assert inspect({"T1": head, "T2": (200 - head) * (head > 0), "FLAIR": head * 3}).findings == ()


def test_heads_that_hardly_overlap_give_a_finding(head) -> None:
    (finding,) = inspect({"T1": head, "FLAIR": np.roll(head, 24, axis=0)}).findings
    assert finding.startswith("The heads in T1 and FLAIR overlap by only ")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("case", "stripped"),
    [
        ("brats/BraTS2021_00000", True),
        ("lgg/TCGA_CS_4941_19960909", False),
        ("btp/PGBM-006_post", False),
        ("healthy", False),
    ],
)
def test_real_scans_are_skull_stripped_or_not_and_overlap(real_data, case: str, stripped: bool) -> None:
    from napari_braintumor.engine.files.cases import find_cases
    from napari_braintumor.engine.files.reading import read_case

    volume = read_case(find_cases(real_data / case)[0])
    inspection = inspect(dict(zip(volume.modalities, volume.data, strict=True)))
    assert inspection.skull_stripped == stripped
    assert inspection.findings == ()

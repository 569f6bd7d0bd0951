import numpy as np
import pytest

from napari_braintumor.engine.inspecting.inspection import find_misplaced, make_thumbnail


def find(images: dict[str, np.ndarray]) -> tuple[str, ...]:
    return find_misplaced({name: make_thumbnail(image) for name, image in images.items()})


@pytest.fixture
def head() -> np.ndarray:
    """A noisy ball on air that is exactly zero."""
    random = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, 48),) * 3, indexing="ij")
    ball = sum(axis**2 for axis in axes) < 0.6
    return (random.normal(100, 10, ball.shape) * ball).astype(np.float32)


def test_scans_of_one_head_give_no_finding(head) -> None:
    assert find({"T1": head, "T2": (200 - head) * (head > 0), "FLAIR": head * 3}) == ()


def test_heads_that_hardly_overlap_give_a_finding(head) -> None:
    (finding,) = find({"T1": head, "FLAIR": np.roll(head, 24, axis=0)})
    assert finding.startswith("The heads in T1 and FLAIR overlap by only ")


@pytest.mark.real_data
@pytest.mark.parametrize("case", ["brats/BraTS2021_00000", "lgg/TCGA_CS_4941_19960909", "btp/PGBM-006_post", "healthy"])
def test_real_scans_of_one_head_overlap(real_data, case: str) -> None:
    from napari_braintumor.engine.files.cases import find_cases
    from napari_braintumor.engine.files.reading import read_case

    volume = read_case(find_cases(real_data / case)[0])
    assert find(dict(zip(volume.modalities, volume.data, strict=True))) == ()

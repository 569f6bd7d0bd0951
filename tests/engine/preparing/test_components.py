import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_braintumor.engine.preparing import components
from napari_braintumor.engine.preparing.components import ConnectedComponents


def components_of(mask: np.ndarray, diagonal: bool) -> ConnectedComponents:
    return ConnectedComponents(lambda start, stop: mask[start:stop], len(mask), diagonal)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.7), slab=st.integers(1, 9), diagonal=st.booleans())
def test_components_read_slab_by_slab_are_those_of_the_whole_mask(
    seed: int, share: float, slab: int, diagonal: bool
) -> None:
    mask = np.random.default_rng(seed).random((9, 7, 8)) < share
    numbered, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 3 if diagonal else 1))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "SLAB_SLICES", slab)
        found = components_of(mask, diagonal)
        assert sorted(found.sizes) == sorted(sizes)
        areas, at_ends = found.measure_slices()
        order = np.lexsort((found.spans, at_ends, areas, found.sizes))
        of_slices = np.array([np.bincount(plane.ravel(), minlength=count + 1)[1:] for plane in numbered])
        spans = (of_slices > 0).sum(0)
        expected = sizes, of_slices.max(0), (of_slices[0] + of_slices[-1]) > 0, spans
        expected_order = np.lexsort(expected[::-1])
        for given_values, values in zip((found.sizes, areas, at_ends, found.spans), expected, strict=True):
            assert np.array_equal(given_values[order], values[expected_order])
        kept = np.zeros_like(mask)
        for start, stop, part in found.keep(found.sizes >= 3):
            kept[start:stop] = part
    assert np.array_equal(kept, np.concatenate([[False], sizes >= 3])[numbered])


def test_a_mask_of_nothing_has_no_components() -> None:
    found = components_of(np.zeros((5, 4, 4), bool), True)
    assert len(found.sizes) == 0
    assert not any(mask.any() for _, _, mask in found.keep(found.sizes > 0))

"""No edit of a large case holds the window for a fifth of a second; what takes longer is done in other threads."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, REGION_LABELS
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.volumes import Segmentation
from napari_braintumor.layers import (
    Scribble,
    apply_labels,
    copy_section,
    default_placement,
    restore_model,
    update_or_add_labels,
    update_or_add_outline,
)

SHAPE = (155, 240, 240)
LONGEST_S = 0.2


@pytest.fixture(scope="module")
def case() -> tuple[ViewerModel, Labels]:
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    away = np.sqrt(((z - 80) ** 2 + (y - 110) ** 2 + (x - 90) ** 2).astype(np.float32))
    labels = np.zeros(SHAPE, np.uint8)
    for mm, label in ((32, 2), (20, 1), (12, 3)):
        labels[away < mm] = label
    source = default_grid(SHAPE, (1.0, 1.0, 1.0))
    segmentation = Segmentation(
        labels=labels,
        label_names={region.label: region.label_name for region in GLIOMA_REGIONS},
        label_colors={region.label: region.color for region in GLIOMA_REGIONS},
        regions={region.name: REGION_LABELS[region.name] for region in GLIOMA_REGIONS},
        volumes_ml={region.name: 1.0 for region in GLIOMA_REGIONS},
        source=source,
        name="large",
        provenance={"model": "fake"},
    )
    viewer = ViewerModel()
    return viewer, update_or_add_labels(viewer, segmentation, default_placement(source))


def measure(act: Callable[[], object]) -> float:
    """Return the processor time of this thread, which other programs on the machine do not lengthen."""
    begun_s = time.thread_time()
    act()
    return time.thread_time() - begun_s


def test_no_edit_of_a_large_case_holds_the_window_for_a_fifth_of_a_second(case):
    viewer, layer = case
    shifted = np.roll(layer.data, 2, axis=1)
    scribble = Scribble(viewer, layer)
    scribble.layer.brush_size = 6

    def draw() -> None:
        scribble.layer.paint((80, 110, 130), 2)

    def follow() -> None:
        request = scribble.request()
        grown = request.labels_ZYX.copy()
        grown[60:100, 90:130, 120:130] = 2
        assert scribble.apply(request, grown) is not None

    taken_s = {
        "replace all": measure(lambda: apply_labels(layer, shifted)),
        "undo": measure(layer.undo),
        "redo": measure(layer.redo),
        "copy a section": measure(lambda: copy_section(layer, 1, 110, 111)),
        "restore": measure(lambda: restore_model(layer)),
        "outline": measure(lambda: update_or_add_outline(viewer, layer)),
        "draw a stroke": measure(draw),
        "take what follows": measure(follow),
        "undo the stroke": measure(scribble.layer.undo),
    }
    print({name: round(seconds, 3) for name, seconds in taken_s.items()})
    assert max(taken_s.values()) < LONGEST_S, taken_s

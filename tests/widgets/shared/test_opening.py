import subprocess
import sys

import pytest

CODE = """
import sys, time
begun = time.perf_counter()
import napari, napari.layers, napari.qt.threading, superqt
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication
app = QApplication([])
viewer = ViewerModel()
before = set(sys.modules)  # older versions of napari import pooch
shown = time.perf_counter()
from napari_braintumor.widgets.{folder}.dock import {dock}
dock = {dock}(viewer)
opened = time.perf_counter()
late = {{"torch", "monai", "openvino", "nibabel", "matplotlib", "pooch"}} & (set(sys.modules) - before)
assert not late, late
print((opened - shown) / (shown - begun))
"""


# How many seconds it takes is measured in benchmarks/first_click.py; here napari's own start is the clock.
@pytest.mark.parametrize(
    ("folder", "dock"),
    [
        ("segmenting", "SegmentDock"),
        ("correcting", "CorrectDock"),
        ("cohort", "CohortDock"),
        ("measuring", "MeasureDock"),
        ("training", "TrainDock"),
        ("models", "ModelsDock"),
        ("planes", "PlanesDock"),
    ],
)
def test_a_dock_opens_in_a_fraction_of_the_time_that_napari_takes_and_without_torch(folder, dock):
    code = CODE.format(folder=folder, dock=dock)
    shares = []
    for _ in range(3):  # another program may have had the cores meanwhile
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
        shares.append(float(done.stdout.split()[-1]))
        if shares[-1] < 1 / 3:
            break
    assert min(shares) < 1 / 3, shares

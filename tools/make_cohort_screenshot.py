"""Segment a small cohort in a real napari window and save a picture of it.

Needs a display: ``xvfb-run -a python tools/make_cohort_screenshot.py``. Only the synthetic sample case may be shown:
the cohort is made of it, moved and mirrored, and of one file that is not a scan.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from make_screenshot import hide_activity, save_picture

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT / "docs" / "cohort.png"
    parser.add_argument("output", type=Path, nargs="?", default=default, help="PNG file (default: docs/cohort.png)")
    parser.add_argument("--width", type=int, default=640, help="how wide the dock is, in pixels")
    parser.add_argument("--font", type=int, default=0, help="the size of the font; default: napari's")
    parser.add_argument("--limit", type=float, default=900, help="seconds the run may take")
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    os.chdir(tempfile.mkdtemp())  # so that no path of this machine is in the picture
    cases = write_cases(Path("scans"))

    appearance = get_settings().appearance
    before = appearance.font_size
    if arguments.font:
        appearance.font_size = arguments.font
    try:
        take_picture(cases, arguments.width, arguments.limit, output)
    finally:
        appearance.font_size = before  # which napari keeps for good


def take_picture(cases: Path, width_px: int, limit_s: float, output: Path) -> None:
    """Run the cases, mark them, open one, and save the picture."""
    viewer = napari.Viewer(show=False)
    frame, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Cohort")
    viewer.show()
    window = frame.window()
    window.resize(1500, 1000)
    window.resizeDocks([frame], [width_px], Qt.Orientation.Horizontal)
    dock.dataset_row.show_path(cases)
    wait(lambda: len(dock.table.rows) == 4, limit_s, "Looking for cases")
    dock.run_bar.run_button.click()
    wait(lambda: dock.run_bar.running, limit_s, "Starting")
    wait(lambda: not dock.run_bar.running, limit_s, "The run")
    for case, word in (("case1", "accepted"), ("case2", "to correct")):
        dock.view.setCurrentIndex(dock.cases.find(case))
        dock.case_box.mark_buttons[word].click()
    dock.case_box.open_button.click()
    wait(lambda: dock.case_box.layer is not None and dock.case_box.footer.job is None, limit_s, "Opening")
    hide_activity(window)
    until_s = time.monotonic() + 1
    wait(lambda: time.monotonic() > until_s, 10, "Drawing")
    save_picture(viewer, output)
    print(f"{output}: {output.stat().st_size / 1024:.0f} kB, dock {dock.width()} px wide")
    viewer.close()


def write_cases(folder: Path) -> Path:
    """Write the sample case three times, moved and mirrored, and a case that is not a scan."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from dataclasses import replace

    from cohorts import move
    from napari_braintumor.engine.files.cases import find_cases
    from napari_braintumor.engine.files.reading import read_case
    from napari_braintumor.engine.files.sample import sample_folder
    from toy_cases import write_case

    sample = read_case(find_cases(sample_folder())[0])
    for number in range(1, 5):
        write_case(folder, replace(move(sample, number), name=f"case{number}"))
    (folder / "case4" / "case4_t1.nii.gz").write_bytes(b"not a scan")
    return folder


def wait(done: Callable[[], bool], limit_s: float, what: str) -> None:
    begun_s = time.monotonic()
    while not done():
        if time.monotonic() - begun_s > limit_s:
            sys.exit(f"{what} took longer than {limit_s:.0f} s.")
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()

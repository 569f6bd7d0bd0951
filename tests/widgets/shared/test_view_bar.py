"""The buttons of planes: they show what the viewer shows, however it got there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from napari.components import ViewerModel
from napari.layers import Surface
from napari.utils.events import EmitterGroup

from napari_braintumor.layers import PLANES, SOLID, default_placement, update_or_add_labels
from napari_braintumor.layers.orientation import find_edges
from napari_braintumor.widgets.shared import view_bar
from napari_braintumor.widgets.shared.view_bar import ViewBar
from open_layers import open_case


class Settings(SimpleNamespace):
    """Stands in for napari's settings of this plugin."""

    def __init__(self) -> None:
        super().__init__(neurological=False, events=EmitterGroup(neurological=None))

    def choose(self, neurological: bool) -> None:
        self.neurological = neurological
        self.events.neurological(value=neurological)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = Settings()
    monkeypatch.setattr(view_bar, "view_settings", lambda: settings)
    return settings


@pytest.fixture
def viewer(volume: Any) -> ViewerModel:
    viewer = ViewerModel()
    open_case(viewer, volume)
    return viewer


@pytest.fixture
def bar(qtbot: Any, viewer: ViewerModel, volume: Any, segmentation: Any, chosen: Settings) -> ViewBar:
    layer = update_or_add_labels(viewer, segmentation, default_placement(volume.source))
    bar = ViewBar(viewer, lambda: layer if layer in viewer.layers else None)
    qtbot.addWidget(bar)
    return bar


def pressed(bar: ViewBar) -> list[str]:
    return [name for name, button in bar.buttons.items() if button.isChecked()]


@pytest.mark.parametrize("name", PLANES)
def test_a_button_shows_its_plane_and_stays_pressed(bar, viewer, name):
    bar.buttons[name].click()
    assert pressed(bar) == [name]
    bar.buttons[name].click()
    assert pressed(bar) == [name]


def test_the_buttons_follow_napari_s_own(bar, viewer):
    viewer.dims.order = (1, 0, 2)
    assert pressed(bar) == ["coronal"]
    viewer.dims.ndisplay = 3
    assert pressed(bar) == [SOLID]
    viewer.dims.ndisplay = 2
    viewer.dims.order = (2, 1, 0)
    assert pressed(bar) == ["sagittal"] or pressed(bar) == []


def test_the_convention_turns_the_plane_and_is_remembered(bar, viewer, chosen):
    bar.buttons["coronal"].click()
    bar.convention_box.setCurrentIndex(1)
    assert find_edges(viewer).left == "L"
    assert chosen.neurological
    bar.buttons["axial"].click()
    assert find_edges(viewer).left == "L"
    bar.convention_box.setCurrentIndex(0)
    assert find_edges(viewer).left == "R"


def test_the_convention_of_the_preferences_counts_for_the_next_plane(bar, viewer, chosen):
    chosen.choose(True)
    bar.buttons["axial"].click()
    assert find_edges(viewer).left == "L"


def test_the_tumor_is_shown_from_outside_and_a_plane_leads_back(bar, viewer, qtbot):
    bar.buttons[SOLID].click()
    qtbot.waitUntil(lambda: any(isinstance(layer, Surface) for layer in viewer.layers), timeout=20_000)
    qtbot.waitUntil(lambda: pressed(bar) == [SOLID] and bar.buttons[SOLID].isEnabled(), timeout=5000)
    bar.buttons["axial"].click()
    assert not any(isinstance(layer, Surface) for layer in viewer.layers)
    assert pressed(bar) == ["axial"]


def test_without_a_tumor_there_is_nothing_to_see_from_outside(bar, viewer):
    viewer.layers.remove(viewer.layers[-1])
    assert not bar.buttons[SOLID].isEnabled()
    assert not bar.largest_button.isEnabled()
    assert bar.buttons["coronal"].isEnabled()


def test_without_scans_there_are_no_planes(bar, viewer):
    viewer.layers.clear()
    assert not any(button.isEnabled() for button in bar.buttons.values())


def test_the_largest_section_is_one_click_away(bar, viewer):
    viewer.dims.set_point(0, viewer.dims.range[0].stop)
    bar.largest_button.click()
    assert round(viewer.layers[-1].world_to_data(viewer.dims.point)[0]) == 0


def test_the_bar_fits_into_a_narrow_dock(bar):
    bar.resize(270, 400)
    assert bar.minimumSizeHint().width() <= 270

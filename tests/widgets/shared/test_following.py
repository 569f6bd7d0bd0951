from napari.components import ViewerModel
from qtpy.QtWidgets import QLabel

from napari_braintumor.widgets.shared.following import follow, follow_names


class Counter(QLabel):
    """Shows how often it was called; a call after Qt has deleted it raises."""

    def count(self) -> None:
        self.setText(self.text() + "I")


def test_a_widget_that_is_gone_is_called_no_more_and_others_are(qtbot) -> None:
    viewer = ViewerModel()  # its own methods listen to its layers, too
    events = viewer.layers.events
    gone, stays = Counter(), Counter()
    qtbot.addWidget(stays)
    for widget in (gone, stays):
        follow(widget, widget.count, events.inserted, events.removed)
        follow_names(widget, widget.count, viewer.layers)
    layer = viewer.add_points(name="first")
    layer.name = "second"
    assert len(gone.text()) == len(stays.text()) == 2
    with qtbot.waitSignal(gone.destroyed):
        gone.deleteLater()
    layer.name = "third"
    viewer.layers.clear()
    viewer.add_points(name="fourth").name = "fifth"
    assert len(stays.text()) == 6

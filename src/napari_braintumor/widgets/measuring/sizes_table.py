"""The table of the Measure dock: a row for each region and each of its lesions."""

from __future__ import annotations

from collections.abc import Sequence

from napari_braintumor.engine.measuring.measurements import MEASUREMENTS, Measured
from napari_braintumor.widgets.shared.tables import TextTable

_LISTED = ("volume_ml", "product_mm2", "lesions", "side", "longest_mm", "slice_z")
_COLUMNS = [each for name in _LISTED for each in MEASUREMENTS if each.name == name]


class SizesTable(TextTable):
    """The measurements that are looked at most; files have all."""

    def __init__(self) -> None:
        super().__init__(["", *(each.heading for each in _COLUMNS)], numbers_from=1)

    def show_rows(self, rows: Sequence[Measured]) -> None:
        """Show what was measured."""
        self.fill(
            [
                [
                    f"  lesion {row.lesion}" if row.lesion else row.region,
                    *(each.show(row.values.get(each.name)) for each in _COLUMNS),
                ]
                for row in rows
            ],
            header_tips=["", *(each.meaning for each in _COLUMNS)],
        )

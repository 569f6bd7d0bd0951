"""The page of a cohort: complete in itself, and honest about names that look like markup."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from napari_braintumor.engine.cohorts.report import write_report
from napari_braintumor.engine.cohorts.results import Result
from napari_braintumor.engine.cohorts.rows import CaseRow, write_table

TRUST = {"word": "low", "expected_dice": {"whole tumor": [0.4, 0.6, 0.8]}, "reasons": ["the whole tumor is small"]}


class Page(HTMLParser):
    """The cells and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.heads: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        if tag == "th":
            self.heads.append("")
        self.inside = tag if tag in ("td", "th") else self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag in ("td", "th") else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "td":
            self.rows[-1][-1] += data
        if self.inside == "th":
            self.heads[-1] += data


@pytest.fixture
def make_row(tmp_path: Path) -> Callable[..., CaseRow]:
    """Make the row of a case with a picture, without segmenting it."""
    from matplotlib.figure import Figure

    def make(name: str, ml: float, **more: Any) -> CaseRow:
        Figure((1, 1)).savefig(tmp_path / f"{name[:3]}.png")
        content = {
            "volumes_ml": {"whole tumor": ml},
            "measured": {"whole tumor": {"volume_ml": ml, "lesions": 1} if ml else {"volume_ml": 0.0, "lesions": 0}},
            "model": "toy",
            "model_version": "1",
            "written": {"files": {"a_tumor.nii.gz": "", f"{name[:3]}.png": ""}, "from": None},
            **more,
        }
        return CaseRow(name, Result(tmp_path / "a_tumor.json", content))

    return make


@pytest.fixture
def rows(make_row) -> list[CaseRow]:
    return [
        make_row("p10", 3.5, notes=["The T1 was left out."]),
        make_row("p9", 20.25, trust=TRUST),
        make_row("p2", 0.0),
        make_row("pat<b>&amp;\"'</script>", 7.0, spacing_known=False, not_measurable={"tumor core": "no T1ce"}),
        CaseRow("lost", reason="'lost_t1.nii.gz' is damaged <img src=http://x>."),
    ]


def write(rows: list[CaseRow], folder: Path) -> str:
    write_report(rows, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_there_is_a_row_for_each_case_with_its_values(rows, tmp_path) -> None:
    page = Page(write(rows, tmp_path))
    _, *cells = page.rows
    assert page.heads[:3] == ["case", "flags", "trust"]
    assert page.heads[3] == "whole tumor, volume mL"
    assert [row[0] for row in cells] == ["p10", "p9", "p2", "pat<b>&amp;\"'</script>", "lost"]
    assert [row[1] for row in cells] == ["notes", "low trust", "no tumor", "not measurable, size guessed", "failed"]
    assert [row[2] for row in cells] == ["", "low", "", "", ""]
    assert [row[3] for row in cells] == ["3.5", "20.2", "0.0", "7.0", ""]
    assert "The T1 was left out." in cells[0][-2]
    assert "The whole tumor is small" in cells[1][-2]
    assert "is damaged <img src=http://x>." in cells[4][-2]
    assert all(len(row) == len(page.heads) for row in cells)


def test_pictures_are_in_the_file_and_nothing_is_loaded_from_elsewhere(rows, tmp_path) -> None:
    text = write(rows, tmp_path)
    page = Page(text)
    pictures = [attrs["src"] or "" for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 4
    for source in pictures:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert imread(io.BytesIO(base64.b64decode(data))).ndim == 3
    assert not [tag for tag, attrs in page.tags if tag in ("link", "iframe", "object") or "href" in attrs]
    assert [tag for tag, attrs in page.tags if tag == "script" and attrs] == []
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


def test_the_same_rows_give_the_same_file(rows, tmp_path) -> None:
    assert write(rows, tmp_path) == write(rows, tmp_path)


def test_a_picture_that_has_not_arrived_is_left_out(rows, tmp_path) -> None:
    (tmp_path / "p9.png").unlink()
    page = Page(write(rows, tmp_path))
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == ["p10", "p2", "pat<b>&amp;\"'</script>"]


def test_marks_have_a_column_as_soon_as_a_case_is_marked(rows, tmp_path) -> None:
    marked = [replace(row, mark=mark) for row, mark in zip(rows, ("accepted, corrected", "", "", "", ""), strict=True)]
    page = Page(write(marked, tmp_path))
    assert page.heads[:3] == ["case", "flags", "mark"]
    assert [row[2] for row in page.rows[1:]] == ["accepted, corrected", "", "", "", ""]
    assert all(len(row) == len(page.heads) for row in page.rows[1:])
    table = list(csv.DictReader(write_table(marked, tmp_path).splitlines()))
    assert [row["mark"] for row in table] == ["accepted, corrected", "", "", "", ""]
    assert "mark" not in write_table(rows, tmp_path).splitlines()[0].split(",")


def test_without_a_result_or_trust_there_are_fewer_columns(tmp_path) -> None:
    page = Page(write([CaseRow("lost", reason="gone")], tmp_path))
    assert page.heads == ["case", "flags", "notes", "picture"]


def test_the_table_has_trust_only_where_a_model_is_calibrated(rows, make_row, tmp_path) -> None:
    table = list(csv.DictReader(write_table(rows, tmp_path).splitlines()))
    assert [row["trust"] for row in table] == ["", "low", "", "", ""]
    assert (table[1]["dice_low"], table[1]["dice_high"]) == ("0.400", "0.800")
    assert table[1]["trust_reasons"] == "the whole tumor is small"
    assert "trust" not in write_table([make_row("p1", 1.0)], tmp_path).splitlines()[0]


DOM = """
const text = require("fs").readFileSync(process.argv[1], "utf8");
const signs = { "&quot;": '"', "&lt;": "<", "&gt;": ">", "&#x27;": "'", "&amp;": "&" };
const unescape = text => text.replace(/&[^;]*;/g, sign => signs[sign]);
function element() {
  return { attributes: {}, value: "", textContent: "", listeners: {}, dataset: {}, hidden: false,
    getAttribute(n) { return this.attributes[n] ?? null; }, setAttribute(n, v) { this.attributes[n] = v; },
    removeAttribute(n) { delete this.attributes[n]; }, addEventListener(n, f) { this.listeners[n] = f; } };
}
const table = text.split("<tbody>")[1].split("</tbody>")[0];
const rows = [...table.matchAll(/<tr data-flags="[^"]*" data-list="([^"]*)">(.*?)<\\/tr>/gs)].map(match => {
  const row = element();
  row.dataset.list = unescape(match[1]);
  row.cells = [...match[2].matchAll(/<td([^>]*)>(.*?)<\\/td>/gs)].map(cell => {
    const made = element(), value = cell[1].match(/data-value="([^"]*)"/);
    if (value) made.dataset.value = value[1];
    made.textContent = unescape(cell[2].replace(/<[^>]*>/g, " "));
    return made;
  });
  row.textContent = row.cells.map(cell => cell.textContent).join(" ");
  return row;
});
let order = rows;
const body = { rows, append(...all) { order = all; } };
const above = text.split("<thead>")[1].split("</thead>")[0];
const heads = [...above.matchAll(/<th([^>]*)><button>/g)].map((match, index) => {
  const head = element();
  head.cellIndex = index;
  head.classList = { contains: name => match[1].includes("class=" + name) };
  head.button = element();
  head.button.parentNode = head;
  return head;
});
heads.forEach(head => head.parentNode = { cells: heads });
const byId = { flag: element(), text: element(), shown: element() };
global.document = { querySelector: () => body, getElementById: id => byId[id],
  querySelectorAll: () => heads.map(head => head.button) };
eval(text.split("<script>")[1].split("</script>")[0]);
const names = () => order.filter(row => !row.hidden).map(row => row.cells[0].textContent.slice(0, 4).trim()).join(" ");
const out = [];
const click = index => { heads[index].button.listeners.click(); out.push(names()); };
click(0); click(0); click(2); click(3); click(3);
for (const flag of ["failed", "size guessed", "-", ""]) {
  byId.flag.value = flag; byId.flag.listeners.change(); out.push(names() + " " + byId.shown.textContent);
}
byId.text.value = "LEFT OUT"; byId.text.listeners.input(); out.push(names());
console.log(out.join("\\n"));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="No node to run the page's script.")
def test_rows_are_sorted_and_filtered(rows, make_row, tmp_path) -> None:
    write([*rows, make_row("q1", 5.0)], tmp_path)
    command = ["node", "-e", DOM, str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "lost p2 p9 p10 pat< q1",
        "q1 pat< p10 p9 p2 lost",
        "p9 p10 p2 pat< lost q1",
        "p2 p10 q1 pat< p9 lost",
        "p9 pat< q1 p10 p2 lost",
        "lost 1",
        "pat< 1",
        "q1 1",
        "p9 pat< q1 p10 p2 lost 6",
        "p10",
    ]

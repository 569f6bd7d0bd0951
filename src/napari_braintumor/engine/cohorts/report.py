"""``report.html``: a row and a picture for each case, in one file that asks nothing of any other computer."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_braintumor.engine.cohorts.results import MEASURED
from napari_braintumor.engine.cohorts.rows import CaseRow
from napari_braintumor.engine.measuring.measurements import MEASUREMENTS

_MEASURED = tuple(each for each in MEASUREMENTS if each.name in ("volume_ml", "axial_mm", "across_mm", "lesions"))

_ORDER = {"low": 0, "medium": 1, "high": 2}

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #111; background: #fff; }
h1 { font-size: 1.3em; margin: 0 0 .3em; }
p { margin: .3em 0 1em; max-width: 60em; }
form { margin-bottom: 1em; }
form label { margin-right: 1.2em; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #ccc; padding: .35em .6em; text-align: left; vertical-align: top; }
th { position: sticky; top: 0; background: #eee; white-space: nowrap; }
th button { font: inherit; font-weight: 600; border: 0; padding: 0; background: none; text-align: left; }
th button { cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.notes { max-width: 28em; }
tr[data-flags~=failed] { background: #fbeaea; }
img { width: 420px; max-width: 100%; display: block; }
@media print { form { display: none; } th { position: static; } }
"""

_SCRIPT = """
const body = document.querySelector("tbody"), rows = [...body.rows];
const flag = document.getElementById("flag"), text = document.getElementById("text");
const shown = document.getElementById("shown");
function filter() {
  let count = 0;
  for (const row of rows) {
    const flags = JSON.parse(row.dataset.list), words = row.textContent.toLowerCase();
    const wanted = flag.value === "" || flags.includes(flag.value) || (flag.value === "-" && flags.length === 0);
    row.hidden = !(wanted && words.includes(text.value.toLowerCase()));
    count += row.hidden ? 0 : 1;
  }
  shown.textContent = count;
}
function sort(head, column) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const numeric = head.classList.contains("number");
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (numeric) {  // empty cells last, either way
      if (x === "" || y === "") return (x === "") - (y === "");
      return (x - y) * (down ? -1 : 1);
    }
    return x.localeCompare(y, undefined, { numeric: true }) * (down ? -1 : 1);
  };
  body.append(...[...rows].sort(compare));
}
document.querySelectorAll("th button").forEach(button => {
  const head = button.parentNode;
  button.addEventListener("click", () => sort(head, head.cellIndex));
});
flag.addEventListener("change", filter);
text.addEventListener("input", filter);
"""


def write_report(rows: Sequence[CaseRow], path: Path) -> None:
    """Write the report, row by row, so that no more than one picture is in memory.

    Parameters
    ----------
    rows
        The cases, in their order.
    path
        The file.
    """
    with path.open("w", encoding="utf-8", newline="\n", errors="xmlcharrefreplace") as file:
        file.writelines(_write_parts(rows))


def _write_parts(rows: Sequence[CaseRow]) -> Iterator[str]:
    regions = list(dict.fromkeys(region for row in rows for region in row.content.get(MEASURED, {})))
    flags = list(dict.fromkeys(flag for row in rows for flag in row.flags))
    trust = any(row.trust is not None for row in rows)
    failed = sum(row.result is None for row in rows)
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f"<title>Brain tumors of {len(rows)} cases</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Brain tumors of {len(rows)} cases</h1>\n"
        f"<p>{len(rows) - failed} have a result, {failed} failed. {_escape(_describe_models(rows))} "
        "Made with napari-braintumor; research only, not a medical device. In axial and coronal pictures the patient's "
        "right is on the left.</p>\n"
        '<form onsubmit="return false"><label>Show <select id="flag"><option value="">all</option>'
        '<option value="-">without a flag</option>'
    )
    yield from (f"<option>{_escape(flag)}</option>" for flag in flags)
    yield (
        '</select></label> <label>with <input id="text" type="search" placeholder="words"></label> '
        f'<output><span id="shown">{len(rows)}</span> of {len(rows)}</output></form>\n<table>\n<thead><tr>'
    )
    marked = any(row.mark for row in rows)
    yield _write_head("case") + _write_head("flags") + (_write_head("mark") if marked else "")
    yield _write_head("trust", "number") if trust else ""
    for region in regions:
        yield from (_write_head(f"{region}, {each.heading}", "number") for each in _MEASURED)
    yield _write_head("notes") + "<th>picture</th></tr></thead>\n<tbody>\n"
    for row in rows:
        yield from _write_row(row, regions, trust, marked)
    yield f"</tbody>\n</table>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _describe_models(rows: Sequence[CaseRow]) -> str:
    used = {f"{row.content['model']} {row.content.get('model_version', '')}".strip(): 0 for row in rows if row.content}
    return f"Model: {', '.join(used)}." if used else ""


def _write_head(title: str, kind: str = "") -> str:
    return f"<th{f' class={kind}' if kind else ''}><button>{_escape(title)}</button></th>"


def _write_row(row: CaseRow, regions: Sequence[str], trust: bool, marked: bool) -> Iterator[str]:
    listed = ",".join(f'"{flag}"' for flag in row.flags)
    yield f'<tr data-flags="{_escape(" ".join(row.flags))}" data-list="{_escape(f"[{listed}]")}">'
    yield f"<td>{_escape(row.case)}</td><td>{_escape(', '.join(row.flags))}</td>"
    yield f"<td>{_escape(row.mark)}</td>" if marked else ""
    if trust:
        word = "" if row.trust is None else row.trust.word
        yield f'<td class="number" data-value="{_ORDER.get(word, "")}">{word}</td>'
    for region in regions:
        values = row.content.get(MEASURED, {}).get(region, {})
        for each in _MEASURED:
            value = values.get(each.name)
            exact = "" if value is None else f"{value:.6g}"
            yield f'<td class="number" data-value="{exact}">{_escape(each.show(value))}</td>'
    notes = [row.reason] if row.reason else [*row.content.get("notes", ())]
    notes += row.trust.lines()[1:] if row.trust is not None else []
    yield f'<td class="notes">{"<br>".join(map(_escape, notes))}</td><td>'
    picture = row.result.picture if row.result is not None else None
    if picture is not None and picture.is_file():  # else it has not arrived from the machine that drew it
        data = base64.b64encode(picture.read_bytes()).decode()
        yield f'<img alt="{_escape(row.case)}" loading="lazy" src="data:image/png;base64,{data}">'
    yield "</td></tr>\n"


def _escape(text: str) -> str:
    return html.escape(str(text))

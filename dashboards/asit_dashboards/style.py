"""The report's style sheet and its one script, as text that is written into the file."""

STYLE = """
:root { --ink: #222; --grey: #666; --rule: #ddd; --mark: #eef4f9; --warn: #fff6e0; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Liberation Sans",
  sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 44px 0 6px; padding-top: 14px; border-top: 1px solid var(--rule);
  overflow-wrap: anywhere; }
p { margin: 6px 0; max-width: 78ch; overflow-wrap: anywhere; }
.study { color: var(--grey); margin: 0 0 18px; }
.note, caption { color: var(--grey); font-size: 13px; }
.warning { background: var(--warn); border-left: 4px solid #c77c02; padding: 6px 12px; }
#result p:not(.note) { font-size: 16px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 16px 0; }
dt { color: var(--grey); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 4px; }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top; max-width: 340px;
  overflow-wrap: break-word; border-bottom: 1px solid var(--rule); }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: 220px; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; font-weight: 600; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
tr.marked { background: var(--mark); }
.figure { width: 100%; margin: 8px 0; }
footer { margin-top: 48px; color: var(--grey); font-size: 13px; }
@media print { h2 { break-after: avoid; } .figure { break-inside: avoid; } }
"""

SCRIPT = """
"use strict";
for (const data of document.querySelectorAll("script[data-figure]")) {
  const figure = JSON.parse(data.textContent);
  Plotly.newPlot(data.dataset.figure, figure.data, figure.layout, figure.config);
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const key = row => {
      const cell = row.children[head.cellIndex];
      return cell.dataset.sort ?? cell.textContent;
    };
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      const byNumber = Number(x) - Number(y);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = Number.isNaN(byNumber) ? x.localeCompare(y) : byNumber;
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  });
}
"""

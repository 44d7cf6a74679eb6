"""The results as an SVG chart: a panel for each workload, a bar for each peer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from report import UNITS, significant, versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness import Series, Workload
    from report import Results

#: What the bars of a kind look like, and what the legend calls them.
KINDS = {
    "ours": ("#1f77b4", "trio_asyncwrite"),
    "async": ("#b0b7bf", "asynchronous peers"),
    "blocking": ("#d9c7a3", "blocking peers"),
}
STYLE = (
    "text{font:11px sans-serif;fill:#333}"
    ".head{font-weight:bold;font-size:13px}"
    ".name{text-anchor:end}"
    ".rate{fill:#666;font-size:10px}"
)
# In pixels. A panel: the peers' names, their bars, and room for the rate behind the longest.
MARGIN, NAMES, BARS, RATES, ROW, HEADING = 20, 160, 320, 140, 17, 44


def text(x: float, y: float, content: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>'


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>'


def rate_text(rate: float, size: int) -> str:
    """``rate`` times ``size`` bytes per second, in words."""
    scale, unit = next(
        (scale, unit) for scale, unit in ((1e6, "M/s"), (1e3, "k/s"), (0, "/s")) if rate >= scale
    )
    count = f"{significant(rate / (scale or 1))} {unit}"
    return f"{count}, {rate * size / 2**20:.0f} MiB/s" if size else count


def panel(workload: Workload, of_workload: Sequence[Series], x: float, y: float) -> list[str]:
    """The bars are as long as the rate, the longest one being the panel's unit."""
    longest = max(one.rate for one in of_workload)
    title = f"{workload.name} ({UNITS[workload.family]}s)"
    lines = [text(x, y - 6, title, "head")]
    for number, one in enumerate(of_workload):
        top, width = y + number * ROW, max(1.0, BARS * one.rate / longest)
        baseline, left = top + ROW - 6, x + NAMES
        lines += [
            text(left - 6, baseline, one.peer.name, "name"),
            bar(left, top + 2, width, ROW - 5, KINDS[one.peer.kind][0]),
            text(left + width + 4, baseline, rate_text(one.rate, workload.size), "rate"),
        ]
    return lines


def svg(results: Results) -> str:
    """The whole chart; one panel below the other, so that a page can show the labels."""
    lines, y = [], HEADING + 24
    for workload in results.workloads:
        of_workload = results.of(workload)
        lines += panel(workload, of_workload, MARGIN, y)
        y += ROW * len(of_workload) + HEADING
    width, height = MARGIN + NAMES + BARS + RATES, y - 24
    found = versions()
    where = f"Python {found['python']}, {found['system']}"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>What is done per second over loopback, by this library and its peers</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" rx="6" fill="#fff"/>',
        text(MARGIN, 20, f"How many per second over loopback, longer is better. {where}"),
    ]
    for number, (colour, label) in enumerate(KINDS.values()):
        x = MARGIN + 150 * number
        head += [bar(x, 28, 10, 10, colour), text(x + 14, 37, label)]
    return "\n".join([*head, *lines, "</svg>", ""])

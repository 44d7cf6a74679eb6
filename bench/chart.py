"""The results as an SVG chart: a panel for each workload, a bar for each peer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from report import versions

if TYPE_CHECKING:
    from harness import Workload
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
MARGIN, NAMES, BARS, RATES, ROW, HEADING = 20, 140, 240, 130, 17, 44
PANEL = NAMES + BARS + RATES


def text(x: float, y: float, content: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>'


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>'


def rate_text(rate: float, size: int) -> str:
    """``rate`` messages of ``size`` bytes per second, in words."""
    count = f"{rate / 1e6:.2f} M/s" if rate >= 1e6 else f"{rate / 1e3:.1f} k/s"
    return f"{count}, {rate * size / 2**20:.0f} MiB/s"


def panel(results: Results, workload: Workload, x: float, y: float) -> list[str]:
    """The bars are as long as the throughput, the longest one being the panel's unit."""
    rates = [(peer, results.rate(workload.name, peer.name)) for peer in results.peers]
    measured = [(peer, rate) for peer, rate in rates if rate is not None]
    longest = max(rate for _, rate in measured)
    lines = [text(x, y - 6, workload.name, "head")]
    for number, (peer, rate) in enumerate(measured):
        top, width = y + number * ROW, max(1.0, BARS * rate / longest)
        baseline, left = top + ROW - 6, x + NAMES
        lines += [
            text(left - 6, baseline, peer.name, "name"),
            bar(left, top + 2, width, ROW - 5, KINDS[peer.kind][0]),
            text(left + width + 4, baseline, rate_text(rate, workload.size), "rate"),
        ]
    return lines


def svg(results: Results) -> str:
    """The whole chart; two panels beside each other."""
    panel_height = ROW * len(results.peers) + HEADING
    count = len(results.workloads)
    width = MARGIN + PANEL * min(2, count)
    height = HEADING + panel_height * ((count + 1) // 2)
    found = versions()
    where = f"Python {found['python']}, {found['system']}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Messages per second over loopback TCP, for each message size</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" rx="6" fill="#fff"/>',
        text(MARGIN, 20, f"Messages per second over loopback TCP, longer is better. {where}"),
    ]
    for number, (colour, label) in enumerate(KINDS.values()):
        x = MARGIN + 150 * number
        lines += [bar(x, 28, 10, 10, colour), text(x + 14, 37, label)]
    for number, workload in enumerate(results.workloads):
        x, y = MARGIN + PANEL * (number % 2), HEADING + 24 + panel_height * (number // 2)
        lines += panel(results, workload, x, y)
    return "\n".join([*lines, "</svg>", ""])

"""Draws small plots as SVG text: bars on a logarithmic scale, and lines over time or rate. They load nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
NARROW_WIDTH = 358
"""The width of a plot on a phone of 390 pixels."""
LEFT = 210
RIGHT = 90
BAR = 18
GAP = 7
TOP = 46
PLOT_HEIGHT = 240
BOTTOM = 42
COLOURS = ("#1f6feb", "#d1495b", "#2e8b57", "#e09f3e", "#6f42c1", "#5c6b73", "#00798c", "#b5179e")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}"
    ".title{font-weight:600;font-size:14px}"
    ".group{font-weight:600}"
    ".axis{stroke:#8c959f;stroke-width:1}"
    ".grid{stroke:#d8dee4;stroke-width:1}"
    ".ground{fill:#ffffff}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.grid{stroke:#30363d}}"
)


@dataclass(frozen=True)
class Bar:
    """A line of a bar chart, with the range of its values."""

    group: str
    """Heading of the bars that belong together; drawn above the first of them."""
    label: str
    value: float
    low: float
    high: float
    first: bool = False
    """Whether the bar is for this project, and has the first colour."""


@dataclass(frozen=True)
class Line:
    """A curve."""

    label: str
    points: Sequence[tuple[float, float]]


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Draw horizontal bars on a logarithmic scale."""
    positive = [value for row in rows for value in (row.low, row.high) if value > 0]
    low = 10 ** math.floor(math.log10(min(positive, default=1)))
    high = 10 ** math.ceil(math.log10(max(positive, default=1) * 1.0001))
    decades = max(1, round(math.log10(high / low)))
    width = WIDTH - LEFT - RIGHT
    groups = sum(1 for index, row in enumerate(rows) if index == 0 or row.group != rows[index - 1].group)
    height = TOP + (len(rows) + groups) * (BAR + GAP) + BOTTOM

    def at(value: float) -> float:
        share = math.log10(max(value, low) / low) / decades
        return LEFT + share * width

    parts = [_head(title, height)]
    for decade in range(decades + 1):
        x = LEFT + decade / decades * width
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - BOTTOM}"/>')
        parts.append(_text(x, height - BOTTOM + 16, f"{low * 10**decade:g}", "middle"))
    y, group = TOP - BAR - GAP, None
    for row in rows:
        y += BAR + GAP
        if row.group != group:
            group = row.group
            parts.append(f'<text class="group" x="8" y="{y + 13}">{escape(group)}</text>')
            y += BAR + GAP
        colour = COLOURS[0] if row.first else COLOURS[5]
        parts.append(
            f'<rect x="{LEFT}" y="{y}" width="{at(row.value) - LEFT:.1f}" height="{BAR}" fill="{colour}"/>'
        )
        middle = y + BAR / 2
        parts.append(
            f'<line class="axis" x1="{at(row.low):.1f}" y1="{middle}" x2="{at(row.high):.1f}" y2="{middle}"/>'
        )
        parts.append(_text(LEFT - 8, y + 13, row.label, "end"))
        parts.append(_text(max(at(row.value), at(row.high)) + 6, y + 13, f"{row.value:,.3g}", "start"))
    parts.append(_text(LEFT + width / 2, height - 8, unit, "middle"))
    return "\n".join([*parts, "</svg>\n"])


def lines(
    title: str,
    x_label: str,
    y_label: str,
    curves: Sequence[Line],
    *,
    logarithmic: bool = False,
    logarithmic_y: bool = False,
    narrow: bool = False,
) -> str:
    """Draw curves over a common axis. `logarithmic` applies to both axes, `logarithmic_y` to the vertical one.

    A `narrow` plot is for a phone: the names of the curves stand below it, not beside it.
    """
    points = [point for curve in curves for point in curve.points]
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    left, width = (56, NARROW_WIDTH - 56 - 16) if narrow else (80, WIDTH - 80 - 200)
    legend = TOP + PLOT_HEIGHT + BOTTOM + 6
    height = legend + len(curves) * 18 if narrow else TOP + PLOT_HEIGHT + BOTTOM
    x_scale, x_ticks = _scale(xs, logarithmic, start_at_zero=False)
    y_scale, y_ticks = _scale(ys, logarithmic or logarithmic_y, start_at_zero=True)

    def place(x: float, y: float) -> str:
        return f"{left + x_scale(x) * width:.1f},{TOP + (1 - y_scale(y)) * PLOT_HEIGHT:.1f}"

    parts = [_head(title, height, NARROW_WIDTH if narrow else WIDTH)]
    for tick in y_ticks:
        y = TOP + (1 - y_scale(tick)) * PLOT_HEIGHT
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:,.12g}", "end"))
    parts += [
        _text(left + x_scale(tick) * width, TOP + PLOT_HEIGHT + 16, f"{tick:,.12g}", "middle")
        for tick in x_ticks
    ]
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = (left, legend + 8 + index * 18) if narrow else (left + width + 14, TOP + 10 + index * 18)
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 16, y, curve.label, "start"))
    parts.append(_text(left + width / 2, TOP + PLOT_HEIGHT + BOTTOM - 8, x_label, "middle"))
    parts.append(_text(8, TOP - 10, y_label, "start"))
    return "\n".join([*parts, "</svg>\n"])


def _head(title: str, height: float, width: float = WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
        f"<style>{STYLE}</style>"
        f'<rect class="ground" width="{width:g}" height="{height:g}"/>'
        f'<text class="title" x="8" y="20">{escape(title)}</text>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


class _Scale:
    """Maps a value to its position on an axis, from 0 to 1."""

    def __init__(self, low: float, high: float, *, logarithmic: bool) -> None:
        self._low, self._logarithmic = low, logarithmic
        self._extent = (math.log(high / low) if logarithmic else high - low) or 1.0

    def __call__(self, value: float) -> float:
        if self._logarithmic:
            return math.log(max(value, self._low) / self._low) / self._extent
        return (value - self._low) / self._extent


def _scale(values: Sequence[float], logarithmic: bool, *, start_at_zero: bool) -> tuple[_Scale, list[float]]:
    """Return a scale over the values, and a few round ticks."""
    if logarithmic:
        positive = [value for value in values if value > 0] or [1.0]
        first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
        last = max(last, first + 1)
        ticks = [10.0**exponent for exponent in range(first, last + 1)]
        return _Scale(ticks[0], ticks[-1], logarithmic=True), ticks
    low = 0.0 if start_at_zero else min(values)
    high = max(*values, low + 1e-9) if len(values) > 1 else max(values[0], low + 1.0)
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    ticks = [tick * step for tick in range(math.ceil(low / step), math.ceil(high / step) + 1)]
    return _Scale(low, max(high, ticks[-1]), logarithmic=False), ticks

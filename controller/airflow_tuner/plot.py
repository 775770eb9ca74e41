"""Plots over time as SVG inside of a page: no script, no picture, no font of its own. Pure.

Colours are the page's: each line and mark has a class.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

WIDTH, HEIGHT = 960, 230
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 22, 24
COLUMNS = WIDTH - LEFT - RIGHT
"""A value for each pixel at most."""

TICKS = 4
"""Lines across, about."""

_DAY = timedelta(days=1)
_SPANS = tuple(timedelta(minutes=minutes) for minutes in (5, 15, 30, 60, 180, 360, 720))


@dataclass(frozen=True, slots=True)
class Line:
    """A series. `values`: by moment; `None`: there is none."""

    name: str
    kind: str
    """Its class."""
    values: Sequence[float | None]
    area: bool = False
    """It is drawn as an area, with the most of each column; else as steps, with the last."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a moment."""

    number: int
    kind: str
    """Its class: `change`, or a kind of kill."""
    title: str
    link: str = ""
    """An anchor of the page."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How values are told: in which steps, and as which text."""

    told: Callable[[float], str]
    base: int = 10
    """2: in steps of powers of two, as sizes are."""


def drawn(
    title: str, told: str, moments: Sequence[datetime], lines: Sequence[Line], marks: Iterable[Mark], axis: Axis
) -> str:
    """A plot. `title` and `told` say what it shows to who does not see it."""
    most = max((value for line in lines for value in line.values if value is not None), default=0.0)
    step = _step(most or 1.0, axis.base)
    top = step * math.ceil(max(most, step) / step)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}. {escape(told)}">',
        f"<title>{escape(title)}</title>",
        *_across(top, step, axis),
        *_along(moments),
        *(_path(line, len(moments), top) for line in lines),
        *(_mark(mark, len(moments)) for mark in marks),
        "</svg>",
    ]
    return "\n".join(parts)


def _step(most: float, base: int) -> float:
    """A round distance between two lines across."""
    rough = most / TICKS
    power = base ** math.floor(math.log(rough, base))
    return float(next(power * times for times in ((1, 2) if base == 2 else (1, 2, 5, 10)) if power * times >= rough))  # noqa: PLR2004 - powers of two


def _x(number: float, count: int) -> float:
    return LEFT + COLUMNS * number / max(1, count - 1)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top


def _across(top: float, step: float, axis: Axis) -> Iterator[str]:
    for number in range(round(top / step) + 1):
        y = _y(number * step, top)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{axis.told(number * step)}</text>'


def _along(moments: Sequence[datetime]) -> Iterator[str]:
    """Days, or hours where there are few days."""
    if len(moments) < 2:  # noqa: PLR2004 - from there on there is time in between
        return
    begin, whole = moments[0], moments[-1] - moments[0]
    if whole >= 2 * _DAY:
        every = _DAY * max(1, math.ceil(whole / _DAY / 14))
    else:
        every = next((span for span in _SPANS if whole / span <= 12), _SPANS[-1])  # noqa: PLR2004 - as many have room
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + every * math.ceil((begin - midnight) / every)
    while at <= moments[-1]:
        x = LEFT + COLUMNS * ((at - begin) / whole)
        told = f"{at.day} {at:%b}" if every >= _DAY or (at - midnight) % _DAY == timedelta(0) else f"{at:%H:%M}"
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        if x < WIDTH - RIGHT - 16:
            yield f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="start">{told}</text>'
        at += every


def _columns(line: Line) -> list[tuple[int, float | None]]:
    """The number of a moment, and the value of all that share its column."""
    each = max(1, math.ceil(len(line.values) / COLUMNS))
    found = []
    for begin in range(0, len(line.values), each):
        known = [value for value in line.values[begin : begin + each] if value is not None]
        found.append((begin, (max(known) if line.area else known[-1]) if known else None))
    return found


def _path(line: Line, count: int, top: float) -> str:
    parts: list[str] = []
    opened: float | None = None
    x = y = 0.0
    for number, value in _columns(line):
        if value is None:
            parts += [_closed(x, opened)] if opened is not None and line.area else []
            parts += [f"H{x:.1f}"] if opened is not None and not line.area else []
            opened = None
            continue
        before, x, y = y, _x(number, count), _y(value, top)
        if opened is None:
            parts.append(f"M{x:.1f},{_y(0, top):.1f}V{y:.1f}" if line.area else f"M{x:.1f},{y:.1f}")
            opened = x
        elif line.area:
            parts.append(f"L{x:.1f},{y:.1f}")
        elif f"{before:.1f}" != f"{y:.1f}":
            parts.append(f"H{x:.1f}V{y:.1f}")
    if opened is not None:
        parts.append(_closed(x, opened) if line.area else f"H{x:.1f}")
    return f'<path class="{line.kind}" d="{"".join(parts)}"/>' if parts else ""


def _closed(x: float, opened: float) -> str:
    """An area down to its foot and back."""
    foot = HEIGHT - BOTTOM
    return f"L{x:.1f},{foot}L{opened:.1f},{foot}Z"


def _mark(mark: Mark, count: int) -> str:
    x = _x(mark.number, count)
    title = f"<title>{escape(mark.title)}</title>"
    if mark.kind == "change":
        shape = f'<path class="change" d="M{x - 4:.1f},{TOP - 14}h8l-4,8z">{title}</path>'
    else:
        y = TOP + 2
        shape = f'<g class="kill {mark.kind}">{title}<circle cx="{x:.1f}" cy="{y}" r="6"/>'
        shape += f'<path d="M{x - 3:.1f},{y - 3}l6,6m0,-6l-6,6"/></g>'
    return f'<a href="#{escape(mark.link)}">{shape}</a>' if mark.link else shape

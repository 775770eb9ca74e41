"""A chronicle as one HTML file: it needs no network, no script and no font of its own. Pure.

Names in it are anybody's: everything is escaped, and the page forbids itself to load or run anything.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path

from airflow_tuner import digest
from airflow_tuner.chronicle import Chronicle, Course, Look
from airflow_tuner.counterfactual import Kill
from airflow_tuner.model import Values
from airflow_tuner.plot import Axis, Line, Mark, drawn
from airflow_tuner.quantity import readable, readable_cpu
from airflow_tuner.sentence import counted, plain

MOST = 500
"""Rows of a table; who wants more has the JSON lines."""

MARKED = 200
"""Marks of one kind in a plot."""

SIZES = Axis(lambda size: f"{size / 2**30:g} GiB" if size >= 2**30 else f"{size / 2**20:g} MiB", base=2)
NUMBERS = Axis(lambda number: f"{number:,.0f}" if number == round(number) else f"{number:g}")
CORES = Axis(lambda cores: f"{cores:g} cores")
SECONDS = Axis(lambda seconds: f"{seconds:,.0f} s" if seconds < 3600 else f"{seconds / 3600:g} h")  # noqa: PLR2004 - an hour

STYLE = Path(__file__).with_name("page.css").read_text()

Pick = Callable[[Look], float | None]


def rendered(chronicle: Chronicle) -> str:
    """The page."""
    sections = "\n".join(_section(chronicle, target, course) for target, course in chronicle.courses.items())
    words = "\n".join(f"<li>{_text(one)}</li>" for one in digest.sentences(chronicle))
    notes = "\n".join(f"<li>{_text(one)}</li>" for one in chronicle.notes)
    names, *table = digest.rows(chronicle)
    head, body = _heads(*names), "".join(_cells(row) for row in table)
    assumed = f"<h2 id='assumed'>What it cannot know, and what is assumed</h2>\n<ul>{notes}</ul>" if notes else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>airflow-tuner: {_text(chronicle.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="kicker">airflow-tuner</p>
<h1>{_text(chronicle.title)}</h1>
<p class="lead">{_text(chronicle.told)}</p>
</header>
<h2>In short</h2>
<ul class="short">{words}</ul>
<div class="wide" tabindex="0" role="region" aria-label="The targets in numbers"><table class="numbers">
<caption>The targets in numbers; an arrow leads from before to after</caption>
<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
{sections}
{_changes(chronicle)}
{_kills(chronicle)}
{_findings(chronicle)}
{assumed}
</main>
</body>
</html>
"""


def _section(chronicle: Chronicle, target: str, course: Course) -> str:
    """One target: its plots."""
    before, after = "as the user set it" if chronicle.lived else "as it was", "as decided"
    use = Line("most held by one pod", "use", _over(chronicle, course, lambda look: look.held), area=True)
    memory = [
        use,
        Line(f"limit {before}", "limit before", _over(chronicle, course, lambda look: look.before.limit)),
        Line(f"request {before}", "request before", _over(chronicle, course, lambda look: look.before.request)),
        Line(f"limit {after}", "limit after", _over(chronicle, course, lambda look: look.after.limit)),
        Line(f"request {after}", "request after", _over(chronicle, course, lambda look: look.after.request)),
    ]
    changes = [*_marks(chronicle, target, course)]
    kills = [*_kill_marks(chronicle, course)]
    head, told = digest.rows(replace(chronicle, courses={target: course}))
    said = "; ".join(f"{name}: {value}" for name, value in zip(head[1:], told[1:], strict=True) if value)
    plots = [_figure("Memory of one pod", said, chronicle, memory, [*changes, *kills], SIZES)]
    busy = _over(chronicle, course, lambda look: look.busy)
    slots = (_over(chronicle, course, lambda look: look.slots[0]), _over(chronicle, course, lambda look: look.slots[1]))
    if _any(busy) or _any(slots[0]):
        lines = [
            Line("busy", "use", busy, area=True),
            Line(f"slots {before}", "limit before", slots[0]),
            Line(f"slots {after}", "limit after", slots[1]),
        ]
        moved = [change.before.concurrency != change.after.concurrency for _, change in course.changes]
        marks = [mark for mark, slots_moved in zip(changes, moved, strict=True) if slots_moved]
        plots.append(_figure("Slots of all workers", "Busy slots, and slots.", chronicle, lines, marks, NUMBERS))
    if _any(_over(chronicle, course, lambda look: look.cpu_requested and 1)):
        plots.append(_cpu(chronicle, course, changes, before, after))
    wait = _over(chronicle, course, lambda look: look.wait)
    if any(wait):
        goal = [float(chronicle.objective)] * len(chronicle.moments)
        lines = [Line("wait of the last in the queue", "wait", wait, area=True), Line("objective", "goal", goal)]
        plots.append(_figure("Queue lag", "How long tasks waited for a worker.", chronicle, lines, [], SECONDS))
    label = f"{_text(target)} <small>{_text(course.label)}</small>"
    return f'<section id="{_anchor(target)}"><h2>{label}</h2>\n{"".join(plots)}</section>'


def _cpu(chronicle: Chronicle, course: Course, changes: Sequence[Mark], before: str, after: str) -> str:
    """The CPU of one pod, where the policy names it."""

    def cores(pick: Callable[[Look], int | None]) -> list[float | None]:
        told = _over(chronicle, course, pick)
        return [None if one is None else one / 1000 for one in told]

    lines = [
        Line("most used by one pod", "use", _over(chronicle, course, lambda look: look.cores), area=True),
        Line(f"limit {before}", "limit before", cores(lambda look: look.cpu[0].limit)),
        Line(f"request {before}", "request before", cores(lambda look: look.cpu[0].request)),
        Line(f"limit {after}", "limit after", cores(lambda look: look.cpu[1].limit)),
        Line(f"request {after}", "request after", cores(lambda look: look.cpu[1].request)),
    ]
    moved = [change.before.cpu != change.after.cpu for _, change in course.changes]
    marks = [mark for mark, cpu_moved in zip(changes, moved, strict=True) if cpu_moved]
    return _figure("CPU of one pod", "Cores in use, requested and allowed.", chronicle, lines, marks, CORES)


def _figure(
    title: str, told: str, chronicle: Chronicle, lines: Sequence[Line], marks: Sequence[Mark], axis: Axis
) -> str:
    there = [line for line in lines if _any(line.values)]
    keys = "".join(f'<li><i class="key {line.kind}"></i>{_text(line.name)}</li>' for line in there)
    kinds = dict.fromkeys(mark.kind for mark in marks)
    keys += "".join(f'<li><i class="key mark {kind}"></i>{_text(KINDS[kind])}</li>' for kind in kinds)
    plot = drawn(title, plain(told), chronicle.moments, there, marks, axis)
    return (
        f'<figure><figcaption>{_text(title)}</figcaption><ul class="keys">{keys}</ul>'
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}, a plot">{plot}</div></figure>\n'
    )


KINDS = {
    "change": "change",
    "happened": "kill that happened",
    "roomier": "kill that happened with far less room",
    "imagined": "kill that would have been",
}


def _kind(kill: Kill) -> str:
    return "imagined" if not kill.happened else "roomier" if kill.roomier else "happened"


def _marks(chronicle: Chronicle, target: str, course: Course) -> Iterator[Mark]:
    for count, (number, change) in enumerate(course.changes):
        at = chronicle.moments[number]
        title = f"{_time(at)} {change.reason}: {plain(change.message)}"
        yield Mark(number, "change", title, f"{_anchor(target)}-{count}")


def _kill_marks(chronicle: Chronicle, course: Course) -> Iterator[Mark]:
    shown_kinds: dict[str, int] = {}
    for kill in course.kills:
        kind = "happened" if chronicle.lived else _kind(kill)
        shown_kinds[kind] = shown_kinds.get(kind, 0) + 1
        if shown_kinds[kind] <= MARKED:
            number = min(bisect_left(chronicle.moments, kill.at), len(chronicle.moments) - 1)
            yield Mark(number, kind, f"{_time(kill.at)} {_killed(kill, lived=chronicle.lived)}")


def _killed(kill: Kill, *, lived: bool) -> str:
    under = "no limit" if kill.limit is None else f"a limit of {readable(kill.limit)}"
    then = _size(kill.then)
    if kill.held is not None:
        held = f"{plain(kill.pod)} held {readable(kill.held)}"
        return f"{held}; its limit would have been {then}: it would have been killed."
    count = counted(kill.count, "kill", "kills")
    if lived:
        return f"{count} for memory in {plain(kill.pod)} under {under}."
    return f"{count} for memory in {plain(kill.pod)} under {under}; the limit would have been {then}."


def _changes(chronicle: Chronicle) -> str:
    """Every change, in the order of time."""
    told = [
        (number, target, count, change)
        for target, course in chronicle.courses.items()
        for count, (number, change) in enumerate(course.changes)
    ]
    if not told:
        return "<h2 id='changes'>Changes</h2><p>None.</p>"
    told.sort(key=lambda one: (one[0], one[1]))
    body = "".join(
        f'<tr id="{_anchor(target)}-{count}"><td><time>{_time(chronicle.moments[number])}</time></td>'
        f"<td>{_text(target)}</td><td>{_text(change.reason)}</td>"
        f'<td class="values">{_difference(change.before, change.after)}</td><td>{_text(change.message)}</td></tr>'
        for number, target, count, change in told[:MOST]
    )
    more = f"<p>And {len(told) - MOST} more: -o decisions prints them all.</p>" if len(told) > MOST else ""
    head = _heads("Time (UTC)", "Target", "Reason", "What", "Why")
    return _table("changes", "Changes", f"Every change, {counted(len(told), 'row', 'rows')}", head, body) + more


def _difference(before: Values, after: Values) -> str:
    """What changes, each in a line."""
    pairs = (
        ("request", _size(before.memory.request), _size(after.memory.request)),
        ("limit", _size(before.memory.limit), _size(after.memory.limit)),
        ("CPU request", _cores(before.cpu.request), _cores(after.cpu.request)),
        ("CPU limit", _cores(before.cpu.limit), _cores(after.cpu.limit)),
        ("slots", before.concurrency, after.concurrency),
        ("parsing interval", before.interval, after.interval),
        ("parsing processes", before.processes, after.processes),
    )
    return "<br>".join(
        f"{name} {'not stated' if old is None else old} → {'not stated' if new is None else new}"
        for name, old, new in pairs
        if old != new
    )


def _size(size: int | None) -> str:
    return "none" if size is None else readable(size)


def _cores(millicores: int | None) -> str:
    return "none" if millicores is None else readable_cpu(millicores)


def _kills(chronicle: Chronicle) -> str:
    """Every kill, in the order of time."""
    told = [(kill, target) for target, course in chronicle.courses.items() for kill in course.kills]
    if not told:
        return "<h2 id='kills'>Kills</h2><p>None.</p>"
    told.sort(key=lambda one: (one[0].at, one[1], one[0].pod))
    lived = chronicle.lived
    body = "".join(
        f"<tr><td><time>{_time(kill.at)}</time></td><td>{_text(target)}</td>"
        f"<td>{_text(KINDS['happened' if lived else _kind(kill)])}</td>"
        f"<td>{_text(_killed(kill, lived=lived))}</td></tr>"
        for kill, target in told[:MOST]
    )
    more = f"<p>And {len(told) - MOST} more.</p>" if len(told) > MOST else ""
    head = _heads("Seen (UTC)", "Target", "Which", "What")
    return _table("kills", "Kills", counted(len(told), "row", "rows"), head, body) + more


def _findings(chronicle: Chronicle) -> str:
    if not chronicle.said:
        return "<h2 id='findings'>Findings over time</h2><p>None.</p>"
    worst = sorted(chronicle.said, key=lambda one: -one.looks)[:MOST]
    body = "".join(
        f"<tr><td><time>{_time(one.first)}</time></td><td><time>{_time(one.last)}</time></td>"
        f'<td><b class="{_text(one.severity.value.lower())}">{_text(one.reason)}</b></td><td>{_text(one.target)}</td>'
        f"<td>{_text(one.message)}</td></tr>"
        for one in sorted(worst, key=lambda one: (one.first, one.reason, one.target))
    )
    left = len(chronicle.said) - len(worst)
    more = f"<p>And {left} shorter ones.</p>" if left else ""
    head = _heads("From (UTC)", "To", "Finding", "About", "As it was said last")
    return _table("findings", "Findings over time", counted(len(worst), "row", "rows"), head, body) + more


def _table(name: str, title: str, caption: str, head: str, body: str) -> str:
    return (
        f'<h2 id="{name}">{_text(title)}</h2><div class="wide" tabindex="0" role="region" aria-label="{_text(title)}">'
        f"<table><caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _heads(*names: str) -> str:
    return "".join(f'<th scope="col">{_text(name)}</th>' for name in names)


def _cells(row: Sequence[str]) -> str:
    first = f'<th scope="row"><a href="#{_anchor(row[0])}">{_text(row[0])}</a></th>'
    return f"<tr>{first}{''.join(f'<td>{_text(cell)}</td>' for cell in row[1:])}</tr>"


def _over(chronicle: Chronicle, course: Course, pick: Pick) -> list[float | None]:
    """A value of a target by moment."""
    return [
        None if (look := course.looks.get(number)) is None else pick(look) for number in range(len(chronicle.moments))
    ]


def _any(values: Iterable[float | None]) -> bool:
    return any(value is not None for value in values)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _anchor(name: str) -> str:
    """A name as an id: what is no letter or digit by its number, so that no two names meet."""
    return "t-" + "".join(one if one.isascii() and one.isalnum() else f"_{ord(one):x}_" for one in name)


def _text(text: str) -> str:
    return escape(plain(text))

"""A chronicle in plain words and in a table of numbers. Pure."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from airflow_tuner.chronicle import Chronicle, Course, Sums, sums
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, plain

HEAD = (
    "Target",
    "Pods",
    "Most held by one",
    "Requested, GiB hours",
    "Limits, GiB hours",
    "Kills that happened",
    "of them with far less room",
    "Kills that would have been",
    "Hours above the limit",
    "Hours late",
    "Changes",
)
"""Of `rows`."""

IMAGINED = (6, 7, 8)
"""Those of them that nothing is in where the operator was there."""

OFTEN = 5
"""Findings that are named."""

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def sentences(chronicle: Chronicle) -> Iterator[str]:
    """What came of it: changes, memory, kills, lag, findings."""
    numbers = {target: sums(chronicle, course) for target, course in chronicle.courses.items()}
    changed = [course for course in chronicle.courses.values() if course.changes]
    count = sum(len(course.changes) for course in changed)
    lasted = chronicle.moments[-1] - chronicle.moments[0] if chronicle.moments else timedelta(0)
    made = "made" if chronicle.lived else "would have made"
    of = f" of {counted(len(changed), 'target', 'targets')}" if count else ""
    looks = counted(len(chronicle.moments), "look", "looks")
    yield f"In {_lasting(lasted)} ({looks}) airflow-tuner {made} {counted(count, 'change', 'changes')}{of}."
    yield from _memory(chronicle, [*numbers.values()])
    yield from _kills(chronicle, [*numbers.values()])
    yield from _lag(chronicle, [*numbers.values()])
    yield from _found(chronicle)


def _lasting(span: timedelta) -> str:
    if span >= DAY:
        return f"{span / DAY:.1f} days"
    return f"{span / HOUR:.1f} hours" if span >= 2 * HOUR else counted(round(span / HOUR * 60), "minute", "minutes")


def rows(chronicle: Chronicle) -> list[tuple[str, ...]]:
    """The targets in numbers, under their heads."""
    table = [HEAD, *(_row(target, course, sums(chronicle, course)) for target, course in chronicle.courses.items())]
    left_out = IMAGINED if chronicle.lived else ()
    return [tuple(cell for column, cell in enumerate(row) if column not in left_out) for row in table]


def hours(number: float) -> str:
    """A number of hours, or of GiB hours."""
    if number >= 100:  # noqa: PLR2004 - from there a decimal says nothing
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 or not number else f"{number:.2f}"


def less(before: float, after: float) -> str:
    """By how much, in words."""
    if not before:
        return "nothing was asked for before"
    share = after / before - 1
    if abs(share) < 0.005:  # noqa: PLR2004 - it rounds to nothing
        return "as much as before"
    return f"{abs(share):.0%} {'less' if share < 0 else 'more'}"


def _memory(chronicle: Chronicle, numbers: Sequence[Sums]) -> Iterator[str]:
    if not numbers:
        return
    come = "came" if chronicle.lived else "would have come"
    instead = "the user's own values come to" if chronicle.lived else "instead of"
    yield _turned(f"Requested memory {come} to", instead, [one.requested for one in numbers])
    if cores := [one.cores for one in numbers if one.cores is not None]:
        yield _turned(f"Requested CPU {come} to", instead, cores, "core hours")
    known = [one.limited for one in numbers if one.limited is not None]
    if len(known) == len(numbers):
        yield _turned(f"Memory limits {come} to", instead, known)


def _turned(begin: str, instead: str, pairs: Sequence[tuple[float, float]], unit: str = "GiB hours") -> str:
    before, after = (sum(pair[side] for pair in pairs) for side in (0, 1))
    return f"{begin} {hours(after)} {unit}, {instead} {hours(before)} ({less(before, after)})."


def _kills(chronicle: Chronicle, numbers: Sequence[Sums]) -> Iterator[str]:
    happened, roomier = sum(one.happened for one in numbers), sum(one.roomier for one in numbers)
    told = f"{counted(happened, 'kill', 'kills')} for memory happened." if happened else "No kill for memory was seen."
    if chronicle.lived:
        yield told
        return
    if roomier:
        of = "all" if roomier == happened else f"{roomier}"
        told += (
            f" At {of} of them the limit would have been larger by a fifth or more: nobody knows whether that "
            "would have been enough."
        )
    if rest := happened - roomier:
        told += f" {rest} would have happened all the same."
    yield told
    imagined, over = sum(one.imagined for one in numbers), sum(one.over for one in numbers)
    if imagined:
        yield (
            f"{counted(imagined, 'kill', 'kills')} would have been added: in {hours(over)} hours a pod held more than "
            "the limit that would have been in force."
        )
    else:
        yield "At no look did a pod hold more than a limit that would have been lower: no kill would have been added."


def _lag(chronicle: Chronicle, numbers: Sequence[Sums]) -> Iterator[str]:
    known = [one for one in numbers if one.late is not None]
    if not known:
        return
    late, all_of_them = max(one.late or 0.0 for one in known), max(one.hours for one in known)
    yield (
        f"Tasks waited longer than the objective of {chronicle.objective} s in {hours(late)} of {hours(all_of_them)} "
        "hours."
    )
    moved = [
        change
        for course in chronicle.courses.values()
        for _, change in course.changes
        if change.before.concurrency != change.after.concurrency
    ]
    if moved and not chronicle.lived:
        yield (
            f"Slots would have changed {counted(len(moved), 'time', 'times')}. What that would have done to the queue "
            "is not known."
        )


def _found(chronicle: Chronicle) -> Iterator[str]:
    each = chronicle.step.total_seconds() / 3600
    spent: dict[str, float] = {}
    for one in chronicle.said:
        name = f"{one.reason} of {one.target}"
        spent[name] = spent.get(name, 0.0) + one.looks * each
    often = sorted(spent.items(), key=lambda item: (-item[1], item[0]))[:OFTEN]
    if often:
        yield f"Found most: {', '.join(f'{name} ({hours(time)} hours)' for name, time in often)}."


def _row(target: str, course: Course, told: Sums) -> tuple[str, ...]:
    pods = [look.pods for look in course.looks.values()]
    return (
        target,
        _span(min(pods, default=0), max(pods, default=0)),
        "not known" if told.peak is None else readable(int(told.peak)),
        _turn(told.requested),
        "none at times" if told.limited is None else _turn(told.limited),
        f"{told.happened}",
        f"{told.roomier}",
        f"{told.imagined}",
        hours(told.over),
        "" if told.late is None else hours(told.late),
        f"{len(course.changes)}",
    )


def _turn(pair: tuple[float, float]) -> str:
    return f"{hours(pair[0])} → {hours(pair[1])}"


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


NOTHING = frozenset({"", "0", "0.0"})
"""Figures of a workload that need no words."""


def text(chronicle: Chronicle) -> str:
    """All of it for a terminal."""
    lines = [chronicle.told, "", *(f"* {one}" for one in sentences(chronicle)), ""]
    head, *table = rows(chronicle)
    for row in table:
        told = [f"{name} {value}" for name, value in zip(head[1:], row[1:], strict=True) if value not in NOTHING]
        lines.append(f"{row[0]}: {'; '.join(told)}")
    lines += ["", *(f"- {one}" for one in chronicle.notes)]
    return "\n".join(plain(line) for line in lines)

"""What `make prove` measures about findings: each cause is brought about in a real Airflow, and what is found noted.

Each time is a line of docs/evidence/causes.jsonl, and the page is made from all of them: all causes three times take
longer than most machines are left alone.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed import operator_process
from testbed.airflow_lines import Line
from testbed.causes import DAG, RIGS, Cause, Rig
from testbed.commands import CommandFailed
from testbed.evidence import PAGES, commit
from testbed.operator_process import MAY_READ_BROKER, Operator
from testbed.processes import ProgramFailed
from testbed.real_airflow import RealAirflow, real_airflow
from testbed.slot_experiments import LINES, PARSING, apply_policy, settle
from testbed.telling import say

ROWS = PAGES / "causes.jsonl"
POLL = 1.0
ENDS = 120.0
"""Seconds that all findings are given to end."""
HEALTHY_SECONDS = float(os.environ.get("HEALTHY", "150"))
"""Of an ordinary load, before the first cause in each Airflow; 0: none."""
TIMES = int(os.environ.get("TIMES", "3"))
CHOSEN = tuple(os.environ.get("CAUSES", "").split(","))
"""Words of the causes, or of the findings that are wanted; empty: all."""
ON = os.environ.get("ON", "")
"""A word of the rigs that are wanted; empty: all."""
HEALTHY = "none: an ordinary load"

MODE: dict[str, Any] = {"mode": "Recommend"}


@dataclass(frozen=True)
class Row:
    """One time that a cause was brought about."""

    line: str
    cause: str
    wanted: str
    after: float | None
    """Seconds until the right finding."""
    first: bool
    """Of the findings that had come by then it was the first among the worst."""
    followed: tuple[str, ...]
    """Reasons that came too, and follow from it."""
    false: tuple[str, ...]
    """Reasons that came too, and do not."""
    over: float | None
    """Seconds from its end until all that came was gone."""
    busy: float | None = None
    """Share of this machine's cores that was in use meanwhile, by all that ran on it."""
    failed: str = ""
    """Why it could not be brought about."""
    commit: str = ""
    date: str = ""

    @property
    def told(self) -> str:
        """One line."""
        if not self.wanted:
            return f"{self.line}: {self.cause}{f'; FALSE {self.false}' if self.false else ''}"
        also = f"; also {', '.join(self.followed)}" if self.followed else ""
        wrong = f"; FALSE {', '.join(self.false)}" if self.false else ""
        after = "not found" if self.after is None else f"{self.after:.0f} s{'' if self.first else ', not first'}"
        over = "not over" if self.over is None else f"over after {self.over:.0f} s"
        return f"{self.line}: {self.cause}: {self.failed or f'{self.wanted} {after}{also}{wrong}, {over}'}"


def causes() -> str:
    """Causes brought about in a real Airflow, one after another, and what was found: the right one, and what else."""
    for line in LINES:
        for name, rig in RIGS.items():
            shown = [cause for cause in rig.causes if cause.only in {"", line.version[0]}]
            wanted = [cause for cause in shown if any(word in f"{cause.wanted} {cause.name}" for word in CHOSEN)]
            if wanted and ON in name:
                say(f"{line.version}, {name}")
                _rig(line, rig, wanted)
    return _page([_read(line) for line in ROWS.read_text().splitlines()])


def _rig(line: Line, rig: Rig, wanted: list[Cause]) -> None:
    try:
        with _looked_at(line, rig) as real:
            for row in _rows(real, line.version, wanted):
                say(f"  {row.told}")
                with ROWS.open("a") as file:
                    file.write(f"{json.dumps(asdict(row))}\n")
    except (CommandFailed, ProgramFailed) as error:
        say(f"  stopped: {error}")


def _read(line: str) -> Row:
    told = json.loads(line)
    return Row(**(told | {"followed": tuple(told["followed"]), "false": tuple(told["false"])}))


def _rows(real: RealAirflow, version: str, wanted: list[Cause]) -> Iterator[Row]:
    """An ordinary load, and then each cause so many times; each with when and on what it was."""
    code = commit()
    for cause in (*[None] * bool(HEALTHY_SECONDS), *wanted * TIMES):
        begun, at = _worked(), datetime.now(UTC)
        try:
            row = _healthy(real, version) if cause is None else _row(real, version, cause)
        except (CommandFailed, ProgramFailed) as error:
            name, wants = (HEALTHY, "") if cause is None else (cause.name, cause.wanted)
            row = Row(version, name, wants, None, first=False, followed=(), false=(), over=None)
            row = replace(row, failed=str(error).splitlines()[0])
        idle, total = (new - old for new, old in zip(_worked(), begun, strict=True))
        yield replace(row, busy=round(1 - idle / total, 2), commit=code, date=f"{at:%Y-%m-%d %H:%M}")


def _worked() -> tuple[int, int]:
    """Ticks of this machine's cores since its start: those that were idle, and all."""
    ticks = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


@contextmanager
def _looked_at(line: Line, rig: Rig) -> Iterator[RealAirflow]:
    """A real Airflow, and an operator that looks at it and changes nothing."""
    with real_airflow(rig.values, line=line, past=rig.past) as real:
        operator_process.install_chart(real.control_plane, real.prometheus.url, *MAY_READ_BROKER)
        with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]):
            memory = {"memory": {"min": "256Mi", "max": "2Gi"}}
            apply_policy(real, **MODE, scheduler=memory, triggerer=memory, dagProcessor=PARSING)
            real.airflow.wait_for_dag(DAG)
            settle(real)
            yield real


def _findings(real: RealAirflow) -> list[dict[str, Any]]:
    return list(real.policy_status().get("findings", []))


def _names(findings: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(item["reason"], item["target"]) for item in findings}


def _reasons(names: set[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted({reason for reason, _ in names}))


def _healthy(real: RealAirflow, version: str) -> Row:
    """An ordinary load: two tasks of 2 s now and then."""
    before, seen = _names(_findings(real)), set[tuple[str, str]]()
    until = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < until:
        real.airflow.trigger(DAG, {"count": 2, "seconds": 2})
        for _ in range(15):
            seen |= _names(_findings(real)) - before
            time.sleep(POLL)
    return Row(version, HEALTHY, "", None, True, (), _reasons(seen), None)


def _row(real: RealAirflow, version: str, cause: Cause) -> Row:
    before = _names(_findings(real))
    began, came = time.monotonic(), set[tuple[str, str]]()
    after, first = None, False
    take_away = cause.bring_about(real)
    try:
        while after is None and time.monotonic() - began < cause.within:
            present = _findings(real)
            new = [item for item in present if (item["reason"], item["target"]) not in before]
            came |= _names(new)
            if cause.found(new):
                after = time.monotonic() - began
                first = cause.reason in _first(new)
            time.sleep(POLL)
    finally:
        take_away()
    ended, over = time.monotonic(), None
    while over is None and time.monotonic() - ended < ENDS:
        if _names(_findings(real)) <= before:
            over = time.monotonic() - ended
        time.sleep(POLL)
    others = [reason for reason in _reasons(came) if reason != cause.reason]
    follows = tuple(reason for reason in others if reason in cause.follows)
    false = tuple(reason for reason in others if reason not in cause.follows)
    after, over = (None if one is None else round(one, 1) for one in (after, over))
    return Row(version, cause.name, cause.wanted, after, first, follows, false, over)


def _first(findings: list[dict[str, Any]]) -> str:
    """The first of the worst, as they come in that order: its reason, and what it says of the cause."""
    return f"{findings[0]['reason']} {findings[0]['message']}"


def _page(rows: list[Row]) -> str:
    head = (
        "| Airflow | cause | times | right finding | first | after (s) | also, follows | false | over after (s) "
        "| cores in use |"
    )
    names = list(dict.fromkeys((row.line, row.cause) for row in rows))
    lines = [_cells([row for row in rows if (row.line, row.cause) == name]) for name in names]
    brought = [row for row in rows if row.wanted and not row.failed]
    found = [row for row in brought if row.after is not None]
    right = sum(row.first for row in found)
    false = sum(len(row.false) for row in rows)
    return (
        "The operator only looks (mode Recommend), every 30 s, with averages of 60 s. Right finding: how often it\n"
        "came within 300 s (a DAG's own limit: 480 s). First: it was the first in the status among what had come by\n"
        "then. After: from the cause to the finding in the status. Follows: found too, and a consequence, as was\n"
        "decided before the runs. False: found too, and none. Over: from the end of the cause until all that came\n"
        "is gone.\n"
        "Cores in use: of this machine, by all that ran on it meanwhile (-: not measured). Each time is a line of\n"
        f"[causes.jsonl](causes.jsonl), with its commit: {', '.join(dict.fromkeys(row.commit for row in rows))}.\n"
        "RunawayTasks rests on a day that was written into Prometheus before; MemoryLeakSuspected is not here.\n\n"
        + "\n".join([head, "|---" * 10 + "|", *lines])
        + f"\n\nFound: {len(found)} of {len(brought)}; first: {right}. False findings: {false}.\n"
    )


def _cells(rows: list[Row]) -> str:
    brought = [row for row in rows if not row.failed]
    found = [row for row in brought if row.after is not None]
    first = sum(row.first for row in found)
    failed = [row.failed for row in rows if row.failed]
    name = rows[0].cause + (f" (not brought about {len(failed)} times: {failed[0]})" if failed else "")
    if rows[0].cause == HEALTHY:
        name += " for 150 s"
    seen = [
        f"{len(found)} x {rows[0].wanted}" if rows[0].wanted else "",
        f"{first} of {len(found)}" if rows[0].wanted else "",
        ", ".join(f"{row.after:.0f}" for row in found if row.after is not None),
        _counted(row.followed for row in brought),
        _counted(row.false for row in brought) or "none",
        ", ".join("-" if row.over is None else f"{row.over:.0f}" for row in brought if row.wanted),
        ", ".join("-" if row.busy is None else f"{row.busy:.0%}" for row in brought),
    ]
    return f"| {rows[0].line} | {name} | {len(brought)} | {' | '.join(seen)} |"


def _counted(reasons: Iterator[tuple[str, ...]]) -> str:
    counts = Counter(reason for some in reasons for reason in some)
    return ", ".join(f"{number} x {reason}" for reason, number in sorted(counts.items()))

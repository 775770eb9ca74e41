"""The scores as tables: on the terminal, and as `docs/benchmarks.md`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.score import Score

Key = tuple[str, int]
COLUMNS = (
    "controller",
    "requested / oracle",
    "limit / oracle",
    "kills per run",
    "failed tries per run",
    "late tasks %",
    "late time %",
    "changes a day",
    "restarts a day",
    "stale DAGs %",
    "parse CPU / oracle",
    "over request %",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A score, and the oracle's of the same story and seed."""

    score: Score
    oracle: Score


def pairs(scores: Iterable[Score]) -> dict[str, list[Pair]]:
    """By controller, where there is an oracle to compare with."""
    known = list(scores)
    oracles: Mapping[Key, Score] = {(one.scenario, one.seed): one for one in known if one.controller == "oracle"}
    found: dict[str, list[Pair]] = {}
    for one in known:
        if (one.scenario, one.seed) in oracles:
            found.setdefault(one.controller, []).append(Pair(one, oracles[one.scenario, one.seed]))
    return found


def row(name: str, runs: Sequence[Pair]) -> tuple[str, ...]:
    """One controller's line: geometric means of ratios, means of the others."""
    scores = [pair.score for pair in runs]
    minutes = sum(one.minutes for one in scores) or 1
    days = sum(one.days for one in scores) or 1
    return (
        name,
        f"{_geometric(pair.score.requested / pair.oracle.requested for pair in runs):.2f}",
        f"{_geometric(pair.score.limit / pair.oracle.limit for pair in runs):.2f}",
        f"{sum(one.kills for one in scores) / len(scores):.1f}",
        f"{sum(one.failed for one in scores) / len(scores):.0f}",
        f"{100 * sum(one.late for one in scores) / (sum(one.tasks for one in scores) or 1):.2f}",
        f"{100 * sum(one.late_minutes for one in scores) / minutes:.2f}",
        f"{sum(one.changes for one in scores) / days:.1f}",
        f"{sum(one.restarts for one in scores) / days:.1f}",
        f"{100 * sum(one.stale_minutes for one in scores) / minutes:.1f}",
        f"{_geometric(pair.score.parse_cores / pair.score.parse_least for pair in runs):.2f}",
        f"{100 * sum(one.overcommitted for one in scores) / minutes:.2f}",
    )


def summary(scores: Iterable[Score]) -> list[tuple[str, ...]]:
    """All controllers over all stories."""
    return [COLUMNS, *(row(name, runs) for name, runs in pairs(scores).items())]


def by_story(scores: Iterable[Score]) -> list[tuple[str, ...]]:
    """Requested memory against the oracle's, and kills per run, by story and controller."""
    found = pairs(scores)
    names = [name for name in found if name != "oracle"]
    stories = dict.fromkeys(pair.score.scenario for runs in found.values() for pair in runs)
    rows = [("story", *names)]
    for story in stories:
        cells = []
        for name in names:
            runs = [pair for pair in found[name] if pair.score.scenario == story]
            kills = sum(pair.score.kills for pair in runs) / len(runs) if runs else 0.0
            ratio = _geometric(pair.score.requested / pair.oracle.requested for pair in runs)
            cells.append(f"{ratio:.2f} / {kills:.1f}" if runs else "")
        rows.append((story, *cells))
    return rows


def text(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """For a page."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def _geometric(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios if ratio > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan

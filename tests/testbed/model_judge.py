"""The real core asks a real Prometheus about a modelled Airflow, at moments of the model's past.

Asked are the core's own questions, over a range instead of one by one: the same expression at the same moments has the
same answers. They become an Observation as in `observe`, and the status goes from look to look.
"""

import re
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from airflow_tuner import api, parsing, prometheus, questions, restarts, signals, status
from airflow_tuner.decide import decide
from airflow_tuner.diagnose import diagnose
from airflow_tuner.model import Finding
from airflow_tuner.observe import Heard, observed, wanted
from airflow_tuner.signals import Series, Signal
from testbed.commands import run
from testbed.model_world import Seen, World
from testbed.processes import Area
from testbed.programs import program
from testbed.prometheus import Prometheus

SPEC = api.Spec.model_validate(
    {
        "mode": "Recommend",
        "airflow": {"release": "airflow"},
        "scheduler": {"memory": {"min": "256Mi", "max": "2Gi"}},
        "triggerer": {"memory": {"min": "256Mi", "max": "2Gi"}},
        "apiServer": {"memory": {"min": "256Mi", "max": "2Gi"}},
        "dagProcessor": {
            "memory": {"min": "256Mi", "max": "2Gi"},
            "parsing": {"intervalSeconds": {"min": 15, "max": 600}, "cpu": "500m"},
        },
        "workers": [
            {"name": "*", "memory": {"min": "512Mi", "max": "16Gi"}, "concurrency": {"min": 2, "max": 64}},
        ],
        "celery": {"brokerSecretRef": {"name": "airflow-broker-url"}},
    }
)
"""The policy by which all of them are looked at: everything is tuned, and only recommended."""

EXACT = 1e-3
STEPS = 300
"""Moments of one question."""

WORD = re.compile(r"\b([A-Z][a-z]+(?:[A-Z][a-z]+)+): ")
LONGEST_BLOCK = "486h"


@dataclass(frozen=True, slots=True)
class Look:
    """The findings of one look, worst first, at so many seconds since the epoch."""

    at: float
    findings: tuple[Finding, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Each as `Reason target`, or `Reason/Cause target` where it names its cause."""
        return tuple(named(finding) for finding in self.findings)


def named(finding: Finding) -> str:
    """A finding as `Reason target`, or `Reason/Cause target` where it names its cause."""
    word = WORD.search(finding.message) if finding.reason in {"QueueLagHigh", "DagParsingOverloaded"} else None
    return f"{finding.reason}{f'/{word[1]}' if word else ''} {finding.target}"


@cache
def asked(name: str) -> bool:
    """Whether the core asks for series of that name."""
    return any(re.fullmatch(pattern, name) for pattern in _patterns())


@cache
def _patterns() -> frozenset[str]:
    found = set()
    for signal in questions.AIRFLOW:
        found |= {*re.findall(r"\b(airflow_\w+)\{", signal.promql)}
        found |= {*re.findall(r'__name__=~"([^"]+)"', signal.promql)}
    return frozenset(found)


def judged(area: Area, worlds: Sequence[World], spec: api.Spec = SPEC) -> dict[str, list[Look]]:
    """All looks at these worlds, by their names."""
    source = remembering(area, worlds)
    with source:
        found = {world.name: [*looks(source, world, spec)] for world in worlds}
    shutil.rmtree(source.data)
    return found


def remembering(area: Area, worlds: Sequence[World]) -> Prometheus:
    """A Prometheus, not yet started, whose past is what was scraped; the worlds forget it.

    As one block: promtool reads its input once for each.
    """
    source = Prometheus(area, [])
    written = source.config.with_suffix(".openmetrics")
    with written.open("w") as file:
        for world in worlds:
            file.writelines(world.lines)
            world.lines.clear()
        file.write("# EOF\n")
    blocks = ["tsdb", "create-blocks-from", f"--max-block-duration={LONGEST_BLOCK}", "openmetrics", "--quiet"]
    run([program("promtool"), *blocks, written, source.data], timeout=1800)
    written.unlink()
    return source


def looks(source: Prometheus, world: World, spec: api.Spec = SPEC) -> Iterator[Look]:
    """All looks at a world, one after another."""
    prior = api.Status()
    answers = {signal: Answers(source, signal, world, spec) for signal in (*wanted(airflow=True), *questions.AIRFLOW)}
    for seen in world.seen:
        values: dict[str, tuple[Series, ...]] = {}
        for signal, answer in answers.items():
            values |= signals.parted(answer.at(seen.at), signal)
        broker = None if seen.slots is None else ""
        heard = Heard(values, slots=seen.slots or {}, broker=broker)
        now = datetime.fromtimestamp(seen.at, UTC)
        observation = observed(spec, seen.workloads, world.line, heard, now)
        findings = diagnose(spec, observation, prior)
        decision = decide(spec, observation, prior, identity="policy-uid")
        waiting = restarts.waiting(spec, observation, decision)
        prior = status.rendered(prior, spec, observation, findings, decision, waiting, generation=1)
        yield Look(seen.at, findings)


class Answers:
    """The answers to one question at all moments of a world's looks. What lasts is not asked anew, as by the client."""

    def __init__(self, source: Prometheus, signal: Signal, world: World, spec: api.Spec) -> None:
        times = [seen.at for seen in world.seen]
        if signal.lasts:
            times = [*_apart(times, signal.lasts)]
        self.times = times
        self.found: dict[float, list[Series]] = {}
        first: Seen = world.seen[0]
        # Whose they are: the metrics of this world alone, by its namespace.
        metrics = spec.metrics.model_copy(update={"match_labels": {"namespace": world.name}})
        rounds = parsing.rounds(spec, first.workloads, world.line)
        self.promql = signals.query(signal, prometheus.scope(metrics, world.name, rounds))
        for begin, end, step in _ranges(times):
            for item in source.over(self.promql, begin, end, step):
                labels = dict(item["metric"])
                for at, text in item["values"]:
                    told: dict[str, Any] = {"metric": labels, "value": [at, text]}
                    if (series := prometheus._series(told)) is not None:  # noqa: SLF001 - as the client reads it
                        self.found.setdefault(round(at, 3), []).append(series)

    def at(self, moment: float) -> tuple[Series, ...]:
        """The answer that a client would have at that moment."""
        return tuple(self.found.get(round(self.times[bisect_right(self.times, moment) - 1], 3), ()))


def _apart(times: Iterable[float], seconds: float) -> Iterator[float]:
    last = float("-inf")
    for at in times:
        if at - last >= seconds:
            last = at
            yield at


def _ranges(times: Sequence[float]) -> Iterator[tuple[float, float, float]]:
    """Equal steps among the moments: first, last, and step. Each moment is in one of them."""
    begin = 0
    while begin < len(times):
        step = times[begin + 1] - times[begin] if begin + 1 < len(times) else 1.0
        end = begin
        while end + 1 < len(times) and end - begin < STEPS and abs(times[end + 1] - times[end] - step) < EXACT:
            end += 1
        yield times[begin], times[end], step
        begin = end + 1

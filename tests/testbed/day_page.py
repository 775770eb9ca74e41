"""The report page of a time that a real Airflow has lived with the operator: from its Prometheus, and what was seen."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from airflow_tuner import api, page, policies
from airflow_tuner.chronicle import Chronicle
from airflow_tuner.hindsight import observation
from airflow_tuner.lived import AS_SET, Lived
from airflow_tuner.model import Change, Finding, Memory, Observation, Severity, Slots, Values, Workload
from airflow_tuner.past import from_api
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.recording import Recording
from airflow_tuner.settings import Source
from airflow_tuner.traces import Stated, Traces
from testbed import browser
from testbed.evidence import PAGES
from testbed.real_airflow import RealAirflow

TARGET = "worker/default"
STEP = 15
"""Seconds between two moments of the page."""
NAME = "day"


@dataclass(frozen=True, slots=True)
class Look:
    """What was in force, and what was found."""

    at: datetime
    memory: Memory
    slots: int
    findings: Sequence[Mapping[str, Any]]
    """As the status has them."""


def write(real: RealAirflow, looks: Sequence[Look], changes: Sequence[Mapping[str, Any]]) -> None:
    """Write the page and a picture of it to docs/evidence/. `looks`: the first is of before; `changes`: history's."""
    chronicle = asyncio.run(_chronicle(real, looks, changes))
    written = PAGES / f"{NAME}.html"
    written.write_text(page.rendered(chronicle))
    browser.pictured(written, written.with_suffix(".png"), real.area.path, (1200, 1700))


async def _chronicle(real: RealAirflow, looks: Sequence[Look], changes: Sequence[Mapping[str, Any]]) -> Chronicle:
    spec, _ = policies.parsed(real.policy())
    times = range(_second(looks[0].at), _second(looks[-1].at) + 1, STEP)
    source = Prometheus("of the day", Source.model_validate({"url": real.prometheus.url}))
    recording = Recording(source, spec, real.airflow.namespace, times, spec.metrics.window_seconds, airflow=True)
    first = looks[0]
    traces = Traces(spec, {TARGET: Stated(first.memory, values=Values(concurrency=first.slots))})
    chronicle = Chronicle(
        f"A day's load in {(looks[-1].at - first.at).total_seconds() / 60:.0f} minutes",
        "A real Airflow 3.3.2 with one Celery worker on a real node, with airflow-tuner in it in mode Enforce.",
        spec.objectives.queue_lag_seconds,
        lived=True,
        notes=[AS_SET],
    )
    lived, begun = Lived(spec, chronicle), first.at
    async for known in recording.moments(lambda _: None):
        look = looks[max(0, bisect_right(looks, known.at, key=lambda one: one.at) - 1)]
        seen = _in_force(observation(spec, known, traces), look, first)
        made = [_change(one) for one in changes if begun < _time(one["time"]) <= known.at]
        lived.note(seen, made, _findings(look))
        begun = known.at
    chronicle.close()
    return chronicle


def _in_force(seen: Observation, look: Look, first: Look) -> Observation:
    """With what was looked at of the worker, now and before, of which the metrics say too little."""
    slots = Slots(look.slots, look.slots, 0, autoscaled=True, queues=("default",), oldest=0.0)

    def whole(item: Workload) -> Workload:
        if item.target != TARGET:
            return item
        pods = (replace(pod, memory=look.memory, running=look.memory, slots=slots) for pod in item.pods)
        return replace(item, template=first.memory, pods=tuple(pods))

    return replace(seen, workloads=tuple(map(whole, seen.workloads)))


def _change(told: Mapping[str, Any]) -> Change:
    before, after = (from_api(api.Values.model_validate(told[side])) for side in ("from", "to"))
    return Change(told["target"], told["decision"], told["reason"], before, after, told["message"])


def _findings(look: Look) -> Iterator[Finding]:
    for told in look.findings:
        severity, since = Severity(told["severity"]), _time(told["since"])
        yield Finding(told["reason"], severity, told["target"], told["message"], since)


def _second(at: datetime) -> int:
    return int(at.timestamp())


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)

"""What real Airflows told by StatsD with tags and by OpenTelemetry (`data/`), told again to a real Prometheus.

The last ten minutes in steps of a quarter of a minute, with other values: counters and timers grow by what they were in
each step, the ages of files move, other gauges are one more.
"""

import json
import math
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
STEP = 15
STEPS = 40
AGES = "last_run"
SCALE = 3
"""Of the exponential histograms: eight buckets for each power of two."""

Json = dict[str, Any]
Moved = Callable[[int], float]
"""Of a step from 0 to STEPS: the growth since before the first."""


def grows(step: int) -> float:
    """It grows in each step."""
    return 1.0 + step


def stands(step: int) -> float:  # noqa: ARG001 - as `grows`
    """It does not."""
    return 1.0


def by_tags(file: str, *, moved: Moved = grows, **labels: str) -> str:
    """A page of an exporter with all that time in it."""
    return "".join(_lines((DATA / f"airflow-{file}.txt").read_text(), moved, labels))


def _lines(text: str, moved: Moved, labels: Mapping[str, str]) -> Iterator[str]:
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    more = ",".join(f'{key}="{value}"' for key, value in labels.items())
    now = time.time()
    for name, inside, told in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        # Of a summary, its count and sum.
        counts = types.get(name, "counter") == "counter"
        for step in range(STEPS + 1):
            value = float(told) * moved(step) if counts else _gauge(name, float(told), step, moved)
            yield f"{name}{{{inside}{',' if inside else ''}{more}}} {value} {_at(now, step)}\n"


def _at(now: float, step: int) -> int:
    """Milliseconds."""
    return int((now - (STEPS - step) * STEP) * 1000)


def _gauge(name: str, value: float, step: int, moved: Moved) -> float:
    if AGES not in name:
        return value + 1
    return value + step % 4 if moved is grows else value


@dataclass(frozen=True)
class Sent:
    """One series of one process, as the file has it."""

    process: str
    kind: str
    name: str
    unit: str
    attributes: Json
    numbers: tuple[float, ...]


def sent(version: str) -> list[Sent]:
    """What a real Airflow sent."""
    text = (DATA / f"airflow-{version}-opentelemetry.txt").read_text()
    found = re.findall(r"^(?!#)(\S+) (\S+) (\S+) (\S+) (\{.*\}) (.+)$", text, re.MULTILINE)
    return [
        Sent(process, kind, name, unit, json.loads(attributes), tuple(map(float, told.split())))
        for process, kind, name, unit, attributes, told in found
    ]


def by_opentelemetry(
    url: str, what: list[Sent], service: str, *, moved: Moved = grows, process: str = "", steps: int = STEPS
) -> None:
    """Send it as Airflow does, from the first step to that one. `process`: its instances are called so."""
    now = time.time()
    resources: dict[str, list[Json]] = {}
    for one in what:
        resources.setdefault(f"{process}{one.process}", []).append(_metric(one, now, moved, steps))
    body = {
        "resourceMetrics": [
            {
                "resource": {"attributes": _attributes({"service.name": service, "service.instance.id": instance})},
                "scopeMetrics": [{"metrics": metrics}],
            }
            for instance, metrics in resources.items()
        ]
    }
    request = urllib.request.Request(  # noqa: S310 - our own Prometheus
        f"{url}/api/v1/otlp/v1/metrics", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        assert answer.status == 200


def _metric(one: Sent, now: float, moved: Moved, steps: int) -> Json:
    # The process of a task sends once, at its end.
    task = re.fullmatch(r"task-(\d+)", one.process)
    told = [steps - 2 * int(task[1])] if task else range(steps + 1)
    points = [{**_point(one, 0 if task else step, moved), **_times(now, step, one)} for step in told]
    metric: Json = {"name": one.name, "unit": one.unit.removeprefix("-")}
    if one.kind == "gauge":
        return metric | {"gauge": {"dataPoints": points}}
    if one.kind == "histogram":
        return metric | {"exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": points}}
    return metric | {"sum": {"aggregationTemporality": 2, "isMonotonic": one.kind == "counter", "dataPoints": points}}


def _times(now: float, step: int, one: Sent) -> Json:
    begun = {} if one.kind == "gauge" else {"startTimeUnixNano": str(_at(now, 0) * 10**6 - 10**9)}
    return {**begun, "timeUnixNano": str(_at(now, step) * 10**6), "attributes": _attributes(one.attributes)}


def _point(one: Sent, step: int, moved: Moved) -> Json:
    if one.kind == "gauge":
        return {"asDouble": _gauge(one.name, one.numbers[0], step, moved)}
    if one.kind != "histogram":
        return {"asDouble": one.numbers[0] * moved(step)}
    count, total = (number * moved(step) for number in one.numbers)
    bucket = math.ceil(math.log2(total / count) * 2**SCALE) - 1
    return {
        "count": str(round(count)),
        "sum": total,
        "scale": SCALE,
        "positive": {"offset": bucket, "bucketCounts": [str(round(count))]},
    }


def _attributes(values: Json) -> list[Json]:
    return [{"key": key, "value": {"stringValue": str(value)}} for key, value in values.items()]

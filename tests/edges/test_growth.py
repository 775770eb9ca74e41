"""What a real Prometheus says of memory that grows: days of samples, given to it as a past, asked at every hour."""

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from airflow_tuner import api, observe, prometheus, signals
from airflow_tuner.diagnose import growth
from airflow_tuner.errors import Unavailable
from airflow_tuner.fleet import Deployment
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.quantity import MEBIBYTE
from airflow_tuner.settings import Source
from airflow_tuner.signals import Scope, Series, Signal
from edges.servers import serving
from testbed.processes import Area
from testbed.prometheus import Prometheus as RealPrometheus

DAYS = 5
HOUR = 3600
MINUTES = 2
"""Between two samples."""
LOOKS_BACK = {way.name: way.hours for way in growth.WAYS}
KNOWN = {name: hours + growth.WARM_UP.total_seconds() / HOUR for name, hours in LOOKS_BACK.items()}
"""Hours after its start from which a container is judged."""

Shape = Callable[[float], float]
"""MiB of anonymous memory so many hours after the start."""


def office(hour: float) -> float:
    """How busy an Airflow is, from 0 to 1: in office hours, with quiet nights, and a weekend."""
    day, at = divmod(hour + 4, 24)
    return 0.05 if int(day) in {1, 2} else max(0.05, math.sin((at - 6) / 14 * math.pi)) if 6 < at < 20 else 0.05


def noise(size: float) -> float:
    """As much as that up or down."""
    return NOISE.uniform(-size, size)


NOISE = random.Random(7)  # noqa: S311 - no secret
STEPPED = 72

HEALTHY: dict[str, Shape] = {
    "flat": lambda _: 300,
    "noisy": lambda _: 300 + noise(15),
    "warm-up": lambda hour: 400 - 300 * math.exp(-hour / 0.3) + noise(2),
    "slots that warm up": lambda hour: 1250 - 900 * math.exp(-hour / 5) + noise(5),
    "daily wave": lambda hour: 600 + 250 * math.sin(hour / 24 * 2 * math.pi) + noise(5),
    "office hours": lambda hour: 350 + 900 * office(hour) + noise(20),
    "saw-tooth": lambda hour: 160 + 200 * (hour * 7 % 1) + noise(3),
    "long tasks": lambda hour: 400 + 300 * (hour / 5 % 1) + noise(5),
    "resized": lambda hour: 300 + (400 if hour > STEPPED else 0) + noise(3),
    "resized twice": lambda hour: 300 + (200 if hour > STEPPED else 0) + (200 if hour > STEPPED + 9 else 0) + noise(3),
    "a spike": lambda hour: 300 + (600 if STEPPED < hour < STEPPED + 2 else 0) + noise(3),
}

LEAKING: dict[str, tuple[float, Shape]] = {
    "weak": (1.5, lambda hour: 300 + 1.5 * hour + noise(2)),
    "reported": (4.5, lambda hour: 180 + 4.5 * hour + noise(5)),
    "under tasks": (4.0, lambda hour: 300 + 4 * hour + 200 * (hour * 7 % 1) + noise(5)),
    "under nights": (20.0, lambda hour: 300 + 20 * hour + 100 * office(hour) + noise(5)),
    "strong": (60.0, lambda hour: 300 + 60 * hour + noise(30)),
}
"""With their pace in MiB/h."""


@dataclass(frozen=True)
class Past:
    """A Prometheus that knows the days until `end`."""

    prometheus: RealPrometheus
    end: float

    def told(self, name: str, *, from_hour: float = 0) -> Mapping[str, list[float]]:
        """By pod, the MiB/h told at every hour from so many hours after its start on."""
        begin = self.end - (DAYS * 24 - max(from_hour, KNOWN[name])) * HOUR
        answer = self.prometheus.over(signals.query(signals.GROWTH, SCOPE), begin, self.end, HOUR)
        return {
            item["metric"]["pod"]: [float(value) * HOUR / MEBIBYTE for _, value in item["values"]]
            for item in answer
            if item["metric"]["signal"] == name
        }


SCOPE = prometheus.scope(api.Metrics(), "n")


def played(*, leak: float) -> Shape:
    """A worker of the fleet model with 8 slots and tasks in office hours, and so many MiB/h of a leak."""
    fleet = Deployment(1, leaks={"worker": leak})
    fleet.start("scheduler", "scheduler", {}, None)
    fleet.start("worker-0", "worker", {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "8"}, None)
    held = []
    for minute in range(0, DAYS * 24 * 60, MINUTES):
        if minute % 30 == 0:
            fleet.trigger("load", round(30 * office(minute / 60)), 90)
        fleet.advance(60 * MINUTES)
        held.append(fleet.reading("worker-0").rss / MEBIBYTE)
    return lambda hour: held[min(len(held) - 1, int(hour * 60 / MINUTES))]


@pytest.fixture(scope="module")
def past(area: Area, needs: Callable[..., None]) -> Iterator[Past]:
    """Containers of all shapes that started five days ago."""
    needs("prometheus", "promtool")
    shapes = {**HEALTHY, **{name: shape for name, (_, shape) in LEAKING.items()}}
    shapes |= {"fleet": played(leak=0), "fleet that leaks": played(leak=8)}
    end = time.time() - 60
    lines = []
    for number, (name, shape) in enumerate(shapes.items()):
        labels = f'namespace="n",pod="{name}",container="worker",id="/kubepods/pod1/{number:064x}"'
        for step in range(DAYS * 24 * 60 // MINUTES):
            hour = step * MINUTES / 60
            size = shape(hour) * MEBIBYTE
            lines.append(f"container_memory_rss{{{labels}}} {size:.0f} {end - (DAYS * 24 - hour) * HOUR:.3f}\n")
    source = RealPrometheus(area, [])
    source.remember("# TYPE container_memory_rss gauge\n" + "".join(lines) + "# EOF\n")
    with source:
        yield Past(source, end)


@pytest.mark.parametrize("name", ["growth_days", "growth_by_day"])
def test_nothing_that_comes_to_rest_or_back_is_told_at_any_hour(past: Past, name: str) -> None:
    found = past.told(name)
    least = growth.LEAST / MEBIBYTE
    assert {pod: max(paces) for pod, paces in found.items() if pod in {*HEALTHY, "fleet"} and max(paces) >= least} == {}


@pytest.mark.parametrize("way", ["growth_days", "growth_by_day"])
def test_a_leak_is_told_at_nearly_every_hour_with_its_pace(past: Past, way: str) -> None:
    found = past.told(way)
    hours = DAYS * 24 - KNOWN[way]
    for name, (pace, _) in LEAKING.items():
        assert len(found[name]) > 0.9 * hours, name
        assert found[name] == pytest.approx([pace] * len(found[name]), rel=0.25), name


@pytest.mark.parametrize("way", ["growth_days", "growth_by_day"])
def test_a_worker_of_the_fleet_model_that_leaks_is_told(past: Past, way: str) -> None:
    paces = past.told(way)["fleet that leaks"]
    assert len(paces) > 24
    assert paces[-1] == pytest.approx(8, rel=0.5)


def test_over_hours_a_leak_is_told_and_what_rises_within_minutes_is_not(past: Past) -> None:
    found = past.told("growth_hours")
    assert len(found["strong"]) > 100
    assert {pod: paces for pod, paces in found.items() if pod in {"flat", "warm-up", "saw-tooth", "a spike"}} == {}


def test_a_client_asks_once_in_ten_minutes(past: Past) -> None:
    async def twice() -> int:
        source = Prometheus("main", Source(url=past.prometheus.url))
        first = await source.ask(signals.GROWTH, SCOPE)
        assert first
        assert await source.ask(signals.GROWTH, SCOPE) == first
        return source.calls

    assert asyncio.run(twice()) == 1


def test_an_answer_that_failed_is_asked_for_again() -> None:
    async def twice(url: str) -> int:
        source = Prometheus("main", Source(url=url))
        for _ in range(2):
            with pytest.raises(Unavailable):
                await source.ask(signals.GROWTH, SCOPE)
        return source.calls

    with serving("", 503) as server:
        assert asyncio.run(twice(server.url)) == 2


def test_a_source_that_refuses_so_many_samples_loses_this_answer_alone() -> None:
    class Refusing(Prometheus):
        async def ask(self, signal: Signal, scope: Scope, patience: float | None = None) -> tuple[Series, ...]:
            del scope, patience
            if signal is signals.GROWTH:
                raise Unavailable("too many samples")
            return (Series({"signal": "anonymous_day", "of": signal.name}, 1.0),)

    source = Refusing("main", Source(url="http://127.0.0.1:1"))
    entry = {"name": "*", "memory": {"min": "1Gi", "max": "2Gi"}, "concurrency": {"min": 1, "max": 4}}
    spec = api.Spec.model_validate({"airflow": {"release": "airflow"}, "workers": [entry]})
    asked = observe._asked(source, spec, "n", 0, "", None, airflow=True)  # noqa: SLF001
    values, problem, airflow_problem, _ = asyncio.run(asked)
    assert (problem, airflow_problem) == ("", "")
    assert "growth_days" not in values
    assert {name for name in values if name.startswith("anonymous")} == {*signals.ANONYMOUS}
    assert [series.labels["of"] for series in values["anonymous_day"]] == ["anonymous_memory"]
    assert values["anonymous"] == ()

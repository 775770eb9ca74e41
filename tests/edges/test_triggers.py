"""What a trigger takes, out of a real Prometheus that knows a day of a triggerer."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_tuner import api, prometheus, questions, triggers
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.settings import Source
from testbed.processes import Area
from testbed.prometheus import Prometheus as RealPrometheus

EACH = 64 * 1024
"""Bytes that a trigger takes here."""


@pytest.fixture(scope="module")
def day(area: Area, needs: Callable[..., None]) -> Iterator[RealPrometheus]:
    """Two triggerers whose triggers come and go, with memory that follows them, and an Airflow without any."""
    needs("prometheus", "promtool")
    end = time.time() - 60
    running, held = ["# TYPE airflow_triggers_running gauge"], ["# TYPE container_memory_rss gauge"]
    for minute in range(20 * 60):
        at = end - (20 * 60 - minute) * 60
        number = round(500 + 400 * math.sin(minute / 200))
        running.append(f"airflow_triggers_running {number} {at:.3f}")
    for name, share in (("airflow-triggerer-0", 1.0), ("airflow-triggerer-1", 0.5)):
        labels = f'namespace="n",pod="{name}",container="triggerer",id="/kubepods/{name}"'
        for minute in range(20 * 60):
            size = share * (280e6 + EACH * (500 + 400 * math.sin(minute / 200)))
            held.append(f"container_memory_rss{{{labels}}} {size:.0f} {end - (20 * 60 - minute) * 60:.3f}")
    source = RealPrometheus(area, [])
    source.remember("\n".join([*running, *held, "# EOF\n"]))
    with source:
        yield source


def told(url: str, namespace: str) -> dict[str, float]:
    source = Prometheus("default", Source(url=url))
    found = asyncio.run(source.ask(questions.TRIGGERS, prometheus.scope(api.Metrics(), namespace)))
    return {item.labels["signal"]: item.value for item in found}


def test_a_day_of_ups_and_downs_shows_what_a_trigger_takes(day: RealPrometheus) -> None:
    found = told(day.url, "n")
    assert found.keys() == questions.TRIGGER_MEMORY.keys()
    assert found["trigger_looks"] > 200
    assert triggers.per_trigger(found) == pytest.approx(EACH, rel=0.02)


def test_without_memory_beside_the_triggers_nothing_is_told(day: RealPrometheus) -> None:
    assert told(day.url, "other") == {}

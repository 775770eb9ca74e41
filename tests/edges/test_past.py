"""The peaks of past hours, asked of a real Prometheus that was given them as a past."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_tuner import api, observe, signals
from airflow_tuner.archive import Archive
from airflow_tuner.errors import Unavailable
from airflow_tuner.history import History
from airflow_tuner.learning import filled
from airflow_tuner.model import Memory, Metrics, MetricsState, Observation, Workload
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.quantity import MEBIBYTE
from airflow_tuner.settings import Source
from edges.servers import serving
from testbed.processes import Area
from testbed.prometheus import Prometheus as RealPrometheus

HOUR = 3600
GAUGES = (
    ("airflow_pool_running_slots_default_pool", "", (3, 1, 0)),
    ("airflow_pool_running_slots_other", "", (2, 0, 0)),
    ("airflow_pool_queued_slots_default_pool", "", (0, 0, 9)),
    ("airflow_ti_running", ',queue="default"', (4, 0, 0)),
    ("airflow_ti_queued", ',queue="default"', (0, 0, 5)),
)
"""Names of series, their labels, and their values: at first, more in each hour, and more in its middle."""

HOURS = 6
PODS = {
    "airflow-worker-0": "worker",
    "airflow-worker-1": "worker",
    "airflow-worker-heavy-0": "worker",
    "airflow-scheduler-6d5f8b9c7-x2k4p": "scheduler",
    "airflow-scheduler-7c9d6f5b8-q8z7n": "scheduler",
}
"""With their containers."""


def held(pod: str, hour: int, minute: int) -> int:
    """MiB; the peak of an hour is in its middle."""
    return 100 * (1 + [*PODS].index(pod)) + 10 * hour + (5 if minute == 30 else 0)


def spent(first: int) -> Iterator[str]:
    """CPU seconds of a scheduler that takes a fifth of a core, and four in ten minutes of each hour."""
    labels = 'namespace="n",pod="airflow-scheduler-6d5f8b9c7-x2k4p",container="scheduler",id="/kubepods/x"'
    seconds = 0.0
    for minute in range(HOURS * 60):
        yield f"container_cpu_usage_seconds_total{{{labels}}} {seconds:.1f} {first * HOUR + minute * 60 + 1}\n"
        seconds += 60 * (0.8 if 20 <= minute % 60 < 30 else 0.2)


@pytest.fixture(scope="module")
def past(area: Area, needs: Callable[..., None]) -> Iterator[tuple[RealPrometheus, int]]:
    """A Prometheus that knows six hours, and the first of them. In the third no scheduler was seen."""
    needs("prometheus", "promtool")
    first = int(time.time()) // HOUR - HOURS
    lines = []
    for pod, container in PODS.items():
        for minute in range(HOURS * 60):
            hour = minute // 60
            if hour == 2 and container == "scheduler":
                continue
            labels = f'namespace="n",pod="{pod}",container="{container}",id="/kubepods/{pod}"'
            at = first * HOUR + minute * 60 + 1
            lines.append(f"container_memory_rss{{{labels}}} {held(pod, hour, minute % 60) * MEBIBYTE} {at}\n")
    source = RealPrometheus(area, [])
    told = [
        "# TYPE container_memory_rss gauge\n",
        *lines,
        "# TYPE container_cpu_usage_seconds counter\n",
        *spent(first),
    ]
    for name, labels, (begin, hourly, half) in GAUGES:
        told.append(f"# TYPE {name} gauge\n")
        for minute in range(HOURS * 60):
            at = first * HOUR + minute * 60 + 1
            count = begin + hourly * (minute // 60) + (half if minute % 60 == 30 else 0)
            told.append(f'{name}{{namespace="n"{labels}}} {count} {at}\n')
    source.remember("".join(told) + "# EOF\n")
    with source:
        yield source, first


def peaks(
    url: str, first: int, last: int, signal: signals.Signal = signals.HOURLY_PEAKS
) -> dict[str, list[int | None]]:
    spec = api.Spec.model_validate({"airflow": {"release": "airflow"}})
    source = Prometheus("default", Source(url=url, timeout_seconds=5))
    return asyncio.run(observe.past_peaks(source, spec, "n", first, last, signal))


def test_the_peak_of_each_hour_is_that_of_all_pods_a_workload_has_had(past: tuple[RealPrometheus, int]) -> None:
    source, first = past
    found = peaks(source.url, first, first + HOURS - 1)
    assert found.keys() == {"airflow-worker", "airflow-worker-heavy", "airflow-scheduler"}
    assert found["airflow-worker"] == [200 + 10 * hour + 5 for hour in range(HOURS)]
    assert found["airflow-worker-heavy"] == [300 + 10 * hour + 5 for hour in range(HOURS)]
    assert found["airflow-scheduler"] == [None if hour == 2 else 500 + 10 * hour + 5 for hour in range(HOURS)]


def test_the_tasks_of_each_hour_are_those_that_ran_and_waited_at_once(past: tuple[RealPrometheus, int]) -> None:
    source, first = past
    spec = api.Spec.model_validate({"airflow": {"release": "airflow"}})
    prometheus = Prometheus("default", Source(url=source.url, timeout_seconds=5))
    found = asyncio.run(observe.past_tasks(prometheus, spec, "n", "Chart", first, first + HOURS - 1))
    assert found == {"": [3 + hour + 2 + 9 for hour in range(HOURS)], "default": [9] * HOURS}


def test_the_busiest_minutes_of_each_hour_are_told_in_thousandths_of_a_core(past: tuple[RealPrometheus, int]) -> None:
    source, first = past
    found = peaks(source.url, first, first + HOURS - 1, signals.HOURLY_CORES)
    assert found == {"airflow-scheduler": [800] * HOURS}


def test_the_cpu_of_the_past_is_read_once_a_policy_names_it_one_question_in_each_turn(
    past: tuple[RealPrometheus, int],
) -> None:
    source, first = past
    asked = Prometheus("default", Source(url=source.url, timeout_seconds=5))
    spec: dict[str, Any] = {"airflow": {"release": "airflow"}, "scheduler": {"memory": {"min": "1Gi", "max": "2Gi"}}}
    silent = api.Spec.model_validate(spec)
    names = api.Spec.model_validate({**spec, "scheduler": {**spec["scheduler"], "cpu": {"min": "100m", "max": "1"}}})
    now = datetime.fromtimestamp((first + HOURS) * HOUR + 60, UTC)
    of = Workload("scheduler", "scheduler", "Deployment", "airflow-scheduler", "scheduler", {}, {}, {}, Memory())
    seen = Observation(now, (of,), Metrics(MetricsState.FRESH, ""))

    def read(archive: Archive, policy: api.Spec) -> int:
        """The turns that it took."""
        archive.named(policy, now)
        turns = 0
        while archive.due(now):
            asyncio.run(archive.read(asked, policy, "n", seen))
            turns += 1
        return turns

    archive = Archive()
    archive.begin(None, "uid", now)
    turns = read(archive, silent)
    assert archive.histories.keys() == {"scheduler"}
    assert asked.calls == turns
    more = read(archive, names)
    assert more > 0
    assert archive.histories["scheduler cpu"].at(first) == 800
    assert asked.calls == turns + more
    assert read(archive, names) == 0, "once"


def test_hours_before_there_were_metrics_are_not_known(past: tuple[RealPrometheus, int]) -> None:
    source, first = past
    assert peaks(source.url, first - 48, first - 24) == {}
    histories = filled({}, {"airflow-worker": "worker/default"}, first - 2, peaks(source.url, first - 2, first))
    assert histories == {"worker/default": History(first - 2, (None, None, 205))}


@pytest.mark.parametrize("body", ["nonsense", '{"status":"success","data":{"resultType":"matrix","result":[{}]}}'])
def test_an_answer_of_another_form_is_no_past(body: str) -> None:
    with serving(body) as server, pytest.raises(Unavailable, match="does not answer as a Prometheus does"):
        peaks(server.url, 0, 5)

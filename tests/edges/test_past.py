"""The peaks of past hours, asked of a real Prometheus that was given them as a past."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_tuner import api, observe
from airflow_tuner.errors import Unavailable
from airflow_tuner.history import History
from airflow_tuner.learning import filled
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
    told = ["# TYPE container_memory_rss gauge\n", *lines]
    for name, labels, (begin, hourly, half) in GAUGES:
        told.append(f"# TYPE {name} gauge\n")
        for minute in range(HOURS * 60):
            at = first * HOUR + minute * 60 + 1
            count = begin + hourly * (minute // 60) + (half if minute % 60 == 30 else 0)
            told.append(f'{name}{{namespace="n"{labels}}} {count} {at}\n')
    source.remember("".join(told) + "# EOF\n")
    with source:
        yield source, first


def peaks(url: str, first: int, last: int) -> dict[str, list[int | None]]:
    spec = api.Spec.model_validate({"airflow": {"release": "airflow"}})
    source = Prometheus("default", Source(url=url, timeout_seconds=5))
    return asyncio.run(observe.past_peaks(source, spec, "n", first, last))


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


def test_hours_before_there_were_metrics_are_not_known(past: tuple[RealPrometheus, int]) -> None:
    source, first = past
    assert peaks(source.url, first - 48, first - 24) == {}
    histories = filled({}, {"airflow-worker": "worker/default"}, first - 2, peaks(source.url, first - 2, first))
    assert histories == {"worker/default": History(first - 2, (None, None, 205))}


@pytest.mark.parametrize("body", ["nonsense", '{"status":"success","data":{"resultType":"matrix","result":[{}]}}'])
def test_an_answer_of_another_form_is_no_past(body: str) -> None:
    with serving(body) as server, pytest.raises(Unavailable, match="does not answer as a Prometheus does"):
        peaks(server.url, 0, 5)

"""What `make prove CASE=leak-shape` measures: a leak in a real Airflow, in the eyes of the question that finds leaks.

That question compares floors of hours, and the rule wants a day of them. Here an hour is half a minute.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

from airflow_tuner import signals
from testbed import causes
from testbed.real_airflow import RealAirflow, real_airflow
from testbed.telling import say

HOUR = 1 / 120
"""Hours in what stands for an hour: half a minute."""
HOURS, FLOORS = signals.LEAK_SPANS["growth_hours"]
SECONDS = 3600 * HOUR * HOURS * (FLOORS + 3)
"""How long each lasts: the windows, the first of which needs another before it, and two for it to begin."""
KIBIBYTES = 512
"""That the leaking task keeps in each second."""


@dataclass(frozen=True)
class Shape:
    """Something that runs in a worker, and what was measured of it."""

    name: str
    pace: float | None
    """MiB per minute that the question answered; `None`: no even rise."""
    anonymous: tuple[float, float]
    """MiB at the beginning and at the end."""
    working_set: tuple[float, float]


def leak_shape() -> str:
    """A task that leaks in a real worker, and what does not leak: what the question that finds leaks says of each."""
    shown: Mapping[str, Callable[[RealAirflow], causes.TakesAway]] = {
        "short tasks, again and again": _short_tasks,
        "a file of 300 MiB that is read again and again": _reads,
        f"a task that keeps {KIBIBYTES} KiB more in each second": _leaks,
    }
    with real_airflow(causes.values()) as real:
        shapes = [_shape(real, name, bring_about) for name, bring_about in shown.items()]
    rows = [
        f"| {one.name} | {_pair(one.anonymous)} | {_pair(one.working_set)} "
        f"| {'no even rise' if one.pace is None else f'{one.pace:.1f}'} |"
        for one in shapes
    ]
    return (
        f"Real Airflow, real cAdvisor, scraped every 5 s: the question of the catalogue with {FLOORS} windows of half\n"
        f"a minute in place of {FLOORS} of an hour. A leak of {KIBIBYTES} KiB/s is {60 * KIBIBYTES / 1024:.0f} MiB\n"
        f"per minute. Each runs for {SECONDS:.0f} s in a worker that was born for it.\n\n"
        "| what runs in the worker | anonymous (MiB) | working set (MiB) | rise told (MiB per minute) |\n"
        "|---|---|---|---|\n" + "\n".join(rows) + "\n\nDays of it are judged in tests/edges/test_growth.py and on the "
        "page of the modelled Airflow.\n"
    )


def _shape(real: RealAirflow, name: str, bring_about: Callable[[RealAirflow], causes.TakesAway]) -> Shape:
    began, take_away = _held(real), bring_about(real)
    try:
        time.sleep(SECONDS)
        ended, told = _held(real), real.prometheus.query(_question(real))
    finally:
        take_away()
    pace = float(told[0]["value"][1]) * 60 / causes.MEBIBYTE if told else None
    shape = Shape(name, pace, *zip(began, ended, strict=True))
    say(f"  {shape}")
    return shape


def _question(real: RealAirflow) -> str:
    return Template(signals.growing(HOURS * HOUR, FLOORS)).substitute(container=_container(real))


def _container(real: RealAirflow) -> str:
    (pod,) = real.airflow.pods("worker")
    return f'pod="{pod["metadata"]["name"]}",container="worker",id=~".*{_id(pod)}"'


def _id(pod: Mapping[str, Any]) -> str:
    return str(pod["status"]["containerStatuses"][0]["containerID"]).rpartition("/")[2]


def _held(real: RealAirflow) -> tuple[float, float]:
    """MiB of anonymous memory, and of the working set."""
    selector = _container(real)
    names = ("container_memory_rss", "container_memory_working_set_bytes")
    real.airflow.wait_until(
        lambda: bool(real.prometheus.query(f"{names[0]}{{{selector}}} > {100 * causes.MEBIBYTE}")), "its series", 90
    )
    rss, working = (float(real.prometheus.query(f"{name}{{{selector}}}")[0]["value"][1]) for name in names)
    return rss / causes.MEBIBYTE, working / causes.MEBIBYTE


def _pair(values: tuple[float, float]) -> str:
    return " -> ".join(f"{value:.0f}" for value in values)


def _leaks(real: RealAirflow) -> causes.TakesAway:
    return causes.in_a_worker_of_its_own(real, "leaks", kibibytes=KIBIBYTES, seconds=2 * SECONDS)


def _reads(real: RealAirflow) -> causes.TakesAway:
    return causes.in_a_worker_of_its_own(real, causes.FILES, mebibytes=300, seconds=2 * SECONDS)


def _short_tasks(real: RealAirflow) -> causes.TakesAway:
    return causes.in_a_worker_of_its_own(real, causes.DAG, count=400, seconds=5, mebibytes=60)

"""What is wrong before any worker is asked: DAGs that run away, the scheduler, the database, the triggerer."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import telemetry
from airflow_tuner.model import Finding, MetricsState, Observation, Pod, Refusal, Severity, Usage, Values
from airflow_tuner.telemetry import Pace
from airflow_tuner.triggers import Triggerer
from core.worlds import NOW, Turn, airflow, observed, pod, scheduler, slots, slots_spec, tasks, turn, usage, worker

SECOND = timedelta(seconds=1)
OLD = NOW - timedelta(days=1)
CALM = usage(cpu=0.3, throttled=0.0, node_cpu=0.4)


def found(last: Turn, reason: str) -> Finding | None:
    return next((item for item in last.findings if item.reason == reason), None)


def crowded(**fields: Any) -> Observation:  # noqa: ANN401 - any field of the tasks
    """Tasks wait for two slots that are all taken."""
    busy = worker(pod(usage=CALM, slots=slots(2)), stated=Values(concurrency=2))
    return observed(busy, airflow=airflow(tasks(30, 2, **{"duration": 60.0, **fields})), broker="")


# DAGs that run away.


def paced(now: int, most: int | None, pace: int | None = None, *others: Pace) -> Observation:
    return crowded(paces=(Pace("load", now, most), *others), pace=now if pace is None else pace)


def test_a_dag_that_runs_away_is_named_with_its_pace_and_gets_no_slots() -> None:
    last = turn(slots_spec(), paced(4200, 120, 4300))
    finding = found(last, "RunawayTasks")
    assert finding is not None
    assert (finding.severity, finding.target) == (Severity.WARNING, "dag/load")
    assert finding.message.startswith(
        "4200 tasks of the DAG load ended within 10 minutes, of 4300 in all; on the day before there were at most 120 "
        "in 10 minutes. Slots are not raised meanwhile"
    )
    assert (last.reasons, last.target.tuned) == ([], None)
    lag = found(last, "QueueLagHigh")
    assert lag is not None
    assert "RunawayTasks: 4200 tasks of the DAG load" in lag.message


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (paced(4200, None), "new"),
        (paced(4200, 0), "it did not run on the day before"),
        (paced(4200, 841), "less than five times its own"),
        (paced(299, 2), "too few"),
        (paced(400, 10, 801), "less than half of all tasks"),
        (crowded(paces=(Pace("load", 4200, 120),)), "of how many is not known"),
        (crowded(), "nothing is known"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_is_no_runaway_gets_its_slots(seen: Observation, why: str) -> None:
    last = turn(slots_spec(), seen)
    assert (found(last, "RunawayTasks"), last.reasons) == (None, ["SlotsExhausted"]), why


def test_a_runaway_is_told_at_its_thresholds_and_whoever_else_is_busy() -> None:
    assert found(turn(slots_spec(), paced(300, 60, 600)), "RunawayTasks") is not None
    second = paced(500, 480, 980, Pace("wild", 490, 3))
    finding = found(turn(slots_spec(), second), "RunawayTasks")
    assert finding is not None
    assert finding.target == "dag/wild"


def test_no_runaway_keeps_the_answer_to_a_kill_back() -> None:
    killed = paced(4200, 120)
    (workload,) = killed.workloads
    one = pod(usage=usage(cpu=0.3, kills=1, peak=1024), slots=slots(2))
    last = turn(slots_spec(), observed(worker(one, stated=workload.stated), airflow=killed.airflow, broker=""))
    assert last.reasons == ["OutOfMemory"]


# The scheduler.


def down(*pods: Pod, **fields: Any) -> Finding | None:  # noqa: ANN401 - any field of the workload
    seen = crowded()
    return found(
        turn(slots_spec(), replace(seen, workloads=(*seen.workloads, scheduler(*pods, **fields)))), "SchedulerDown"
    )


def test_a_scheduler_that_is_not_ready_is_down_though_nothing_is_tuned_about_it() -> None:
    finding = down(pod("s", ready=False, running=None, deaths=3))
    assert finding is not None
    assert (finding.severity, finding.target) == (Severity.CRITICAL, "scheduler")
    assert finding.message.startswith(
        "None of 1 pod of Deployment/airflow-scheduler is ready, and 3 deaths of their containers. No task is scheduled"
    )


@pytest.mark.parametrize(
    ("fields", "is_down"),
    [
        ({"ready": True}, False),
        ({"created": NOW - 179 * SECOND}, False),
        ({"created": NOW - 180 * SECOND}, True),
        ({"running": None}, True),
        ({"started": NOW - 119 * SECOND, "deaths": 1}, False),
        ({"started": NOW - 120 * SECOND, "deaths": 1}, True),
        ({"started": NOW - 20 * SECOND, "deaths": 2}, True),
    ],
)
def test_a_scheduler_that_begins_is_left_time(fields: dict[str, Any], *, is_down: bool) -> None:
    assert (down(pod("s", **{"ready": False, "created": OLD, **fields})) is not None) is is_down


def test_one_ready_scheduler_will_do() -> None:
    assert down(pod("a", ready=False), pod("b")) is None


def test_a_scheduler_that_is_scaled_to_zero_or_between_two_pods_is_not_down() -> None:
    assert down(replicas=0) is None
    assert down() is None
    assert down(pod("old", ready=False, ending=True)) is None
    assert down(refusal=Refusal(NOW, "exceeded quota")) is not None


STILL = telemetry.Airflow(problem="The scheduler's heartbeat did not move in three minutes.", still=True)


def test_a_heartbeat_that_stands_still_is_a_scheduler_that_is_down() -> None:
    seen = replace(crowded(), airflow=STILL)
    last = turn(slots_spec(), seen)
    assert last.found == ["SchedulerDown", "AirflowMetricsMissing"]
    assert last.findings[0].message.startswith("The scheduler's heartbeat (airflow_scheduler_heartbeat) did not move")
    assert last.reasons == []
    stale = replace(seen, metrics=replace(seen.metrics, state=MetricsState.STALE))
    assert turn(slots_spec(), stale).found == ["MetricsStale"]
    off = replace(seen, workloads=(*seen.workloads, scheduler(replicas=0)))
    assert turn(slots_spec(), off).found == ["AirflowMetricsMissing"]


def test_a_heartbeat_that_is_not_known_is_no_scheduler_that_is_down() -> None:
    missing = telemetry.Airflow(problem="The metrics source has no series of this Airflow.")
    assert turn(slots_spec(), replace(crowded(), airflow=missing)).found == ["AirflowMetricsMissing"]


# The database, and the scheduler's CPU.


def scheduled(critical: float = 0.002, *, loop: float = 0.3, beats: float = 36, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the pod
    """A scheduler that has run for a day, with so slow a query and loop."""
    seen = crowded(critical=critical)
    one = pod("s", **{"started": OLD, "usage": CALM, **fields})
    says = replace(seen.airflow, loop=loop, beats=beats)
    return turn(slots_spec(), replace(seen, workloads=(*seen.workloads, scheduler(one, cpu_limit=1.0)), airflow=says))


SHORT = usage(cpu=0.5, throttled=0.25)


def test_a_scheduler_that_is_well_is_not_told() -> None:
    last = scheduled()
    assert (last.found, last.reasons) == (["QueueLagHigh"], ["SlotsExhausted"])


def test_a_slow_database_is_told_about_the_scheduler_and_brings_no_slots() -> None:
    last = scheduled(1.5, loop=9, beats=9)
    finding = found(last, "DatabaseSlow")
    assert finding is not None
    assert (finding.severity, finding.target) == (Severity.WARNING, "scheduler")
    assert finding.message.startswith(
        "The scheduler's critical query takes 1.5 s on average (usually milliseconds), and its CPU is not short: the"
    )
    assert found(last, "SchedulerUnderResourced") is None
    assert last.reasons == []
    assert found(scheduled(1.0), "DatabaseSlow") is None


def test_a_lock_shows_in_the_section_alone_and_only_where_the_scheduler_does_not_compute() -> None:
    def locked(cores: float, section: float) -> Turn:
        seen = crowded(critical=0.003, section=section)
        one = pod("s", started=OLD, usage=usage(cpu=cores))
        return turn(slots_spec(), replace(seen, workloads=(*seen.workloads, scheduler(one))))

    finding = found(locked(0.02, 2.3), "DatabaseSlow")
    assert finding is not None
    assert (
        "critical section takes 2.3 s on average (usually milliseconds) at 0.02 cores, so it waits" in finding.message
    )
    assert locked(0.02, 2.3).reasons == []
    assert found(locked(0.02, 1.0), "DatabaseSlow") is None
    assert found(locked(0.5, 2.3), "DatabaseSlow") is None


@pytest.mark.parametrize("slow", [{"loop": 5.1}, {"beats": 17}])
@pytest.mark.parametrize("short", [SHORT, usage(cpu=0.9), usage(cpu=0.2, node_cpu=0.95)])
def test_a_late_scheduler_that_lacks_cpu_is_told_and_the_database_is_not_blamed(
    slow: dict[str, float], short: Usage
) -> None:
    last = scheduled(1.5, usage=short, **slow)
    finding = found(last, "SchedulerUnderResourced")
    assert finding is not None
    assert (finding.severity, finding.target) == (Severity.WARNING, "scheduler")
    assert "and CPU is short: " in finding.message
    assert found(last, "DatabaseSlow") is None
    lag = found(last, "QueueLagHigh")
    assert lag is not None
    assert "SchedulerUnderResourced: The scheduler's critical query takes 1.5 s" in lag.message
    assert last.reasons == []


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": SHORT},
        {"usage": SHORT, "beats": 18},
        {"usage": SHORT, "loop": 9, "started": NOW - 599 * SECOND},
        {"usage": SHORT, "loop": 9, "started": None},
        {"usage": usage(), "loop": 9, "critical": 9},
        {"usage": usage(cpu=0.5, throttled=0.24), "loop": 9},
        # Stopped, on a node that is full.
        {"usage": usage(cpu=0.0, node_cpu=0.99), "beats": 9},
    ],
)
def test_a_scheduler_that_is_held_back_and_not_late_or_begins_or_is_not_known_is_not_told(
    fields: dict[str, Any],
) -> None:
    assert {"DatabaseSlow", "SchedulerUnderResourced"} & {*scheduled(**fields).found} == set()


# Files that cannot be imported, and triggerers that are full.


def says(**fields: Any) -> list[Finding]:  # noqa: ANN401 - any part of what Airflow says
    seen = observed(worker(pod(usage=CALM, slots=slots(2, 0))), airflow=replace(airflow(tasks()), **fields), broker="")
    return [*turn(slots_spec(), seen).findings]


def test_import_errors_are_told_with_their_number_and_the_command_that_names_them() -> None:
    (finding,) = says(import_errors=3)
    assert (finding.reason, finding.severity, finding.target) == ("ImportErrors", Severity.WARNING, "dag-processor")
    assert finding.message.startswith("3 DAG files cannot be imported, for two minutes at least")
    assert "`airflow dags list-import-errors`" in finding.message
    assert says(import_errors=0) == says(import_errors=None) == []


def test_full_triggerers_are_told() -> None:
    (finding,) = says(triggerer=Triggerer(running=1000, free=0))
    assert (finding.reason, finding.severity, finding.target) == ("TriggererSaturated", Severity.WARNING, "triggerer")
    assert "their capacity is used up (1000 triggers run in one)" in finding.message
    assert says(triggerer=Triggerer(running=999, free=1)) == says(triggerer=None) == []

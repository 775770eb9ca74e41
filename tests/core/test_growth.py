"""Leaks: anonymous memory that only ever grows."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_tuner import api
from airflow_tuner.model import Finding, Pod, Sample, Severity, Workload
from core.worlds import MI, NOW, memory, observed, pod, scheduler, slots_spec, spec, turn, usage, worker

HOUR = timedelta(hours=1)
OLD = NOW - timedelta(days=4)
BOUNDS = {"memory": {"min": "512Mi", "max": "4Gi"}}
POLICY = spec(scheduler=BOUNDS, workers=[])


def rising(
    days: float | None = None,
    hours: float | None = None,
    *,
    by_day: float | None = None,
    held: float | None = 500,
    started: datetime | None = OLD,
    **fields: Any,  # noqa: ANN401 - any field of the pod
) -> Pod:
    """A pod whose floors rise by so many MiB per hour, as seen over days, over hours or from day to day."""

    def sample(pace: float | None) -> Sample | None:
        return None if pace is None else Sample(pace * MI / 3600, NOW)

    grown = replace(
        usage(anonymous_day=held),
        growth_days=sample(days),
        growth_by_day=sample(by_day),
        growth_hours=sample(hours),
    )
    return pod("grows", started=started, usage=grown, **fields)


def slots_changed(hours: int) -> api.Status:
    """What the status says where the workers' slots were changed so many hours ago."""
    prior = turn(slots_spec(), observed(worker(pod()))).status
    (target,) = prior.targets
    moments = api.Moments(any=OLD.isoformat(), slots=(NOW - hours * HOUR).isoformat())
    return prior.model_copy(update={"targets": [target.model_copy(update={"changed": moments})]})


def leaks(*workloads: Workload, policy: api.Spec = POLICY, prior: api.Status | None = None) -> list[Finding]:
    """The findings of leaks in one turn."""
    findings = turn(policy, observed(*workloads), prior).findings
    return [item for item in findings if item.reason == "MemoryLeakSuspected"]


def test_a_leak_is_told_with_its_pace_and_the_time_that_is_left() -> None:
    (finding,) = leaks(scheduler(rising(20), pod("other")))
    assert (finding.severity, finding.target) == (Severity.WARNING, "scheduler")
    assert finding.message == (
        "Anonymous memory of 1 of 2 pods of Deployment/airflow-scheduler rises evenly by 20.0 MiB/h and does not come "
        "back (the least of each 6 hours, over 30 h), e.g. grows, which held 500 MiB at most. At that pace its limit "
        "of 1024 MiB is reached in 26 h. A larger limit only puts that off: none is given for it, only for a kill. "
        "Look for a newer Airflow. Until then restart in a quiet hour what has leaked most, or let airflow-tuner do it "
        "(spec.changes.restarts.allowed)."
    )


def test_where_it_may_the_operator_says_that_it_restarts_what_has_leaked_much() -> None:
    (finding,) = leaks(
        scheduler(rising(20)), policy=spec(scheduler=BOUNDS, workers=[], changes={"restarts": {"allowed": True}})
    )
    assert finding.message.endswith(
        "Look for a newer Airflow. What two days have shown to have leaked 300 MiB, and 10% of its limit, is "
        "restarted, one at a time, as spec.changes.restarts says."
    )


def test_a_limit_beyond_all_measure_is_no_error() -> None:
    assert leaks(scheduler(rising(1.01, limit=2**40))) == []


def test_the_weakest_leak_that_is_told_fills_the_limit_within_a_week() -> None:
    week = (1024 - 500) / (7 * 24)
    (finding,) = leaks(scheduler(rising(week + 0.01)))
    assert "is reached in 7 days" in finding.message
    assert leaks(scheduler(rising(week - 0.01))) == []


def test_what_has_leaked_much_is_told_however_much_is_left() -> None:
    large: dict[str, Any] = {"limit": 2800, "running": memory(512, 2800), "held": 600}
    much = replace(
        rising(by_day=3, **large), usage=replace(rising(by_day=3, **large).usage, anonymous=Sample(600 * MI, NOW))
    )
    assert leaks(scheduler(much)) == [], "288 MiB in four days"
    (finding,) = leaks(scheduler(replace(much, started=NOW - timedelta(days=5))))
    assert "is reached in 31 days" in finding.message


def test_what_rises_by_less_than_a_mebibyte_an_hour_is_noise_however_little_is_left() -> None:
    assert leaks(scheduler(rising(0.99, held=1020))) == []
    assert leaks(scheduler(rising(1.01, held=1020)))


def test_a_leak_is_told_soonest_end_first() -> None:
    slow, fast = rising(20), replace(rising(80), name="fast")
    (finding,) = leaks(scheduler(slow, fast))
    assert "2 of 2 pods" in finding.message
    assert "by 80.0 MiB/h" in finding.message
    assert "e.g. fast" in finding.message


def test_a_scheduler_that_runs_tasks_itself_is_judged_over_days_alone() -> None:
    assert leaks(scheduler(rising(hours=500))) == []
    assert leaks(scheduler(rising(20)))
    assert leaks(scheduler(rising(hours=500)), worker())


def test_over_hours_only_what_fills_the_limit_within_twelve_is_told() -> None:
    young = NOW - timedelta(hours=9)
    (finding,) = leaks(scheduler(rising(hours=50, started=young)), worker())
    assert "(the least of each hour, over 6 h)" in finding.message
    assert "is reached in 10 h" in finding.message
    assert leaks(scheduler(rising(hours=40, started=young)), worker()) == []


def test_the_time_after_a_start_does_not_count() -> None:
    assert leaks(scheduler(rising(20, started=NOW - 37 * HOUR)))
    assert leaks(scheduler(rising(20, started=NOW - 37 * HOUR + timedelta(seconds=1)))) == []
    assert leaks(scheduler(rising(hours=60, started=NOW - 8 * HOUR)), worker())
    assert leaks(scheduler(rising(hours=60, started=NOW - 8 * HOUR + timedelta(seconds=1))), worker()) == []
    assert leaks(scheduler(rising(20, started=None))) == []


def test_a_container_without_a_limit_takes_the_nodes_memory() -> None:
    (finding,) = leaks(scheduler(rising(20, limit=None), limit=None))
    assert "It has no limit: it takes the node's memory." in finding.message


def test_a_worker_is_judged_over_days_alone_as_its_memory_follows_its_tasks() -> None:
    assert leaks(worker(rising(hours=500)), policy=spec()) == []
    (finding,) = leaks(worker(rising(20, hours=500)), policy=spec())
    assert "worker_max_tasks_per_child" in finding.message
    assert "evenly by 20.0 MiB/h" in finding.message


@pytest.mark.parametrize(("hours", "told"), [(35, False), (37, True)])
def test_a_worker_whose_slots_were_changed_has_reason_to_grow(hours: int, *, told: bool) -> None:
    assert bool(leaks(worker(rising(20)), policy=slots_spec(), prior=slots_changed(hours))) == told


def test_from_day_to_day_slots_that_follow_the_hours_hide_no_leak() -> None:
    (finding,) = leaks(worker(rising(20, by_day=6)), policy=slots_spec(), prior=slots_changed(1))
    assert "evenly by 6.0 MiB/h" in finding.message
    assert "(the least of each 6 hours against those of the day before, for 2 days)" in finding.message


def test_three_days_must_be_known_to_compare_them() -> None:
    assert leaks(worker(rising(by_day=6, started=NOW - 79 * HOUR)), policy=spec())
    assert leaks(worker(rising(by_day=6, started=NOW - 79 * HOUR + timedelta(seconds=1))), policy=spec()) == []


def test_nothing_is_told_where_nothing_is_known() -> None:
    assert leaks(scheduler(rising())) == []
    assert leaks(scheduler(rising(20, held=None))) == []
    assert leaks(scheduler(rising(20)), policy=spec(workers=[])) == []
    assert leaks(scheduler(pod())) == []


def test_no_limit_is_raised_for_a_leak() -> None:
    last = turn(POLICY, observed(scheduler(rising(50, held=1000))))
    assert (last.reasons, last.limit) == ([], 1024)
    assert "MemoryLeakSuspected" in last.found


def test_it_ends_with_the_container_that_leaked() -> None:
    last = turn(POLICY, observed(scheduler(rising(20))))
    again = scheduler(rising(20, started=NOW - HOUR, running=memory(512, 1024)))
    assert leaks(again, prior=last.status) == []

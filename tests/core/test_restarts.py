"""Which pods wait for a restart, what for, and which one may be restarted now."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api
from airflow_tuner.model import Memory, Pod, Sample, Values, Workload
from airflow_tuner.restarts import inside
from airflow_tuner.telemetry import Parsing
from core.worlds import (
    MI,
    NOW,
    Turn,
    airflow,
    applied,
    dag_processor,
    observed,
    parsing_spec,
    pod,
    reborn,
    scheduler,
    slots,
    slots_spec,
    spec,
    tasks,
    turn,
    usage,
    worker,
)

SECOND = timedelta(seconds=1)
ALLOWED: dict[str, Any] = {"restarts": {"allowed": True}}
BOUNDS = {"memory": {"min": "512Mi", "max": "4Gi"}}


def window(start: str, end: str, zone: str = "UTC") -> api.Window:
    return api.Window.model_validate({"start": start, "end": end, "timeZone": zone})


def parsing_waits(changes: dict[str, Any] | None = None, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the pod
    """A dag-processor whose interval was decided, and which runs with the old one."""
    living = pod("airflow-dag-processor-1", **{"usage": usage(cpu_of_rounds=2.0), **fields})
    found = Parsing(40, 40 / 30, 2.0, None, None, 30)
    policy = parsing_spec(changes=ALLOWED if changes is None else changes)
    return turn(policy, observed(dag_processor(living), airflow=airflow(parsing=found)))


def celery(*pods: Pod) -> Workload:
    return worker(*pods, environment={"AIRFLOW__CELERY__WORKER_CONCURRENCY": "2"}, stated=Values(concurrency=2))


def busy(name: str, running: int | None = None, **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    """A worker with two slots; where it does not answer, nobody knows how many are busy."""
    told = None if running is None else slots(2, running)
    environment = {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "2"}
    return pod(name, **{"slots": told, "environment": environment, "usage": usage(cpu=0.1), **fields})


def slots_wait(*pods: Pod, changes: dict[str, Any] | None = None, broker: str | None = None, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the tasks
    """Workers whose slots were decided. Without a broker in the policy nobody answers."""
    policy = slots_spec(changes=ALLOWED if changes is None else changes)
    found = tasks(60, 2 * len(pods), **{"duration": 60.0, **fields})
    return turn(policy, observed(celery(*pods), airflow=airflow(found), broker=broker))


def blocked(last: Turn) -> list[str]:
    return [item.blocked for item in last.waiting]


def test_an_interval_waits_for_the_next_creation_of_the_pod() -> None:
    last = parsing_waits()
    (waiting,) = last.waiting
    assert (str(waiting), waiting.blocked) == (
        "airflow-dag-processor-1 waits for parsing interval as configured -> 120 s",
        "",
    )
    condition = next(item for item in last.status.conditions if item.type == "RestartNeeded")
    assert (condition.status, condition.reason) == ("True", "PodsWait")
    assert condition.message == (
        "1 pod waits for the next creation, e.g. airflow-dag-processor-1 waits for parsing interval as configured -> "
        "120 s: it is restarted now, one pod at a time."
    )


def test_a_pod_born_with_the_values_waits_for_nothing() -> None:
    last = parsing_waits()
    after = turn(parsing_spec(changes=ALLOWED), reborn(last), last.status)
    assert (after.waiting, after.reasons) == ((), [])
    assert next(item for item in after.status.conditions if item.type == "RestartNeeded").status == "False"


def test_without_a_decision_nothing_waits() -> None:
    assert turn(spec(changes=ALLOWED), observed(worker(pod()))).waiting == ()
    assert turn(spec(mode="Recommend", changes=ALLOWED), observed(worker(pod(died=NOW)))).waiting == ()


def test_a_first_limit_waits_and_a_later_one_is_resized() -> None:
    bare = pod(request=None, limit=None, usage=usage(working_set=900))
    last = turn(spec(changes=ALLOWED), observed(worker(bare, request=None, limit=None, template=Memory())))
    assert [item.what for item in last.waiting] == ["its first memory limit of 4096 MiB"]
    assert turn(spec(changes=ALLOWED), observed(worker(pod(died=NOW - SECOND)))).waiting == ()


def test_a_limit_waits_where_a_resize_would_restart_the_container() -> None:
    last = turn(spec(changes=ALLOWED), observed(worker(pod(died=NOW - SECOND, restarts_on_resize=True))))
    assert [item.what for item in last.waiting] == ["memory limit 1024 MiB -> 1536 MiB"]


def leaking(name: str, days: float, pace: float = 6, **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    """A worker that leaks so many MiB/h since so many days."""
    grown = replace(usage(anonymous=900), growth_by_day=Sample(pace * MI / 3600, NOW))
    started = NOW - timedelta(days=days)
    return pod(name, **{"created": started, "started": started, "usage": grown, "slots": slots(2, 0), **fields})


def leaks_wait(*pods: Pod, changes: dict[str, Any] = ALLOWED, limit: int = 1024, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the observation
    """Beside a worker whose kill is answered: without a decision nothing waits."""
    answered = pod("c", limit=limit, died=NOW - SECOND)
    return turn(spec(changes=changes), observed(worker(*pods, answered, limit=limit), **fields))


def test_a_pod_that_has_leaked_much_waits_for_a_restart() -> None:
    last = leaks_wait(leaking("a", 2), leaking("b", 3), admission=True)
    (found,) = last.waiting
    assert str(found) == "b waits for memory: it has leaked 432 MiB since its start, 6.0 MiB/h"
    assert found.blocked == "", "it was born as it should be"


def test_a_tenth_of_a_large_limit_is_much_and_less_is_not() -> None:
    assert leaks_wait(leaking("a", 2.2, limit=3200), limit=3200).waiting == ()
    assert leaks_wait(leaking("a", 2.3, limit=3200), limit=3200).waiting != ()


def test_nobody_waits_who_cannot_have_leaked_so_much_or_where_no_restart_is_allowed() -> None:
    assert leaks_wait(leaking("a", 7)).waiting == (), "1008 MiB of 900"
    last = leaks_wait(leaking("a", 3), changes={})
    assert last.waiting == ()
    assert {item.type for item in last.status.conditions if item.status == "True"}.isdisjoint({"RestartNeeded"})


def test_of_several_that_leak_one_that_does_nothing_goes_first_and_outside_of_the_window_none() -> None:
    pods = leaking("a", 4, slots=slots(2, 2)), leaking("b", 3)
    assert [item.pod.name for item in leaks_wait(*pods).waiting] == ["b", "a"]
    closed = {"restarts": {"allowed": True, "window": {"start": "22:00", "end": "23:00"}}}
    assert blocked(leaks_wait(*pods, changes=closed)) == ["it is outside the window 22:00 to 23:00 UTC"] * 2


def test_a_worker_that_runs_nothing_may_be_restarted_where_its_grace_is_shorter_than_a_task() -> None:
    found = airflow(tasks(0, 0, longest=45.0))
    idle, busy = leaking("a", 3), leaking("b", 3, slots=slots(2, 1))
    assert blocked(leaks_wait(idle, busy, airflow=found)) == [
        "",
        "its grace period of 30 s is shorter than a task of 45 s",
    ]


# Why one is not restarted now


def test_restarts_that_are_not_allowed_are_told() -> None:
    last = parsing_waits({})
    assert blocked(last) == ["the policy allows no restarts (changes.restarts.allowed)"]
    condition = next(item for item in last.status.conditions if item.type == "RestartNeeded")
    assert condition.message.endswith(": not restarted, as the policy allows no restarts (changes.restarts.allowed).")


def test_outside_the_window_it_waits() -> None:
    closed = {"restarts": {"allowed": True, "window": {"start": "22:00", "end": "05:30", "timeZone": "Europe/Vienna"}}}
    assert blocked(parsing_waits(closed)) == ["it is outside the window 22:00 to 05:30 Europe/Vienna"]
    assert blocked(parsing_waits({"restarts": {"allowed": True, "window": {"start": "12:00", "end": "12:01"}}})) == [""]


def test_a_refusal_of_the_api_server_is_told_in_its_words() -> None:
    last = parsing_waits()
    why = "Cannot evict pod as it would violate the pod's disruption budget."
    seen = replace(last.seen, at=NOW + SECOND, evictions={"airflow-dag-processor-1": why, "another": "x"})
    assert blocked(turn(parsing_spec(changes=ALLOWED), seen, last.status)) == [why]


def test_an_annotation_that_asks_not_to_disrupt_is_honoured() -> None:
    assert blocked(parsing_waits(held="karpenter.sh/do-not-disrupt=true")) == [
        "its annotation karpenter.sh/do-not-disrupt=true asks not to disrupt it"
    ]


def test_while_any_pod_of_this_airflow_is_not_ready_none_is_restarted() -> None:
    last = parsing_waits()
    policy = parsing_spec(changes=ALLOWED, scheduler=BOUNDS)
    waiting = scheduler(pod("a"), pod("b", ready=False), replicas=2)
    seen = replace(last.seen, workloads=(*last.seen.workloads, waiting))
    assert blocked(turn(policy, seen, last.status)) == ["1 of 2 pods of Deployment/airflow-scheduler are ready"]
    gone = replace(seen, workloads=(*last.seen.workloads, scheduler(pod("a"), pod("b", ending=True), replicas=2)))
    assert blocked(turn(policy, gone, last.status)) == ["1 of 2 pods of Deployment/airflow-scheduler are ready"]
    more = replace(seen, workloads=(*last.seen.workloads, scheduler(pod("a"), pod("b", ready=False), replicas=1)))
    assert blocked(turn(policy, more, last.status)) == ["1 of 2 pods of Deployment/airflow-scheduler are ready"]


def test_a_worker_is_not_restarted_where_its_grace_is_shorter_than_a_task() -> None:
    told = ["its grace period of 30 s is shorter than a task of 45 s"]
    assert blocked(slots_wait(busy("w"), longest=45.0)) == told
    assert blocked(slots_wait(busy("w"), longest=20.0)) == [""]


def test_a_pod_that_admission_gave_nothing_is_not_restarted_again() -> None:
    last = parsing_waits()
    seen = reborn(last)
    (workload,) = seen.workloads
    (born,) = workload.pods
    why = ["the admission policy did not give it this at its last creation"]
    for decision in (None, born.decision):
        bare = replace(born, environment={}, decision=decision)
        again = replace(seen, workloads=(replace(workload, pods=(bare,)),))
        assert blocked(turn(parsing_spec(changes=ALLOWED), again, last.status)) == why


def test_a_pod_that_somebody_else_shaped_does_not_wait() -> None:
    assert parsing_waits(limit=999).waiting == ()
    assert parsing_waits(environment={"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "7"}).waiting == ()


# Slots


def test_a_worker_that_answers_over_the_broker_does_not_wait_for_slots() -> None:
    last = slots_wait(busy("w", 2), broker="")
    assert (last.reasons, last.waiting) == (["SlotsExhausted"], ())


def test_a_worker_that_does_not_answer_for_a_moment_is_not_restarted_for_slots() -> None:
    last = slots_wait(busy("w", 2), broker="")
    silent = replace(applied(last), at=NOW + SECOND)
    (workload,) = silent.workloads
    silent = replace(silent, workloads=(replace(workload, pods=(replace(workload.pods[0], slots=None),)),))
    policy = slots_spec(changes=ALLOWED)
    assert turn(policy, silent, last.status).waiting == ()
    down = turn(policy, replace(silent, broker="The broker does not answer."), last.status)
    assert blocked(down) == ["its slots change while it runs, once the Celery broker answers"]


def test_without_a_broker_slots_wait_and_idle_workers_come_first() -> None:
    last = slots_wait(busy("b"), busy("a"), busy("c"))
    assert [item.pod.name for item in last.waiting] == ["a", "b", "c"]
    assert {item.what for item in last.waiting} == {"slots 2 -> 4"}
    bare = [
        busy(name, running, restarts_on_resize=True, died=NOW - SECOND)
        for name, running in zip("abc", (2, 0, 1), strict=True)
    ]
    told = turn(slots_spec(changes=ALLOWED), observed(celery(*bare), broker=""))
    assert [item.pod.name for item in told.waiting] == ["b", "c", "a"]


def test_those_that_may_be_restarted_come_before_those_that_may_not() -> None:
    last = slots_wait(busy("a", held="karpenter.sh/do-not-disrupt=true"), busy("b"))
    assert [(item.pod.name, bool(item.blocked)) for item in last.waiting] == [("b", False), ("a", True)]


def test_restarts_one_after_the_other_end() -> None:
    policy = slots_spec(changes=ALLOWED)
    last = slots_wait(busy("a"), busy("b"), busy("c"))
    seen, restarted = last.seen, []
    for _ in range(10):
        seen = replace(seen, at=seen.at + 60 * SECOND, airflow=airflow(tasks(0, 0)))
        last = turn(policy, seen, last.status)
        if not last.waiting:
            break
        first = last.waiting[0].pod.name
        restarted.append(first)
        born = {item.name: item for item in reborn(last).workloads[0].pods}
        (workload,) = seen.workloads
        pods = tuple(born[item.name] if item.name == first else item for item in workload.pods)
        seen = replace(seen, workloads=(replace(workload, pods=pods),))
    assert restarted == ["a", "b", "c"]
    assert last.waiting == ()


# The window


@pytest.mark.parametrize(
    ("start", "end", "zone", "at", "within"),
    [
        ("22:00", "05:30", "UTC", "2026-11-24T21:59", False),
        ("22:00", "05:30", "UTC", "2026-11-24T22:00", True),
        ("22:00", "05:30", "UTC", "2026-11-25T00:00", True),
        ("22:00", "05:30", "UTC", "2026-11-25T05:29", True),
        ("22:00", "05:30", "UTC", "2026-11-25T05:30", False),
        ("09:00", "17:00", "UTC", "2026-11-25T08:59", False),
        ("09:00", "17:00", "UTC", "2026-11-25T09:00", True),
        # Vienna is an hour ahead in winter and two in summer.
        ("02:00", "03:00", "Europe/Vienna", "2026-01-15T01:30", True),
        ("02:00", "03:00", "Europe/Vienna", "2026-07-15T00:30", True),
        ("02:00", "03:00", "Europe/Vienna", "2026-07-15T01:30", False),
        # That hour is left out on the last Sunday of March, and comes twice on the last of October.
        ("02:00", "03:00", "Europe/Vienna", "2026-03-29T00:59", False),
        ("02:00", "03:00", "Europe/Vienna", "2026-03-29T01:00", False),
        ("02:00", "03:00", "Europe/Vienna", "2026-10-25T00:30", True),
        ("02:00", "03:00", "Europe/Vienna", "2026-10-25T01:30", True),
        ("02:00", "03:00", "Europe/Vienna", "2026-10-25T02:00", False),
    ],
)
def test_a_window_is_a_time_of_day_where_the_user_lives(start: str, end: str, zone: str, at: str, within: bool) -> None:
    assert inside(window(start, end, zone), datetime.fromisoformat(at).replace(tzinfo=UTC)) is within


@given(st.times(), st.times(), st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 - Hypothesis wants them so
def test_a_window_and_its_complement_share_no_moment(start: Any, end: Any, at: datetime) -> None:  # noqa: ANN401 - times of day
    moment, first, last = at.replace(tzinfo=UTC), f"{start:%H:%M}", f"{end:%H:%M}"
    if first != last:
        assert inside(window(first, last), moment) is not inside(window(last, first), moment)
    assert inside(None, moment)


@pytest.mark.parametrize(
    ("start", "zone"), [("24:00", "UTC"), ("9:00", "UTC"), ("09:60", "UTC"), ("09:00", "Mars/Olympus")]
)
def test_a_window_that_is_none_is_refused(start: str, zone: str) -> None:
    with pytest.raises(ValueError, match=r"start|time zone"):
        window(start, "10:00", zone)

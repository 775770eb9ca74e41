"""Slots of Celery workers, decided together with the memory that carries them, and what holds tasks back instead."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_tuner import api, decide, footprint, kills, status, telemetry
from airflow_tuner.concurrency import Assessment
from airflow_tuner.model import Death, Memory, Observation, Pod, Values, Workload
from airflow_tuner.steps import Past
from core.worlds import (
    MI,
    NOW,
    Turn,
    airflow,
    applied,
    memory,
    observed,
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
DAY = timedelta(days=1)
CONCURRENCY, AUTOSCALE = api.EnvName.CONCURRENCY, api.EnvName.AUTOSCALE
CALM: dict[str, Any] = {"cpu": 0.3, "throttled": 0.0, "node_cpu": 0.4}


def celery(number: int = 2, count: int = 1, *, busy: int | None = None, **fields: Any) -> Workload:  # noqa: ANN401 - any field of the pod
    """Workers that state so many slots, have them in force and have CPU to spare."""
    environment = {str(CONCURRENCY): str(number)}
    known = {"slots": slots(number, busy), "environment": environment, "usage": usage(**CALM)}
    pods = [pod(f"airflow-worker-{index}", **{**known, **fields}) for index in range(count)]
    return worker(*pods, environment=environment, stated=Values(concurrency=number), replicas=count)


def crowded(waiting: int = 30, running: int = 2, *, of: Workload | None = None, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the tasks
    """Tasks wait for the slots of the only workers, and memory is free."""
    found = tasks(waiting, running, **{"duration": 60.0, **fields})
    return observed(of or celery(running), airflow=airflow(found), broker="")


def with_tasks(seen: Observation, waiting: int, running: int, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the tasks
    return replace(seen, airflow=airflow(tasks(waiting, running, **{"duration": 60.0, **fields})))


def at_rest(seen: Observation) -> Observation:
    """No slot is busy."""
    (workload,) = seen.workloads
    pods = tuple(replace(one, slots=one.slots and replace(one.slots, busy=0)) for one in workload.pods)
    return replace(seen, workloads=(replace(workload, pods=pods),))


def assessed(policy: api.Spec, seen: Observation, prior: api.Status | None = None) -> Assessment:
    """What is said of the slots of the only workers."""
    (workload,) = [item for item in seen.workloads if item.component == "worker"]
    bounds = decide.bounds_of(policy, "worker", workload.target, workload.name)
    assert bounds is not None
    return decide.item_of(policy, bounds, workload, seen, prior or api.Status()).slots


def env(last: Turn) -> dict[str, str]:
    """The environment that new pods get."""
    return {} if last.target.tuned is None else {item.name.value: item.value for item in last.target.tuned.env}


def number(last: Turn) -> int | None:
    return last.target.desired.concurrency


def lag_found(last: Turn) -> list[str]:
    """What the findings name as the cause of the lag."""
    return [item.message for item in last.findings if item.reason == "QueueLagHigh"]


# More slots


def test_slots_and_the_limit_rise_together_in_one_decision() -> None:
    last = turn(slots_spec(changes={"maxStep": {"concurrencyPercent": 1000}}), crowded())
    assert (number(last), last.limit, last.reasons) == (16, 255 + 16 * 86 + 14 * (50 + 43) + 130, ["SlotsExhausted"])
    assert last.request == 512 + 14 * 136
    assert env(last) == {CONCURRENCY: "16", AUTOSCALE: "16,16"}
    (change,) = last.decision.changes
    assert change.message.startswith(
        "Slots 2 -> 16, memory limit 1024 MiB -> 3063 MiB, request 512 MiB -> 2416 MiB for each worker of "
        "StatefulSet/airflow-worker: 30 tasks wait for 2 slots, about 915 s at the present pace; the objective is 30 s."
    )
    assert "Memory: 255 MiB + 16 x 86 MiB + 14 x 50 MiB + 732 MiB = 3063 MiB." in change.message
    assert last.status.last_change == "worker/default 1024Mi -> 3063Mi, slots 2 -> 16 SlotsExhausted"


def test_the_slots_of_a_living_worker_are_changed_and_no_restart_waits() -> None:
    last = turn(slots_spec(), crowded())
    assert number(last) == 4
    assert status.needs_slots(last.target, last.target.workload.pods[0])
    assert last.waiting == ()
    after = turn(slots_spec(), with_tasks(applied(last, seconds=5), 0, 4), last.status)
    assert (after.reasons, status.converged(after.target)) == ([], True)


@pytest.mark.parametrize(("percent", "expected"), [(1, 5), (50, 6), (100, 8), (1000, 16)])
def test_a_step_is_as_large_as_the_policy_allows_and_one_slot_at_least(percent: int, expected: int) -> None:
    policy = slots_spec(changes={"maxStep": {"concurrencyPercent": percent}})
    assert number(turn(policy, crowded(100, 4))) == expected


def test_the_next_raise_waits_for_the_cooldown_and_then_comes() -> None:
    first = turn(slots_spec(), crowded())
    waits = turn(slots_spec(), with_tasks(applied(first, seconds=59), 30, 4), first.status)
    assert (waits.reasons, number(waits)) == ([], 4)
    assert "the cooldown is running" in lag_found(waits)[0]
    then = turn(slots_spec(), with_tasks(applied(waits, seconds=1), 30, 4), waits.status)
    assert (then.reasons, number(then)) == (["SlotsExhausted"], 8)


def test_a_raise_waits_until_the_one_before_it_is_in_force() -> None:
    first = turn(slots_spec(), crowded())
    again = turn(slots_spec(), replace(first.seen, at=NOW + 3600 * SECOND), first.status)
    assert again.reasons == []
    assert "SlotsNotInForce: The 4 slots decided are not in force yet in 1 of 1 workers." in lag_found(again)[0]


def test_short_tasks_ask_for_fewer_slots_than_there_are_tasks() -> None:
    # 100 tasks of a second, and the second that each holds its slot beyond it, fit 30 s on 9 slots.
    last = turn(slots_spec(high=32, changes={"maxStep": {"concurrencyPercent": 1000}}), crowded(100, 2, duration=1.0))
    assert number(last) == 10


def test_nothing_waits_and_nothing_changes() -> None:
    last = turn(slots_spec(), crowded(0, 2))
    assert (last.reasons, last.found, last.target.tuned) == ([], [], None)


def test_what_is_worked_off_in_time_changes_nothing() -> None:
    assert turn(slots_spec(), crowded(10, 2, duration=2.0)).reasons == []


def test_guaranteed_pods_stay_guaranteed_when_slots_rise() -> None:
    full = celery(request=1024, guaranteed=True)
    last = turn(slots_spec(), crowded(of=replace(full, template=memory(1024, 1024), requests={"memory": "1024Mi"})))
    assert (number(last), last.request, last.limit) == (4, 1024, 1024)
    more = turn(slots_spec(changes={"maxStep": {"concurrencyPercent": 1000}}), last.seen)
    assert more.request == more.limit == 3063


def test_a_request_below_the_minimum_rises_with_the_slots_as_admission_asks() -> None:
    last = turn(slots_spec(memory_min="800Mi"), crowded())
    assert (number(last), last.request, last.limit) == (4, 800, 1024)


def test_slots_that_come_and_go_do_not_add_to_the_request() -> None:
    last = turn(slots_spec(), crowded())
    request = last.request
    for _ in range(3):
        at = last.seen.at + DAY
        calm = at_rest(replace(applied(last), at=at, airflow=airflow(tasks(0, 0, busy_day=1)), broker=None))
        last = turn(slots_spec(), calm, last.status)
        for _ in range(5):
            last = turn(slots_spec(), replace(applied(last), at=last.seen.at + DAY), last.status)
        assert number(last) == 2
        last = turn(slots_spec(), with_tasks(replace(applied(last), at=last.seen.at + DAY), 30, 2), last.status)
        assert (number(last), last.request) == (4, request)


# What else holds tasks back


def busy_cpu(**values: float) -> Workload:
    return celery(usage=usage(**{**CALM, **values}))


@pytest.mark.parametrize(
    ("seen", "policy", "word"),
    [
        (crowded(of=celery(16), running=16), {}, "SlotsAtMaximum: Slots stay at 16 for each worker, of 46"),
        (crowded(), {"memory_max": "1Gi", "memory_min": "1Mi", "high": 99}, ""),
        (
            crowded(running=7, of=celery(7)),
            {"memory_max": "1Gi"},
            "MemoryBound: Slots stay at 7 for each worker, of 37",
        ),
        (crowded(of=busy_cpu(throttled=0.25)), {}, "WorkersCpuBound: CPU holds tasks back: the CPU limit held"),
        (crowded(of=busy_cpu(node_cpu=0.95)), {}, "95% of the cores of the node of airflow-worker-0 are in use"),
        (crowded(of=replace(busy_cpu(cpu=0.9), cpu_limit=1.0)), {}, "airflow-worker-0 uses 0.90 of the 1 cores"),
        (crowded(critical=1.5), {}, "DatabaseSlow: The scheduler's critical query takes 1.5 s"),
        (crowded(of=celery(usage=usage())), {}, "CpuUnknown: The workers' CPU use is not known"),
        (crowded(running=0, of=celery(2, busy=0)), {}, "WorkersIdle: Only 0 of 2 slots are busy"),
        (crowded(open_slots=0, handed_out=2), {}, "ParallelismCapped: Slots stay at 2 for each worker"),
        (
            crowded(running=3, of=celery(16, busy=3), open_slots=0, handed_out=4),
            {},
            "ParallelismCapped: core.parallelism is used up, and lets only 4 of 16 slots be busy.",
        ),
    ],
)
def test_where_more_slots_would_not_help_nothing_changes_and_it_is_said_why(
    seen: Observation, policy: dict[str, Any], word: str
) -> None:
    last = turn(slots_spec(**policy), seen)
    if not word:
        assert last.reasons == ["SlotsExhausted"]
        return
    assert (last.reasons, last.target.tuned) == ([], None)
    (message,) = lag_found(last)
    assert word in message
    assert message.startswith("30 tasks wait for")


def test_a_task_that_is_just_coming_to_an_idle_worker_is_no_lag() -> None:
    coming = {"of": celery(2, busy=0), "duration": None}
    assert lag_found(turn(slots_spec(), crowded(1, 0, waiting_least=0, **coming))) == []
    (lasting,) = lag_found(turn(slots_spec(), crowded(1, 0, waiting_least=1, **coming)))
    assert lag_found(turn(slots_spec(), crowded(1, 0, **coming))) == [], "two minutes are not known yet"
    assert "WorkersIdle" in lasting


def test_tasks_that_are_just_coming_to_workers_that_run_some_are_no_lag() -> None:
    coming: dict[str, Any] = {"of": celery(2, busy=1), "duration": None, "waiting_least": 0}
    few = turn(slots_spec(), crowded(2, 1, **coming))
    assert (lag_found(few), few.reasons) == ([], [])
    assert turn(slots_spec(), crowded(2, 1, **{**coming, "waiting_least": 1})).reasons == ["SlotsExhausted"]
    full = telemetry.Pool("default_pool", open=126, running=1, queued=2, scheduled=50)
    held_back = turn(slots_spec(), crowded(2, 1, **coming, pools=(full,), open_slots=0))
    assert held_back.reasons == ["SlotsExhausted"]
    long = turn(slots_spec(), crowded(2, 1, **{**coming, "duration": 600.0}))
    assert long.reasons == ["SlotsExhausted"]


def test_memory_that_ends_below_the_demand_is_told_with_the_step() -> None:
    policy = slots_spec(high=99, memory_max="1Gi", changes={"maxStep": {"concurrencyPercent": 1000}})
    last = turn(policy, crowded(of=celery(2, limit=600)))
    assert (number(last), last.limit) == (4, 1024)
    assert "Memory ends at 4 slots." in last.target.why


def test_a_full_pool_is_told_about_the_pool_and_changes_no_slots() -> None:
    full = telemetry.Pool("small", open=0, running=1, queued=0, scheduled=10)
    last = turn(slots_spec(), crowded(0, 1, of=celery(2, busy=1), pools=(full,)))
    assert last.reasons == []
    (finding,) = last.findings
    assert finding.target == "pool/small"
    assert finding.message.startswith("PoolExhausted: The pool small is full (1 running, 0 queued), and 10 more slots")


def test_a_pool_that_is_full_of_tasks_which_wait_for_a_worker_is_not_blamed() -> None:
    full = telemetry.Pool("default_pool", open=0, running=2, queued=126, scheduled=72)
    last = turn(slots_spec(), crowded(126, 2, of=celery(2, busy=2), pools=(full,)))
    assert last.reasons == ["SlotsExhausted"]
    assert [finding.target for finding in last.findings] == ["worker/default"]


def test_a_used_up_parallelism_is_told_about_the_scheduler() -> None:
    pool = telemetry.Pool("default_pool", open=100, running=28, queued=0, scheduled=9)
    last = turn(slots_spec(), crowded(0, 2, pools=(pool,), open_slots=0, handed_out=32))
    (finding,) = last.findings
    assert (finding.target, last.reasons) == ("scheduler", [])
    assert finding.message.startswith("ParallelismCapped: core.parallelism is used up (32 tasks are handed out")


def test_each_scheduler_has_a_parallelism_of_its_own() -> None:
    seen = crowded(30, 4, of=celery(4), open_slots=0, handed_out=4)
    assert turn(slots_spec(), seen).reasons == []
    two = replace(seen, workloads=(*seen.workloads, scheduler(pod("a"), pod("b"))))
    assert number(turn(slots_spec(), two)) == 8


def test_a_container_without_a_limit_gets_one_before_it_gets_slots() -> None:
    bare = celery(request=None, limit=None)
    bare = replace(bare, template=Memory(), requests={}, limits={})
    last = turn(slots_spec(), crowded(of=bare))
    assert (last.reasons, last.target.tuned) == ([], None)
    assert "LimitsMissing" in lag_found(last)[0]


# What is not known, or not ours


def test_slots_that_are_not_known_are_left_alone_and_it_is_said_what_would_tell() -> None:
    unknown = worker(pod(usage=usage(**CALM)))
    seen = crowded(of=unknown)
    assert turn(slots_spec(), seen).reasons == []
    assert (
        "give spec.celery.brokerSecretRef, or state AIRFLOW__CELERY__WORKER_CONCURRENCY"
        in assessed(slots_spec(), seen).hold
    )


def test_slots_that_only_the_worker_tells_are_tuned_too() -> None:
    last = turn(slots_spec(), crowded(of=worker(pod(usage=usage(**CALM), slots=slots(2)))))
    assert (number(last), env(last)) == (4, {CONCURRENCY: "4", AUTOSCALE: "4,4"})
    assert turn(slots_spec(), with_tasks(applied(last, seconds=9), 0, 4), last.status).reasons == []


@pytest.mark.parametrize("name", [CONCURRENCY, AUTOSCALE])
def test_slots_by_reference_are_the_users_alone(name: str) -> None:
    seen = crowded(of=replace(celery(), referenced=frozenset({name})))
    assert turn(slots_spec(), seen).reasons == []
    assert "valueFrom" in assessed(slots_spec(), seen).hold
    dead = replace(seen, workloads=(replace(full(2, died=NOW - SECOND), referenced=frozenset({name})),))
    assert turn(slots_spec(), dead).reasons == []


def test_a_policy_without_concurrency_touches_no_slots() -> None:
    last = turn(spec(), crowded())
    assert (last.reasons, last.target.tuned, last.found) == ([], None, [])


def test_no_worker_runs_and_nothing_changes() -> None:
    assert turn(slots_spec(), crowded(of=replace(celery(), pods=()))).reasons == []


@pytest.mark.parametrize("problem", ["", "The metrics source has no series of this Airflow."])
def test_absent_airflow_metrics_change_nothing_and_lower_nothing(problem: str) -> None:
    first = turn(slots_spec(), crowded())
    seen = replace(applied(first), at=NOW + 3 * DAY, airflow=airflow(problem=problem))
    after = turn(slots_spec(), seen, first.status)
    assert (after.reasons, number(after)) == ([], 4)
    assert after.found == (["AirflowMetricsMissing"] if problem else [])


# Several groups of workers


def groups(**fields: Any) -> Observation:  # noqa: ANN401 - any field of the tasks
    """Two groups, each with a queue of its own; the tasks of `heavy` wait."""
    default, heavy = celery(2), celery(2)
    heavy_pod = replace(heavy.pods[0], name="airflow-worker-heavy-0", uid="h", slots=slots(2, queues=("heavy",)))
    heavy = replace(heavy, target="worker/heavy", name="airflow-worker-heavy", pods=(heavy_pod,), queues=("heavy",))
    counts = {"queued": {"heavy": 30, "default": 0}, "running": {"heavy": 2, "default": 2}}
    found = replace(tasks(30, 4, duration=60.0), **{**counts, **fields})
    return observed(default, heavy, airflow=airflow(found), broker="")


def everywhere() -> api.Spec:
    limits = {"memory": {"min": "512Mi", "max": "4Gi"}, "concurrency": {"min": 1, "max": 16}}
    return slots_spec(workers=[{"name": "*", **limits}])


def test_of_several_groups_the_one_whose_queue_waits_gets_slots() -> None:
    last = turn(everywhere(), groups())
    assert [(change.target, change.after.concurrency) for change in last.decision.changes] == [("worker/heavy", 4)]


def test_without_a_broker_the_queues_are_those_of_the_command() -> None:
    seen = groups()
    silent = tuple(replace(item, pods=tuple(replace(one, slots=None) for one in item.pods)) for item in seen.workloads)
    last = turn(everywhere(), replace(seen, workloads=silent))
    assert [change.target for change in last.decision.changes] == ["worker/heavy"]


def test_airflow_2_does_not_say_which_of_several_groups_waits() -> None:
    seen = replace(groups(queued={}, running={}), line="2")
    assert turn(everywhere(), seen).reasons == []
    one = replace(seen, workloads=seen.workloads[1:])
    last = turn(everywhere(), one)
    assert number(last) == 4
    assert "261 MiB + 4 x 105 MiB + 2 x 50 MiB" in last.target.why


# Fewer slots


def idle(at: datetime = NOW, *, slots_: int = 16, busy_day: int | None = 4, prior: Turn | None = None) -> Observation:
    seen = observed(celery(slots_, busy=0)) if prior is None else applied(prior)
    return replace(seen, at=at, airflow=airflow(tasks(0, 0, busy_day=busy_day)), broker=None)


def test_slots_that_stood_idle_for_a_day_fall_a_step_a_day_and_the_limit_stays() -> None:
    last = turn(slots_spec(), idle())
    found = [(number(last), last.limit)]
    for hours in range(1, 24 * 8):
        last = turn(slots_spec(), idle(NOW + hours * timedelta(hours=1), prior=last), last.status)
        if last.reasons:
            assert last.reasons == ["SlotsIdle"]
            assert hours % 24 == 0
            found.append((number(last), last.limit))
    assert found == [(12, 1024), (9, 1024), (6, 1024), (5, 1024)]
    assert "within a day at most 4 of 6 were busy at once. The memory limit stays." in last.target.why


def test_slots_never_fall_below_the_minimum() -> None:
    assert number(turn(slots_spec(low=14), idle())) == 14
    assert turn(slots_spec(low=16), idle()).reasons == []


@pytest.mark.parametrize("busy", [None, 13, 16])
def test_without_a_whole_day_or_with_slots_in_use_nothing_falls(busy: int | None) -> None:
    assert turn(slots_spec(), idle(busy_day=busy)).reasons == []


def test_slots_that_the_user_states_above_the_maximum_are_left_alone() -> None:
    assert turn(slots_spec(high=10), idle()).reasons == []


def test_slots_of_one_of_several_groups_never_fall() -> None:
    last = turn(everywhere(), replace(groups(busy_day=0, queued={"heavy": 0}), at=NOW))
    assert last.reasons == []


# Kills at the largest limit


def full(count: int, *, limit: int = 4096, **fields: Any) -> Workload:  # noqa: ANN401 - any field of the pod
    """A worker at memory.max."""
    found = celery(count, limit=limit, **fields)
    return replace(found, template=memory(512, limit), limits={"memory": f"{limit}Mi"})


def test_kills_at_the_largest_limit_lead_to_fewer_slots_down_to_the_minimum() -> None:
    policy = slots_spec(low=3)
    last = turn(policy, crowded(running=16, of=full(16, died=NOW - SECOND)))
    found = [number(last)]
    assert last.reasons == ["MemoryBound"]
    assert "Slots 16 -> 12 for each worker of StatefulSet/airflow-worker: 1 kill for memory at a limit of 4096 MiB" in (
        last.target.why
    )
    for _ in range(9):
        seen = applied(last, seconds=30)
        (old,) = seen.workloads[0].pods
        dead = replace(old, deaths=old.deaths + 1, death=Death(old.deaths + 1, seen.at - SECOND))
        last = turn(policy, replace(seen, workloads=(replace(seen.workloads[0], pods=(dead,)),)), last.status)
        found.append(number(last))
    assert found == [12, 9, 6, 4, 3, 3, 3, 3, 3, 3]
    assert last.limit == 4096


def test_slots_do_not_come_back_to_what_was_killed_for_a_week() -> None:
    last = turn(slots_spec(), crowded(running=16, of=full(16, died=NOW - SECOND)))
    for minutes in range(1, 142):
        seen = with_tasks(applied(last, seconds=60 * minutes), 30, 12)
        last = turn(slots_spec(), seen, last.status)
        assert (last.reasons, number(last)) == ([], 12)
    assert (
        "MemoryBound: Slots stay at 12 for each worker, of 42 that are asked for, because with more than 12 it was"
        in (lag_found(last)[0])
    )
    more = turn(slots_spec(memory_max="8Gi"), with_tasks(applied(last, seconds=60), 30, 12), last.status)
    assert more.reasons == ["SlotsExhausted"]
    week = turn(slots_spec(), with_tasks(applied(last, seconds=7200), 30, 12), last.status)
    assert week.reasons == ["SlotsExhausted"]


def test_a_kill_under_slots_that_are_not_in_force_any_more_is_answered_already() -> None:
    last = turn(slots_spec(), crowded(running=16, of=full(16, died=NOW - SECOND)))
    (old,) = last.target.workload.pods
    dead = replace(old, deaths=2, death=Death(2, NOW + SECOND))
    seen = replace(last.seen, at=NOW + 2 * SECOND, workloads=(replace(last.target.workload, pods=(dead,)),))
    assert (turn(slots_spec(), seen, last.status).reasons) == []


def test_a_kill_below_the_largest_limit_takes_no_slots_while_the_resize_is_pending() -> None:
    last = turn(slots_spec(), crowded(0, 8, of=celery(8, died=NOW - SECOND)))
    assert (last.limit, last.reasons) == (1536, ["OutOfMemory"])
    (old,) = last.target.workload.pods
    stuck = replace(old, deaths=2, death=Death(2, NOW + 9 * SECOND))
    seen = replace(last.seen, at=NOW + 10 * SECOND, workloads=(replace(last.target.workload, pods=(stuck,)),))
    again = turn(slots_spec(), seen, last.status)
    assert (again.reasons, number(again)) == ([], 8)


def test_a_kill_at_the_largest_limit_takes_slots_above_the_maximum_to_it() -> None:
    last = turn(slots_spec(high=8), crowded(running=16, of=full(16, died=NOW - SECOND)))
    assert number(last) == 8


# What the user does


def test_lowered_bounds_hold_at_once_for_what_was_decided() -> None:
    last = turn(slots_spec(changes={"maxStep": {"concurrencyPercent": 1000}}), crowded())
    lower = turn(slots_spec(high=8), applied(last, seconds=1), last.status)
    assert (number(lower), lower.limit, lower.reasons) == (8, 3063, ["BoundsChanged"])
    assert env(lower) == {CONCURRENCY: "8", AUTOSCALE: "8,8"}
    higher = turn(slots_spec(low=10), applied(lower, seconds=1), lower.status)
    assert (number(higher), higher.reasons) == (10, ["BoundsChanged"])
    assert turn(slots_spec(low=10), with_tasks(applied(higher, seconds=1), 0, 10), higher.status).reasons == []


def test_lowered_bounds_hold_where_no_worker_runs_as_the_next_one_is_born_with_what_was_decided() -> None:
    last = turn(slots_spec(changes={"maxStep": {"concurrencyPercent": 1000}}), crowded())
    scaled_down = replace(applied(last, seconds=1), workloads=(replace(last.target.workload, pods=()),))
    lower = turn(slots_spec(high=8), scaled_down, last.status)
    assert (number(lower), lower.reasons, env(lower)) == (8, ["BoundsChanged"], {CONCURRENCY: "8", AUTOSCALE: "8,8"})


def test_a_raised_minimum_of_memory_holds_at_once_where_only_slots_were_decided() -> None:
    killed = full(16, died=NOW - SECOND)
    last = turn(slots_spec(), crowded(running=16, of=killed))
    assert (number(last), last.limit) == (12, 4096)
    raised = turn(slots_spec(memory_min="5Gi", memory_max="8Gi"), applied(last, seconds=1), last.status)
    assert (number(raised), raised.limit, raised.reasons) == (12, 5120, ["BelowMinimum"])


def test_slots_stated_below_the_minimum_stay_until_more_are_needed_and_then_rise_to_it() -> None:
    assert turn(slots_spec(low=6), crowded(0, 2)).reasons == []
    last = turn(slots_spec(low=6), crowded())
    assert number(last) == 6


def test_a_minimum_that_memory_does_not_carry_is_not_decided() -> None:
    last = turn(slots_spec(low=12, memory_max="1Gi"), crowded())
    assert last.reasons == []
    assert "MemoryBound" in lag_found(last)[0]


def test_concurrency_taken_from_the_policy_gives_the_slots_back_and_keeps_the_memory() -> None:
    last = turn(slots_spec(changes={"maxStep": {"concurrencyPercent": 1000}}), crowded())
    gone = turn(spec(), applied(last, seconds=1), last.status)
    assert (gone.reasons, number(gone), gone.limit, env(gone)) == (["BoundsChanged"], 2, 3063, {})
    assert turn(spec(), applied(gone, seconds=1), gone.status).reasons == []


def test_slots_changed_in_the_template_win_and_what_was_tuned_is_released() -> None:
    last = turn(slots_spec(), crowded())
    new = celery(3)
    seen = observed(replace(new, pods=applied(last).workloads[0].pods), at=NOW + 10 * SECOND, broker="")
    changed = turn(slots_spec(), seen, last.status)
    assert (changed.reasons, number(changed), changed.target.tuned) == (["TemplateChanged"], 3, None)
    assert "(slots 2 -> 3): the new template counts." in changed.target.why


def test_a_template_that_begins_to_state_slots_wins() -> None:
    bare = worker(pod(usage=usage(**CALM), slots=slots(2)))
    last = turn(slots_spec(), crowded(of=bare))
    seen = observed(replace(celery(8), pods=applied(last).workloads[0].pods), at=NOW + 10 * SECOND)
    assert turn(slots_spec(), seen, last.status).reasons == ["TemplateChanged"]


def test_a_paused_policy_holds_the_slots() -> None:
    last = turn(slots_spec(), crowded(), paused=True)
    assert (last.reasons, last.target.tuned) == ([], None)


# Mode Recommend


def test_mode_recommend_recommends_once_and_writes_nothing() -> None:
    policy = slots_spec(mode="Recommend")
    last = turn(policy, crowded())
    assert (last.reasons, number(last), last.target.tuned) == (["SlotsExhausted"], 4, None)
    for waiting in (30, 500, 5, 31, 30):
        seen = with_tasks(replace(last.seen, at=last.seen.at + 300 * SECOND), waiting, 2)
        last = turn(policy, seen, last.status)
        assert (last.reasons, number(last), last.status.tuned, last.status.history) == ([], 4, [], [])
    assert "worker_concurrency: 4" in last.status.helm_values


def test_a_recommendation_that_grows_asks_for_the_memory_of_its_slots_once() -> None:
    policy = slots_spec(mode="Recommend")
    first = turn(policy, crowded(1, 2, of=celery(2)))
    assert (number(first), first.request) == (3, 512 + 136)
    second = turn(policy, with_tasks(first.seen, 30, 2), first.status)
    assert (number(second), second.request) == (4, 512 + 2 * 136)


def test_a_recommendation_moves_inside_bounds_that_were_lowered() -> None:
    first = turn(slots_spec(mode="Recommend"), crowded(of=celery(8), running=8))
    assert number(first) == 16
    assert number(turn(slots_spec(high=10, mode="Recommend"), first.seen, first.status)) == 10


# What a slot takes


def test_a_slot_takes_what_full_workers_show_and_never_less_than_the_table() -> None:
    pods = [pod(usage=usage(anonymous=1255), slots=slots(4)), pod("b", usage=usage(anonymous=9000), slots=slots(4, 1))]
    found = footprint.footprint(pods, 4, 5, Past(), "3", NOW)
    assert (found.per_slot, found.measured) == (250 * MI, True)
    small = footprint.footprint([pod(usage=usage(anonymous=300), slots=slots(4))], 4, 4, Past(), "3", NOW)
    assert (small.per_slot, small.measured) == (86 * MI, False)


def test_a_days_peak_beyond_the_slots_usual_stays_in_reserve() -> None:
    found = footprint.footprint([pod(usage=usage(anonymous_day=1499), slots=slots(4, 0))], 4, 0, Past(), "3", NOW)
    assert found.tail == (1499 - 255 - 4 * 86) * MI


def test_tasks_in_added_slots_may_hold_half_a_slot_more_unless_larger_ones_are_known() -> None:
    found = footprint.footprint([pod(usage=usage(anonymous=400), slots=slots(2))], 2, 2, Past(), "3", NOW)
    assert found.need(9, 7) == (255 + 9 * 86 + 7 * 50 + 130 + 7 * 43) * MI
    known = footprint.footprint([pod(usage=usage(anonymous_day=999), slots=slots(2, 0))], 2, 0, Past(), "3", NOW)
    assert known.need(9, 7) == (255 + 9 * 86 + 7 * 50 + 999 - 255 - 2 * 86) * MI


def test_after_a_kill_the_limit_it_happened_under_is_known_to_be_too_small() -> None:
    past = Past(raised=kills.Raise(NOW, 1024 * MI))
    found = footprint.footprint([pod(slots=slots(2, 0))], 2, 0, past, "3", NOW)
    assert found.need(2) == (1024 + 130) * MI


@given(st.integers(1, 500), st.integers(1, 2000), st.integers(0, 4000), st.integers(1, 200_000), st.integers(1, 64))
def test_a_limit_carries_as_many_slots_as_it_is_said_to(
    base: int, per_slot: int, tail: int, limit: int, slots_: int
) -> None:
    found = footprint.Footprint(base * MI, per_slot * MI, tail * MI)
    assert found.most(found.need(slots_ + 7, 7), slots_) == slots_ + 7
    if (most := found.most(limit * MI, slots_)) > 0:
        assert found.need(most, max(0, most - slots_)) <= limit * MI
        assert found.need(most + 1, max(0, most + 1 - slots_)) > limit * MI


# Whatever the signals say


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def worlds(draw: st.DrawFn) -> tuple[api.Spec, Observation]:
    """Any policy for slots over any Airflow with one group of workers."""
    low = draw(st.integers(1, 20))
    lowest = draw(st.sampled_from([64, 512, 2048]))
    policy = slots_spec(
        low,
        draw(st.integers(low, 40)),
        memory_min=f"{lowest}Mi",
        memory_max=f"{draw(st.sampled_from([2048, 4096, 8192]))}Mi",
        mode=draw(st.sampled_from(["Enforce", "Recommend"])),
        changes={"maxStep": {"concurrencyPercent": draw(st.sampled_from([1, 100, 1000]))}},
    )
    count, stated = draw(st.integers(1, 3)), draw(maybe(st.integers(1, 64)))
    request, limit = draw(st.sampled_from([(512, 1024), (100, 300), (1024, 1024), (1024, 8192), (None, None)]))
    pods = []
    for index in range(count):
        told = draw(maybe(st.builds(slots, st.integers(1, 64), st.integers(0, 64))))
        values = usage(
            anonymous=draw(maybe(st.floats(0, 9000))),
            anonymous_day=draw(maybe(st.floats(0, 9000))),
            working_set=draw(maybe(st.floats(0, 9000))),
            cpu=draw(maybe(st.floats(0, 4))),
            throttled=draw(maybe(st.floats(0, 0.4))),
            node_cpu=draw(maybe(st.floats(0, 1))),
        )
        died = draw(st.sampled_from([None, None, None, NOW - SECOND]))
        pods.append(pod(f"w{index}", request=request, limit=limit, slots=told, usage=values, died=died))
    found = tasks(
        draw(st.integers(0, 200)),
        draw(st.integers(0, 200)),
        duration=draw(maybe(st.floats(0.01, 1e5))),
        started=draw(maybe(st.floats(0, 100))),
        open_slots=draw(maybe(st.integers(0, 64))),
        handed_out=draw(maybe(st.integers(0, 64))),
        critical=draw(maybe(st.floats(0, 2))),
        busy_day=draw(maybe(st.integers(0, 64))),
    )
    workload = worker(*pods, request=request, limit=limit, stated=Values(concurrency=stated))
    return policy, observed(workload, airflow=airflow(draw(st.sampled_from([found, found, None]))), broker="")


def inside(policy: api.Spec, last: Turn) -> None:
    """What is decided can be admitted, or is the template."""
    desired, workload = last.target.desired, last.target.workload
    limits, bounds = policy.workers[0].concurrency, decide.bounds_of(policy, "worker", "worker/default")
    assert limits is not None
    assert bounds is not None
    if desired.concurrency != workload.stated.concurrency:
        assert desired.concurrency is not None
        assert limits.min <= desired.concurrency <= limits.max
    if desired == workload.values:
        return
    assert desired.memory.request is not None
    assert desired.memory.limit is not None
    assert bounds.min <= desired.memory.request <= desired.memory.limit <= bounds.max
    assert (desired.memory.limit) >= (workload.template.limit or 0)


@given(worlds())
def test_whatever_the_signals_say_what_is_decided_is_inside_the_bounds(world: tuple[api.Spec, Observation]) -> None:
    policy, seen = world
    last = turn(policy, seen)
    inside(policy, last)
    assert turn(policy, seen).decision == last.decision


@given(worlds())
def test_a_limit_carries_the_slots_that_were_raised(world: tuple[api.Spec, Observation]) -> None:
    policy, seen = world
    last = turn(policy, seen)
    carried = assessed(policy, seen).footprint
    if last.reasons == ["SlotsExhausted"]:
        assert carried is not None
        assert (last.target.desired.memory.limit or 0) >= carried.need(number(last) or 0)


@given(worlds(), st.integers(0, 100))
def test_more_waiting_tasks_never_lead_to_fewer_slots(world: tuple[api.Spec, Observation], more: int) -> None:
    policy, seen = world
    found = seen.airflow.tasks
    assume(found is not None)
    assert found is not None
    (pool,) = found.pools
    longer = replace(found, pools=(replace(pool, queued=pool.queued + more),))
    fewer, later = turn(policy, seen), turn(policy, replace(seen, airflow=airflow(longer)))
    # Where nothing is decided and nothing stated, they stay as the workers have them.
    present = assessed(policy, seen).slots or 0
    if "MemoryBound" not in fewer.reasons:
        assert (number(later) or present) >= (number(fewer) or present)


@given(worlds())
def test_what_was_decided_and_is_in_force_changes_nothing_more(world: tuple[api.Spec, Observation]) -> None:
    policy, seen = world
    last = turn(policy, seen)
    found = seen.airflow.tasks
    calm = airflow(None if found is None else replace(tasks(0, 0), busy_day=None))
    for after in (applied(last, seconds=30), reborn(last)):
        again = turn(policy, replace(after, airflow=calm), last.status)
        # The ordinary steps that the cooldown held back come later.
        assert again.reasons == []


@given(worlds())
def test_while_tasks_wait_slots_come_to_rest(world: tuple[api.Spec, Observation]) -> None:
    policy, seen = world
    last, found = turn(policy, seen), seen.airflow.tasks
    values = [number(last)]
    for _ in range(70):
        after = applied(last, seconds=3600)
        running = sum(one.slots.processes if one.slots else number(last) or 1 for one in after.workloads[0].pods)
        if found is not None:
            after = replace(after, airflow=airflow(replace(tasks(200, running), busy_day=found.busy_day)))
        last = turn(policy, after, last.status)
        inside(policy, last)
        values.append(number(last))
    assert len(set(values[-8:])) == 1
    assert all(one.reason != "Recommended" for one in last.status.history[:3])


def one_pod(last: Turn) -> Pod:
    (found,) = last.target.workload.pods
    return found


def test_a_worker_born_anew_has_slots_and_memory_that_fit_each_other() -> None:
    last = turn(slots_spec(changes={"maxStep": {"concurrencyPercent": 1000}}), crowded())
    after = turn(slots_spec(), with_tasks(reborn(last), 0, 16), last.status)
    assert one_pod(after).environment == {CONCURRENCY: "16", AUTOSCALE: "16,16"}
    assert one_pod(after).memory.limit == 3063 * MI
    assert (after.reasons, after.waiting) == ([], ())


def test_workers_keep_their_slots_where_the_policy_no_longer_names_them() -> None:
    first = turn(slots_spec(), crowded(60, of=celery(5, request=1024, limit=2048)))
    assert first.target.desired.concurrency == 10
    bare = slots_spec(workers=[{"name": "default", "memory": {"min": "512Mi", "max": "4Gi"}}])
    last = turn(bare, applied(first, seconds=60), first.status)
    assert (last.reasons, last.target.desired.concurrency) == (["BoundsChanged"], 5)
    assert last.target.tuned is not None, "its memory is still tuned"
    assert applied(last).workloads[0].pods[0].slots == slots(10, 5, prefetch=5)

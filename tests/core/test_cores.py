"""CPU from what a week took and from what its limit held back: raised soon, lowered late, never beyond the bounds."""

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_tuner import api, checkpoint, cores, decide, explain, helm, status
from airflow_tuner.autoscaler import HORIZONTAL, VERTICAL, Autoscaler
from airflow_tuner.forecast import DAY
from airflow_tuner.history import WEEK, History, hour_of, of_cpu
from airflow_tuner.learning import learned
from airflow_tuner.model import Cpu, Death, MetricsState, Observation, Pod, Refusal, Sample, Values, Workload
from airflow_tuner.sizing import Subject
from core import test_concurrency
from core.worlds import (
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

CPU = of_cpu("scheduler")
LONG_AGO = NOW - timedelta(hours=2)
MEMORY = {"min": "512Mi", "max": "4Gi"}


def policy(low: str = "100m", high: str = "2", **fields: Any) -> api.Spec:  # noqa: ANN401 - any field of the spec
    """A policy for the scheduler's CPU, which may be released, as by default."""
    entry = {"memory": MEMORY, "cpu": {"min": low, "max": high}}
    return spec(**{"workers": [], "scheduler": entry, **fields})


def using(cores_: float | None = 0.2, throttled: float | None = None, cpu: Cpu | None = None, **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    """A scheduler's pod that takes so much, with 500m requested and no limit."""
    sizes = Cpu(500, None) if cpu is None else cpu
    known = {"started": LONG_AGO, "cpu": sizes, "running_cpu": sizes, "usage": usage(cpu=cores_, throttled=throttled)}
    return pod("airflow-scheduler-0", **{**known, **fields})


def week(peak: int, hours: int = WEEK, *, busiest: tuple[int, ...] = ()) -> History:
    """The busiest minutes of each hour until now, in thousandths of a core; the last hours took as `busiest` says."""
    peaks = [peak] * (hours - len(busiest)) + list(busiest)
    return History(hour_of(NOW) - hours, tuple(peaks))


def seen(*pods: Pod, used: History | None = None, of: Cpu | None = None, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the observation
    """A look at a scheduler whose template has the CPU of its first pod, or this one."""
    first = pods[0].cpu if pods else Cpu(500, None)
    stated = first if of is None else of
    known = {"cpu": stated.request, "limit": stated.limit}
    requests = {"memory": "512Mi"} | ({"cpu": f"{stated.request}m"} if known["cpu"] else {})
    limits = {"memory": "1024Mi"} | ({"cpu": f"{stated.limit}m"} if known["limit"] else {})
    workload = scheduler(*(pods or (using(),)), requests=requests, limits=limits, stated=Values(cpu=stated))
    return observed(workload, **{"histories": {CPU: week(200) if used is None else used}, **fields})


def cpu(last: Turn) -> Cpu:
    """What was decided for the only target."""
    return last.target.desired.cpu


# The request


def test_a_request_is_what_the_busy_hours_of_a_week_took_and_a_tenth_more() -> None:
    last = turn(policy(), seen(used=week(700)))
    assert (last.reasons, cpu(last)) == (["CpuUsed"], Cpu(770, None))
    assert last.target.why == (
        "CPU request 0.5 cores -> 0.77 cores for all pods of Deployment/airflow-scheduler: of the 168 hours that are "
        "known of the last week, all but the busiest took at most 0.7 cores in their busiest 300 s; the request "
        "is 1.1 x that."
    )
    assert last.target.tuned is not None
    assert (last.target.tuned.requests.cpu, last.target.tuned.limits.cpu) == ("770m", None)


def test_two_hours_of_a_week_and_one_of_a_day_may_borrow() -> None:
    assert turn(policy(), seen(used=week(450, busiest=(1900, 1900)))).reasons == []
    assert turn(policy(), seen(used=week(450, busiest=(1900, 1900, 1900)))).reasons == ["CpuUsed"]
    assert turn(policy(), seen(used=week(450, DAY, busiest=(1900,)))).reasons == []


def test_in_the_first_day_nothing_is_known() -> None:
    assert turn(policy(), seen(used=week(900, DAY - 2))).reasons == []
    assert turn(policy(), seen(used=week(900, DAY))).reasons == ["CpuUsed"]


def test_a_change_of_less_than_a_tenth_is_none() -> None:
    for used in (410, 500):
        assert turn(policy(), seen(used=week(used))).reasons == []
    assert turn(policy(), seen(used=week(501))).reasons == ["CpuUsed"], "560 > 1.1 x 500"
    assert turn(policy(), seen(used=week(409))).reasons == ["CpuReleased"], "450 <= 0.9 x 500"


def test_a_container_without_a_request_gets_its_first_and_no_limit() -> None:
    last = turn(policy(), seen(using(cpu=Cpu()), used=week(200)))
    assert (last.reasons, cpu(last)) == (["CpuUsed"], Cpu(220, None))


def test_a_request_stays_below_the_limit_and_so_the_qos_class_what_it_is() -> None:
    last = turn(policy(), seen(using(cpu=Cpu(500, 800)), used=week(790)))
    assert (last.reasons, cpu(last)) == (["CpuUsed"], Cpu(790, 800))
    assert last.target.why.endswith("More is above the limit.")


def test_a_request_that_a_week_did_not_take_is_released() -> None:
    last = turn(policy(), seen())
    assert (last.reasons, cpu(last)) == (["CpuReleased"], Cpu(220, None))
    assert status.resized_cpu(last.target, last.target.workload.pods[0]) == Cpu(220, None)


@pytest.mark.parametrize(
    ("look", "changes", "told"),
    [
        ({}, {"changes": {"releases": False}}, "the policy forbids it (changes.releases: false)"),
        ({"reading": True}, {}, "the past is still being read"),
        ({"used": week(200, 99)}, {}, "only 99 hours of the last week are known"),
        ({"state": MetricsState.STALE}, {}, "what the pods use now is not known"),
    ],
)
def test_a_request_is_kept_and_it_is_said_why(look: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    last = turn(policy(**changes), seen(**look))
    assert last.reasons == []
    assert told in page(policy(**changes), last)


def test_what_is_not_known_is_no_reason_for_less() -> None:
    for unknown in (using(None), using(0.2, usage=replace(usage(), cpu=Sample(0.2, NOW, momentary=True)))):
        assert turn(policy(), seen(unknown)).reasons == []


def test_a_request_is_not_lowered_below_what_is_used_now() -> None:
    assert cpu(turn(policy(), seen(using(0.3)))) == Cpu(330, None)


def test_after_a_refusal_no_cpu_is_asked_for_within_a_day() -> None:
    moments = api.Moments(cpu=(NOW - timedelta(hours=5)).isoformat(), refused=(NOW - timedelta(hours=5)).isoformat())
    first = turn(policy(), seen(used=week(480)))
    (entry,) = first.status.targets
    prior = first.status.model_copy(update={"targets": [entry.model_copy(update={"changed": moments})]})
    assert turn(policy(), seen(used=week(900)), prior).reasons == []


# The limit


def test_a_limit_that_holds_back_is_raised_in_place_and_no_other_is_added() -> None:
    last = turn(policy(), seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430)))
    assert (last.reasons, cpu(last)) == (["CpuThrottled"], Cpu(500, 650))
    assert "CPU limit 0.5 cores -> 0.65 cores for all pods of Deployment/airflow-scheduler: it held" in last.target.why
    assert "in 30% of its scheduling periods within 300 s; above 2% it is multiplied by 1.3." in last.target.why
    (running,) = last.target.workload.pods
    assert status.needs_resize(last.target, running.name)
    assert last.waiting == (), "no restart for CPU"
    assert turn(policy(), seen(using(0.4, 0.3))).reasons != ["CpuThrottled"], "there is no limit"


def test_two_of_a_hundred_periods_are_borne() -> None:
    assert turn(policy(), seen(using(0.4, 0.02, Cpu(500, 500)), used=week(430))).reasons == []


def test_what_a_start_takes_raises_nothing() -> None:
    young = NOW - timedelta(seconds=359)
    assert turn(policy(), seen(using(0.4, 0.9, Cpu(500, 500), started=young), used=week(430))).reasons == []


def test_what_happened_under_a_smaller_limit_raises_the_larger_one_no_more() -> None:
    last = turn(policy(), seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430)))
    late = replace(last.seen, at=NOW + timedelta(seconds=3600))
    assert turn(policy(), late, last.status).reasons == []


def test_a_raise_waits_for_the_cooldown_and_for_metrics_of_the_time_after_the_last() -> None:
    quick = policy(changes={"cooldown": {"raiseSeconds": 0}})
    last = turn(quick, seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430)))
    for seconds, reasons in ((299, []), (300, ["CpuThrottled"])):
        assert turn(quick, applied(last, seconds=seconds), last.status).reasons == reasons


def test_a_limit_never_comes_down() -> None:
    last = turn(policy(), seen(using(0.1, 0.0, Cpu(500, 2000)), used=week(100)))
    assert cpu(last) == Cpu(110, 2000)


def test_at_the_policys_maximum_the_limit_stays_and_it_is_said() -> None:
    held = seen(using(0.5, 0.4, Cpu(500, 2000)), used=week(450))
    last = turn(policy(), held)
    assert last.reasons == []
    (finding,) = [item for item in last.findings if item.reason == "CpuLimitThrottling"]
    assert "The CPU limit stays at cpu.max, 2 cores, though it held airflow-scheduler-0 back in 40%" in finding.message
    step = turn(policy(high="600m"), replace(held, workloads=seen(using(0.5, 0.4, Cpu(500, 500))).workloads))
    assert cpu(step) == Cpu(500, 600)
    assert "The policy's maximum is 0.6 cores." in step.target.why


def test_while_a_limit_holds_back_what_a_week_took_is_no_measure_of_what_was_wanted() -> None:
    last = turn(policy(), seen(using(0.1, 0.4, Cpu(500, 2000)), used=week(100)))
    assert last.reasons == []
    assert "Less would do, but its CPU limit holds it back." in page(policy(), last)


def test_guaranteed_pods_keep_request_and_limit_equal_and_are_not_lowered() -> None:
    held = using(0.4, 0.3, Cpu(500, 500), guaranteed=True)
    last = turn(policy(), seen(held, used=week(430)))
    assert cpu(last) == Cpu(650, 650)
    assert "The request moves with it, as the two are equal." in last.target.why
    (running,) = last.target.workload.pods
    assert status.resized_cpu(last.target, running) == Cpu(650, 650)
    calm = turn(policy(), seen(using(0.1, 0.0, Cpu(500, 500), guaranteed=True), used=week(100)))
    assert calm.reasons == []
    assert "the pods are Guaranteed, and a CPU limit never comes down" in page(policy(), calm)


def test_an_unusual_time_raises_no_limit() -> None:
    (item,) = seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430), usual=False).workloads
    look = seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430), usual=False)
    found = cores.assess(subject(policy(), look), cores.bounds_of(policy(), item))
    assert (found.step, "a DAG runs away, or the database is slow" in found.hold) == (None, True)


# The order, the bounds and the user


def test_a_kill_is_answered_before_cpu_and_both_stay_in_one_entry() -> None:
    first = turn(policy(), seen(used=week(700)))
    killed = replace(applied(first, seconds=1000), at=NOW + timedelta(seconds=1000))
    (workload,) = killed.workloads
    dead = replace(workload.pods[0], deaths=1, death=Death(1, killed.at - timedelta(seconds=5)))
    more = {CPU: week(900)}
    both = replace(killed, workloads=(replace(workload, pods=(dead,)),), histories=more)
    last = turn(policy(), both, first.status)
    assert last.reasons == ["OutOfMemory"]
    assert last.target.tuned is not None
    assert (last.target.tuned.requests.cpu, last.target.tuned.limits.memory) == ("770m", "1536Mi")


def test_a_policy_that_does_not_name_cpu_tells_and_touches_none() -> None:
    silent = spec(workers=[], scheduler={"memory": MEMORY})
    last = turn(silent, seen(using(0.4, 0.9, Cpu(500, 500)), used=week(900)))
    assert (last.reasons, cpu(last)) == ([], Cpu())
    assert last.status.targets[0].template.cpu_request is None


def test_cpu_that_is_named_later_is_no_change_of_the_template() -> None:
    before = turn(spec(workers=[], scheduler={"memory": MEMORY}), seen(used=week(480)))
    after = turn(policy(), seen(used=week(480)), before.status)
    assert (after.reasons, after.status.targets[0].changed) == ([], None)
    assert cpu(after) == Cpu(500, None)


def test_memory_that_was_decided_stays_when_cpu_comes_to_be_named() -> None:
    dead = using(deaths=1, died=NOW - timedelta(seconds=5))
    before = turn(spec(workers=[], scheduler={"memory": MEMORY}), seen(dead, used=week(480)))
    assert before.limit == 1536
    resized = using(memory=memory(512, 1536), running=memory(512, 1536), resized=True)
    after = turn(policy(), seen(resized, used=week(480), at=NOW + timedelta(seconds=60)), before.status)
    assert (after.reasons, after.limit) == ([], 1536)


def test_a_smaller_request_that_was_only_recommended_is_decided_anew_on_evidence() -> None:
    advised = turn(policy(mode="Recommend"), seen())
    assert (advised.reasons, cpu(advised)) == (["CpuReleased"], Cpu(220, None))
    assert cpu(turn(policy(changes={"releases": False}), applied(advised), advised.status)) == Cpu(500, None)
    assert turn(policy(), applied(advised), advised.status).reasons == ["CpuReleased"]


def test_a_checkpoint_that_is_older_than_the_pods_cpu_is_not_believed() -> None:
    first = turn(policy(), seen(used=week(700)))
    memory_ = checkpoint.remembered(first.status, "uid")
    larger = using(cpu=Cpu(900, None), resized_cpu=True)
    for one, known in ((applied(first).workloads[0].pods[0], 1), (larger, 0)):
        recalled = checkpoint.recalled(api.Status(), memory_, "uid", seen(one, of=Cpu(500, None)))
        assert len(recalled.targets) == known


def test_cpu_comes_before_slots_that_take_some_of_it() -> None:
    workers = [{"name": "default", "memory": MEMORY, "concurrency": {"min": 1, "max": 16}}]
    both = [{**workers[0], "cpu": {"min": "100m", "max": "2"}}]
    assert full(slots_spec(workers=workers)).reasons == ["SlotsExhausted"]
    first = full(slots_spec(workers=both))
    assert first.reasons == ["CpuUsed"]
    assert turn(slots_spec(workers=both), applied(first, seconds=30), first.status).reasons == ["SlotsExhausted"]


def test_cpu_that_is_named_no_more_follows_the_template_and_memory_stays_decided() -> None:
    first = turn(policy(), seen(used=week(700)))
    last = turn(spec(workers=[], scheduler={"memory": MEMORY}), applied(first, seconds=60), first.status)
    assert last.reasons == ["Released"]
    assert last.target.tuned is None
    assert "The CPU of Deployment/airflow-scheduler is no longer named by the policy" in last.target.why
    again = turn(spec(workers=[], scheduler={"memory": MEMORY}), applied(first, seconds=90), last.status)
    assert again.reasons == []


def test_bounds_that_are_changed_count_at_once() -> None:
    first = turn(policy(), seen(used=week(700)))
    last = turn(policy(high="600m"), applied(first, seconds=30), first.status)
    assert (last.reasons, cpu(last)) == (["BoundsChanged"], Cpu(600, None))
    below = turn(policy(high="400m"), applied(first, seconds=30), first.status)
    assert (below.reasons, below.target.tuned) == (["BoundsChanged"], None), "the template itself is above"


def test_a_template_below_the_minimum_is_raised_to_it() -> None:
    last = turn(policy(low="600m"), seen(used=History()))
    assert (last.reasons, cpu(last)) == (["BelowMinimum"], Cpu(600, None))


def test_a_template_above_the_maximum_is_left_alone() -> None:
    last = turn(policy(high="400m"), seen(using(0.4, 0.9), used=week(900)))
    assert (last.reasons, cpu(last)) == ([], Cpu(500, None))
    assert "The template asks for more CPU than cpu.max, 0.4 cores." in page(policy(high="400m"), last)


def test_whoever_changes_the_templates_cpu_wins() -> None:
    first = turn(policy(), seen(used=week(700)))
    changed = seen(using(cpu=Cpu(600, None)), used=week(550), at=NOW + timedelta(seconds=60))
    last = turn(policy(), changed, first.status)
    assert (last.reasons, cpu(last), last.target.tuned) == (["TemplateChanged"], Cpu(600, None), None)
    assert "CPU request 0.5 cores -> 0.6 cores" in last.target.why


def test_without_a_memory_limit_there_is_no_entry_that_could_carry_cpu() -> None:
    bare = using(request=None, limit=None)
    look = seen(bare, used=week(900))
    (workload,) = look.workloads
    last = turn(policy(), replace(look, workloads=(replace(workload, template=memory(None, None)),)))
    assert last.reasons == []


def test_cpu_is_left_to_an_autoscaler_that_changes_it_or_goes_by_its_share() -> None:
    of_cpu = Autoscaler(VERTICAL, "vpa", "Deployment/airflow-scheduler", "Auto", memory_of={"*": False})
    by_share = Autoscaler(HORIZONTAL, "hpa", "Deployment/airflow-scheduler", by_cpu=True)
    for other in (of_cpu, by_share):
        last = turn(policy(), seen(used=week(900), autoscalers=(other,)))
        assert last.reasons == []
        (finding,) = [item for item in last.findings if item.reason == "AnotherAutoscaler"]
        assert "The operator leaves its CPU alone." in finding.message
        assert f"Its CPU is left to the {other.kind} {other.name}." in page(policy(), last)
    first = turn(policy(), seen(used=week(700)))
    late = replace(applied(first, seconds=600), autoscalers=(by_share,))
    assert turn(policy(), late, first.status).reasons == ["Released"]


def test_mode_recommend_advises_and_changes_nothing() -> None:
    advised = policy(mode="Recommend")
    last = turn(advised, seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430)))
    assert (last.reasons, cpu(last), last.target.tuned) == (["CpuThrottled"], Cpu(500, 650), None)
    assert "cpu: 650m" in helm.values(last.decision, "3")
    assert "memory" not in helm.values(last.decision, "3")
    again = turn(advised, last.seen, last.status)
    (finding,) = [item for item in again.findings if item.reason == "CpuLimitThrottling"]
    assert "Its CPU limit should be 0.65 cores, which is not in force yet." in finding.message
    assert turn(advised, replace(last.seen, at=NOW + timedelta(hours=3)), last.status).reasons == []


def test_all_that_was_recommended_is_told_when_it_comes_into_force() -> None:
    pressed, memory = seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430)), {"min": "1536Mi", "max": "4Gi"}
    entry = {"memory": memory, "cpu": {"min": "100m", "max": "2"}}
    advised = policy(mode="Recommend", scheduler=entry)
    first = turn(advised, pressed)
    second = turn(advised, replace(pressed, at=NOW + timedelta(hours=1)), first.status)
    assert (first.reasons, second.reasons) == (["BelowMinimum"], ["CpuThrottled"])
    later = replace(pressed, at=NOW + timedelta(hours=1, seconds=1))
    (change,) = turn(policy(scheduler=entry), later, second.status).decision.changes
    assert change.reason == "Recommended"
    assert change.message.startswith(
        "What was recommended so far comes into force: limit 1024 MiB -> 1536 MiB, request 512 MiB -> 1536 MiB, CPU "
        "limit 0.5 cores -> 0.65 cores. CPU limit 0.5 cores -> 0.65 cores for all pods of"
    )


def test_what_is_used_is_held_against_the_limit_in_force_and_not_the_templates() -> None:
    tuned = using(0.9, 0.3, Cpu(500, 1000), running_cpu=Cpu(500, 1000))
    (finding,) = [
        one for one in turn(policy(), seen(tuned, of=Cpu(500, 500))).findings if one.reason == "CpuLimitThrottling"
    ]
    assert finding.message.startswith("Its CPU limit of 1 core holds 1 of 1 pod")
    roomy = test_concurrency.busy_cpu(cpu=0.9)
    raised = replace(roomy, cpu_limit=1.0, pods=tuple(replace(one, running_cpu=Cpu(500, 2000)) for one in roomy.pods))
    entry = {
        "name": "default",
        "memory": MEMORY,
        "cpu": {"min": "100m", "max": "2"},
        "concurrency": {"min": 1, "max": 16},
    }
    assert turn(slots_spec(workers=[entry]), test_concurrency.crowded(of=raised)).reasons == ["SlotsExhausted"]


def test_where_workers_lack_cpu_it_is_said_what_becomes_of_their_limit() -> None:
    workers = [{"name": "default", "memory": MEMORY, "concurrency": {"min": 1, "max": 16}}]
    entry = {**workers[0], "cpu": {"min": "100m", "max": "2"}}
    for named, told in (
        (workers, "The policy names no cpu for it, and so it stays."),
        ([entry], "Its CPU (request / limit) is to be 0.5 / 0.65 cores."),
    ):
        found = crowded(slots_spec(workers=named))
        assert "WorkersCpuBound" in found
        assert told in found


# Running pods


def test_what_a_container_born_with_other_cpu_has_is_left_alone() -> None:
    last = turn(policy(), seen(used=week(700)))
    assert status.resized_cpu(last.target, using(cpu=Cpu(444, None))) is None
    assert status.resized_cpu(last.target, using(cpu=Cpu(444, None), resized_cpu=True)) == Cpu(770, None)
    assert status.resized_cpu(last.target, using(restarts_for_cpu=True)) is None
    best_effort = using(cpu=Cpu(), request=None, limit=None, resized_cpu=True)
    assert status.resized_cpu(last.target, best_effort) is None, "its QoS class would change"
    theirs = using(cpu=Cpu(900, None), resized_cpu=True, foreign_cpu=True)
    assert status.resized_cpu(last.target, theirs) == Cpu(900, None)


def test_a_pod_that_is_born_has_what_was_decided() -> None:
    last = turn(policy(), seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430)))
    (workload,) = reborn(last).workloads
    assert workload.pods[0].cpu == Cpu(500, 650)
    assert workload.pods[0].decision is not None


def test_cpu_is_shown_in_status_history_plan_and_explanation() -> None:
    last = turn(policy(), seen(using(0.4, 0.3, Cpu(500, 500)), used=week(430)))
    (shown,) = last.status.targets
    assert (shown.template.cpu_limit, shown.running.cpu_limit, shown.recommended.cpu_limit) == ("500m", "500m", "650m")
    assert last.status.history[0].to.cpu_limit == "650m"
    assert last.status.last_change == "scheduler CPU limit 500m -> 650m CpuThrottled"
    table = explain.plan(policy(), last.seen, last.findings, last.decision, last.waiting)
    assert "CPU 0.5 / 0.65 cores" in table
    told = page(policy(), last)
    assert "168 hours are known of the last week: all but the busiest took at most 0.43 cores" in told
    assert "by its limit in 30% of its scheduling periods" in told


def test_a_quota_of_cpu_that_refuses_pods_takes_the_decision_back() -> None:
    first = turn(policy(), seen(used=week(700)))
    at = NOW + timedelta(seconds=60)
    (workload,) = applied(first, seconds=60).workloads
    for what, reasons in (("requests.cpu=770m", ["PodsRefused"]), ("pods=2", [])):
        refusal = Refusal(at, f"exceeded quota: small, requested: {what}, used: 1, limited: 1")
        refused = replace(applied(first, seconds=60), workloads=(replace(workload, refusal=refusal),))
        assert turn(policy(), refused, first.status).reasons == reasons


def test_two_weeks_of_a_noisy_load_change_a_request_seldom() -> None:
    chance = random.Random(7)  # noqa: S311 - a load, not a secret
    look, prior, changes = seen(used=History()), None, 0
    for hour in range(2 * WEEK):
        at = NOW + timedelta(hours=hour)
        took = (0.6 if hour % DAY == 2 else 0.25) * chance.uniform(0.9, 1.1)
        (workload,) = look.workloads
        pods = tuple(replace(one, usage=usage(cpu=took, at=at)) for one in workload.pods)
        known = replace(look, at=at, workloads=(replace(workload, pods=pods),))
        last = turn(policy(), replace(known, metrics=replace(look.metrics, at=at)), prior)
        changes += len(last.reasons)
        prior, look = last.status, replace(applied(last), histories=last.seen.histories)
    assert 0.6 * 1100 <= (cpu(last).request or 0) <= 0.66 * 1100 + 10
    assert changes <= 3


# What is learned


def test_what_a_pod_takes_is_learned_where_the_policy_names_cpu() -> None:
    look = replace(seen(using(0.25)), histories={})
    assert learned(policy(), api.Status(), look).histories[CPU].at(hour_of(NOW)) == 250
    assert learned(spec(), api.Status(), look).histories == {}


def test_starts_moments_and_what_is_not_known_are_not_learned() -> None:
    for one in (
        using(0.9, started=NOW - timedelta(seconds=359)),
        using(None),
        using(usage=replace(usage(), cpu=Sample(0.9, NOW, momentary=True))),
        using(usage=usage(cpu=0.9, at=NOW - timedelta(hours=1))),
    ):
        assert learned(policy(), api.Status(), replace(seen(one), histories={})).histories == {}


# What holds for any world

SIZES = st.integers(1, 5000)
WORLDS = st.fixed_dictionaries(
    {
        "request": st.none() | SIZES,
        "limit": st.none() | SIZES,
        "low": st.integers(1, 1500),
        "span": st.integers(0, 3000),
        "used": st.lists(st.none() | SIZES, max_size=WEEK),
        "now": st.none() | st.floats(0, 8),
        "throttled": st.none() | st.floats(0, 1),
        "guaranteed": st.booleans(),
        "releases": st.booleans(),
    }
)


def made(world: dict[str, Any]) -> tuple[api.Spec, Observation]:
    """A policy and a look out of such numbers."""
    limit = world["limit"]
    request = limit if world["request"] is None else min(world["request"], limit or world["request"])
    guaranteed = world["guaranteed"] and limit is not None
    sizes = Cpu(limit, limit) if guaranteed else Cpu(request, limit)
    fields: dict[str, Any] = {"request": 1024, "guaranteed": True} if guaranteed else {}
    one = using(world["now"], world["throttled"], sizes, **fields)
    bounds = (f"{world['low']}m", f"{world['low'] + world['span']}m")
    used = History(hour_of(NOW) - len(world["used"]), tuple(world["used"]))
    return policy(*bounds, changes={"releases": world["releases"]}), seen(one, used=used)


@given(WORLDS)
@settings(deadline=None)
def test_nothing_is_set_outside_of_the_bounds_and_no_limit_is_added_or_lowered(world: dict[str, Any]) -> None:
    given_, look = made(world)
    before, after = look.workloads[0].stated.cpu, cpu(turn(given_, look))
    assert (before.limit is None) == (after.limit is None)
    if after == before:
        return
    assert world["low"] <= (after.request or 0) <= (after.limit or 10**6)
    assert (after.limit or after.request or 0) <= world["low"] + world["span"]
    assert (after.limit or 0) >= (before.limit or 0)


@given(WORLDS)
@settings(deadline=None)
def test_what_is_decided_and_applied_is_decided_no_more(world: dict[str, Any]) -> None:
    given_, look = made(world)
    first = turn(given_, look)
    assert turn(given_, look).decision == first.decision, "the same input, the same decision"
    assert turn(given_, applied(first, seconds=30), first.status).reasons == []


@given(WORLDS, st.integers(0, 2000))
@settings(deadline=None)
def test_more_use_never_asks_for_less(world: dict[str, Any], more: int) -> None:
    given_, look = made(world)
    larger = made({**world, "used": [None if one is None else one + more for one in world["used"]]})[1]
    assert (cpu(turn(given_, larger)).request or 0) >= (cpu(turn(given_, look)).request or 0)


@given(WORLDS)
@settings(deadline=None)
def test_absent_data_never_lowers_anything(world: dict[str, Any]) -> None:
    unknown: tuple[dict[str, Any], ...] = ({"used": []}, {"now": None})
    for gone in unknown:
        given_, look = made({**world, **gone})
        before, after = look.workloads[0].stated.cpu, cpu(turn(given_, look))
        assert (after.request or 0) >= (before.request or 0)


def subject(given_: api.Spec, look: Observation) -> Subject:
    """The only target as a decision sees it."""
    (workload,) = look.workloads
    bounds = decide.bounds_of(given_, workload.component, workload.target, workload.name)
    assert bounds is not None
    return decide.item_of(given_, bounds, workload, look, api.Status()).subject


def page(given_: api.Spec, last: Turn) -> str:
    """The explanation, in one line."""
    told = explain.page("scheduler", given_, last.seen, api.Status(), last.decision, last.waiting)
    return " ".join(told.split())


def full(given_: api.Spec) -> Turn:
    """Tasks wait for workers that lack slots alone, and take more CPU than they request."""
    known: dict[str, Any] = {"started": LONG_AGO, "cpu": Cpu(500, None), "running_cpu": Cpu(500, None)}
    one = pod("w", limit=4096, usage=usage(cpu=0.9, node_cpu=0.4, peak=600, anonymous=500), slots=slots(2), **known)
    sizes: dict[str, Any] = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "4Gi"}}
    of = worker(one, limit=4096, stated=Values(cpu=Cpu(500, None), concurrency=2), **sizes)
    busy = airflow(tasks(waiting=100, running=2))
    return turn(given_, observed(of, airflow=busy, broker="", histories={of_cpu(of.target): week(900)}))


def crowded(given_: api.Spec) -> str:
    """What is said where tasks wait for workers that their CPU limit holds back."""
    sizes = Cpu(500, 500)
    known: dict[str, Any] = {"started": LONG_AGO, "cpu": sizes, "running_cpu": sizes, "slots": slots(8)}
    one = pod("w", limit=2048, usage=usage(throttled=0.4, cpu=0.43, peak=600), **known)
    limits = {"cpu": "500m", "memory": "2Gi"}
    of: Workload = worker(one, limit=2048, stated=Values(cpu=sizes), limits=limits, cpu_limit=0.5)
    busy = airflow(tasks(waiting=200, running=8))
    last = turn(given_, observed(of, airflow=busy, broker="", histories={of_cpu(of.target): week(430)}))
    return next(item.message for item in last.findings if item.reason == "QueueLagHigh")


def test_a_container_whose_cpu_we_have_resized_keeps_the_memory_that_its_user_gave_it() -> None:
    own = memory(3000, 3000)
    last = turn(policy(), seen(using(memory=own, running=own), used=week(700)))
    assert last.reasons == ["CpuUsed"]
    (after,) = applied(last).workloads[0].pods
    assert (after.cpu, after.resized_cpu, after.resized) == (Cpu(770, None), True, False)
    assert status.resized(last.target, after) is None, "it comes neither from the template nor from us"

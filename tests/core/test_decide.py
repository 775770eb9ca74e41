"""One bounded decision per workload: the answer to kills, the other steps, and what the user's own changes do."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, status
from airflow_tuner.decide import bounds_of
from airflow_tuner.model import Death, Memory, Pod
from airflow_tuner.past import from_tuned
from core.worlds import (
    MI,
    NOW,
    Turn,
    applied,
    memory,
    observed,
    pod,
    scheduler,
    spec,
    turn,
    usage,
    with_pods,
    worker,
)

SECOND = timedelta(seconds=1)


def killed(limit: int = 1024, request: int = 512) -> Turn:
    """The turn after the whole container of the only worker was killed."""
    return turn(spec(), observed(worker(pod(request=request, limit=limit, died=NOW - SECOND), limit=limit)))


def die_again(last: Turn, *, seconds: float, policy: api.Spec | None = None) -> Turn:
    """The decided values arrive, the container is killed under them, and the next turn sees it."""
    seen = applied(last, seconds=seconds)
    (workload,) = seen.workloads
    (old,) = workload.pods
    dead = replace(old, deaths=old.deaths + 1, death=Death(old.deaths + 1, seen.at - SECOND))
    return turn(policy or spec(), with_pods(seen, dead), last.status)


def raised_to_1536() -> Turn:
    return turn(spec(), observed(worker(pod(usage=usage(kills=1, peak=1024)))))


# The answer to a kill


@pytest.mark.parametrize(
    ("limit", "answer"), [(1024, 1536), (200, 512), (600, 900), (512, 768), (2730, 4095), (2731, 4096), (3000, 4096)]
)
def test_a_kill_raises_the_limit_by_half_inside_the_bounds(limit: int, answer: int) -> None:
    assert killed(limit, request=200).limit == answer


def test_a_small_limit_rises_by_at_least_the_probes_spike() -> None:
    seen = observed(worker(pod(request=64, limit=100, died=NOW - SECOND), request=64, limit=100))
    assert turn(spec("64Mi"), seen).limit == 230


def test_a_killed_process_is_answered_as_a_killed_container_is() -> None:
    last = raised_to_1536()
    assert (last.request, last.limit, last.reasons) == (512, 1536, ["OutOfMemory"])
    assert "1 process was killed for memory in pod airflow-worker-0 at 12:00:00 (limit 1024 MiB)" in last.target.why


def test_a_second_kill_within_the_hour_doubles() -> None:
    last = die_again(killed(), seconds=3600)
    assert last.limit == 3072
    assert "second kill within the hour" in last.target.why


def test_a_second_kill_after_more_than_an_hour_raises_by_half() -> None:
    assert die_again(killed(), seconds=3601).limit == 2304


def test_a_kill_under_a_template_the_user_has_changed_since_is_no_second_one() -> None:
    first = killed()
    living = pod("airflow-worker-9", limit=1200)
    changed = turn(
        spec(), replace(first.seen, at=NOW + 60 * SECOND, workloads=(worker(living, limit=1200),)), first.status
    )
    assert changed.reasons == ["TemplateChanged"]
    assert die_again(changed, seconds=60).limit == 1800


def test_the_answer_to_a_kill_waits_for_no_cooldown_and_no_metrics() -> None:
    last = die_again(killed(), seconds=5)
    assert last.reasons == ["OutOfMemory"]


def test_a_kill_under_the_old_limit_does_not_raise_again_while_the_resize_is_pending() -> None:
    last = raised_to_1536()
    stuck = pod(usage=usage(kills=2, peak=1024, at=NOW + 600 * SECOND))
    assert turn(spec(), with_pods(last.seen, stuck, seconds=600), last.status).limit == 1536


@pytest.mark.parametrize("peak", [None, 1030.0])
@pytest.mark.parametrize("delay", [1, 15, 60, 75])
def test_a_kill_that_cadvisor_shows_late_does_not_raise_again(peak: float | None, delay: int) -> None:
    last = raised_to_1536()
    seen = applied(last, seconds=delay)
    (workload,) = seen.workloads
    late = replace(workload.pods[0], usage=usage(kills=2, peak=peak, at=seen.at))
    again = turn(spec(), with_pods(seen, late), last.status)
    assert (again.limit, again.request, again.reasons) == (1536, 512, [])
    # Nor does it once the delay can no longer explain it: it has been counted.
    much_later = with_pods(again.seen, late, seconds=1000)
    assert turn(spec(), much_later, again.status).reasons == []


def test_a_kill_at_the_maximum_changes_nothing_and_says_so() -> None:
    last = killed(4096)
    assert (last.limit, last.reasons, last.found) == (4096, [], ["OutOfMemory"])
    assert "That is the policy's maximum, and it stays" in last.findings[0].message
    assert last.target.why == "As the template of StatefulSet/airflow-worker says."
    assert turn(spec(), last.seen, last.status).status == last.status


def test_an_answer_that_the_maximum_cuts_says_what_it_asked_for() -> None:
    assert "It asked for 4500 MiB; the policy's maximum is 4096 MiB." in killed(3000).target.why


def test_an_endless_stream_of_kills_ends_at_the_maximum() -> None:
    last = killed()
    for _ in range(20):
        last = die_again(last, seconds=60)
    assert last.limit == 4096
    assert [change.to.limit for change in last.status.history] == ["4096Mi", "3072Mi", "1536Mi"]


def test_the_same_kill_is_not_answered_twice_when_the_operator_starts_again() -> None:
    last = killed()
    for seconds in (0, 1, 3600, 80_000):
        assert turn(spec(), applied(last, seconds=seconds), last.status).reasons == []


def test_guaranteed_pods_stay_guaranteed() -> None:
    last = turn(
        spec(), observed(worker(pod(request=1024, limit=1024, guaranteed=True, died=NOW - SECOND), request=1024))
    )
    assert (last.request, last.limit) == (1536, 1536)
    assert "as the pods are Guaranteed" in last.target.why


def test_one_kill_raises_all_pods_of_the_workload() -> None:
    pods = [pod(f"w-{number}", died=NOW - SECOND if number < 5 else None) for number in range(6)]
    last = turn(spec(), observed(worker(*pods)))
    assert all(status.needs_resize(last.target, item.name) for item in pods)
    assert "2 more likewise" in last.target.why


def test_a_request_below_the_minimum_is_raised_with_the_answer() -> None:
    last = turn(spec(), observed(worker(pod(request=100, died=NOW - SECOND), request=100)))
    assert (last.request, last.limit) == (512, 1536)


def test_a_kill_under_a_limit_the_template_does_not_know_is_answered_too() -> None:
    # A LimitRange gave the pod its limit.
    last = turn(spec(), observed(worker(pod(died=NOW - SECOND), request=None, limit=None)))
    assert (last.request, last.limit, last.reasons) == (512, 1536, ["OutOfMemory"])
    assert "Memory limit none -> 1536 MiB" in last.target.why


# Kills that the node's shortage explains


def pressed(prior: api.Status | None = None, *, kills: int = 1, seconds: float = 0, request: int, limit: int) -> Turn:
    at = NOW + timedelta(seconds=seconds)
    eaten = pod(request=request, limit=limit, usage=usage(kills=kills, peak=900, at=at))
    return turn(spec(), observed(worker(eaten, request=request, limit=limit), at=at), prior)


def test_a_kill_well_below_the_limit_raises_the_request_and_not_the_limit() -> None:
    last = pressed(request=700, limit=2048)
    assert (last.request, last.limit, last.reasons) == (900, 2048, ["NodeMemoryPressure"])
    assert last.found == ["NodeMemoryPressure"]
    assert "with a peak of 900 MiB well below the limit" in last.target.why


def test_the_request_rises_by_at_most_the_step() -> None:
    assert pressed(request=512, limit=2048).request == 768


def test_a_request_of_zero_rises_to_the_peak() -> None:
    assert pressed(request=0, limit=2048).request == 900


def test_a_request_that_already_covers_the_peak_stays() -> None:
    assert pressed(request=1000, limit=2048).reasons == []


def test_the_next_raise_of_the_request_waits_for_the_cooldown_and_then_comes() -> None:
    first = pressed(request=512, limit=2048)
    waiting = pressed(first.status, request=512, limit=2048, kills=2, seconds=599)
    assert waiting.reasons == []
    then = pressed(waiting.status, request=512, limit=2048, kills=2, seconds=600)
    assert (then.request, then.reasons) == (900, ["NodeMemoryPressure"])
    assert pressed(then.status, request=512, limit=2048, kills=2, seconds=9000).reasons == []


def test_a_limit_below_the_minimum_comes_before_the_nodes_shortage() -> None:
    eaten = pod(request=100, limit=256, usage=usage(kills=1, peak=200))
    last = turn(spec(changes={"cooldown": {"raiseSeconds": 0}}), observed(worker(eaten, request=100, limit=256)))
    assert (last.request, last.limit, last.reasons) == (512, 512, ["BelowMinimum"])


# Limits that are missing or out of bounds


def bare(**fields: float) -> Turn:
    naked = pod(request=None, limit=None, usage=usage(**fields))  # type: ignore[arg-type]  # only sizes are passed
    return turn(spec(), observed(worker(naked, request=None, limit=None)))


def test_a_container_without_a_limit_waits_for_metrics() -> None:
    last = bare()
    assert (last.reasons, last.found) == ([], ["LimitsMissing"])
    assert last.target.tuned is None


@pytest.mark.parametrize(("working_set", "request_"), [(1000.2, 1001), (10, 512), (9000, 4096)])
def test_a_container_without_a_limit_gets_the_maximum_and_the_working_set_as_request(
    working_set: float, request_: int
) -> None:
    last = bare(working_set=working_set)
    assert (last.request, last.limit, last.reasons) == (request_, 4096, ["LimitsMissing"])
    assert not status.needs_resize(last.target, "airflow-worker-0")


def test_a_killed_pod_without_a_limit_raises_nothing() -> None:
    last = turn(spec(), observed(worker(pod(request=None, limit=None, died=NOW - SECOND), request=None, limit=None)))
    assert last.reasons == []
    assert "No limit is in force" in last.findings[0].message


def test_a_limit_below_the_minimum_is_raised_to_it() -> None:
    last = turn(spec(), observed(worker(pod(request=100, limit=256), request=100, limit=256)))
    assert (last.request, last.limit, last.reasons) == (512, 512, ["BelowMinimum"])


def test_a_request_below_the_minimum_is_the_users_while_nothing_else_changes() -> None:
    last = turn(spec(), observed(worker(pod(request=100), request=100)))
    assert (last.request, last.reasons, last.target.tuned) == (100, [], None)


@pytest.mark.parametrize("values", [(512, 8192), (8192, None)])
def test_a_template_above_the_maximum_is_left_alone(values: tuple[int, int | None]) -> None:
    request, limit = values
    grown = pod(request=request, limit=limit, died=NOW - SECOND, usage=usage(working_set=9000))
    last = turn(spec(), observed(worker(grown, request=request, limit=limit)))
    assert (last.reasons, last.target.tuned) == ([], None)
    assert last.target.desired.memory == memory(request, limit)


def test_a_lowered_maximum_counts_for_new_pods_and_leaves_running_ones() -> None:
    last = killed()
    lower = turn(spec(high="1200Mi"), applied(last, seconds=1), last.status)
    assert (lower.limit, lower.reasons) == (1200, ["BoundsChanged"])
    assert not status.needs_resize(lower.target, "airflow-worker-0")
    assert turn(spec(high="1200Mi"), applied(lower, seconds=1), lower.status).reasons == []


def test_a_maximum_lowered_below_the_template_gives_the_template_back() -> None:
    last = killed()
    lower = turn(spec(high="900Mi"), applied(last, seconds=1), last.status)
    assert (lower.limit, lower.reasons, lower.target.tuned) == (1024, ["BoundsChanged"], None)
    assert turn(spec(high="900Mi"), applied(lower, seconds=1), lower.status).reasons == []


def test_a_maximum_lowered_to_the_template_gives_the_template_back() -> None:
    last = killed()
    lower = turn(spec(high="1Gi"), applied(last, seconds=1), last.status)
    assert (lower.reasons, lower.target.tuned) == (["BoundsChanged"], None)


def test_a_raised_minimum_holds_at_once_for_what_was_decided_before() -> None:
    last = killed()
    higher = turn(spec("1Gi"), applied(last, seconds=1), last.status)
    assert (higher.request, higher.limit, higher.reasons) == (1024, 1536, ["BelowMinimum"])


def test_bounds_that_are_no_whole_mib_are_kept_from_inside() -> None:
    seen = observed(worker(pod(died=NOW - SECOND)))
    last = turn(spec(low="1100M", high="1.5G"), seen)
    assert last.target.desired.memory == memory(1050, 1430)


def test_bounds_without_a_whole_mib_between_them_cover_nothing() -> None:
    assert bounds_of(spec(low="1G", high="1G"), "worker", "worker/default") is None


def test_a_template_in_decimal_units_is_not_taken_for_a_changed_one() -> None:
    raw = Memory(500_000_000, 1_000_000_000)
    decimal = worker(pod(memory=raw, running=raw), template=raw, requests={"memory": "500M"}, limits={"memory": "1G"})
    seen = observed(decimal)
    first = turn(spec(), seen)
    second = turn(spec(), seen, first.status)
    assert first.reasons == second.reasons == []
    assert first.target.tuned is second.target.tuned is None
    assert first.status == second.status
    advised = turn(spec(mode="Recommend"), seen)
    assert advised.status.summary.startswith("0 of 1 to change")


# What the user does


def test_a_changed_template_wins_and_tuning_starts_anew() -> None:
    last = killed()
    old = applied(last, seconds=10).workloads[0].pods[0]
    seen = observed(worker(old, limit=2000), at=NOW + 10 * SECOND)
    changed = turn(spec(), seen, last.status)
    assert (changed.limit, changed.reasons, changed.target.tuned) == (2000, ["TemplateChanged"], None)
    assert changed.found == ["OutOfMemory", "TemplateChanged"]
    after = turn(spec(), replace(seen, at=NOW + 20 * SECOND), changed.status)
    assert after.reasons == []
    assert after.target.why == changed.target.why


def test_a_template_changed_to_what_was_tuned_ends_the_entry_under_its_own_name() -> None:
    last = killed()
    seen = observed(worker(*applied(last).workloads[0].pods, limit=1536), at=NOW + 10 * SECOND)
    changed = turn(spec(), seen, last.status)
    assert (changed.reasons, changed.target.tuned) == (["TemplateChanged"], None)


@pytest.mark.parametrize(
    ("values", "desired"),
    [((100, 256), (512, 512)), ((None, None), (600, 4096)), ((512, 9000), (512, 9000))],
)
def test_a_changed_template_is_brought_inside_the_bounds_in_the_same_turn(
    values: tuple[int | None, int | None], desired: tuple[int, int]
) -> None:
    last = killed()
    old = replace(applied(last).workloads[0].pods[0], usage=usage(working_set=600))
    seen = observed(worker(old, request=values[0], limit=values[1]), at=NOW + 10 * SECOND)
    changed = turn(spec(), seen, last.status)
    assert changed.target.desired.memory == memory(*desired)
    assert changed.reasons == ["TemplateChanged"]
    assert turn(spec(), applied(changed, seconds=9000), changed.status).reasons == []


def test_a_template_whose_cpu_changed_stays_tuned_on_the_new_baseline() -> None:
    last = killed()
    requests = {"memory": "512Mi", "cpu": "2"}
    seen = observed(worker(*applied(last).workloads[0].pods, requests=requests), at=NOW + 10 * SECOND)
    after = turn(spec(), seen, last.status)
    assert after.reasons == []
    (old,), (new,) = last.status.tuned, after.status.tuned
    assert new.decision == old.decision
    assert new.baseline.requests == requests
    assert new.since > old.since


def test_a_pod_somebody_else_sized_is_left_alone() -> None:
    odd = pod("odd", request=300, limit=800)
    last = turn(spec(), observed(worker(pod(died=NOW - SECOND), odd)))
    assert not status.needs_resize(last.target, "odd")
    assert status.needs_resize(last.target, "airflow-worker-0")
    after = turn(spec(), applied(last, seconds=1), last.status)
    assert "TemplateChanged" in after.found
    assert any("(odd): left alone" in finding.message for finding in after.findings)


def test_a_component_the_policy_does_not_name_is_not_touched() -> None:
    seen = observed(scheduler(pod("airflow-scheduler-1", died=NOW - SECOND)), worker())
    last = turn(spec(), seen)
    assert [target.workload.target for target in last.decision.targets] == ["worker/default"]
    assert last.reasons == []


def test_a_component_taken_from_the_policy_is_released_once() -> None:
    last = killed()
    without = spec(workers=[])
    gone = turn(without, applied(last, seconds=1), last.status)
    assert gone.reasons == ["Released"]
    (entry, *_) = gone.status.history
    assert (entry.reason, entry.from_.limit, entry.to.limit) == ("Released", "1536Mi", "1024Mi")
    assert "the policy no longer names it" in entry.message
    assert not gone.status.tuned
    assert not gone.status.targets
    assert turn(without, gone.seen, gone.status).reasons == []


def test_a_component_that_comes_back_into_the_policy_starts_from_what_its_pods_have() -> None:
    last = killed()
    gone = turn(spec(workers=[]), applied(last, seconds=1), last.status)
    back = turn(spec(), replace(applied(last), at=NOW + 60 * SECOND), gone.status)
    assert (back.limit, back.reasons) == (1536, ["Recommended"])


def test_mode_recommend_tunes_nothing_and_recommends() -> None:
    advise = spec(mode="Recommend")
    last = turn(advise, observed(worker(pod(died=NOW - SECOND))))
    assert (last.limit, last.reasons, last.target.tuned) == (1536, ["OutOfMemory"], None)
    assert not last.status.tuned
    assert not last.status.history
    assert turn(advise, last.seen, last.status).reasons == []


def test_what_was_recommended_is_done_when_the_mode_becomes_enforce() -> None:
    last = turn(spec(mode="Recommend"), observed(worker(pod(died=NOW - SECOND))))
    after = turn(spec(), last.seen, last.status)
    assert (after.limit, after.reasons) == (1536, ["Recommended"])
    assert after.target.why == last.target.why


@pytest.mark.parametrize("paused", [False, True])
def test_mode_recommend_releases_even_while_a_new_kill_is_answered(paused: bool) -> None:
    last = killed()
    seen = applied(last, seconds=100)
    dead = replace(seen.workloads[0].pods[0], deaths=2, death=Death(2, seen.at))
    advised = turn(spec(mode="Recommend"), with_pods(seen, dead), last.status, paused=paused)
    assert advised.reasons == (["Released"] if paused else ["OutOfMemory", "Released"])
    assert [change.reason for change in advised.status.history] == ["Released", "OutOfMemory"]
    assert advised.status.tuned == []
    assert advised.limit == (1536 if paused else 3072)


def test_a_paused_policy_holds_everything_and_forgets_no_kill() -> None:
    last = killed()
    seen = applied(last, seconds=100)
    dead = replace(seen.workloads[0].pods[0], deaths=2, death=Death(2, seen.at))
    world = replace(with_pods(seen, dead), workloads=(worker(dead, limit=2000),))
    for policy in (spec(), spec("2Gi"), spec(workers=[])):
        held = turn(policy, world, last.status, paused=True)
        assert held.reasons == []
        assert held.status.tuned == last.status.tuned
        assert held.status.history == last.status.history
    held = turn(spec(), with_pods(seen, dead), last.status, paused=True)
    held = turn(spec(), held.seen, held.status, paused=True)
    assert held.target.why.startswith("Paused: every value is held. Memory limit 1024 MiB")
    after = turn(spec(), held.seen, held.status)
    assert (after.limit, after.reasons) == (3072, ["OutOfMemory"])


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("limit", [800, 2000])
def test_a_template_changed_during_a_pause_counts_when_the_pause_ends(tuned: bool, limit: int) -> None:
    last = killed() if tuned else turn(spec(), observed(worker(pod())))
    world = replace(observed(worker(*applied(last).workloads[0].pods, limit=limit)), at=NOW + 100 * SECOND)
    held = turn(spec(), world, last.status, paused=True)
    assert (held.reasons, held.status.tuned) == ([], last.status.tuned)
    held = turn(spec(), replace(world, at=NOW + 200 * SECOND), held.status, paused=True)
    after = turn(spec(), replace(world, at=NOW + 300 * SECOND), held.status)
    assert (after.limit, after.target.tuned) == (limit, None)
    assert "was changed" in after.target.why
    assert turn(spec(), after.seen, after.status).reasons == []


def test_the_answer_to_a_kill_is_no_limit_below_the_request() -> None:
    # Somebody gave a pod a limit of its own; the template has none.
    dead = pod(request=50, limit=50, died=NOW - SECOND, resized=True)
    last = turn(spec(), observed(worker(request=1024, limit=None)))
    after = turn(spec(), with_pods(last.seen, dead), last.status)
    assert (after.request, after.limit, after.reasons) == (1024, 1024, ["OutOfMemory"])


def test_a_paused_reason_does_not_outlive_the_pause() -> None:
    last = killed()
    held = turn(spec(), applied(last), last.status, paused=True)
    assert turn(spec(), held.seen, held.status).target.why == last.target.why


# What is remembered, and what is not


def test_without_a_status_what_living_pods_have_is_adopted_and_their_kills_are_answered() -> None:
    last = killed()
    world = applied(last, seconds=5)
    for ours in ({"resized": True}, {"resized": False, "decision": "policy/worker-default-1"}):
        tuned = replace(world.workloads[0].pods[0], **ours, usage=usage(kills=1, peak=1536))
        adopted = turn(spec(), with_pods(world, tuned))
        assert (adopted.limit, adopted.reasons) == (1536, ["Recommended"])
        assert "Adopted from 1 pod of StatefulSet/airflow-worker" in adopted.target.why
        assert turn(spec(), applied(adopted, seconds=1), adopted.status).reasons == []


def test_without_a_status_the_smallest_pod_lowers_nothing() -> None:
    pods = [pod("a", limit=2000, resized=True), pod("b", limit=1500, resized=True), pod("c", limit=1000)]
    adopted = turn(spec(), observed(worker(*pods)))
    assert adopted.limit == 2000


def test_what_is_adopted_stays_inside_the_bounds() -> None:
    adopted = turn(spec(high="1200Mi"), observed(worker(pod(limit=2000, resized=True))))
    assert (adopted.limit, adopted.reasons) == (1200, ["BoundsChanged"])


def test_a_workload_that_is_away_for_a_while_keeps_its_values() -> None:
    last = killed()
    away = turn(spec(), observed(), last.status)
    assert away.reasons == []
    assert away.status.tuned == last.status.tuned
    assert [target.pods for target in away.status.targets] == [0]
    back = turn(spec(), applied(last, seconds=60), away.status)
    assert (back.limit, back.reasons) == (1536, [])


def test_a_workload_named_in_full_keeps_its_values_while_it_is_away() -> None:
    named = spec(workers=[{"name": "airflow-worker", "memory": {"min": "512Mi", "max": "4Gi"}}])
    last = turn(named, observed(worker(pod(died=NOW - SECOND))))
    assert turn(named, observed(), last.status).reasons == []


def test_a_target_pushed_out_of_the_history_still_knows_when_it_was_raised() -> None:
    last = raised_to_1536()
    crowded = last.status.model_copy(update={"history": []})
    seen = applied(last, seconds=10)
    late = replace(seen.workloads[0].pods[0], usage=usage(kills=2, peak=1030, at=seen.at))
    assert turn(spec(), with_pods(seen, late), crowded).reasons == []


def test_a_status_with_half_a_value_is_as_good_as_none() -> None:
    last = turn(spec(), observed(worker(pod())))
    (target,) = last.status.targets
    half = target.model_copy(update={"recommended": api.Values(limit="9Gi")})
    hostile = last.status.model_copy(update={"targets": [half]})
    assert turn(spec(), last.seen, hostile).reasons == []


def test_a_status_whose_request_exceeds_its_limit_is_mended() -> None:
    last = killed()
    (target,) = last.status.targets
    wrong = target.model_copy(update={"recommended": api.Values(request="2Gi", limit="1Gi")})
    mended = turn(spec(), last.seen, last.status.model_copy(update={"targets": [wrong]}))
    assert mended.target.desired.memory == memory(1024, 1024)


# Which bounds hold


@pytest.mark.parametrize(
    ("component", "target", "where"),
    [
        ("scheduler", "scheduler", "scheduler"),
        ("dag-processor", "dag-processor", "dagProcessor"),
        ("triggerer", "triggerer", "triggerer"),
        ("api-server", "api-server", "apiServer"),
        ("webserver", "webserver", "apiServer"),
        ("worker", "worker/default", "workers/default"),
        ("worker", "worker/heavy", "workers/airflow-worker-heavy"),
        ("worker", "worker/other", "workers/*"),
    ],
)
def test_the_first_entry_that_matches_gives_the_bounds(component: str, target: str, where: str) -> None:
    one = {"memory": {"min": "1Gi", "max": "2Gi"}}
    names = ["default", "airflow-worker-heavy", "*"]
    named = spec(
        scheduler=one, dagProcessor=one, triggerer=one, apiServer=one, workers=[{"name": name, **one} for name in names]
    )
    bounds = bounds_of(named, component, target, f"airflow-{target.replace('/', '-')}")
    assert bounds is not None
    assert bounds.where == where


@pytest.mark.parametrize(("component", "target"), [("worker", "worker/x"), ("scheduler", "scheduler"), ("redis", "r")])
def test_what_the_policy_does_not_name_has_no_bounds(component: str, target: str) -> None:
    assert bounds_of(spec(), component, target) is None


# Names and sentences


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=240).map(
    lambda text: re.sub(r"[-.]{2,}", "-", text).strip("-.") or "x"
)


@given(NAMES)
def test_names_of_any_length_fit_and_sentences_keep_their_numbers(name: str) -> None:
    pods = [pod(f"{name}{number}", died=NOW - SECOND) for number in range(5)]
    policy = spec(workers=[{"name": "*", "memory": {"min": "512Mi", "max": "4Gi"}}])
    last = turn(policy, observed(worker(*pods, target=f"worker/{name}", name=name)))
    (entry,) = last.status.history
    assert len(entry.decision) <= 63
    assert not any(part.startswith("-") for part in entry.decision.split("."))
    assert not entry.message.endswith("…")
    for number in ("1024 MiB", "1536 MiB", "1.5 x", "130 MiB", "11:59:59", "2 more"):
        assert number in entry.message


def test_the_same_input_gives_the_same_decision() -> None:
    assert killed().decision == killed().decision


def test_what_is_tuned_is_what_is_desired() -> None:
    last = killed()
    assert from_tuned(last.target.tuned) == last.target.desired.memory
    assert from_tuned(None) is None


@given(
    st.integers(1, 8000),
    st.integers(1, 8000),
    st.lists(st.sampled_from([64, 300, 1024, 1536, 5000, 9000]), min_size=1, max_size=4),
    st.booleans(),
)
def test_any_kill_is_answered_by_the_rule_or_not_at_all(low: int, high: int, limits: list[int], exact: bool) -> None:
    low, high = min(low, high), max(low, high)
    template = limits[0]
    pods: list[Pod] = [
        pod(f"w{number}", request=64, limit=limit, died=NOW - SECOND) for number, limit in enumerate(limits)
    ]
    policy = spec(f"{low}Mi", f"{high}Mi" if exact else str(high * MI + 77))
    last = turn(policy, observed(worker(*pods, request=64, limit=template)))
    rule = max(-(-3 * max(limits) // 2), max(limits) + 130)
    expected = min(max(rule, low), high)
    if template > high or expected <= template:
        assert "OutOfMemory" not in last.reasons
    else:
        assert (last.limit, last.reasons) == (expected, ["OutOfMemory"])

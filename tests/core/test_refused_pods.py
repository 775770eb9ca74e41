"""What was decided is withdrawn where the API server refuses pods with it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_tuner import inventory
from airflow_tuner.model import Death, Observation, Refusal
from core.worlds import NOW, Turn, applied, observed, pod, spec, turn, worker

MINUTE = timedelta(minutes=1)
QUOTA = (
    'pods "airflow-worker-5b84" is forbidden: exceeded quota: memory, requested: limits.memory=1536Mi, used: '
    "limits.memory=2Gi, limited: limits.memory=3Gi"
)


def tuned() -> Turn:
    """A worker whose limit was raised from 1024 to 1536 MiB for a kill."""
    return turn(spec(), observed(worker(pod(died=NOW))))


def refused(last: Turn, why: str = QUOTA, *, minutes: float = 1, since: float = 1) -> Observation:
    """So much later, with pods refused since then."""
    seen = applied(last, seconds=60 * minutes)
    (workload,) = seen.workloads
    return replace(seen, workloads=(replace(workload, refusal=Refusal(NOW + since * MINUTE, why)),))


def killed_again(seen: Observation, deaths: int) -> Observation:
    (workload,) = seen.workloads
    dead = replace(workload.pods[0], deaths=deaths, death=Death(deaths, seen.at))
    return replace(seen, workloads=(replace(workload, pods=(dead,), refusal=None),))


def test_new_pods_follow_the_template_again_and_running_pods_keep_what_they_have() -> None:
    first = tuned()
    last = turn(spec(), refused(first), first.status)
    assert (last.reasons, last.status.tuned) == (["PodsRefused"], [])
    assert (last.request, last.limit) == (512, 1024)
    assert last.status.history[0].message.startswith(
        "Withdrawn, because the API server refuses pods of StatefulSet/airflow-worker with it: pods "
    )
    assert "exceeded quota: memory" in last.status.history[0].message
    assert "PodsRefused" in last.found
    assert last.target.tuned is None


def test_for_an_hour_nothing_is_decided_and_then_the_kill_is_answered() -> None:
    first = tuned()
    last = turn(spec(), refused(first), first.status)
    dying = killed_again(replace(last.seen, at=NOW + 30 * MINUTE), 2)
    held = turn(spec(), dying, last.status)
    assert held.reasons == []
    after = turn(spec(), replace(dying, at=NOW + 62 * MINUTE), held.status)
    assert after.reasons == ["OutOfMemory"]


def test_a_changed_template_ends_the_hour() -> None:
    first = tuned()
    last = turn(spec(), refused(first), first.status)
    living = pod("airflow-worker-9", limit=1200)
    new = turn(spec(), replace(last.seen, at=NOW + 2 * MINUTE, workloads=(worker(living, limit=1200),)), last.status)
    assert (new.reasons, new.limit) == ([], 1200)
    dead = replace(living, deaths=1, death=Death(1, NOW + 3 * MINUTE))
    after = replace(new.seen, at=NOW + 3 * MINUTE, workloads=(worker(dead, limit=1200),))
    assert turn(spec(), after, new.status).reasons == ["OutOfMemory"]


@pytest.mark.parametrize(
    ("why", "since"),
    [
        ("exceeded quota: pods, requested: pods=1, used: pods=10, limited: pods=10", 1),
        ("exceeded quota: memory, requested: limits.memory=9Gi", -60),
    ],
    ids=["a quota of pods", "older than the decision, and about other memory"],
)
def test_a_refusal_for_something_else_withdraws_nothing(why: str, since: float) -> None:
    first = tuned()
    last = turn(spec(), refused(first, why, since=since), first.status)
    assert (last.reasons, last.limit) == ([], 1536)
    assert "PodsRefused" in last.found


def test_an_older_condition_that_names_the_decided_limit_counts() -> None:
    first = tuned()
    assert turn(spec(), refused(first, since=-60), first.status).reasons == ["PodsRefused"]


def test_where_nothing_is_tuned_it_is_only_told() -> None:
    seen = observed(replace(worker(pod()), refusal=Refusal(NOW, QUOTA)))
    last = turn(spec(), seen)
    assert (last.reasons, last.found) == ([], ["PodsRefused"])


def test_a_stateful_set_is_told_of_by_the_newest_event() -> None:
    def event(name: str, minute: int, note: str, kind: str = "StatefulSet") -> dict[str, object]:
        time = f"2026-11-24T12:{minute:02}:00.000000Z"
        return {"regarding": {"kind": kind, "name": name}, "note": note, "eventTime": time, "metadata": {}}

    events = [
        event("airflow-worker", 5, "old"),
        event("airflow-worker", 7, "new"),
        event("airflow-other", 9, "another's"),
        event("airflow-worker", 9, "a Deployment's", "Deployment"),
    ]
    found = inventory.refused(worker(pod()), events).refusal
    assert found is not None
    assert (found.why, found.at) == ("new", NOW.replace(minute=7))
    assert inventory.refused(worker(pod()), events[2:]).refusal is None

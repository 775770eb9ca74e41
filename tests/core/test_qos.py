"""QoS classes: Guaranteed pods stay so, as the policy can ask for, and pods without resources wait for their birth."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import status
from airflow_tuner.model import Cpu, Death, Memory, Observation, Pod, Values, Workload
from core.test_concurrency import celery, crowded
from core.test_sizing import asked, holding
from core.worlds import NOW, Turn, applied, memory, observed, pod, reborn, slots_spec, spec, turn, usage, worker

CPU = {"cpu": "500m"}
BORN = {"requests": {"memory": "1024Mi", **CPU}, "limits": {"memory": "1024Mi", **CPU}}
EQUAL = [{"name": "default", "memory": {"min": "512Mi", "max": "4Gi", "limitEqualsRequest": True}}]


def guaranteed(*pods: Pod, **fields: Any) -> Workload:  # noqa: ANN401 - any field of the workload
    """A worker whose pods are Guaranteed."""
    return worker(*pods, **{"request": 1024, "limit": 1024, **BORN, **fields})


def born(**fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    return pod(**{"request": 1024, "limit": 1024, "guaranteed": True, **fields})


def tight(**fields: Any) -> Observation:  # noqa: ANN401 - any field of the pod
    """Tasks wait for the slots of a worker whose memory carries no more of them."""
    seen = crowded(60, of=celery(5, **{"request": 900, "limit": 900, **fields}))
    (workload,) = seen.workloads
    return replace(seen, workloads=(replace(workload, template=memory(900, 900)),))


SITUATIONS = {
    "OutOfMemory": observed(guaranteed(born(died=NOW))),
    "BelowMinimum": observed(guaranteed(born(request=300, limit=300), request=300, limit=300)),
    "SlotsExhausted": tight(guaranteed=True),
    "MemoryForecast": asked(at_hour=1, of=guaranteed(replace(holding(300, 1024, 1024), guaranteed=True))),
}


@pytest.mark.parametrize("reason", SITUATIONS)
def test_whatever_is_decided_for_guaranteed_pods_keeps_request_and_limit_equal(reason: str) -> None:
    last = turn(slots_spec(), SITUATIONS[reason])
    assert last.reasons == [reason]
    assert last.request == last.limit
    assert all(one.memory.request == one.memory.limit for one in applied(last).workloads[0].pods)
    after = turn(slots_spec(), applied(last, seconds=60), last.status)
    assert after.request == after.limit


LOOSE = {
    "OutOfMemory": observed(worker(pod(died=NOW))),
    "NodeMemoryPressure": observed(worker(pod(usage=usage(kills=1, before=0, peak=700)))),
    "LimitsMissing": observed(
        worker(pod(request=None, limit=None, usage=usage(working_set=600)), request=None, limit=None)
    ),
    "MemoryForecast": asked(at_hour=1, of=worker(holding(300, 512, 1024))),
}


@pytest.mark.parametrize("reason", LOOSE)
def test_a_policy_can_ask_for_it_and_every_step_keeps_to_it(reason: str) -> None:
    last = turn(spec(workers=EQUAL), LOOSE[reason])
    assert last.reasons == [reason]
    assert last.request == last.limit
    loose = turn(spec(), LOOSE[reason])
    assert loose.reasons == [reason]
    assert (loose.request or 0) < loose.limit


def test_the_sentence_says_why_the_request_moves() -> None:
    assert "as limitEqualsRequest says" in turn(spec(workers=EQUAL), LOOSE["OutOfMemory"]).target.why
    assert "as the pods are Guaranteed" in turn(spec(), SITUATIONS["OutOfMemory"]).target.why


def test_before_its_first_pod_a_template_tells_that_they_will_be_guaranteed() -> None:
    first = turn(spec("2Gi"), observed(guaranteed()))
    assert (first.request, first.limit) == (2048, 2048)
    odd = turn(spec("2Gi"), observed(guaranteed(request=512, requests={"memory": "512Mi", **CPU})))
    assert (odd.request, odd.limit) == (2048, 2048), "the minimum holds for both"


def test_a_running_pod_of_another_class_is_resized_within_it_and_its_successor_is_guaranteed() -> None:
    loose = worker(pod(died=NOW), requests={"memory": "512Mi", **CPU}, limits={"memory": "1024Mi", **CPU})
    last = turn(spec(workers=EQUAL), observed(loose))
    (running,) = last.target.workload.pods
    assert status.resized(last.target, running) == memory(1535, 1536), "the class of a running pod cannot change"
    (successor,) = reborn(last).workloads[0].pods
    assert successor.memory == memory(1536, 1536)
    assert turn(spec(workers=EQUAL), applied(last, seconds=60), last.status).reasons == []
    tuned = replace(running, cpu=Cpu(300, 500))
    assert status.resized(last.target, tuned) == memory(1536, 1536), "its CPU says that it stays as it is"
    assert status.resized(last.target, replace(running, cpu=Cpu(700, 700))) == memory(1535, 1536)


def test_a_guaranteed_pod_that_is_left_of_an_older_template_stays_so_too() -> None:
    last = turn(spec(), observed(worker(pod(died=NOW))))
    assert (last.request, last.limit) == (512, 1536)
    older = born(decision="older")
    target = replace(last.target, workload=replace(last.target.workload, pods=(older,)))
    assert status.resized(target, older) == memory(1536, 1536)


def test_a_pod_without_resources_waits_for_its_birth_and_that_is_told() -> None:
    last = turn(spec(), LOOSE["LimitsMissing"])
    assert (last.request, last.limit) == (600, 4096)
    (running,) = last.target.workload.pods
    assert status.resized(last.target, running) is None, "no class changes in place"
    assert [one.what for one in last.waiting] == ["its first memory limit of 4096 MiB"]
    assert last.waiting[0].blocked == "the policy allows no restarts (changes.restarts.allowed)"
    (condition,) = [one for one in last.status.conditions if one.type == "RestartNeeded"]
    assert (condition.status, "its first memory limit of 4096 MiB" in condition.message) == ("True", True)
    after = turn(spec(), reborn(last), last.status)
    assert (after.reasons, after.waiting) == ([], ())


def test_a_pod_without_resources_whose_memory_is_not_known_is_left_alone_also_when_it_is_killed() -> None:
    bare = pod(request=None, limit=None, died=NOW)
    last = turn(spec(), observed(worker(bare, request=None, limit=None)))
    assert (last.reasons, last.status.tuned) == ([], [])
    assert "LimitsMissing" in last.found


@given(
    limit=st.integers(520, 4000),
    deaths=st.integers(0, 3),
    kills=st.integers(0, 2),
    peak=st.integers(50, 4000),
    low=st.integers(64, 1024),
)
def test_no_turn_makes_guaranteed_pods_anything_else(limit: int, deaths: int, kills: int, peak: int, low: int) -> None:
    own = pod(
        request=limit,
        limit=limit,
        guaranteed=True,
        deaths=deaths,
        death=Death(deaths, NOW) if deaths else None,
        usage=usage(kills=kills, before=0, peak=min(peak, limit)),
    )
    template = {"memory": f"{limit}Mi", **CPU}
    seen = observed(worker(own, request=limit, limit=limit, requests=template, limits=template))
    last = turn(spec(f"{low}Mi"), seen)
    for _ in range(3):
        assert _equal(last)
        last = turn(spec(f"{low}Mi"), applied(last, seconds=700), last.status)


def _equal(last: Turn) -> bool:
    values = [last.target.desired.memory]
    values += [status.resized(last.target, one) or Memory() for one in last.target.workload.pods]
    return all(value.request == value.limit for value in values)


def test_a_running_pod_whose_cpu_becomes_equal_as_well_keeps_its_class() -> None:
    entry = [{**EQUAL[0], "cpu": {"min": "500m", "max": "500m"}}]
    cpu = Cpu(300, 500)
    loose = worker(
        pod(died=NOW, cpu=cpu, running_cpu=cpu),
        requests={"memory": "512Mi", "cpu": "300m"},
        limits={"memory": "1024Mi", **CPU},
        stated=Values(cpu=cpu),
    )
    first = turn(spec(workers=entry), observed(loose))
    second = turn(spec(workers=entry), applied(first, seconds=60), first.status)
    assert first.reasons + second.reasons == ["OutOfMemory", "BelowMinimum"]
    (running,) = second.target.workload.pods
    assert status.resized_cpu(second.target, running) == Cpu(500, 500)
    assert status.resized(second.target, running) == memory(1535, 1536), "with both equal it would be Guaranteed"
    (successor,) = reborn(second).workloads[0].pods
    assert (successor.memory, successor.cpu) == (memory(1536, 1536), Cpu(500, 500))

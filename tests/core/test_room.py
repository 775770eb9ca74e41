"""Quotas, limit ranges and nodes are read ahead: what is decided fits them, and what is not known bounds nothing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_tuner import api, explain, inventory, replay, report, room, status, transcript
from airflow_tuner.model import Death, Memory, Observation, Pod, Workload
from airflow_tuner.room import LIMITS, REQUESTS, Node, Quota, Range, Room
from core.test_concurrency import assessed, celery, crowded, number
from core.test_inventory import workload as template
from core.test_sizing import asked
from core.worlds import MI, NOW, Turn, applied, memory, observed, pod, scheduler, slots_spec, spec, turn, worker

Object = dict[str, Any]


def quota(hard: int, used: int, figure: str = LIMITS) -> Room:
    """A quota in MiB."""
    return Room(quotas=(Quota("memory", figure, hard * MI, used * MI),))


def limit_range(**figures: Any) -> Room:  # noqa: ANN401 - any figure of a range, sizes in MiB
    sizes = {key: value * MI if key in {"most", "least"} else value for key, value in figures.items()}
    return Room(ranges=(Range("sizes", **{"kind": "Container", **sizes}),))


def on(*nodes: Node, largest: int | None = None) -> Room:
    return Room(nodes=nodes, largest=None if largest is None else largest * MI)


def node(name: str, allocatable: int, held: int = 0) -> Node:
    """A node in MiB."""
    return Node(name, allocatable * MI, held * MI)


def killed(has: Room, *others: Pod, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the workload
    """A worker of 1024 MiB that was killed for memory, in such a room; alone it would get 1536 MiB."""
    return turn(spec(), observed(worker(pod(died=NOW, node="a"), *others, **fields), room=has))


# Quotas


def test_a_kill_is_answered_as_far_as_the_quota_leaves_memory_and_the_sentence_names_it() -> None:
    last = killed(quota(1300, 1024))
    assert (last.reasons, last.limit) == (["OutOfMemory"], 1300)
    assert last.target.why.endswith(
        "It asked for 1536 MiB; the ResourceQuota memory leaves each of its pods 1300 MiB (limits.memory: 1024 MiB of "
        "1300 MiB in use; 1 pod)."
    )


def test_all_replicas_and_a_pod_of_a_rollout_have_their_part_of_the_quota() -> None:
    assert killed(quota(4500, 1024), replicas=3).limit == 1500
    last = killed(quota(4500, 1024), replicas=3, surge=1)
    assert last.limit == 1125
    assert "3 pods and one of a rollout" in last.target.why


def test_what_is_set_already_is_not_lowered_for_a_quota_that_is_full() -> None:
    first = killed(Room())
    assert first.limit == 1536
    full = replace(applied(first, seconds=60), room=quota(1000, 1536))
    last = turn(spec(), full, first.status)
    assert (last.reasons, last.limit) == ([], 1536)


def test_a_quota_of_requests_bounds_the_request_of_pods_that_are_guaranteed_and_so_their_limit() -> None:
    born = pod(died=NOW, guaranteed=True, request=1024, limit=1024)
    last = turn(spec(), observed(worker(born, request=1024, limit=1024), room=quota(1200, 1024, REQUESTS)))
    assert (last.request, last.limit) == (1200, 1200)
    assert "the ResourceQuota memory leaves each of its pods 1200 MiB (requests.memory" in last.target.why


def test_a_quota_of_requests_leaves_the_limit_of_other_pods_alone() -> None:
    assert killed(quota(512, 512, REQUESTS)).limit == 1536


def test_a_forecast_fits_the_quota() -> None:
    night = asked(at_hour=1, of=worker(pod(request=512, limit=1024, usage=asked().workloads[0].pods[0].usage)))
    free = turn(spec(), night)
    assert free.limit > 1400
    last = turn(spec(), replace(night, room=quota(1400, 1024)))
    assert (last.reasons, last.limit) == (["MemoryForecast"], 1400)
    assert "MiB. The ResourceQuota memory leaves each of its pods 1400 MiB" in last.target.why or (
        "The ResourceQuota memory leaves each of its pods 1400 MiB" in last.target.why
    )
    assert "MemoryRoomShort" in last.found
    assert free.found.count("MemoryRoomShort") == 0


def test_targets_that_are_decided_in_one_turn_share_what_a_quota_leaves() -> None:
    both = observed(
        scheduler(pod("airflow-scheduler-0", died=NOW)), worker(pod(died=NOW)), room=quota(2048 + 600, 2048)
    )
    bounds = {"memory": {"min": "512Mi", "max": "4Gi"}}
    last = turn(spec(scheduler=bounds), both)
    limits = [(target.desired.memory.limit or 0) // MI for target in last.decision.targets]
    assert limits == [1536, 1112]


def test_slots_go_down_where_the_quota_has_no_more_memory_for_what_was_killed() -> None:
    policy = slots_spec()
    dead = celery(4, deaths=1, death=Death(1, NOW))
    last = turn(policy, observed(dead, broker="", room=quota(1024, 1024)))
    assert (last.reasons, number(last), last.limit) == (["MemoryBound"], 3, 1024)
    assert "at a limit of 1024 MiB, and no more is to be had: the ResourceQuota memory leaves" in last.target.why
    assert "MemoryRoomShort" in last.found
    (oom,) = [finding.message for finding in last.findings if finding.reason == "OutOfMemory"]
    assert "No more is to be had: the ResourceQuota memory" in oom
    assert "or raise the ResourceQuota memory." in oom


def test_slots_rise_as_far_as_the_quota_carries_them_and_it_is_said() -> None:
    seen = crowded(60, of=celery(5))
    assert number(turn(slots_spec(), seen)) == 10
    last = turn(slots_spec(), replace(seen, room=quota(1024, 1024)))
    assert (last.reasons, number(last), last.limit) == (["SlotsExhausted"], 6, 1024)
    assert "Memory ends at 6 slots: the ResourceQuota memory leaves each of its pods 1024 MiB" in last.target.why
    full = replace(crowded(60, of=celery(7)), room=quota(1024, 1024))
    said = assessed(slots_spec(), full)
    assert said.cause == "MemoryBound"
    assert "1024 MiB, as the ResourceQuota memory leaves each of its pods 1024 MiB" in said.told
    # More workers would have to share the same quota.
    assert said.told.endswith("Raise the ResourceQuota memory.")


def test_only_quotas_of_memory_that_hold_for_airflows_pods_are_read() -> None:
    def item(name: str, spec: Object, hard: Object) -> Object:
        return {"metadata": {"name": name}, "spec": spec, "status": {"hard": hard, "used": dict.fromkeys(hard, "1Gi")}}

    found = room.quotas(
        [
            item("all", {}, {"limits.memory": "3Gi", "memory": "2Gi", "pods": "10"}),
            item("lasting", {"scopes": ["NotTerminating"]}, {"requests.memory": "2Gi"}),
            item("jobs", {"scopes": ["Terminating"]}, {"limits.memory": "1Gi"}),
            item("some", {"scopeSelector": {"matchExpressions": []}} | {"scopes": ["BestEffort"]}, {"memory": "1Gi"}),
            {"metadata": {"name": "new"}, "spec": {"hard": {"memory": "1Gi"}}},
            item("odd", {}, {"memory": "much"}),
        ]
    )
    assert [(one.name, one.figure, one.hard // MI) for one in found] == [
        ("all", REQUESTS, 2048),
        ("all", LIMITS, 3072),
        ("lasting", REQUESTS, 2048),
    ]


# Limit ranges


def test_a_limit_range_bounds_the_limit_of_a_container() -> None:
    last = killed(limit_range(most=1200))
    assert last.limit == 1200
    assert "It asked for 1536 MiB; the LimitRange sizes allows a container 1200 MiB." in last.target.why


def test_of_a_limit_range_of_pods_the_other_containers_have_their_part() -> None:
    last = killed(limit_range(kind="Pod", most=1400), beside=memory(100, 200))
    assert last.limit == 1200
    assert "allows a pod 1400 MiB" in last.target.why


def test_the_request_rises_with_the_limit_where_a_limit_range_binds_the_one_to_the_other() -> None:
    last = killed(limit_range(ratio=2.0))
    assert (last.request, last.limit) == (768, 1536)
    assert "as a LimitRange allows limits of 2 x the request at most" in last.target.why


def test_a_quota_of_requests_bounds_the_limit_where_a_limit_range_binds_the_one_to_the_other() -> None:
    both = replace(limit_range(ratio=2.0), quotas=quota(600, 512, REQUESTS).quotas)
    last = killed(both)
    assert (last.request, last.limit) == (600, 1200)


def test_what_is_set_already_is_not_changed_for_a_limit_range() -> None:
    for has in (limit_range(ratio=1.5), limit_range(most=800), limit_range(least=900)):
        assert turn(spec(), observed(worker(pod()), room=has)).reasons == []
        first = killed(Room())
        assert turn(spec(), replace(applied(first, seconds=60), room=has), first.status).reasons == []


def test_a_request_is_no_less_than_a_limit_range_asks_for() -> None:
    assert killed(limit_range(least=700)).request == 700


def test_limit_ranges_are_read_as_the_api_server_has_them() -> None:
    items = [
        {
            "metadata": {"name": "sizes"},
            "spec": {
                "limits": [
                    {
                        "type": "Container",
                        "max": {"memory": "2Gi", "cpu": "4"},
                        "maxLimitRequestRatio": {"memory": "1500m"},
                    },
                    {"type": "Pod", "min": {"memory": "64Mi"}},
                    {"type": "PersistentVolumeClaim", "max": {"storage": "5Gi"}},
                    {"type": "Container", "max": {"cpu": "4"}},
                ]
            },
        }
    ]
    assert room.ranges(items) == (
        Range("sizes", "Container", 2048 * MI, None, 1.5),
        Range("sizes", "Pod", None, 64 * MI, None),
    )


def test_slots_are_not_taken_where_there_is_no_limit_as_admission_takes_both_or_none() -> None:
    born = celery(4, request=1024, limit=8192, deaths=1, death=Death(1, NOW), node="a")
    bare = replace(born, template=memory(1024, None), requests={"memory": "1Gi"}, limits={})
    for has in (Room(), on(node("a", 8192))):
        last = turn(slots_spec(), observed(bare, broker="", room=has))
        assert (last.reasons, last.limit) == (["OutOfMemory"], 4096)


# Nodes


def test_a_limit_rises_only_as_far_as_the_limits_of_all_pods_fit_the_node() -> None:
    last = killed(on(node("a", 4000, 2800)))
    assert (last.reasons, last.limit) == (["OutOfMemory"], 1200)
    assert (
        "the node a carries no more than 1200 MiB for airflow-worker-0 (of 4000 MiB other pods request 2800 MiB; "
        "Airflow's share the rest)" in (last.target.why)
    )


def test_pods_of_one_workload_share_a_node_and_so_do_other_workloads_by_their_limits() -> None:
    mate = pod("airflow-worker-1", node="a")
    assert killed(on(node("a", 2600)), mate).limit == 1300
    other = scheduler(pod("airflow-scheduler-0", request=100, limit=400, node="a"))
    seen = observed(other, worker(pod(died=NOW, node="a")), room=on(node("a", 1600)))
    assert turn(spec(), seen).limit == 1200


def test_a_full_node_lowers_nothing_and_slots_go_down_for_a_kill_there() -> None:
    assert killed(on(node("a", 1500, 1000))).reasons == []
    dead = celery(4, deaths=1, death=Death(1, NOW), node="a")
    last = turn(slots_spec(), observed(dead, broker="", room=on(node("a", 1500, 1000))))
    assert (last.reasons, number(last), last.limit) == (["MemoryBound"], 3, 1024)
    assert "MemoryRoomShort" in last.found


def test_of_several_nodes_the_roomiest_decides_and_on_the_others_pods_get_what_there_is() -> None:
    mate = pod("airflow-worker-1", node="b")
    last = killed(on(node("a", 8000), node("b", 1400)), mate)
    assert last.limit == 1536
    limits = {one.name: status.resized(last.target, one) for one in last.target.workload.pods}
    assert limits == {"airflow-worker-0": memory(512, 1536), "airflow-worker-1": memory(512, 1400)}
    after = turn(spec(), applied(last, seconds=60), last.status)
    assert after.reasons == []
    assert status.converged(after.target), "nothing is asked for again and again"
    (told,) = [finding.message for finding in after.findings if finding.reason == "MemoryRoomShort"]
    assert "1 pod of 2 of StatefulSet/airflow-worker cannot have the limit of 1536 MiB" in told
    assert "airflow-worker-1 on the node b at most 1400 MiB (0 MiB of 1400 MiB are requested by others)" in told


def test_a_second_kill_on_the_full_node_takes_slots_and_they_do_not_come_back_for_it() -> None:
    policy, has = slots_spec(), on(node("a", 8000), node("b", 1400))
    workload = celery(4, 2)
    pods = tuple(replace(one, node=name) for one, name in zip(workload.pods, "ab", strict=True))
    pods = (replace(pods[0], deaths=1, death=Death(1, NOW)), pods[1])
    first = turn(policy, observed(replace(workload, pods=pods), broker="", room=has))
    assert first.limit == 1536
    seen = applied(first, seconds=7200)
    (held,) = seen.workloads
    dead = replace(held.pods[1], deaths=1, death=Death(1, seen.at))
    last = turn(policy, replace(seen, workloads=(replace(held, pods=(held.pods[0], dead)),)), first.status)
    assert (last.reasons, number(last)) == (["MemoryBound"], 3)
    assert "and the node b has no more" in last.target.why
    crowd = replace(applied(last, seconds=600), airflow=crowded(60, 6).airflow)
    assert number(turn(policy, crowd, last.status)) == 3


def test_a_node_that_is_not_known_bounds_nothing() -> None:
    assert killed(on(node("b", 100))).limit == 1536
    assert killed(on(node("a", 1500, 1000)), pod("airflow-worker-1", node="b")).limit == 1536


def test_a_first_limit_is_not_bound_by_a_node_as_none_at_all_is_worse() -> None:
    bare = pod(request=None, limit=None, node="a", usage=asked().workloads[0].pods[0].usage)
    bare = replace(bare, usage=replace(bare.usage, working_set=bare.usage.anonymous))
    seen = observed(worker(bare, request=None, limit=None), room=on(node("a", 1000, 900)))
    last = turn(spec(), seen)
    assert (last.reasons, last.limit) == (["LimitsMissing"], 4096)
    tight = turn(spec(), replace(seen, room=quota(2000, 0)))
    assert (tight.reasons, tight.limit) == (["LimitsMissing"], 2000)
    assert "or less: the ResourceQuota memory leaves" in tight.target.why
    low = spec("64Mi")
    assert turn(low, replace(seen, room=quota(300, 0))).reasons == [], "less than what is in use kills what runs"


def test_where_there_is_not_even_room_for_the_minimum_nothing_is_decided_and_it_is_told() -> None:
    small = observed(worker(pod(request=300, limit=400, died=NOW), request=300, limit=400), room=quota(450, 400))
    last = turn(spec(), small)
    assert (last.reasons, last.limit) == ([], 400)
    (told,) = [finding.message for finding in last.findings if finding.reason == "MemoryRoomShort"]
    assert told.startswith(
        "Nothing is decided for StatefulSet/airflow-worker: the policy's minimum is 512 MiB, and the ResourceQuota "
        "memory leaves each of its pods 450 MiB"
    )
    later = turn(spec(), replace(small, room=Room()), last.status)
    assert later.reasons == ["OutOfMemory"], "the kill is answered once there is room"


def test_no_request_is_decided_that_no_node_can_hold() -> None:
    born = pod(died=NOW, guaranteed=True, request=1024, limit=1024)
    beside = memory(100, 100)
    seen = observed(worker(born, request=1024, limit=1024, beside=beside), room=on(largest=1300))
    last = turn(spec(), seen)
    assert (last.request, last.limit) == (1200, 1200)
    assert "the largest node has 1300 MiB for a pod, of which 100 MiB go to its other containers" in last.target.why


def test_nodes_are_read_with_what_pods_keep_on_them() -> None:
    def of(size: str, limit: str = "") -> Object:
        return {"requests": {"memory": size}, **({"limits": {"memory": limit}} if limit else {})}

    plain = {
        "metadata": {"name": "p"},
        "spec": {
            "containers": [
                {"name": "worker", "resources": of("1Gi", "2Gi")},
                {"name": "logs", "resources": of("64Mi")},
            ],
            "initContainers": [{"name": "wait", "resources": of("1500Mi")}],
            "overhead": {"memory": "10Mi"},
        },
    }
    found = room.held(plain)
    assert found is not None
    assert found.beside("") == 1510 * MI
    assert found.beside("worker") == (64 + 412 + 10) * MI
    tuned = {**plain, "metadata": {"name": "p", "annotations": {room.DECISION: "d"}}}
    born = room.held(tuned)
    assert born is not None
    assert born.beside("") == (2048 + 64 + 10) * MI
    resized = {
        **plain,
        "status": {"containerStatuses": [{"name": "worker", "allocatedResources": {"memory": "3Gi"}}]},
    }
    grown = room.held(resized)
    assert grown is not None
    assert grown.beside("logs") == (3072 + 10) * MI
    assert room.held({**plain, "status": {"phase": "Succeeded"}}) is None
    assert room.held({"metadata": {}, "spec": {}}) is None
    nodes: list[Object] = [
        {"metadata": {"name": "a"}, "status": {"allocatable": {"memory": "4Gi"}}},
        {"metadata": {"name": "b"}, "spec": {"unschedulable": True}, "status": {"allocatable": {"memory": "8Gi"}}},
        {"metadata": {"name": "c"}, "status": {}},
    ]
    assert room.allocatable(nodes) == {"a": 4096 * MI, "b": 8192 * MI}
    assert room.closed(nodes) == {"b"}


def test_a_template_tells_of_its_other_containers_and_a_rollout() -> None:
    item = template("airflow-worker", "worker", "worker")
    item["spec"]["template"]["spec"]["containers"].append(
        {"name": "logs", "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}}}
    )
    (found,) = inventory.workloads([item], [])
    assert (found.beside, found.surge) == (memory(64, 128), 1)
    item["spec"]["strategy"] = {"type": "Recreate"}
    assert inventory.workloads([item], [])[0].surge == 0


sizes = st.integers(1, 40).map(lambda number: number * 128)


@given(
    limits=st.lists(sizes, min_size=1, max_size=4),
    other=sizes,
    allocatable=st.integers(1, 300).map(lambda number: number * 64),
    held=st.integers(0, 100).map(lambda number: number * 64),
)
def test_what_is_raised_fits_the_node_whatever_is_there(
    limits: list[int], other: int, allocatable: int, held: int
) -> None:
    pods = [
        pod(f"airflow-worker-{index}", request=64, limit=limit, died=NOW, node="a", resized=True)
        for index, limit in enumerate(limits)
    ]
    policy = spec("64Mi", "16Gi", scheduler={"memory": {"min": "64Mi", "max": "16Gi"}})
    seen = observed(
        scheduler(pod("airflow-scheduler-0", request=64, limit=other, died=NOW, node="a"), request=64, limit=other),
        worker(*pods, request=64, limit=max(limits)),
        room=on(node("a", allocatable, held)),
    )
    assert_fits(policy_turn := turn(policy, seen), seen, allocatable - held)
    assume(policy_turn.reasons)


def assert_fits(last: Turn, seen: Observation, free: int) -> None:
    """All limits together fit, but for what was there before."""
    before = sum(_limit(one.memory) for workload in seen.workloads for one in workload.pods)
    after = sum(
        _limit(status.resized(target, one) or one.memory)
        for target in last.decision.targets
        for one in pods(target.workload)
    )
    assert after <= max(before, free * MI)


def pods(workload: Workload) -> tuple[Pod, ...]:
    return workload.pods


def _limit(values: Memory) -> int:
    return values.limit or 0


@pytest.mark.parametrize("figure", [LIMITS, REQUESTS])
@given(hard=st.integers(1, 8000), others=st.integers(0, 4000), replicas=st.integers(1, 4), surge=st.integers(0, 1))
def test_what_is_raised_fits_the_quota_with_all_replicas_and_a_rollout(
    figure: str, hard: int, others: int, replicas: int, surge: int
) -> None:
    born = [
        pod(f"airflow-worker-{index}", request=1024, limit=1024, died=NOW, guaranteed=True) for index in range(replicas)
    ]
    used = others + 1024 * replicas
    workload = worker(*born, request=1024, limit=1024, replicas=replicas, surge=surge)
    last = turn(spec(), observed(workload, room=quota(hard, used, figure)))
    if last.reasons:
        assert others + last.limit * (replicas + surge) <= hard
    assert last.limit >= 1024


def test_the_page_of_a_target_says_what_bounds_it() -> None:
    mate = pod("airflow-worker-1", node="b")
    last = killed(on(node("a", 1500), node("b", 1400)), mate)
    page = explain.page("worker/default", spec(), last.seen, api.Status(), last.decision, ())
    assert "room      1500 MiB at most: the node a carries no more than 1500 MiB for airflow-worker-0" in page
    assert "room      1400 MiB for airflow-worker-1, as the node b has no more" in page
    free = killed(Room())
    assert "room" not in explain.page("worker/default", spec(), free.seen, api.Status(), free.decision, ())


def test_what_was_looked_at_is_reported() -> None:
    told = dict(report.document("n/p", observed(worker(pod()), room=quota(1, 1)), ())["lookedAt"])
    assert told["room"] == "1 quota of memory, 0 limit ranges, no nodes, which were not shown"
    seen = observed(worker(pod()), room=on(node("a", 4), largest=4))
    assert report.document("n/p", seen, ())["lookedAt"]["room"] == "0 quotas of memory, 0 limit ranges, 1 node"


def test_an_answer_of_replay_says_where_a_node_has_no_room() -> None:
    policy = {"metadata": {"name": "p", "namespace": "n"}, "spec": spec().model_dump(by_alias=True, mode="json")}
    seen = observed(
        worker(pod(died=NOW, node="a"), pod("airflow-worker-1", node="b")), room=on(node("a", 8000), node("b", 1400))
    )
    (line,) = replay.answers(policy, [transcript.written(seen)], print)
    (target,) = transcript.read_answer(line).targets
    assert (target.desired.memory.limit, target.rooms) == (1536 * MI, {"airflow-worker-1": 1400 * MI})

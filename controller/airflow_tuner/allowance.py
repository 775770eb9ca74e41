"""How much memory a target may have beside what the policy allows: quotas, limit ranges and nodes, read ahead. Pure.

They bound what is raised. What is set already is never lowered for them, and what is not known bounds nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from airflow_tuner import quantity
from airflow_tuner.model import Memory, Observation, Pod, TargetDecision, Workload
from airflow_tuner.quantity import readable
from airflow_tuner.room import LIMITS, Node, Quota, Room
from airflow_tuner.sentence import counted, short
from airflow_tuner.steps import Bounds


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that each pod may have of something, and by whose word."""

    size: int
    told: str
    remedy: str
    shared: bool = False
    """It is of all pods together: more of them would have no more."""


def narrowed(bounds: Bounds, workload: Workload, before: Memory, seen: Observation, *, equal: bool) -> Bounds:
    """The policy's bounds, and within them what else leaves room; `equal`: request and limit move together."""
    room, template = seen.room, workload.template
    settled = max(size or 0 for size in (before.limit, before.request, template.limit, template.request))
    request = min(_of_requests(workload, room), key=lambda cap: cap.size, default=None)
    ratio = min((one.ratio for one in room.ranges if one.ratio is not None), default=None)
    rooms = _rooms(workload, seen)
    limits = [*_of_limits(workload, seen, rooms)]
    if request is not None and (equal or ratio is not None):
        limits.append(replace(request, size=int(quantity.floored(request.size) * (1 if equal else ratio or 1))))
    least = max((quantity.rounded(one.least or 0) for one in room.ranges if one.kind == "Container"), default=0)
    bounds = replace(
        bounds,
        settled=before,
        equal=equal,
        rooms=rooms,
        least=least,
        ratio=ratio,
        request=None if request is None else max(quantity.floored(request.size), bounds.min, before.request or 0),
        request_holder="" if request is None else request.told,
    )
    cap = min(limits, key=lambda cap: cap.size, default=None)
    if cap is None or (most := max(quantity.floored(cap.size), settled)) >= bounds.max:
        return bounds
    narrow = replace(bounds, max=max(most, bounds.min), holder=cap.told, remedy=cap.remedy, shared=cap.shared)
    return replace(narrow, closed=most < bounds.min)


def _rooms(workload: Workload, seen: Observation) -> Mapping[str, int]:
    """The most that a pod's limit may be raised to on its node, by pod; without those whose node is not known."""
    return {name: most for node in seen.room.nodes for name, most in _on(node, workload, seen).items()}


def taken(seen: Observation, target: TargetDecision) -> Observation:
    """The same look, with the room taken that a decision takes: the next target has only what it leaves."""
    workload, want = target.workload, target.desired.memory
    room, more = seen.room, dict[str, int]()
    for pod in workload.living:
        raised = min(want.limit or 0, target.rooms.get(pod.name, want.limit or 0))
        more[pod.node] = more.get(pod.node, 0) + max(0, raised - _size(pod))
    nodes = tuple(replace(node, held=node.held + more.get(node.name, 0)) for node in room.nodes)
    counts = tuple(
        replace(quota, used=quota.used + max(0, _pods(workload) * (_of(want, quota) or 0) - _present(workload, quota)))
        for quota in room.quotas
    )
    return replace(seen, room=replace(room, nodes=nodes, quotas=counts))


def _of_requests(workload: Workload, room: Room) -> Iterator[Cap]:
    """What bounds a request."""
    for quota in room.quotas:
        if quota.figure != LIMITS:
            yield _of_quota(workload, quota)
    if room.largest is not None:
        beside = workload.beside.request or 0
        also = f", of which {readable(beside)} go to its other containers" if beside else ""
        yield Cap(
            room.largest - beside,
            f"the largest node has {readable(room.largest)} for a pod{also}: with more it would be pending for ever",
            "Add a larger node",
        )


def _of_limits(workload: Workload, seen: Observation, known: Mapping[str, int]) -> Iterator[Cap]:
    """What bounds a limit."""
    for quota in seen.room.quotas:
        if quota.figure == LIMITS:
            yield _of_quota(workload, quota)
    for one in seen.room.ranges:
        if one.most is not None:
            beside = (workload.beside.limit or 0) if one.kind == "Pod" else 0
            told = f"the LimitRange {short(one.name)} allows a {one.kind.lower()} {readable(one.most)}"
            yield Cap(one.most - beside, told, f"Raise the LimitRange {short(one.name)}")
    if known and known.keys() == {pod.name for pod in workload.living}:
        # Of several nodes the roomiest counts: on each of the others its own room holds its pods.
        pod = max(workload.living, key=lambda pod: known[pod.name])
        node = seen.room.node(pod.node)
        yield Cap(
            known[pod.name],
            f"the node {short(pod.node)} carries no more than {readable(known[pod.name])} for "
            f"{short(pod.name)}{_told_of(node)}",
            "Give its nodes more memory, or move other pods away",
        )


def _told_of(node: Node | None) -> str:
    if node is None:
        return ""
    return f" (of {readable(node.allocatable)} other pods request {readable(node.held)}; Airflow's share the rest)"


def _of_quota(workload: Workload, quota: Quota) -> Cap:
    number = _pods(workload)
    left = quota.hard - quota.used + _present(workload, quota)
    pods = counted(number - workload.surge, "pod", "pods") + (" and one of a rollout" if workload.surge else "")
    name = f"the ResourceQuota {short(quota.name)}"
    return Cap(
        max(0, left) // number,
        f"{name} leaves each of its pods {readable(max(0, left) // number)} ({quota.figure}: {readable(quota.used)} of "
        f"{readable(quota.hard)} in use; {pods})",
        f"Raise {name}",
        shared=True,
    )


def _pods(workload: Workload) -> int:
    """Pods that it may have at once."""
    return max(1, workload.replicas, len(workload.living)) + workload.surge


def _present(workload: Workload, quota: Quota) -> int:
    """What its pods take of a quota."""
    return sum(_of(pod.memory, quota) or 0 for pod in workload.living)


def _of(memory: Memory, quota: Quota) -> int | None:
    return memory.limit if quota.figure == LIMITS else memory.request


def _on(node: Node, workload: Workload, seen: Observation) -> Mapping[str, int]:
    """The most that the limit of each of its pods on a node may be: all limits of this Airflow there must fit.

    Without pods that have no limit: any limit is less than that.
    """
    own = {pod.name: _size(pod) for pod in workload.living if pod.node == node.name and pod.memory.limit}
    others = sum(
        _size(pod)
        for other in seen.workloads
        if other.target != workload.target
        for pod in other.living
        if pod.node == node.name
    ) + sum(_size(pod) for pod in workload.living if pod.node == node.name and not pod.memory.limit)
    level = _level([*own.values()], node.allocatable - node.held - others)
    return {name: max(size, quantity.floored(level)) for name, size in own.items()}


def _level(sizes: Collection[int], free: int) -> int:
    """The size up to which all may be raised, so that together they fit; 0 where they do not fit as they are."""
    left = sorted(sizes)
    while left:
        level = free // len(left)
        if level >= left[-1]:
            return level
        # What is larger than its share keeps what it has.
        free -= left.pop()
    return 0


def _size(pod: Pod) -> int:
    """What a pod may take on its node, as far as that is bounded."""
    return pod.memory.limit or pod.memory.request or 0

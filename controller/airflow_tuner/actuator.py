"""Makes running pods match what was decided. New pods are shaped at admission.

Memory and slots change in place, without a restart: memory first where slots rise. What a living process cannot take up
waits for a restart, and that is asked of the Eviction API, which holds it against disruption budgets.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

from airflow_tuner import quantity
from airflow_tuner.cluster import Cluster, NotFound, path
from airflow_tuner.errors import Refused, Stale, TunerError
from airflow_tuner.model import Decision, Memory, Pod, Slots, TargetDecision
from airflow_tuner.past import from_tuned
from airflow_tuner.restarts import Waiting
from airflow_tuner.status import needs_resize, needs_slots, resized

AT_ONCE = 8
"""Most workers whose slots are changed in one turn."""

DEFERRED = timedelta(seconds=60)
"""A request that waits so long for room on its node is withdrawn: with it the answer to the next kill would wait."""

ROOM_AGAIN = timedelta(minutes=10)
"""After this long it is asked for once more."""

NO_ROOM = "Deferred: its node has no room for the request that was decided; that is asked for again every 10 minutes."

Resources = dict[str, int]
"""Bytes of memory, as `limits` and as `requests`."""


class SlotSetter(Protocol):
    """What gives the worker in a pod its slots: a broker, or what knows how the worker calls itself there."""

    async def set_slots(self, name: str, now: Slots, slots: int) -> None:
        """As `Broker.set_slots`."""


async def resize(
    cluster: Cluster, namespace: str, decision: Decision, waits: dict[str, datetime], now: datetime
) -> tuple[int, dict[str, str]]:
    """Resize every pod that is ours and has less than decided: (how many were asked for, refusals by pod).

    `waits`: since when the nodes had no room for a pod's request, by UID; kept up to date here.
    """
    asked, refusals = 0, {}
    for target in decision.targets:
        for pod in target.workload.living:
            if not needs_resize(target, pod.name):
                continue
            if _no_room(target, pod, now):
                waits[pod.uid] = now
            bare = pod.uid in waits and now - waits[pod.uid] < ROOM_AGAIN
            if bare:
                refusals[pod.name] = NO_ROOM
            steps = _withdrawn(target, pod) if bare else _steps(target, pod)
            try:
                for step in steps:
                    await _patch(cluster, namespace, target, pod, step)
                asked += bool(steps)
            except NotFound:
                continue
            except Stale:
                # The pod has changed since it was seen; the next turn looks again.
                asked += 1
            except Refused as error:
                refusals[pod.name] = str(error)
    return asked, refusals


async def set_slots(
    broker: SlotSetter | None, decision: Decision, refused: Mapping[str, str]
) -> tuple[int, dict[str, str]]:
    """Give the workers that answer the slots that were decided: (how many were asked, refusals by pod).

    `refused`: by whom, in the last turn. A raise waits until the memory that carries it is in force in the pod.
    """
    if broker is None:
        return 0, {}
    wanting = [
        (pod, pod.slots, target.desired.concurrency)
        for target in decision.targets
        for pod in target.workload.living
        if pod.slots is not None and target.desired.concurrency is not None and needs_slots(target, pod)
        if target.desired.concurrency < pod.slots.processes or _carries(target, pod)
    ]
    # A worker may take seconds, and the next turn must not wait for all of a hundred; who refused last comes last.
    wanting.sort(key=lambda item: item[0].name in refused)
    chosen = wanting[:AT_ONCE]
    answers = await asyncio.gather(
        *(broker.set_slots(pod.name, now, slots) for pod, now, slots in chosen), return_exceptions=True
    )
    refusals = {}
    for (pod, _, _), answer in zip(chosen, answers, strict=True):
        if isinstance(answer, TunerError):
            refusals[pod.name] = str(answer)
        elif isinstance(answer, BaseException):
            raise answer
    return len(chosen) - len(refusals), refusals


async def evict(cluster: Cluster, namespace: str, waiting: Waiting, *, trial: bool = False) -> str:
    """Ask that a pod be ended, with its own grace period; why not, where the API server refuses it.

    `trial`: only whether it would be.
    """
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": waiting.pod.name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": waiting.pod.uid}, **({"dryRun": ["All"]} if trial else {})},
    }
    try:
        await cluster.create(path("v1", "pods", namespace, waiting.pod.name, "eviction"), body)
    except NotFound:
        return ""
    except Refused as error:
        return str(error)
    return ""


def _carries(target: TargetDecision, pod: Pod) -> bool:
    """The limit that was decided is in force in the pod."""
    limit = target.desired.memory.limit
    return limit is not None and pod.running is not None and (pod.running.limit or 0) >= limit


def _no_room(target: TargetDecision, pod: Pod, now: datetime) -> bool:
    """A resize of the pod waits for room on its node, and has done so for long, or stands in a limit's way."""
    if pod.deferred is None:
        return False
    desired = from_tuned(target.tuned) or Memory()
    return now - pod.deferred >= DEFERRED or (pod.memory.limit or 0) < (desired.limit or 0)


def _withdrawn(target: TargetDecision, pod: Pod) -> list[Resources]:
    """The request as it is in force, with the limit that was decided: a limit needs no room.

    A Guaranteed pod's limit cannot go without its request: it stays as it is.
    """
    if pod.running is None:
        return []
    desired, running = from_tuned(target.tuned) or Memory(), pod.running
    limit = running.limit if pod.guaranteed else max(desired.limit or 0, running.limit or 0)
    wanted = Memory(running.request, limit)
    return [] if pod.memory == wanted else [{"limits": limit or 0, "requests": running.request or 0}]


def _steps(target: TargetDecision, pod: Pod) -> list[Resources]:
    """What to ask for, one after the other; nothing where the pod's spec has it and the kubelet is at work."""
    wanted = resized(target, pod)
    if wanted is None or pod.memory == wanted:
        return []
    limit, request = wanted.limit or 0, wanted.request or 0
    if not pod.guaranteed and request > (pod.memory.request or 0) and limit > (pod.memory.limit or 0):
        # The limit first: a request that the node cannot hold would defer the whole resize.
        return [{"limits": limit}, {"requests": request}]
    return [{"limits": limit, "requests": request}]


async def _patch(cluster: Cluster, namespace: str, target: TargetDecision, pod: Pod, step: Resources) -> None:
    resources = {kind: {"memory": quantity.mebibytes(size)} for kind, size in step.items()}
    body = {
        "metadata": {"uid": pod.uid},
        "spec": {"containers": [{"name": target.workload.container, "resources": resources}]},
    }
    await cluster.patch(path("v1", "pods", namespace, pod.name, "resize"), body)

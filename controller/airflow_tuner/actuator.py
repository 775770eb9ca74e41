"""Makes running pods match what was decided. New pods are shaped at admission.

Memory, CPU and slots change in place, without a restart: memory first where slots rise. What a living process cannot
take up waits for a restart, and that is asked of the Eviction API, which holds it against disruption budgets.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from airflow_tuner import quantity
from airflow_tuner.cluster import Cluster, NotFound, path
from airflow_tuner.errors import Refused, Stale, TunerError
from airflow_tuner.model import Cpu, Decision, Memory, Pod, Slots, TargetDecision
from airflow_tuner.quantity import mebibytes
from airflow_tuner.restarts import Waiting
from airflow_tuner.status import meant, needs_resize, needs_slots, resized, resized_cpu

AT_ONCE = 8
"""Most workers whose slots are changed in one turn."""

DEFERRED = timedelta(seconds=60)
"""A request that waits so long for room on its node is withdrawn: with it the answer to the next kill would wait."""

ROOM_AGAIN = timedelta(minutes=10)
"""After this long it is asked for once more."""

NO_ROOM = "Deferred: its node has no room for the request that was decided; that is asked for again every 10 minutes."

Resources = dict[str, dict[str, str]]
"""Quantities of memory or CPU, as `limits` and as `requests`."""


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
            steps = _withdrawn(target, pod) if bare else [*_memory_steps(target, pod), *_cpu_steps(target, pod)]
            try:
                await _ask(cluster, namespace, target, pod, steps)
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
    memory, cpu = meant(target, pod) or Memory(), resized_cpu(target, pod) or Cpu()
    raises = (pod.memory.limit or 0) < (memory.limit or 0) or (pod.cpu.limit or 0) < (cpu.limit or 0)
    return now - pod.deferred >= DEFERRED or raises


def _withdrawn(target: TargetDecision, pod: Pod) -> list[Resources]:
    """The requests as they are in force, with the limits that were decided: a limit needs no room.

    A Guaranteed pod's limits cannot go without its requests: they stay as they are.
    """
    if pod.running is None:
        return []
    desired, running = meant(target, pod) or Memory(), pod.running
    limit = running.limit if pod.guaranteed else max(desired.limit or 0, running.limit or 0)
    wanted = Memory(running.request, limit)
    steps = [] if pod.memory == wanted else [_written("memory", mebibytes, limit or 0, running.request or 0)]
    cpu, in_force = resized_cpu(target, pod), pod.running_cpu
    if cpu is None or in_force is None or in_force.request is None:
        # What was not there cannot be taken away again.
        return steps
    kept = Cpu(in_force.request, in_force.limit if pod.guaranteed else cpu.limit)
    return steps if pod.cpu == kept else [*steps, _written("cpu", quantity.cpu, kept.limit, in_force.request)]


def _memory_steps(target: TargetDecision, pod: Pod) -> list[Resources]:
    """What to ask for, one after the other; nothing where the pod's spec has it and the kubelet is at work."""
    wanted = resized(target, pod)
    if wanted is None or pod.memory == wanted:
        return []
    raises = (wanted.request or 0) > (pod.memory.request or 0) and (wanted.limit or 0) > (pod.memory.limit or 0)
    return _ordered("memory", mebibytes, wanted.limit or 0, wanted.request or 0, apart=raises and not pod.guaranteed)


def _cpu_steps(target: TargetDecision, pod: Pod) -> list[Resources]:
    """The same for CPU, whose limit may be left out."""
    wanted = resized_cpu(target, pod)
    if wanted is None or pod.cpu == wanted:
        return []
    raises = (wanted.request or 0) > (pod.cpu.request or 0) and (wanted.limit or 0) > (pod.cpu.limit or 0)
    return _ordered("cpu", quantity.cpu, wanted.limit, wanted.request or 0, apart=raises and not pod.guaranteed)


def _ordered(
    name: str, written: Callable[[int], str], limit: int | None, request: int, *, apart: bool
) -> list[Resources]:
    """`apart`: the limit first, as a request that the node cannot hold would defer the whole resize."""
    whole = _written(name, written, limit, request)
    return [{kind: whole[kind]} for kind in ("limits", "requests")] if apart else [whole]


def _written(name: str, written: Callable[[int], str], limit: int | None, request: int) -> Resources:
    limits = {} if limit is None else {"limits": {name: written(limit)}}
    return {**limits, "requests": {name: written(request)}}


async def _ask(cluster: Cluster, namespace: str, target: TargetDecision, pod: Pod, steps: list[Resources]) -> None:
    """Take the steps; where one is refused, all of them at once: a LimitRange may bind the limit to the request."""
    try:
        for step in steps:
            await _patch(cluster, namespace, target, pod, step)
    except NotFound:
        raise
    except Refused:
        if len(steps) == 1:
            raise
        whole: Resources = {}
        for step in steps:
            for kind, sizes in step.items():
                whole[kind] = {**whole.get(kind, {}), **sizes}
        await _patch(cluster, namespace, target, pod, whole)


async def _patch(cluster: Cluster, namespace: str, target: TargetDecision, pod: Pod, step: Resources) -> None:
    body = {
        "metadata": {"uid": pod.uid},
        "spec": {"containers": [{"name": target.workload.container, "resources": step}]},
    }
    await cluster.patch(path("v1", "pods", namespace, pod.name, "resize"), body)

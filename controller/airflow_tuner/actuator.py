"""Makes running pods match what was decided. New pods are shaped at admission.

Memory and slots change in place, without a restart: memory first where slots rise. What a living process cannot take up
waits for a restart, and that is asked of the Eviction API, which holds it against disruption budgets.
"""

import asyncio
from collections.abc import Mapping

from airflow_tuner import quantity
from airflow_tuner.broker import Broker
from airflow_tuner.cluster import Cluster, NotFound, path
from airflow_tuner.decide import from_tuned
from airflow_tuner.errors import Refused, Stale, TunerError
from airflow_tuner.model import Decision, Memory, Pod, TargetDecision
from airflow_tuner.restarts import Waiting
from airflow_tuner.status import needs_resize, needs_slots

AT_ONCE = 8
"""Most workers whose slots are changed in one turn."""


async def resize(cluster: Cluster, namespace: str, decision: Decision) -> tuple[int, dict[str, str]]:
    """Resize every pod that is ours and has less than decided: (how many were asked for, refusals by pod)."""
    asked, refusals = 0, {}
    for target in decision.targets:
        for pod in target.workload.living:
            if not needs_resize(target, pod.name) or _asked_before(target, pod):
                continue
            try:
                await _resize(cluster, namespace, target, pod)
                asked += 1
            except NotFound:
                continue
            except Stale:
                # The pod has changed since it was seen; the next turn looks again.
                asked += 1
            except Refused as error:
                refusals[pod.name] = str(error)
    return asked, refusals


async def set_slots(
    broker: Broker | None, decision: Decision, refused: Mapping[str, str]
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


def _asked_before(target: TargetDecision, pod: Pod) -> bool:
    """The pod's spec has it already, and the kubelet is at work."""
    desired = from_tuned(target.tuned) or Memory()
    return (pod.memory.limit or 0) >= (desired.limit or 0) and (pod.memory.request or 0) >= (desired.request or 0)


async def _resize(cluster: Cluster, namespace: str, target: TargetDecision, pod: Pod) -> None:
    desired = from_tuned(target.tuned) or Memory()
    limit = max(desired.limit or 0, pod.memory.limit or 0)
    request = max(desired.request or 0, pod.memory.request or 0)
    steps = [{"limits": limit, "requests": request}]
    if not pod.guaranteed and request > (pod.memory.request or 0):
        # The limit first: a request that the node cannot hold would defer the whole resize.
        steps = [{"limits": limit}, {"requests": request}]
    for step in steps:
        resources = {kind: {"memory": quantity.mebibytes(size)} for kind, size in step.items()}
        body = {
            "metadata": {"uid": pod.uid},
            "spec": {"containers": [{"name": target.workload.container, "resources": resources}]},
        }
        await cluster.patch(path("v1", "pods", namespace, pod.name, "resize"), body)

"""A policy's memory beside its status: a status is a view, and may be lost. Pure."""

from collections.abc import Mapping

from airflow_tuner import api
from airflow_tuner.history import History, packed, unpacked
from airflow_tuner.model import Observation, Workload
from airflow_tuner.past import from_api

NONE: Mapping[str, History] = {}
MOST = 240
"""Histories that are kept: of as many targets as a status has, three of each group of workers."""

LARGEST = 800 * 1024
"""Characters of histories that are kept: etcd takes no object above 1.5 MiB, and the rest of a checkpoint is as large
as a status. 80 groups of workers with loads that differ from hour to hour have so many (measured)."""


def remembered(status: api.Status, policy: str, histories: Mapping[str, History] = NONE) -> api.Remembered:
    """What of a status must not be forgotten, and the histories; `policy`: the UID."""
    freshest = sorted(histories, key=lambda target: (-histories[target].end, target))[:MOST]
    peaks, room = [], LARGEST
    for target in freshest:
        told = packed(histories[target])
        if (room := room - len(told)) >= 0:
            peaks.append(api.Peaks(target=target, packed=told))
    return api.Remembered(
        policy=policy,
        airflow_version=status.airflow_version,
        # What can be seen again is left out, so that a checkpoint is written seldom.
        targets=[
            target.model_copy(update={"pods": 0, "running": api.Values(), "peak": None}) for target in status.targets
        ],
        tuned=status.tuned,
        history=status.history,
        peaks=sorted(peaks, key=lambda item: item.target),
    )


def histories(memory: api.Remembered | None, policy: str) -> dict[str, History]:
    """The histories that are remembered of a policy."""
    if memory is None or memory.policy != policy:
        return {}
    return {item.target: unpacked(item.packed) for item in memory.peaks}


def recalled(prior: api.Status, memory: api.Remembered, policy: str, seen: Observation) -> api.Status:
    """`prior`, or where it was lost, what is remembered of it.

    A target whose pods have more than is remembered is left out: the memory is older than the last decision, and the
    pods are asked instead.
    """
    if prior.targets or prior.tuned or prior.history or memory.policy != policy:
        return prior
    stale = {workload.target for workload in seen.workloads if _outgrown(workload, memory)}
    return prior.model_copy(
        update={
            "airflow_version": prior.airflow_version or memory.airflow_version,
            "targets": [target for target in memory.targets if target.name not in stale],
            "tuned": [entry for entry in memory.tuned if entry.target not in stale],
            "history": memory.history,
        }
    )


def _outgrown(workload: Workload, memory: api.Remembered) -> bool:
    entry = next((target for target in memory.targets if target.name == workload.target), None)
    if entry is None:
        return False
    known = from_api(entry.recommended)
    limit, request = known.memory.limit or 0, known.cpu.request
    return any(
        ((pod.decision or pod.resized) and (pod.memory.limit or 0) > limit)
        or ((pod.decision or pod.resized_cpu) and request is not None and (pod.cpu.request or 0) > request)
        for pod in workload.living
    )

"""Out-of-memory kills, both kinds, and which of them no decision has answered yet.

Where the kernel kills a whole container, the API server shows `OOMKilled`. Where it kills one process, the container
lives on and no Kubernetes object changes: only cAdvisor's count tells. Each kind alone misses half of all clusters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_tuner import api
from airflow_tuner.model import Kill, Kind, Pod, Usage, Workload

RECENT = timedelta(hours=24)
"""A container's death older than this, met for the first time, is history and not a reason to act."""

LATE = timedelta(seconds=75)
"""A kill may show this late: cAdvisor copies the kernel's counters after up to 15 s (measured on kubelet 1.36), and the
next scrape usually comes within a minute."""

AT_LIMIT = 0.95
"""A high-water mark from this share of the limit on means that the container reached the limit."""


@dataclass(frozen=True, slots=True)
class Raise:
    """The last raise of a target's limit."""

    at: datetime
    before: int | None
    """The limit until then."""


def unanswered(
    workload: Workload, answered: Mapping[str, api.Answered], raised: Raise | None, now: datetime
) -> tuple[Kill, ...]:
    """The kills that still ask for an answer. A kill from before the last raise was answered by that raise."""
    found: list[Kill | None] = []
    for pod in workload.pods:
        known = answered.get(pod.uid, api.Answered(pod=pod.name, uid=pod.uid))
        found += (_death(pod, known, raised, now), _process_kills(pod, known, raised))
    return tuple(kill for kill in found if kill is not None)


def recent_process_kills(usage: Usage) -> int:
    """Processes that were killed within the last hour, as far as the metrics go back."""
    if usage.process_kills is None:
        return 0
    before = usage.process_kills_before.value if usage.process_kills_before else 0
    return max(0, int(usage.process_kills.value) - int(before))


def well_below(pod: Pod, raised: Raise | None) -> bool:
    """The living container has not come near a limit it had: what killed its processes is the node's shortage."""
    limit, peak = _limit(pod), pod.usage.peak
    if limit is None:
        return True
    return peak is not None and peak.value < AT_LIMIT * min(limit, _limit_before(pod, raised) or limit)


def evidence(workload: Workload) -> tuple[api.Answered, ...]:
    """What `answered` becomes when everything seen in this turn has been answered."""
    entries = (
        api.Answered(
            pod=pod.name,
            uid=pod.uid,
            deaths=pod.death.number if pod.death else 0,
            container_id=pod.container_id if pod.usage.process_kills else "",
            process_kills=int(pod.usage.process_kills.value) if pod.container_id and pod.usage.process_kills else 0,
        )
        for pod in workload.pods
    )
    return tuple(entry for entry in entries if entry.deaths or entry.process_kills)


def merged(
    old: tuple[api.Answered, ...], new: tuple[api.Answered, ...], workload: Workload
) -> tuple[api.Answered, ...]:
    """`old` brought up to `new`, without the pods that are gone. A count that cannot be read now is kept."""
    alive = {pod.uid for pod in workload.pods}
    kept = {entry.uid: entry for entry in old if entry.uid in alive}
    for entry in new:
        last = kept.get(entry.uid, entry)
        # A count only grows in one container: the lower answer of a second, slower replica of the source is no news.
        floor = last.process_kills if entry.container_id in {"", last.container_id} else 0
        kept[entry.uid] = entry.model_copy(
            update={
                "deaths": max(entry.deaths, last.deaths),
                "container_id": entry.container_id or last.container_id,
                "process_kills": max(entry.process_kills, floor),
            }
        )
    return tuple(kept[uid] for uid in sorted(kept))


def _death(pod: Pod, known: api.Answered, raised: Raise | None, now: datetime) -> Kill | None:
    death = pod.death
    if death is None or death.number <= known.deaths or now - death.at > RECENT:
        return None
    if raised is not None and death.at <= raised.at <= now:
        return None
    limit = _limit(pod)
    return Kill(pod=pod, kind=Kind.CONTAINER, count=1, at=death.at, limit=limit, of_node=limit is None)


def _process_kills(pod: Pod, known: api.Answered, raised: Raise | None) -> Kill | None:
    kills, before, peak = pod.usage.process_kills, pod.usage.process_kills_before, pod.usage.peak
    if kills is None or not pod.container_id:
        return None
    counted = known.process_kills if known.container_id == pod.container_id else int(before.value if before else 0)
    fresh = int(kills.value) - counted
    if fresh <= 0:
        return None
    limit = _limit(pod)
    at_limit = limit is not None and (peak is None or peak.value >= AT_LIMIT * limit)
    late = raised is not None and pod.created <= raised.at and kills.at <= raised.at + LATE
    if late and not well_below(pod, raised) and (peak is None or not at_limit):
        return None
    return Kill(pod=pod, kind=Kind.PROCESS, count=fresh, at=kills.at, limit=limit, of_node=not at_limit)


def _limit(pod: Pod) -> int | None:
    return (pod.running or pod.memory).limit


def _limit_before(pod: Pod, raised: Raise | None) -> int | None:
    return None if raised is None or pod.created > raised.at else raised.before

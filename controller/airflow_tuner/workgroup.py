"""One group of Celery workers, and what bounds the slots that each of them may have. Pure."""

import math
from dataclasses import dataclass
from datetime import timedelta

from airflow_tuner import api, environment, quantity, stranded
from airflow_tuner.autoscaler import VERTICAL
from airflow_tuner.footprint import GROWN, Footprint
from airflow_tuner.lag import Flow
from airflow_tuner.model import Memory, Observation, Pod, Values, Workload
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import short
from airflow_tuner.steps import Bounds, Past
from airflow_tuner.telemetry import Tasks

ENDURED = timedelta(days=7)
"""Slots that a kill at the policy's largest limit took are given back to the rule after this long."""


@dataclass(frozen=True, slots=True)
class Group:
    """All that a decision about one group of workers looks at."""

    spec: api.Spec
    limits: api.Concurrency
    bounds: Bounds
    workload: Workload
    pods: tuple[Pod, ...]
    past: Past
    before: Values
    slots: int
    seen: Observation

    @property
    def of(self) -> str:
        """Whose slots, as the end of a clause."""
        return f"for each worker of {short(self.workload.label)}"

    @property
    def alone(self) -> bool:
        """It is the only one, and so serves all queues."""
        return sum(item.component == "worker" for item in self.seen.workloads) == 1


def in_force(pod: Pod, workload: Workload) -> int | None:
    """Slots that a worker has; `None`: not known."""
    if pod.slots is not None:
        return pod.slots.processes
    return environment.stated(workload.component, pod.environment, None).concurrency or workload.stated.concurrency


def live(group: Group) -> bool:
    """Its slots can be set both ways while all its workers run, of which nothing else changes the number."""
    told = [pod.slots for pod in group.pods]
    alone = group.spec.mode is api.Mode.ENFORCE and not any(
        item.kind != VERTICAL for item in group.seen.autoscalers_of(group.workload)
    )
    return alone and group.seen.broker is not None and all(slots is None or slots.autoscaled for slots in told)


def waits(group: Group) -> str:
    """Why slots that would help do not rise yet; empty where they do."""
    cooldown = timedelta(seconds=group.spec.changes.cooldown.concurrency_seconds)
    changed, loss, now = group.past.slots_changed, stranded.lost(group.pods, group.seen.at), group.seen.at
    if changed is not None and now - changed < cooldown:
        return f"Slots were changed at {changed:%H:%M:%S}: the cooldown is running."
    if loss is not None and now - loss.at < stranded.SHOWS:
        return f"{loss.told}: by {loss.at + stranded.SHOWS:%H:%M:%S} it shows whether tasks are stranded with it."
    return ""


def room(group: Group, carried: Footprint) -> int:
    """Slots that the largest limit carries: as the model says, and as kills at that limit have shown."""
    room, endured, at = carried.most(group.bounds.max, group.slots), group.past.endured, group.past.endured_at
    if endured is None or endured.concurrency is None:
        return room
    had = group.before.memory.limit or 0
    # On a node without room for the limit the kill comes again.
    full = any(most < had for most in group.bounds.rooms.values())
    if (endured.memory.limit or 0) < group.bounds.max and not full:
        return room
    if at is not None and group.seen.at - at > ENDURED:
        return room
    return min(room, endured.concurrency)


def parallelism(group: Group, found: Flow, tasks: Tasks) -> int:
    """Slots of each worker that core.parallelism lets be busy; where it is not known, it does not bind."""
    if tasks.parallelism is None:
        return group.limits.max
    return math.ceil(tasks.parallelism * group.seen.schedulers / found.workers)


def carrying(group: Group, carried: Footprint, slots: int) -> Memory:
    """The memory that carries so many slots: never less than before."""
    memory = group.before.memory
    limit = max(memory.limit or 0, carried.need(slots, slots - group.slots))
    if group.bounds.equal:
        return Memory(limit, limit)
    if memory.request is None:
        return Memory(None, limit)
    stated, template = group.workload.stated.concurrency, group.workload.template.request
    if stated is None or template is None:
        stated, template = max(group.slots, group.before.concurrency or 0), memory.request
    # From the template on, so that slots that come and go do not add up.
    each = carried.per_slot + GROWN
    asked = template + quantity.rounded(max(0, slots - stated) * each)
    # Nor beyond what is added, where the request has come down from the template's.
    asked = min(asked, memory.request + quantity.rounded(max(0, slots - group.slots) * each))
    return Memory(min(limit, max(memory.request, asked)), limit)


def raised(group: Group, memory: Memory) -> str:
    """That limit and request rise too, as a clause; empty where they stay."""
    before = group.before.memory
    limit = "" if memory.limit == before.limit else f", memory limit {limit_of(before)} -> {limit_of(memory)}"
    if memory.request == before.request or memory.request is None or before.request is None:
        return limit
    return f"{limit}, {'' if limit else 'memory '}request {readable(before.request)} -> {readable(memory.request)}"


def limit_of(memory: Memory) -> str:
    """The limit, for people."""
    return "none" if memory.limit is None else readable(memory.limit)

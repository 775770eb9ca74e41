"""How many slots the coming hour asks for, from the tasks of past hours at this time of the day. Pure.

The forecast is that of memory, at a milder risk: slots that were foreseen too few are raised as soon as tasks wait, and
nobody is killed for them. Slots follow the hours only where they can be set while workers run.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_tuner import lag, sizing, stranded
from airflow_tuner.footprint import Footprint
from airflow_tuner.forecast import forecast
from airflow_tuner.history import History, hour_of, of_tasks
from airflow_tuner.lag import Flow
from airflow_tuner.model import MetricsState
from airflow_tuner.sentence import first
from airflow_tuner.steps import Step
from airflow_tuner.telemetry import Tasks
from airflow_tuner.workgroup import Group, carrying, parallelism, raised, room, waits

RISK = 7
"""Days in which more tasks than foreseen come once: they wait for a turn of the operator, no more."""

LEAD = timedelta(minutes=10)
"""So long before an hour begins its slots are there: memory and slots must both be in force by then."""

AGAIN = timedelta(minutes=30)
"""After a change of slots, before they are lowered for the time of day."""

WORTH = 0.1
"""Share of the slots from which fewer are worth a change."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the tasks of past hours ask for."""

    tasks: float
    """As many at once as the present hour brings, and the one that begins within `LEAD`."""
    rule: str
    """What they are foreseen from, as a noun."""
    days: float
    """Days that are known."""

    def slots(self, workers: int) -> int:
        """Of each worker."""
        return math.ceil(self.tasks / workers)


def foreseen(history: History | None, now: datetime) -> Demand | None:
    """`None`: too little is known."""
    hour, soon = hour_of(now), hour_of(now + LEAD)
    ahead = () if history is None else forecast(history, hour, RISK)
    if not ahead:
        return None
    most = max(ahead[: soon - hour + 1], key=lambda one: one.safe)
    return Demand(most.safe, most.rule, most.days)


def step(group: Group, carried: Footprint, found: Flow, tasks: Tasks) -> tuple[Step | None, str]:
    """Slots follow the hours: up before the one that needs them, down once it is over. And why they do not."""
    told = foreseen(group.seen.histories.get(of_tasks(group.workload.target)), group.seen.at)
    if told is None or group.before.memory.limit is None:
        return None, ""
    slots, limits = group.slots, group.limits
    # What runs now counts too, whatever was foreseen.
    wanted = max(told.slots(found.workers), found.demand, limits.min)
    why = (
        f"{told.tasks:.0f} tasks at once are foreseen until {group.seen.at + LEAD:%H:%M} (from {told.rule}, of "
        f"{told.days:.1f} days, exceeded once in {RISK}); {found.running} run and {found.waiting} wait now."
    )
    if wanted > slots:
        reached = min(wanted, limits.max, room(group, carried), parallelism(group, found, tasks))
        # Fewer than the policy's minimum would be refused at admission.
        if reached <= slots or reached < limits.min or waits(group) or _ill(group):
            return None, ""
        limit = carrying(group, carried, reached)
        # What is reserved follows the memory of these hours, which knows what their tasks take.
        memory = (
            limit if sizing.equal(group.spec, group.workload) else replace(limit, request=group.before.memory.request)
        )
        more = replace(group.before, memory=memory, concurrency=reached)
        need = f"Memory: {carried.told(reached, reached - slots)}."
        return Step(
            more, "SlotsForecast", f"Slots {slots} -> {reached}{raised(group, more.memory)} {group.of}: {why} {need}"
        ), ""
    if wanted > (1 - WORTH) * slots or slots > limits.max:
        return None, ""
    if hold := _kept(group):
        return None, hold
    fewer = replace(group.before, concurrency=wanted)
    return Step(fewer, "SlotsReleased", f"Slots {slots} -> {wanted} {group.of}: {why}"), ""


def _ill(group: Group) -> bool:
    """Something is wrong that more slots would make worse."""
    return not group.seen.usual or lag.cpu_short(group.workload, group.pods) is not None


def _kept(group: Group) -> str:
    """Why slots that the hour does not need stay for now; empty where they may go."""
    seen, past = group.seen, group.past
    known, whole = seen.histories[of_tasks(group.workload.target)].week_before(hour_of(seen.at))
    cooldown = max(AGAIN, timedelta(seconds=group.spec.changes.cooldown.concurrency_seconds))
    reasons = {
        "other workers take tasks from its queues": not (group.alone or lag.own_queues(group.workload, seen.workloads)),
        "the past is still being read": seen.reading,
        f"the tasks of only {known} hours of the last week are known": not whole,
        "the metrics are not fresh": seen.metrics.state is not MetricsState.FRESH,
        "not all workers say what they run": bool(seen.broker) or any(pod.slots is None for pod in group.pods),
        "this is no usual time: a DAG runs away, or the database is slow": not seen.usual,
        "tasks are stranded": stranded.found(group.workload, seen, past) is not None,
        "the template was changed within a day": seen.within(past.template_changed, sizing.AFTER_TEMPLATE),
        "slots were changed shortly before": seen.within(past.slots_changed, cooldown),
    }
    why = first(reasons)
    return why and f"Fewer slots would do, but {why}."

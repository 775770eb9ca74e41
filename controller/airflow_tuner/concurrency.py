"""How many slots each Celery worker should have, decided together with the memory they need. Pure.

Slots follow the demand, as far as memory carries them. Where something else holds the tasks back, more slots would not
help, and it is said what it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from airflow_tuner import api, demand, lag, replicas, runaway, stranded
from airflow_tuner.footprint import Footprint, footprint
from airflow_tuner.lag import Flow
from airflow_tuner.model import Kill, Observation, Pod, Values, Workload
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, short
from airflow_tuner.steps import Bounds, Past, Step
from airflow_tuner.telemetry import Tasks
from airflow_tuner.workgroup import Group, carrying, in_force, live, parallelism, raised, room, waits

FEWER = 0.75
"""Share of the slots that a step down keeps: after a kill at the largest limit, or when slots stood idle."""

IDLE = timedelta(days=1)
"""Slots are lowered only after they stood idle, and unchanged, for this long: most loads have a daily peak."""

IDLE_MARGIN = 1.25
"""Slots are idle beyond this times the most that were busy at once."""

OF_SEVERAL = (
    "Of several executors, how many tasks wait for Celery is known only from Airflow's own gauge for it (there is none "
    "with CeleryKubernetesExecutor) and from the workers (spec.celery.brokerSecretRef), of which there is one group."
)
"""Pools and queues count the tasks of all executors."""

SET = (api.EnvName.CONCURRENCY, api.EnvName.AUTOSCALE)


@dataclass(frozen=True, slots=True)
class Assessment:
    """What one group of workers needs, and why it gets it or not."""

    slots: int | None = None
    """Of each worker, as decided or stated; `None`: not known."""
    flow: Flow | None = None
    footprint: Footprint | None = None
    cause: str = ""
    """One CamelCase word: what holds tasks back; empty where the objective is met."""
    told: str = ""
    """The cause as a sentence."""
    hold: str = ""
    """Why nothing is done; empty where nothing needs to be, or something is."""
    step: Step | None = None


def assess(
    spec: api.Spec, bounds: Bounds, workload: Workload, past: Past, before: Values, seen: Observation
) -> Assessment:
    """Look at one group of workers. `before`: what it should have so far."""
    entry = spec.worker(workload.target, workload.name)
    if workload.component != "worker" or entry is None or entry.concurrency is None:
        return Assessment(hold="The policy names no concurrency for it.", step=_given_back(workload, before))
    pods = tuple(pod for pod in workload.living if pod.running is not None)
    slots = _present(spec, workload, pods, before)
    lowered = _lowered(entry.concurrency, workload, before)
    hold = _untouchable(workload, pods, slots) if seen.executors.celery else seen.executors.without_celery
    hold = "" if lowered else hold
    if lowered or hold or slots is None:
        return Assessment(slots, hold=hold, step=lowered)
    group = Group(spec, entry.concurrency, bounds, workload, pods, past, before, slots, seen)
    tasks = seen.airflow.tasks
    total = sum(in_force(pod, workload) or slots for pod in pods)
    objective = spec.objectives.queue_lag_seconds
    several = seen.executors.several
    found = lag.flow(workload, pods, total, tasks, objective, alone=group.alone, several=several) if tasks else None
    running = found.running if found is not None else 0
    carried = footprint(pods, slots, running, past, seen.line, seen.at)
    facts = Assessment(slots, found, carried)
    if (raised := _raised(group, carried)) is not None:
        return replace(facts, step=raised)
    if tasks is None or found is None:
        return replace(facts, hold=_unknown(seen))
    return _late(group, facts, found, tasks) if found.late else _on_time(group, facts, found, tasks)


def _unknown(seen: Observation) -> str:
    """Why it is not known how many tasks wait for the workers."""
    if seen.airflow.tasks is None:
        return seen.airflow.problem or "Airflow's metrics do not say how tasks flow."
    if seen.executors.several:
        return OF_SEVERAL
    return "Airflow 2 does not say which queue waits, and there are several groups of workers."


def _given_back(workload: Workload, before: Values) -> Step | None:
    """The policy no longer names concurrency: admission would refuse the whole entry that still sets it."""
    stated = workload.stated.concurrency
    if workload.component != "worker" or before.concurrency == stated:
        return None
    return Step(
        replace(before, concurrency=stated),
        "BoundsChanged",
        f"The policy no longer names the concurrency of {short(workload.label)}: new pods get the slots that the "
        "template says; running pods are left as they are.",
    )


def _untouchable(workload: Workload, pods: Sequence[Pod], slots: int | None) -> str:
    """Why nothing can be said about these slots; empty where something can."""
    if workload.referenced & {*SET}:
        return "Its slots are set by reference (valueFrom): that is left alone."
    if slots is None:
        return (
            "Its slots are not known: give spec.celery.brokerSecretRef, or state "
            f"{api.EnvName.CONCURRENCY} in its environment (workers.env of the chart)."
        )
    return "" if pods else "No worker runs."


def fewer(
    workload: Workload, before: Values, limits: api.Concurrency, own: Sequence[Kill], slots: int, bounds: Bounds
) -> Step | None:
    """After a kill at the largest limit there is: fewer slots, down to the policy's minimum."""
    after = max(limits.min, min(limits.max, slots - 1, math.floor(FEWER * slots)))
    if after >= slots or workload.referenced & {*SET}:
        return None
    killed = counted(sum(kill.count for kill in own), "kill", "kills")
    return Step(
        replace(before, concurrency=after),
        "MemoryBound",
        f"Slots {slots} -> {after} for each worker of {short(workload.label)}: {killed} for memory at a limit of "
        f"{readable(max(kill.limit or 0 for kill in own))}, {_largest(own, bounds)}. Fewer tasks at once leave more "
        "memory to each.",
    )


def _largest(own: Sequence[Kill], bounds: Bounds) -> str:
    """Why it is no more."""
    if max(kill.limit or 0 for kill in own) < bounds.max:
        return f"and the node {short(own[0].pod.node)} has no more"
    return f"and no more is to be had: {bounds.holder}" if bounds.holder else "the policy's maximum"


def _present(spec: api.Spec, workload: Workload, pods: Sequence[Pod], before: Values) -> int | None:
    """Slots of each worker: as decided, where that is enforced; else as the template states, or the workers say."""
    decided = before.concurrency if spec.mode is api.Mode.ENFORCE else None
    shown = max((in_force(pod, workload) or 0 for pod in pods), default=0)
    return decided or workload.stated.concurrency or shown or None


def _lowered(limits: api.Concurrency, workload: Workload, before: Values) -> Step | None:
    """What was decided under a larger maximum moves down to the present one at once, even where no worker runs."""
    slots = before.concurrency
    if slots is None or slots == workload.stated.concurrency or slots <= limits.max:
        return None
    return _moved(limits, workload, before, limits.max)


def _raised(group: Group, carried: Footprint) -> Step | None:
    """What was decided under a smaller minimum moves up to the present one, where memory carries it."""
    limits, slots, limit = group.limits, group.before.concurrency, group.before.memory.limit
    if slots is None or slots == group.workload.stated.concurrency or slots >= limits.min or limit is None:
        return None
    if carried.need(limits.min, limits.min - slots) > group.bounds.max:
        return None
    before = replace(group.before, memory=carrying(group, carried, limits.min))
    return _moved(limits, group.workload, before, limits.min)


def _moved(limits: api.Concurrency, workload: Workload, before: Values, after: int) -> Step:
    return Step(
        replace(before, concurrency=after),
        "BoundsChanged",
        f"Slots {before.concurrency} -> {after} for each worker of {short(workload.label)}: the policy's bounds are "
        f"now {limits.min} to {limits.max}.",
    )


def _late(group: Group, facts: Assessment, found: Flow, tasks: Tasks) -> Assessment:
    """The objective is missed: what holds tasks back, and how many more slots help if it is the slots."""
    slots, carried = group.slots, facts.footprint
    other = _other_cause(group, found, tasks)
    if other is not None or carried is None:
        cause, told = other or ("", "")
        back = _back(group, carried, tasks) if carried is not None else None
        return replace(facts, cause=cause, told=told, step=back)
    # Fewer than the policy's minimum would be refused at admission.
    wanted = min(max(found.demand, group.limits.min), group.limits.max)
    most, parallel = room(group, carried), parallelism(group, found, tasks)
    reached = min(wanted, most, parallel)
    if reached <= slots or reached < group.limits.min:
        cause, told = _no_more(group, found, tasks, carried, short_of_memory=most < wanted and most <= parallel)
        return replace(facts, cause=cause, told=told)
    told = f"All {found.slots} slots are taken ({found.running} tasks run), and nothing else holds tasks back."
    hold = waits(group)
    step = None if hold else _more(group, found, tasks, carried, reached, most)
    return replace(facts, cause="SlotsExhausted", told=told, hold=hold, step=step)


def _back(group: Group, carried: Footprint, tasks: Tasks) -> Step | None:
    """While a DAG runs away the slots that the template states are there again: fewer would hold up all other tasks."""
    wild, slots, stated = runaway.found(tasks), group.slots, group.workload.stated.concurrency or 0
    after = min(stated, group.limits.max, room(group, carried))
    if wild is None or after <= slots or after < group.limits.min or group.before.memory.limit is None or waits(group):
        return None
    memory = carrying(group, carried, after)
    why = (
        f"Slots {slots} -> {after}{raised(group, memory)} {group.of}, as its template states: {wild.told} Fewer would "
        "let it hold up all others."
    )
    return Step(replace(group.before, memory=memory, concurrency=after), "SlotsReturned", why)


def _other_cause(group: Group, found: Flow, tasks: Tasks) -> tuple[str, str] | None:
    """What but the slots holds tasks back: (a word, a sentence). What must not be answered with slots comes first."""
    if (wild := runaway.found(tasks)) is not None:
        return "RunawayTasks", f"{wild.told} More slots would only run it faster."
    stalled = stranded.found(group.workload, group.seen, group.past)
    if stalled is not None:
        return "StrandedTasks", f"{stalled.told} More slots would not help: see the finding of that name."
    behind = [pod.name for pod in group.pods if (in_force(pod, group.workload) or group.slots) < group.slots]
    if behind and group.spec.mode is api.Mode.ENFORCE:
        told = f"The {group.slots} slots decided are not in force yet in {len(behind)} of {len(group.pods)} workers."
        return "SlotsNotInForce", told
    schedulers = group.seen.of("scheduler")
    other = lag.other_cause(group.workload, group.pods, found, tasks, schedulers)
    if other is None and group.before.memory.limit is None:
        return "LimitsMissing", "The container has no memory limit that could carry more slots; it gets one first."
    return other


def _more(group: Group, found: Flow, tasks: Tasks, carried: Footprint, reached: int, room: int) -> Step | None:
    slots, before = group.slots, group.before
    percent = group.spec.changes.max_step.concurrency_percent
    most = max(slots + 1, math.floor(slots * (1 + percent / 100)), group.limits.min)
    # A recommendation that nobody has followed does not shrink with the queue.
    after = max(min(reached, most), (before.concurrency or 0) if group.spec.mode is api.Mode.RECOMMEND else 0)
    if after == before.concurrency:
        return None
    memory = carrying(group, carried, after)
    bound = ""
    if after < reached:
        bound = f" The largest step is {percent}%."
    elif after < found.demand:
        most_of_all = f" concurrency.max is {after}." if after == group.limits.max else " core.parallelism binds."
        ends = f" Memory ends at {room} slots{f': {group.bounds.holder}' if group.bounds.holder else ''}."
        bound = ends if after == room else most_of_all
        if not (after == room and group.bounds.shared):
            workers = replicas.advised(found, after, group.workload, group.seen, tasks)
            bound = f"{bound} For all that is asked for, {workers}."
    why = (
        f"Slots {slots} -> {after}{raised(group, memory)} {group.of}: {found.told} Demand: {found.running} running "
        f"and {found.waiting} waiting tasks {found.lasting} ask for {found.demand} slots in each worker.{bound} "
        f"Memory: {carried.told(after, after - slots)}."
    )
    return Step(replace(before, memory=memory, concurrency=after), "SlotsExhausted", why)


def _no_more(group: Group, found: Flow, tasks: Tasks, carried: Footprint, *, short_of_memory: bool) -> tuple[str, str]:
    """Why there are no more slots although the objective is missed: (a word, a sentence)."""
    slots = group.slots
    stay = f"Slots stay at {slots} for each worker, of {found.demand} that are asked for"
    if found.demand <= slots:
        return "SlotsSuffice", f"{slots} slots for each worker will do: the queue is being worked off."
    most, workers = room(group, carried), replicas.advised(found, slots, group.workload, group.seen, tasks)
    remedy = group.bounds.remedy if group.bounds.shared else f"{group.bounds.remedy}, or {workers}"
    if short_of_memory and most < carried.most(group.bounds.max, slots):
        return (
            "MemoryBound",
            f"{stay}, because with more than {most} it was killed for memory at a limit of {group.bounds.named}. "
            f"{remedy}.",
        )
    if short_of_memory:
        return (
            "MemoryBound",
            f"{stay}, because memory ends there: {carried} must fit {group.bounds.named}, which carries {most}. "
            f"{remedy}.",
        )
    if group.limits.max <= slots:
        return "SlotsAtMaximum", f"{stay}: concurrency.max is {group.limits.max}. Raise it, or {workers}."
    return (
        "ParallelismCapped",
        f"{stay}: core.parallelism lets each scheduler run only {tasks.parallelism} tasks at once. Raise "
        f"config.core.parallelism of the chart, to {replicas.parallelism(found, group.seen)} at least.",
    )


def _on_time(group: Group, facts: Assessment, found: Flow, tasks: Tasks) -> Assessment:
    """The objective is met: slots follow the hours where they can be set live, else they fall a step a day."""
    if facts.footprint is None or not live(group):
        return replace(facts, step=_idle(group, found, tasks))
    step, hold = demand.step(group, facts.footprint, found, tasks)
    return replace(facts, step=step, hold=hold)


def _idle(group: Group, found: Flow, tasks: Tasks) -> Step | None:
    """Slots that stood idle for a day are lowered, a step a day. Known where one group serves all queues."""
    slots, changed = group.slots, group.past.slots_changed
    if tasks.busy_day is None:
        return None
    # The day is looked at every minute, which may have missed what runs now.
    busy = max(tasks.busy_day, found.running)
    if not group.alone or found.slots <= IDLE_MARGIN * busy or group.before.memory.limit is None:
        return None
    if group.seen.within(changed, IDLE):
        return None
    needed = math.ceil(lag.DEMAND_MARGIN * busy / found.workers)
    after = max(group.limits.min, needed, math.floor(FEWER * slots))
    # A template above the policy's maximum is the user's.
    if after >= slots or after == group.before.concurrency or after > group.limits.max:
        return None
    return Step(
        replace(group.before, concurrency=after),
        "SlotsIdle",
        f"Slots {slots} -> {after} {group.of}: within a day at most {busy} of {found.slots} were busy at once. The "
        "memory limit stays.",
    )

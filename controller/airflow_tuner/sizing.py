"""Memory from what the coming hours will take: the request for the usual, the limit for the stated risk. Pure.

A raise comes before the peak that is foreseen; a decrease comes late, is far smaller than what is free, and never on
missing or new evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from airflow_tuner import api, kills, leak, planned, quantity
from airflow_tuner.footprint import Footprint
from airflow_tuner.forecast import AHEAD, DAY, Forecast, forecast
from airflow_tuner.history import History, hour_of
from airflow_tuner.model import Memory, MetricsState, Observation, Values, Workload
from airflow_tuner.quantity import MEBIBYTE, readable
from airflow_tuner.sentence import counted, first, short
from airflow_tuner.steps import PROBE_SPIKE, Bounds, Past, Step

LEAD = timedelta(minutes=10)
"""So long before an hour begins the request is for it."""

HELD = 8
"""Hours that a limit is for, the present one included: it must hold through a night without an operator."""

PRESENT = 1.1
"""On the most that is held at present: it may grow while the resize is on its way."""

SPARE = 30 * MEBIBYTE
"""On every limit: the kernel's own memory of a container, and what lies between two samples."""

WORTH = 0.02
"""Share of the present limit below which a raise is not worth a change."""

WORTH_RESERVING = 0.1
"""The same of a request: nobody is killed for what it lacks."""

LOWER = 0.85
"""Share of the present value from which a decrease is worth a change."""

AFTER_KILL = timedelta(hours=6)
"""So long after an answer to a kill nothing is lowered: the retry must fit, and the next run as well."""

AFTER_REFUSAL = timedelta(days=1)
"""So long after the API server refused pods with what was decided, nothing is raised for a forecast: a quota stays."""

AFTER_TEMPLATE = timedelta(days=1)
"""So long what the user has just set is not lowered: somebody may know what no history shows."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A target, with all that its size follows from."""

    spec: api.Spec
    bounds: Bounds
    workload: Workload
    past: Past
    before: Values
    """What it should have so far."""
    seen: Observation
    law: Footprint | None
    """What the tasks take that run in it; `None`: not known, or none run there."""
    slots: int | None
    """How many of them may run at once: the limit must carry so many."""
    runs_tasks: bool
    """Tasks run in it."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """What memory a target's history asks for."""

    foreseen: Forecast | None = None
    """The largest of the hours ahead; `None`: too little is known."""
    target: Memory | None = None
    """Inside the bounds."""
    step: Step | None = None
    hold: str = ""
    """Why less is not set, though less would do; empty where nothing is to be said."""


def assess(subject: Subject) -> Sizing:
    """What the history of a target asks for."""
    spec, workload, now = subject.spec, subject.workload, subject.before.memory
    history = subject.seen.histories.get(workload.target)
    if history is None or now.limit is None:
        return Sizing()
    hour, days = hour_of(subject.seen.at), spec.objectives.days_per_out_of_memory
    ahead = forecast(history, hour, days)
    if not ahead:
        return Sizing()
    if subject.runs_tasks:
        ahead = planned.kept(ahead, history, hour, subject.seen.due)
    soon, held_for = spans(subject)
    foreseen = replace(max(ahead[:held_for], key=lambda one: one.safe), usual=max(one.usual for one in ahead[:soon]))
    known = (leak.without(pod.usage.anonymous, pod, subject.seen.at) for pod in workload.living)
    held = max((size for size in known if size is not None), default=0.0)
    carried = subject.law.need(subject.slots) if subject.law is not None and subject.slots else 0
    spike = PROBE_SPIKE if workload.probe is not None else 0
    limit = max(foreseen.safe * MEBIBYTE + spike, PRESENT * held) + SPARE
    limit, leaks = max(quantity.rounded(limit), carried), any(leak.pace(pod) for pod in workload.living)
    if leaks:
        # No limit is raised for a leak; nor is one lowered that pods come nearer to by themselves.
        limit = max(limit, now.limit)
    request = (
        limit if equal(spec, workload) else quantity.rounded(max(foreseen.usual * MEBIBYTE, held) + _leaked(subject))
    )
    target = subject.bounds.hold(Memory(min(request, limit), limit))
    if (more := _more(subject, target)) != now:
        waits = _within(subject, spec.changes.cooldown.raise_seconds)
        # What a quota has refused is not foreseen again every hour.
        waits = waits or subject.seen.within(subject.past.refused, AFTER_REFUSAL)
        step = None if waits else _step(subject, foreseen, more, carried, "MemoryForecast")
        return Sizing(foreseen, target, step)
    # A limit that may have to carry more tasks than ever ran is not lowered.
    kept = subject.runs_tasks and not carried
    lower = replace(target, limit=now.limit) if kept else _above_the_day(subject, target, history)
    if kept and equal(spec, workload):
        lower = now
    if (less := _less(now, lower)) != now:
        hold = _memory_held(subject, history)
        return Sizing(
            foreseen, target, None if hold else _step(subject, foreseen, less, carried, "MemoryReleased"), hold
        )
    return Sizing(foreseen, target, hold="Its pods leak, so their limit stays." if leaks else "")


def spans(subject: Subject) -> tuple[int, int]:
    """Hours that the request and the limit are for, the present one included."""
    live = not any(pod.restarts_on_resize for pod in subject.workload.living)
    if subject.spec.mode is api.Mode.RECOMMEND or not live:
        # Nobody follows the hours by hand, nor by restarts.
        return AHEAD, AHEAD
    return hour_of(subject.seen.at + LEAD) - hour_of(subject.seen.at) + 1, HELD


def equal(spec: api.Spec, workload: Workload) -> bool:
    """Request and limit move together: the policy says so, or the pods are Guaranteed."""
    own, component = spec.worker(workload.target, workload.name), spec.component(workload.component)
    entry = own if workload.component == "worker" else component
    stated = entry is not None and entry.memory.limit_equals_request
    return stated or guaranteed(workload)


def guaranteed(workload: Workload) -> bool:
    """Its pods are Guaranteed; without pods, as its container says."""
    born = all(
        key in workload.limits and workload.requests.get(key) == workload.limits[key] for key in ("cpu", "memory")
    )
    return any(pod.guaranteed for pod in workload.pods) or (not workload.pods and born)


def _more(subject: Subject, target: Memory) -> Memory:
    """What is raised now: a request by the policy's largest step at most; what is worth no change stays."""
    now = subject.before.memory
    limit, request = now.limit or 0, now.request or 0
    wanted, most = target.request or 0, request * (1 + subject.spec.changes.max_step.memory_percent / 100)
    if request and not equal(subject.spec, subject.workload):
        wanted = quantity.rounded(min(wanted, most))
    more = Memory(
        max(request, wanted) if wanted > (1 + WORTH_RESERVING) * request else now.request,
        target.limit if (target.limit or 0) > (1 + WORTH) * limit else now.limit,
    )
    # The one may rise where the other is what it was.
    return replace(more, limit=max(more.limit or 0, more.request or 0))


def _above_the_day(subject: Subject, target: Memory, history: History) -> Memory:
    """What is lowered stays above the most of the last day, also of pods that are gone: no rule may miss that."""
    hour = hour_of(subject.seen.at)
    told = [pod.usage.anonymous_day.value for pod in subject.workload.living if pod.usage.anonymous_day is not None]
    told += [float(peak * MEBIBYTE) for peak in history.between(hour - DAY, hour + 1) if peak is not None]
    most = quantity.rounded(PRESENT * max(told, default=0.0)) + SPARE
    limit = max(target.limit or 0, min(most, subject.before.memory.limit or most))
    return Memory(limit if equal(subject.spec, subject.workload) else target.request, limit)


def _less(now: Memory, target: Memory) -> Memory:
    """What is lowered now: what is worth no change stays."""
    limit = target.limit if (target.limit or 0) <= LOWER * (now.limit or 0) else now.limit
    request = target.request if (target.request or 0) <= LOWER * (now.request or 0) else now.request
    return Memory(None if request is None else min(request, limit or request), limit)


def _within(subject: Subject, seconds: int) -> bool:
    """The last change of its memory is so recent. Slots that follow the hours are no reason for memory to wait."""
    return subject.seen.within(subject.past.memory_changed, timedelta(seconds=seconds))


def held(subject: Subject, history: History, own: Mapping[str, bool], *, recent: bool) -> str:
    """Why what is not needed is kept for now, be it memory or CPU; empty where it may be released.

    `own`: the reasons that hold for one of them alone; `recent`: the cooldown after its last change is running.
    """
    spec, seen = subject.spec, subject.seen
    known, whole = history.week_before(hour_of(seen.at))
    reasons = {
        "the policy forbids it (changes.releases: false)": spec.mode is api.Mode.ENFORCE and not spec.changes.releases,
        "the past is still being read": seen.reading,
        f"only {known} hours of the last week are known": not whole,
        **own,
        "this is no usual time: a DAG runs away, or the database is slow": not seen.usual,
        "the template was changed within a day": seen.within(subject.past.template_changed, AFTER_TEMPLATE),
        "the cooldown after the last change is running": recent,
    }
    why = first(reasons)
    return why and f"Less would do, but {why}."


def fresh(subject: Subject) -> bool:
    """What its pods take now can be known."""
    return subject.seen.metrics.state is MetricsState.FRESH and bool(subject.workload.living)


def _leaked(subject: Subject) -> float:
    """The most bytes that a pod has leaked, of those that can have leaked like this since their start."""
    now, living = subject.seen.at, subject.workload.living
    possible = (pod for pod in living if leak.without(pod.usage.anonymous, pod, now) is not None)
    return max((leak.leaked(pod, now) for pod in possible), default=0.0)


def _memory_held(subject: Subject, history: History) -> str:
    seen, past, living = subject.seen, subject.past, subject.workload.living
    never = planned.new(seen.due)
    killed = any(
        seen.within(None if pod.death is None else pod.death.at, AFTER_KILL) or kills.recent_process_kills(pod.usage)
        for pod in subject.workload.pods
    )
    own = {
        "what the pods hold now is not known": not fresh(subject) or not all(pod.usage.anonymous for pod in living),
        "not all workers say how many slots they have": subject.workload.component == "worker"
        and seen.broker is not None
        and any(pod.running is not None and pod.slots is None for pod in living),
        "something was killed for memory within six hours": killed
        or seen.within(past.raised.at if past.raised else None, AFTER_KILL)
        or seen.within(past.endured_at, AFTER_KILL),
        "the node was short of memory within a day": seen.within(past.pressed, AFTER_TEMPLATE),
        "which DAGs are due is not known": bool(seen.calendar) and subject.runs_tasks,
        f"{never} never ran, and is due within a day": bool(never) and subject.runs_tasks,
    }
    return held(subject, history, own, recent=_within(subject, subject.spec.changes.cooldown.lower_seconds))


def _step(subject: Subject, foreseen: Forecast, after: Memory, carried: int, reason: str) -> Step:
    """The step, with its numbers."""
    now, workload = subject.before.memory, subject.workload
    parts = [
        f"{name} {readable(old or 0)} -> {readable(new or 0)}"
        for name, old, new in (("request", now.request, after.request), ("limit", now.limit, after.limit))
        if old != new
    ]
    bound = ""
    if carried and after.limit == carried:
        slots = counted(subject.slots or 0, "busy slot takes", "busy slots take")
        bound = f" The limit is what {slots}: {subject.law.told(subject.slots or 0, 0) if subject.law else ''}."
    elif after.limit == subject.bounds.max:
        bound = f" {subject.bounds.told[0].upper()}{subject.bounds.told[1:]}."
    days, (soon, held_for) = subject.spec.objectives.days_per_out_of_memory, spans(subject)
    coming = "this hour takes" if soon == 1 else f"the {soon} hours from this one on take"
    leaked = round(_leaked(subject))
    beside = f" beside {readable(leaked)} that a pod has leaked" if leaked else ""
    return Step(
        replace(subject.before, memory=after),
        reason,
        f"Memory {', '.join(parts)} for all {workload.unit}s of {short(workload.label)}: from the hourly peaks of "
        f"{foreseen.days:.1f} days, {coming} {foreseen.usual:.0f} MiB usually{beside}, and the next {held_for} hours "
        f"more than {foreseen.safe:.0f} MiB once in {days} days (foreseen from {foreseen.rule}).{bound}",
    )

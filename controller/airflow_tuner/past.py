"""What is remembered of a target, and how: its status, what pods were given, what admission gives new ones. Pure."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from airflow_tuner import api, environment, kills, quantity
from airflow_tuner.model import Cpu, Memory, Pod, Values, Workload
from airflow_tuner.sentence import counted, short
from airflow_tuner.steps import Past

PAUSED = "Paused: every value is held. "
"""Stands before a target's reason while the policy is paused."""


def remembered(prior: api.Status, target: str) -> Past:
    """What the status remembers of a target."""
    entry = next((item for item in prior.targets if item.name == target), None)
    tuned = next((item for item in prior.tuned if item.target == target), None)
    past = Past(
        template=None if entry is None else from_api(entry.template),
        desired=None if entry is None else from_api(entry.recommended),
        why="" if entry is None else entry.why.removeprefix(PAUSED),
        answered=() if entry is None else tuple(entry.answered),
        tuned=tuned,
        stranded=any(found.reason == "StrandedTasks" and found.target == target for found in prior.findings),
    )
    moments = moments_of(prior, target)
    return past if moments is None else _dated(past, moments)


def moments_of(prior: api.Status, target: str) -> api.Moments | None:
    """When what of a target was last changed; `None` where it never was."""
    entry = next((item for item in prior.targets if item.name == target), None)
    if entry is not None and entry.changed is not None:
        return entry.changed
    # The status of an older operator: from its history.
    changes = [change for change in reversed(prior.history) if change.target == target]
    if changes:
        return functools.reduce(moved, changes, api.Moments())
    tuned = next((item for item in prior.tuned if item.target == target), None)
    if entry is None or tuned is None:
        return None
    # Changes of other targets have pushed it out: the worst case is taken to be an answer to a kill.
    since, limit = tuned.since, entry.template.limit
    return api.Moments(
        any=since, memory=since, cpu=since, slots=since, parsing=since, out_of_memory=since, limit_before=limit
    )


def moved(moments: api.Moments, change: api.Change) -> api.Moments:
    """`moments` after one more change."""
    old, new = change.from_, change.to
    told: dict[str, object] = {"any": change.time}
    if (old.request, old.limit) != (new.request, new.limit):
        told["memory"] = change.time
    if (old.cpu_request, old.cpu_limit) != (new.cpu_request, new.cpu_limit):
        told["cpu"] = change.time
    if old.concurrency != new.concurrency:
        told["slots"] = change.time
    if (old.parsing_interval_seconds, old.parsing_processes) != (new.parsing_interval_seconds, new.parsing_processes):
        told["parsing"] = change.time
    if change.reason == "OutOfMemory":
        told |= {"out_of_memory": change.time, "limit_before": old.limit}
    if change.reason == "PodsRefused":
        told["refused"] = change.time
    if change.reason == "NodeMemoryPressure":
        told["pressed"] = change.time
    if change.reason == "MemoryBound":
        told |= {"memory_bound": change.time, "endured": new}
    return moments.model_copy(update=told)


def _dated(past: Past, moments: api.Moments) -> Past:
    """`past` with the times of its changes."""
    at, before = _moment(moments.out_of_memory), moments.limit_before
    return replace(
        past,
        memory_changed=_moment(moments.memory),
        cpu_changed=_moment(moments.cpu),
        slots_changed=_moment(moments.slots),
        parsing_changed=_moment(moments.parsing),
        raised=None if at is None else kills.Raise(at, None if before is None else quantity.parse(before)),
        endured=None if moments.endured is None else from_api(moments.endured),
        endured_at=_moment(moments.memory_bound),
        refused=_moment(moments.refused),
        template_changed=_moment(moments.template),
        pressed=_moment(moments.pressed),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def adopted(past: Past, workload: Workload, line: str | None) -> Past:
    """Where to start when nothing is remembered: from what we gave the pods, else from the template.

    Kills that such pods show were answered by what they have.
    """
    shaped = tuple(pod for pod in workload.pods if pod.decision or pod.resized or pod.resized_cpu)
    sized = [pod.memory for pod in shaped if pod.decision or pod.resized]
    template = replace(workload.values, memory=whole(workload.template))
    if not shaped:
        return replace(past, desired=template)
    request = largest(workload.template.request, *(one.request for one in sized))
    # A template without a limit may ask for more than the limit that pods were given.
    limit = largest(workload.template.limit, *(one.limit for one in sized), request)
    memory = Memory(request, limit if any(one.limit for one in sized) else workload.template.limit)
    newest = max((pod for pod in shaped if pod.decision), key=lambda pod: pod.created, default=None)
    born = environment.stated(workload.component, newest.environment if newest else {}, line)
    desired = Values(
        whole(memory),
        cpu=_adopted_cpu(workload, shaped),
        concurrency=born.concurrency or template.concurrency,
        interval=born.interval or template.interval,
        processes=born.processes or template.processes,
    )
    pods = counted(len(shaped), "pod", "pods")
    why = f"Adopted from {pods} of {short(workload.label)}: nothing else was remembered."
    return replace(past, desired=desired, why=why, answered=kills.evidence(replace(workload, pods=shaped)))


def _adopted_cpu(workload: Workload, shaped: Sequence[Pod]) -> Cpu:
    template, given = workload.stated.cpu, [pod.cpu for pod in shaped if pod.decision or pod.resized_cpu]
    request = largest(template.request, *(one.request for one in given))
    if template.limit is None:
        return Cpu(request, None)
    return Cpu(request, largest(template.limit, *(one.limit for one in given), request))


def of_cpu(past: Past, workload: Workload, *, named: bool) -> tuple[Past, Workload]:
    """`past` and `workload` without any CPU where that is not ours (`named`).

    Where it has only become so, what the template says now is no change of the template.
    """
    if not named:
        pods = tuple(replace(pod, cpu=Cpu(), running_cpu=None) for pod in workload.pods)
        return _with_cpu(past, Cpu()), replace(workload, stated=replace(workload.stated, cpu=Cpu()), pods=pods)
    told = [values.cpu for values in (past.template, past.desired) if values is not None]
    known = any(cpu != Cpu() for cpu in told)
    return past if known else _with_cpu(past, workload.stated.cpu), workload


def _with_cpu(past: Past, cpu: Cpu) -> Past:
    return replace(
        past,
        template=None if past.template is None else replace(past.template, cpu=cpu),
        desired=None if past.desired is None else replace(past.desired, cpu=cpu),
    )


def same_template(old: api.Values, new: api.Values) -> bool:
    """Whether two statuses tell of the same template: CPU counts where both tell it."""
    if None in {old.cpu_request or old.cpu_limit, new.cpu_request or new.cpu_limit}:
        no_cpu = {"cpu_request": None, "cpu_limit": None}
        return old.model_copy(update=no_cpu) == new.model_copy(update=no_cpu)
    return old == new


def completed(past: Past, stated: Values) -> Past:
    """What an operator remembered that knew of memory alone: that it now sees more is no change of the template."""

    def known(name: str) -> bool:
        return getattr(past.template, name) is not None or getattr(past.desired, name) is not None

    new = {name: getattr(stated, name) for name in ("concurrency", "interval", "processes") if not known(name)}
    return replace(
        past,
        template=None if past.template is None else replace(past.template, **new),
        desired=None if past.desired is None else replace(past.desired, **new),
    )


def from_api(values: api.Values) -> Values:
    """Values of the status."""
    return Values(
        memory=Memory(
            request=None if values.request is None else quantity.parse(values.request),
            limit=None if values.limit is None else quantity.parse(values.limit),
        ),
        cpu=Cpu(
            request=None if values.cpu_request is None else quantity.millicores(values.cpu_request),
            limit=None if values.cpu_limit is None else quantity.millicores(values.cpu_limit),
        ),
        concurrency=values.concurrency,
        interval=values.parsing_interval_seconds,
        processes=values.parsing_processes,
    )


def from_tuned(tuned: api.Tuned | None) -> Memory | None:
    """The memory that an entry for admission gives a new pod."""
    if tuned is None:
        return None
    return Memory(quantity.parse(tuned.requests.memory), quantity.parse(tuned.limits.memory))


def cpu_from_tuned(tuned: api.Tuned | None) -> Cpu | None:
    """The CPU that an entry for admission gives a new pod; `None`: it leaves that as the template says."""
    if tuned is None or tuned.requests.cpu is None:
        return None
    limit = tuned.limits.cpu
    return Cpu(quantity.millicores(tuned.requests.cpu), None if limit is None else quantity.millicores(limit))


def whole(memory: Memory) -> Memory:
    """`memory` in whole MiB, as the status says it: a template may say 1G, and is compared with what was remembered."""
    return Memory(
        request=None if memory.request is None else quantity.rounded(memory.request),
        limit=None if memory.limit is None else quantity.rounded(memory.limit),
    )


def largest(*sizes: int | None) -> int | None:
    """The largest of those that are known; `None`: none is."""
    return max((size for size in sizes if size is not None), default=None)

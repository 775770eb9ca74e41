"""The steps of a target's memory that a decision may take, each with its reason and its numbers. One at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from airflow_tuner import api, kills, quantity
from airflow_tuner.model import SERVICE, Cpu, Kill, Kind, Memory, Values, Workload
from airflow_tuner.quantity import readable, readable_cpu
from airflow_tuner.sentence import fitted, short

OOM_FACTOR = 1.5
"""Answer to a kill, as a factor on the limit it happened under. Chosen with the next: VPA's 1.2 needs up to four more
kills to double a limit."""

OOM_FACTOR_AGAIN = 2.0
"""The same for a second kill within `OOM_AGAIN`."""

OOM_AGAIN = timedelta(hours=1)
"""A kill under a raised limit this soon after the raise means that the raise was too small."""

REFUSED = timedelta(hours=1)
"""For this long after the API server refused pods with what was decided, nothing is decided for them: a quota is not
raised by trying."""

PROBE_SPIKE = 130 * quantity.MEBIBYTE
"""The least that a limit rises by: what Celery's liveness probe takes for a moment inside the worker's container
(measured: 114 to 130 MiB)."""


@dataclass(frozen=True, slots=True)
class Step:
    """A better value for a target, and why."""

    values: Values
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one target."""

    template: Values | None = None
    desired: Values | None = None
    why: str = ""
    answered: tuple[api.Answered, ...] = ()
    tuned: api.Tuned | None = None
    memory_changed: datetime | None = None
    """Last change of its memory."""
    cpu_changed: datetime | None = None
    """Last change of its CPU."""
    slots_changed: datetime | None = None
    """Last change of its slots."""
    parsing_changed: datetime | None = None
    """Last change of how DAG files are parsed."""
    raised: kills.Raise | None = None
    """Last answer to an out-of-memory kill."""
    endured: Values | None = None
    """What was decided after the last kill at the policy's largest limit: fewer slots."""
    endured_at: datetime | None = None
    """When."""
    refused: datetime | None = None
    """Last time that pods with what was decided were refused."""
    pressed: datetime | None = None
    """Last time that a request was raised because the node was short of memory."""
    template_changed: datetime | None = None
    """Last time that the user changed the template."""
    stranded: bool = False
    """At the last look its tasks were stranded."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a target's memory in whole MiB, and the part of the spec they stand in."""

    where: str
    min: int
    max: int
    """The policy's maximum, or less where something else leaves less."""
    holder: str = ""
    """What leaves less than the policy, with its numbers, as a clause; empty: nothing."""
    remedy: str = "Raise memory.max"
    """What would leave more."""
    shared: bool = False
    """What leaves less binds all pods together: more of them would have no more."""
    settled: Memory = Memory()
    """What is set already; the following do not change it."""
    request: int | None = None
    """The most that a request may be."""
    request_holder: str = ""
    """What bounds it, as a clause."""
    least: int = 0
    """The least that a request may be."""
    ratio: float | None = None
    """So many times its request a limit may be."""
    equal: bool = False
    """Request and limit move together."""
    rooms: Mapping[str, int] = field(default_factory=dict)
    """By pod: the most that its limit may be raised to on its node, in bytes, where that is known."""
    closed: bool = False
    """There is not even room for the minimum: nothing can be decided."""

    @property
    def told(self) -> str:
        """Why there is no more, as a clause."""
        return self.holder or f"the policy's maximum is {readable(self.max)}"

    @property
    def named(self) -> str:
        """The maximum as part of a sentence."""
        return f"{readable(self.max)}, as {self.holder}" if self.holder else f"memory.max = {readable(self.max)}"

    def hold(self, memory: Memory) -> Memory:
        """`memory` inside the bounds, its request not above its limit; what is not set stays so."""
        limit = None if memory.limit is None else min(max(memory.limit, self.min), self.max)
        request = None if memory.request is None else min(max(memory.request, self.min), limit or self.max)
        held = Memory(request, limit)
        return held if held == self.settled else self._fitted(held)

    def _fitted(self, memory: Memory) -> Memory:
        """`memory` as quotas, limit ranges and nodes would have it too."""
        request, limit = memory.request, memory.limit
        if request is None:
            return memory
        if self.ratio is not None and limit is not None:
            request = max(request, quantity.rounded(limit / self.ratio))
        request = max(request, self.least)
        if self.request is not None:
            request = min(request, self.request)
        if self.equal and limit is not None:
            request = limit
        return Memory(request, None if limit is None else max(limit, request))


def first_of_all(bounds: Bounds, workload: Workload, past: Past, before: Values) -> Step | None:
    """What goes before everything else: the user has changed the template, or the policy's maximum is below it."""
    template = workload.values
    if past.template is not None and past.template != template:
        return _template_changed(bounds, workload, past.template)
    if beyond(bounds, workload) and before != template:
        return _above_maximum(bounds, workload)
    return None


def pods_refused(workload: Workload, past: Past, before: Values) -> Step | None:
    """What was decided is withdrawn where the API server refuses pods that have it."""
    refusal, tuned = workload.refusal, past.tuned
    if refusal is None or tuned is None or before == workload.values:
        return None
    ours = refusal.at >= datetime.fromisoformat(tuned.since) or tuned.limits.memory in refusal.why
    sized = ("memory",) if tuned.requests.cpu is None else ("memory", "cpu")
    # A quota on something else, such as the number of pods, is no matter of ours.
    if not ours or ("exceeded quota" in refusal.why and not any(name in refusal.why for name in sized)):
        return None
    return Step(
        workload.values,
        "PodsRefused",
        f"Withdrawn, because the API server refuses pods of {short(workload.label)} with it: "
        f"{fitted(refusal.why, 400)} New pods follow the template again; running pods keep what they have. Nothing is "
        f"decided for them until {refusal.at + REFUSED:%H:%M}.",
    )


def no_room(bounds: Bounds, workload: Workload, before: Values) -> Step | None:
    """What was decided below a minimum for which there is no room is withdrawn: admission does not take it any more."""
    if before == workload.values or (before.memory.limit or bounds.min) >= bounds.min:
        return None
    return Step(
        workload.values,
        "BoundsChanged",
        f"The policy's minimum is now {readable(bounds.min)}, and {bounds.holder}: new pods of {short(workload.label)} "
        "follow the template; running pods are left as they are.",
    )


def urgent(
    bounds: Bounds, workload: Workload, past: Past, before: Values, own: Sequence[Kill], now: datetime
) -> Step | None:
    """The answer to the kills of the container's own shortage, or to bounds that were changed."""
    step = _out_of_memory(bounds, workload, past, before, own, now) if own else None
    if step is None and before != workload.values:
        step = _out_of_bounds(bounds, before)
    return step


def usual(
    spec: api.Spec, bounds: Bounds, workload: Workload, past: Past, before: Values, nodes: Sequence[Kill], now: datetime
) -> tuple[Step | None, bool]:
    """The ordinary step, and whether kills of the node's shortage are left waiting for the cooldown."""
    pressed = _node_pressure(spec, bounds, before, nodes)
    step = _below_minimum(bounds, before) or pressed or _limits_missing(bounds, workload, before)
    last = past.memory_changed
    if last is not None and now - last < timedelta(seconds=spec.changes.cooldown.raise_seconds):
        return None, pressed is not None
    return step, pressed is not None and step is not pressed


def beyond(bounds: Bounds, workload: Workload) -> bool:
    """The template itself is above the policy's maximum: it is never touched."""
    return _beyond(bounds, workload.template)


def _beyond(bounds: Bounds, memory: Memory) -> bool:
    return max(memory.request or 0, memory.limit or 0) > bounds.max


def differences(old: Values, new: Values) -> list[str]:
    """What differs, each as `name then -> now`."""
    return [
        f"{name} {_shown(then)} -> {_shown(now)}"
        for name, then, now in (
            ("limit", _text(old.memory.limit), _text(new.memory.limit)),
            ("request", _text(old.memory.request), _text(new.memory.request)),
            ("CPU request", cpu_text(old.cpu.request), cpu_text(new.cpu.request)),
            ("CPU limit", cpu_text(old.cpu.limit), cpu_text(new.cpu.limit)),
            ("slots", old.concurrency, new.concurrency),
            (
                "parsing interval",
                *(None if values.interval is None else f"{values.interval} s" for values in (old, new)),
            ),
            ("parsing processes", old.processes, new.processes),
        )
        if then != now
    ]


def in_full(why: str, before: Values, after: Values) -> str:
    """What comes into force at once, where that is more than the last sentence tells."""
    told = differences(before, after)
    if all(part.lower() in why.lower() for part in told):
        return why
    return f"What was recommended so far comes into force: {', '.join(told)}. {why}"


def _template_changed(bounds: Bounds, workload: Workload, old: Values) -> Step:
    new = workload.values
    told = ", ".join(differences(old, new))
    why = f"The template of {short(workload.label)} was changed ({told}): the new template counts."
    also = None if beyond(bounds, workload) else _below_minimum(bounds, new) or _limits_missing(bounds, workload, new)
    if also is not None:
        return Step(also.values, "TemplateChanged", f"{why} {also.why}")
    return Step(new, "TemplateChanged", why)


def _out_of_memory(
    bounds: Bounds, workload: Workload, past: Past, before: Values, own: Sequence[Kill], now: datetime
) -> Step | None:
    memory = before.memory
    under = max(kill.limit or 0 for kill in own)
    raised = past.raised
    # A kill under the limit from before the raise says nothing about the raise: it is not in force in that pod yet.
    # Nor where the user has changed the template since: nothing of ours is in force then.
    ours = memory != workload.template
    again = ours and raised is not None and now - raised.at <= OOM_AGAIN and under > (raised.before or 0)
    factor = OOM_FACTOR_AGAIN if again else OOM_FACTOR
    asked = quantity.rounded(max(factor * under, under + PROBE_SPIKE))
    limit = min(max(asked, bounds.min, memory.request or 0), bounds.max)
    if memory.limit is not None and limit <= memory.limit:
        return None
    after = bounds.hold(Memory(memory.request or bounds.min, limit))
    second = " It was the second kill within the hour." if again else ""
    why = (
        f"Memory limit {_text(memory.limit)} -> {readable(limit)} for all {workload.unit}s of {short(workload.label)}, "
        f"because {_told(own, workload.unit)}.{second} Rule: the larger of {factor:g} x the limit of {readable(under)} "
        f"and that limit + {readable(PROBE_SPIKE)}."
    )
    if asked > limit:
        why += f" It asked for {readable(asked)}; {bounds.told}."
    if bounds.equal and workload.kind != SERVICE:
        born = any(pod.guaranteed for pod in workload.pods)
        why += (
            f" The request moves with the limit, as {'the pods are Guaranteed' if born else 'limitEqualsRequest says'}."
        )
    elif bounds.ratio is not None and (after.request or 0) > max(memory.request or 0, bounds.min):
        why += f" The request rises with it, as a LimitRange allows limits of {bounds.ratio:g} x the request at most."
    return Step(replace(before, memory=after), "OutOfMemory", why)


def _above_maximum(bounds: Bounds, workload: Workload) -> Step:
    template = workload.template
    return Step(
        workload.values,
        "BoundsChanged",
        f"The policy's maximum is now {readable(bounds.max)}, below what the template of {short(workload.label)} says "
        f"(limit {_text(template.limit)}, request {_text(template.request)}): new pods follow the template; running "
        "pods are left as they are.",
    )


def _out_of_bounds(bounds: Bounds, before: Values) -> Step | None:
    """What we decided under other bounds moves inside the present ones at once: admission refuses it otherwise."""
    after = bounds.hold(before.memory)
    if after == before.memory:
        return None
    if not _beyond(bounds, before.memory):
        return _below(bounds, before, after)
    return Step(
        replace(before, memory=after),
        "BoundsChanged",
        f"The policy's maximum is now {readable(bounds.max)}, below the limit of "
        f"{_text(before.memory.limit)}: new pods get {_text(after.limit)}; running pods are left as they are.",
    )


def _node_pressure(spec: api.Spec, bounds: Bounds, before: Values, nodes: Sequence[Kill]) -> Step | None:
    peaks = [kill.pod.usage.peak.value for kill in nodes if kill.pod.usage.peak is not None]
    if before.memory.limit is None or not peaks:
        return None
    request = before.memory.request or 0
    most = request * (1 + spec.changes.max_step.memory_percent / 100) if request else before.memory.limit
    after = bounds.hold(Memory(quantity.rounded(min(max(peaks), most)), before.memory.limit))
    if (after.request or 0) <= request:
        return None
    return Step(
        replace(before, memory=after),
        "NodeMemoryPressure",
        f"Memory request {_text(before.memory.request)} -> {_text(after.request)}, limit unchanged: {_told(nodes)}, "
        f"with a peak of {readable(int(max(peaks)))} well below the limit: the node ran short, not the container.",
    )


def _below_minimum(bounds: Bounds, before: Values) -> Step | None:
    if before.memory.limit is None or before.memory.limit >= bounds.min:
        return None
    return _below(bounds, before, bounds.hold(before.memory))


def _below(bounds: Bounds, before: Values, after: Memory) -> Step:
    return Step(
        replace(before, memory=after),
        "BelowMinimum",
        f"Memory limit {_text(before.memory.limit)} -> {_text(after.limit)}, request {_text(before.memory.request)} -> "
        f"{_text(after.request)}: the policy's minimum is {readable(bounds.min)}.",
    )


def _limits_missing(bounds: Bounds, workload: Workload, before: Values) -> Step | None:
    known = [pod.usage.working_set for pod in workload.living if not pod.usage.momentary]
    peaks = [sample.value for sample in known if sample is not None]
    if before.memory.limit is not None or not peaks:
        return None
    if bounds.holder and bounds.max < max(peaks) + PROBE_SPIKE:
        # A first limit below what is in use would kill what runs well.
        return None
    after = bounds.hold(Memory(max(before.memory.request or 0, quantity.rounded(max(peaks))), bounds.max))
    if workload.kind == SERVICE:
        told = f"the first one is the policy's maximum (the largest working set seen is {readable(int(max(peaks)))})."
        why = f"Memory limit none -> {readable(bounds.max)}: there was no limit; {told}"
        return Step(replace(before, memory=after), "LimitsMissing", why)
    return Step(
        replace(before, memory=after),
        "LimitsMissing",
        f"Memory limit none -> {readable(bounds.max)}, request {_text(before.memory.request)} -> "
        f"{_text(after.request)}, at the pods' next creation: there was no limit; the first one is the policy's "
        f"maximum{f', or less: {bounds.holder}' if bounds.holder else ''}, the request the largest working set seen "
        f"({readable(int(max(peaks)))}).",
    )


def _told(killed: Sequence[Kill], unit: str = "pod") -> str:
    """The kills as a clause: what died, where (a pod, or what is `unit`), when, under which limit."""
    parts = []
    for kill in killed[:3]:
        what = (
            "the container was killed for memory"
            if kill.kind is Kind.CONTAINER
            else f"{kill.count} {'process was' if kill.count == 1 else 'processes were'} killed for memory"
        )
        parts.append(f"{what} in {unit} {short(kill.pod.name)} at {kill.at:%H:%M:%S} (limit {_text(kill.limit)})")
    if len(killed) > len(parts):
        parts.append(f"{len(killed) - len(parts)} more likewise")
    return ", ".join(parts)


def _text(size: int | None) -> str:
    return "none" if size is None else readable(size)


def cpu_text(size: int | None) -> str:
    """Thousandths of a core for a sentence."""
    return "none" if size is None else readable_cpu(size)


def cpu_sizes(cpu: Cpu) -> str:
    """Request and limit in a few words: `0.1 / 0.39 cores`."""
    if cpu.request is None or cpu.limit is None:
        return f"{cpu_text(cpu.request)} / {cpu_text(cpu.limit)}"
    return f"{cpu.request / 1000:g} / {readable_cpu(cpu.limit)}"


def _shown(value: object) -> str:
    return "not stated" if value is None else f"{value}"

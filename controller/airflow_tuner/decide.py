"""What each target should have: one bounded decision per workload, with its reason and its numbers.

Pure and level-based: the same observation and the same memory of the past give the same decision, and a decision that
was made and is observed again changes nothing.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_tuner import (
    allowance,
    api,
    budget,
    concurrency,
    cores,
    environment,
    kills,
    local,
    parsing,
    quantity,
    sizing,
    steps,
    workgroup,
)
from airflow_tuner.footprint import Footprint, footprint
from airflow_tuner.model import Change, Cpu, Decision, Kill, Memory, Observation, TargetDecision, Values, Workload
from airflow_tuner.past import (
    PAUSED,
    adopted,
    completed,
    cpu_from_tuned,
    from_tuned,
    largest,
    of_cpu,
    remembered,
    whole,
)
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import short
from airflow_tuner.steps import Bounds, Past, Step

TASK_PODS = "task-pods"
"""Target of what is said of pods of the KubernetesExecutor's tasks."""


def bounds_of(spec: api.Spec, component: str, target: str, name: str = "") -> Bounds | None:
    """The bounds the spec gives a target (`name`: of its workload), if any.

    `None` when it says nothing about it, or when no whole MiB lies between them.
    """
    if component == "worker":
        entry = spec.worker(target, name)
        return None if entry is None else _bounds(f"workers/{entry.name}", entry.memory)
    if component == TASK_PODS:
        return None if spec.tasks is None else _bounds("tasks", spec.tasks.memory)
    entry_ = spec.component(component)
    where = {"dag-processor": "dagProcessor", "api-server": "apiServer", "webserver": "apiServer"}.get(
        component, component
    )
    return None if entry_ is None else _bounds(where, entry_.memory)


def decide(spec: api.Spec, seen: Observation, prior: api.Status, *, identity: str, paused: bool = False) -> Decision:
    """The whole desired state. `identity` (of the policy) makes decision names unique; `paused` holds every value."""
    targets = []
    left = None if seen.budget is None or spec.mode is not api.Mode.ENFORCE else seen.budget.left
    for workload in seen.workloads:
        bounds = bounds_of(spec, workload.component, workload.target, workload.name)
        if bounds is not None:
            item = item_of(spec, bounds, workload, seen, prior)
            targets.append(_target(item, identity, paused=paused, held=left == 0))
            change = targets[-1].change
            if left and change is not None and change.reason not in budget.EXEMPT:
                left -= 1
            seen = allowance.taken(seen, targets[-1])
    held = paused and spec.mode is api.Mode.ENFORCE
    return Decision(tuple(targets), () if held else _released(spec, seen, prior, targets, identity))


@dataclass(frozen=True)
class Item:
    """One target with all that its decision looks at."""

    spec: api.Spec
    bounds: Bounds
    """The policy's, and within them what quotas, limit ranges and nodes leave."""
    workload: Workload
    """With its template in whole MiB."""
    past: Past
    before: Values
    """What it should have so far."""
    seen: Observation
    ruled_by: str = ""
    """The autoscaler that this target is left to, though the mode is Enforce."""
    cpu: cores.Bounds | None = None
    """Bounds of its CPU; `None`: that is not ours, and neither the workload nor the past tells it."""

    @property
    def ours(self) -> bool:
        """Something of ours is in force: new pods get it, or running pods were found to have it."""
        found = self.past.template is None and self.before != self.workload.values
        return self.past.tuned is not None or found

    @functools.cached_property
    def slots(self) -> concurrency.Assessment:
        """What is to be said about its slots."""
        return concurrency.assess(self.spec, self.bounds, self.workload, self.past, self.before, self.seen)

    @functools.cached_property
    def subject(self) -> sizing.Subject:
        """The same with all that its size follows from."""
        law, slots = self.tasks
        return sizing.Subject(
            self.spec, self.bounds, self.workload, self.past, self.before, self.seen, law, slots, self.runs_tasks
        )

    @functools.cached_property
    def sizing(self) -> sizing.Sizing:
        """What is to be said about its memory, from its history."""
        return sizing.assess(self.subject)

    @functools.cached_property
    def cores(self) -> cores.Assessment:
        """What is to be said about its CPU."""
        return cores.assess(self.subject, self.cpu)

    @property
    def runs_tasks(self) -> bool:
        """Tasks run in its containers, or may: which executor there is may not be known."""
        runs = self.seen.executors
        alone = all(workload.component != "worker" for workload in self.seen.workloads)
        in_schedulers = runs.local if runs else alone
        return self.workload.component == "worker" or (self.workload.component == "scheduler" and in_schedulers)

    @functools.cached_property
    def tasks(self) -> tuple[Footprint | None, int | None]:
        """What the tasks take that it may run at once, and how many those are; `None`: not known."""
        if not self.runs_tasks:
            return None, None
        pods = [pod for pod in self.workload.living if pod.running is not None]
        if self.workload.component == "scheduler":
            slots = local.slots_of(self.seen)
            return (None if slots is None else local.footprint(pods, slots, self.seen, self.past)), slots
        # Of fewer slots, each goes when its task has ended: until then memory carries those that are there.
        there = (workgroup.in_force(pod, self.workload) or 0 for pod in pods)
        slots = max(self.slots.slots or 0, *there, 0)
        if not slots or self.slots.footprint is not None:
            return self.slots.footprint, slots or None
        return footprint(pods, slots, 0, self.past, self.seen.line, self.seen.at), slots

    @functools.cached_property
    def parsing(self) -> parsing.Assessment:
        """What is to be said about how it parses."""
        return parsing.assess(self.spec, self.workload, self.past, self.before, self.seen)


def item_of(spec: api.Spec, bounds: Bounds, workload: Workload, seen: Observation, prior: api.Status) -> Item:
    """A target with its past; without one, it starts from what we gave the pods, else from the template."""
    cpu = None if seen.cpu_ruler(workload) else cores.bounds_of(spec, workload)
    past, workload = of_cpu(remembered(prior, workload.target), workload, named=cpu is not None)
    remembers = past.desired is not None
    if past.desired is None:
        past = adopted(past, workload, seen.line)
    elif not prior.airflow_version:
        past = completed(past, workload.stated)
    workload = replace(workload, template=whole(workload.template))
    before = past.desired or workload.values
    if before.memory.request is None or before.memory.limit is None:
        # We set both or none: what lacks one is the template's, whatever the status says.
        before = replace(before, memory=workload.template)
    ruler = seen.memory_ruler(workload) if spec.mode is api.Mode.ENFORCE else ""
    if ruler:
        # Two hands on one knob: for this target alone it is as in mode Recommend.
        spec = spec.model_copy(update={"mode": api.Mode.RECOMMEND})
    if spec.mode is api.Mode.ENFORCE and past.tuned is None and remembers:
        # What was only recommended is no decrease: that is decided anew, on evidence.
        least = workload.template
        request = largest(before.memory.request, least.request)
        limit = largest(before.memory.limit, least.limit)
        stated, cores_ = workload.stated.cpu, before.cpu
        before = replace(
            before,
            memory=Memory(request, limit),
            cpu=Cpu(largest(cores_.request, stated.request), largest(cores_.limit, stated.limit)),
        )
    bounds = allowance.narrowed(bounds, workload, before.memory, seen, equal=sizing.equal(spec, workload))
    return Item(spec, bounds, workload, past, before, seen, ruler, cpu)


def _bounds(where: str, memory: api.Memory) -> Bounds | None:
    # Inwards, as what is written is whole MiB and the API server holds it against the bounds as they stand.
    low = quantity.rounded(quantity.parse(memory.min))
    high = quantity.floored(quantity.parse(memory.max))
    return Bounds(where, low, high) if low <= high else None


def _target(item: Item, identity: str, *, paused: bool, held: bool = False) -> TargetDecision:
    """`held`: no ordinary change is left to be made."""
    spec, workload, past, before = item.spec, item.workload, item.past, item.before
    template, now = workload.values, item.seen.at
    enforced = spec.mode is api.Mode.ENFORCE
    why = past.why or f"As the template of {short(workload.label)} says."
    if paused:
        tuned = past.tuned if enforced or item.ruled_by else None
        # The user's own change is remembered: when the pause ends, it counts.
        changed = past.template not in {None, template}
        step = steps.first_of_all(item.bounds, workload, past, before) if changed else None
        desired, why = (before, why) if step is None else (step.values, step.why)
        return TargetDecision(workload, item.bounds.where, desired, PAUSED + why, past.answered, None, tuned)
    fresh = kills.unanswered(workload, {entry.uid: entry for entry in past.answered}, past.raised, now)
    step, waits = next_step(item, fresh)
    if held and step is not None and _ordinary_change(item, step.reason):
        step, waits = None, waits or bool(fresh)
    step = _with_cpu_inside(item, step)
    answered = past.answered if waits else kills.merged(past.answered, kills.evidence(workload), workload)
    desired, why = (before, why) if step is None else (step.values, step.why)
    wanted = enforced and desired != template
    in_force = _given(past.tuned, workload, item.seen.line) if enforced else before
    change = None
    # What was recommended so far waits as well, but not what pods were found to have.
    waiting = held and step is None and not item.ours
    moves = desired != in_force or (enforced and past.tuned is not None and not wanted)
    if moves and not item.ruled_by and not waiting:
        reason = step.reason if step else "Recommended"
        if in_force.concurrency is None and desired.concurrency is not None:
            # Not stated in the template: then as the workers say.
            in_force = replace(in_force, concurrency=item.slots.slots)
        name = _name(identity, workload.target, reason, in_force, desired, now)
        if enforced and in_force != before and past.template is not None:
            why = steps.in_full(why, in_force, desired)
        change = Change(workload.target, name, reason, in_force, desired, why)
    tuned = _tuned(item, desired, change) if wanted and not waiting else None
    moved = change is not None and change.before.concurrency != change.after.concurrency
    entry = spec.worker(workload.target, workload.name) if workload.component == "worker" else None
    # What the policy names no more is left as it is.
    decided = entry is not None and entry.concurrency is not None and (moved or past.slots_changed is not None)
    limit = desired.memory.limit or 0
    rooms = {name: most for name, most in item.bounds.rooms.items() if most < limit}
    return TargetDecision(workload, item.bounds.where, desired, why, answered, change, tuned, decided, rooms)


def _ordinary_change(item: Item, reason: str) -> bool:
    """Whether a change for this reason may be held: not where new bounds ask for it, as admission refuses it else."""
    return reason not in budget.EXEMPT and not (reason == "BelowMinimum" and item.ours)


def next_step(item: Item, fresh: Sequence[Kill]) -> tuple[Step | None, bool]:
    """The one step to take now, and whether kills are left waiting for a cooldown. In the order of urgency."""
    spec, bounds, workload, past, before, now = (
        item.spec,
        item.bounds,
        item.workload,
        item.past,
        item.before,
        item.seen.at,
    )
    step = steps.first_of_all(bounds, workload, past, before) or steps.pods_refused(workload, past, before)
    if step is not None or steps.beyond(bounds, workload):
        return step, False
    if past.refused is not None and past.refused <= now < past.refused + steps.REFUSED:
        return None, bool(fresh)
    if bounds.closed:
        return steps.no_room(bounds, workload, before), bool(fresh)
    own, nodes = [kill for kill in fresh if not kill.of_node], [kill for kill in fresh if kill.of_node]
    step = _fewer(item, own) if own and all(_stuck(item, kill) for kill in own) else None
    step = step or steps.urgent(bounds, workload, past, before, own, now) or (_fewer(item, own) if own else None)
    if step is not None:
        return _as_foreseen(item, step), False
    step, waits = steps.usual(spec, bounds, workload, past, before, nodes, now)
    return step or _whole_entry(item, _ordinary(item, killed=bool(fresh))), waits


def _as_foreseen(item: Item, step: Step) -> Step:
    """An answer to a kill gives no less than the history asks for: that would wait for the cooldown after it."""
    asked, memory = item.sizing.target, step.values.memory
    if step.reason != "OutOfMemory" or asked is None or (asked.limit or 0) <= (memory.limit or 0):
        return step
    after = item.bounds.hold(Memory(memory.request, asked.limit))
    why = f"{step.why} The history asks for {readable(asked.limit or 0)}, which is more: that counts."
    return replace(step, values=replace(step.values, memory=after), why=why)


def _ordinary(item: Item, *, killed: bool) -> Step | None:
    """What nobody died of: more memory, more CPU, then slots, which take some of both; less of these last of all."""
    memory, cpu, slots = item.sizing.step, item.cores.step, item.slots.step
    if memory is not None and memory.reason == "MemoryForecast":
        return memory if slots is None or slots.reason != "SlotsForecast" else _together(memory, slots)
    if cpu is not None and cpu.reason != "CpuReleased":
        return cpu
    return slots or item.parsing.step or (None if killed else memory or cpu)


def _with_cpu_inside(item: Item, step: Step | None) -> Step | None:
    """The step, with CPU brought back inside bounds that were changed: admission takes an entry as a whole."""
    moved = cores.corrected(item.subject, item.cpu)
    if moved is None or step is None:
        return moved or step
    if step.values.cpu != item.before.cpu or step.values == item.workload.values:
        return step
    return Step(replace(step.values, cpu=moved.values.cpu), step.reason, f"{step.why} {moved.why}")


def _together(memory: Step, slots: Step) -> Step:
    """Both are foreseen for the same hour: one change."""
    one, other = memory.values.memory, slots.values.memory
    both = Memory(largest(one.request, other.request), largest(one.limit, other.limit))
    return Step(replace(slots.values, memory=both), slots.reason, f"{slots.why} {memory.why}")


def _whole_entry(item: Item, step: Step | None) -> Step | None:
    """Another step with memory inside the bounds: admission takes an entry as a whole, or not at all."""
    if step is None or step.values == item.workload.values:
        return step
    return replace(step, values=replace(step.values, memory=item.bounds.hold(step.values.memory)))


def _fewer(item: Item, own: Sequence[Kill]) -> Step | None:
    """Fewer slots, where the limit cannot rise: for kills at the policy's largest, with the slots decided last."""
    entry = item.spec.worker(item.workload.target, item.workload.name)
    slots = item.slots.slots
    if item.workload.component != "worker" or entry is None or entry.concurrency is None or slots is None:
        return None
    if item.before.memory.limit is None:
        # Admission takes slots with memory only; a limit comes first.
        return None
    full = [
        kill
        for kill in own
        if ((kill.limit or 0) >= item.bounds.max or _stuck(item, kill))
        and (workgroup.in_force(kill.pod, item.workload) or slots) <= slots
    ]
    step = concurrency.fewer(item.workload, item.before, entry.concurrency, full, slots, item.bounds) if full else None
    return _whole_entry(item, step)


def _stuck(item: Item, kill: Kill) -> bool:
    """Its pod cannot have more where it runs, though others may."""
    most = item.bounds.rooms.get(kill.pod.name)
    return most is not None and (kill.limit or 0) >= most


def _given(tuned: api.Tuned | None, workload: Workload, line: str | None) -> Values:
    """What new pods get now."""
    if tuned is None:
        return workload.values
    cpu = cpu_from_tuned(tuned) or workload.stated.cpu
    given = replace(workload.values, memory=from_tuned(tuned) or workload.template, cpu=cpu)
    return environment.applied(given, tuple(tuned.env), workload.component, line)


def _tuned(item: Item, desired: Values, change: Change | None) -> api.Tuned:
    workload, old = item.workload, item.past.tuned
    env = environment.variables(workload.component, desired, workload.values, item.seen.line)
    # Where the template says as much, it is left alone.
    cpu = desired.cpu if desired.cpu != workload.stated.cpu else Cpu()
    new = api.Tuned(
        target=workload.target,
        component=workload.component,
        bounds=item.bounds.where,
        decision=change.decision if change else old.decision if old else "",
        since=item.seen.at.isoformat(),
        container=workload.container,
        workload=workload.label,
        pod_labels=dict(workload.pod_labels),
        baseline=baseline(workload),
        requests=_sizes(desired.memory.request, cpu.request),
        limits=_sizes(desired.memory.limit, cpu.limit),
        env=list(env),
    )
    # It counts from when admission could first have used it as it is, baseline and bounds included.
    return old if old is not None and new.model_copy(update={"since": old.since}) == old else new


def _sizes(memory: int | None, cpu: int | None) -> api.Sizes:
    return api.Sizes(memory=quantity.mebibytes(memory or 0), cpu=None if cpu is None else quantity.cpu(cpu))


def baseline(workload: Workload) -> api.Baseline:
    """The container as the template has it."""
    env = [api.BaselineVar(name=api.EnvName(name), value=value) for name, value in sorted(workload.environment.items())]
    return api.Baseline(requests=dict(workload.requests), limits=dict(workload.limits), env=env)


def _name(identity: str, target: str, reason: str, before: Values, after: Values, now: datetime) -> str:
    """A name of at most 63 characters, fit for an annotation and for an Event's name."""
    told = f"{identity}|{target}|{reason}|{before}|{after}|{now.isoformat()}"
    return f"{target.replace('/', '-')[:54].rstrip('-.')}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _released(
    spec: api.Spec, seen: Observation, prior: api.Status, targets: list[TargetDecision], identity: str
) -> tuple[Change, ...]:
    """Entries that end: the mode is Recommend now, or the spec no longer names the target."""
    decided = {target.workload.target for target in targets}
    templates: Mapping[str, Values] = {
        workload.target: replace(workload.values, memory=whole(workload.template)) for workload in seen.workloads
    }
    names = {item.name: item.workload.partition("/")[2] for item in prior.targets}
    rulers = {target.workload.target: seen.memory_ruler(target.workload) for target in targets}
    ended = []
    for entry in prior.tuned:
        covered = bounds_of(spec, entry.component, entry.target, names.get(entry.target, ""))
        ruler = rulers.get(entry.target, "")
        if spec.mode is api.Mode.ENFORCE and not ruler and (entry.target in decided or covered):
            continue
        before = environment.applied(
            Values(from_tuned(entry) or Memory(), cpu=cpu_from_tuned(entry) or Cpu()),
            tuple(entry.env),
            entry.component,
            seen.line,
        )
        after = templates.get(entry.target, Values())
        if entry.requests.cpu is None:
            after = replace(after, cpu=Cpu())
        why = "the mode is Recommend" if spec.mode is api.Mode.RECOMMEND else "the policy no longer names it"
        if spec.mode is api.Mode.ENFORCE and ruler:
            why = f"the {short(ruler)} changes its memory"
        if seen.elder:
            why = f"the older TuningPolicy {short(seen.elder)} tunes this Airflow"
        message = f"Released: {why}. New pods follow the template again; running pods are left as they are."
        name = _name(identity, entry.target, "Released", before, after, seen.at)
        ended.append(Change(entry.target, name, "Released", before, after, message))
    return tuple(ended)

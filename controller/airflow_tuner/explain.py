"""A decision for people: as a table, and as a page that says how a number came to be; and for programs. Pure."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from airflow_tuner import api, decide, helm, parsing, planned, status, task_page, task_sizes
from airflow_tuner.concurrency import Assessment as SlotsAssessment
from airflow_tuner.cores import Assessment as CoresAssessment
from airflow_tuner.history import History
from airflow_tuner.model import Cpu, Decision, Finding, Memory, Observation, TargetDecision, Values
from airflow_tuner.parsing import Assessment as ParsingAssessment
from airflow_tuner.quantity import readable, readable_cpu
from airflow_tuner.restarts import Waiting
from airflow_tuner.sentence import counted, short
from airflow_tuner.sizing import spans
from airflow_tuner.steps import Step, cpu_sizes

WIDTH = 110


def plan(
    spec: api.Spec,
    seen: Observation,
    findings: tuple[Finding, ...],
    decision: Decision,
    waiting: tuple[Waiting, ...],
) -> str:
    """What one turn would do, as a table with its reasons."""
    changes = {change.target: change for change in decision.changes}
    rows = [("TARGET", "NOW (REQUEST / LIMIT)", "PLAN", "REASON")]
    advised = []
    for target in decision.targets:
        change = changes.get(target.workload.target)
        now, reason = (change.before, change.reason) if change else (target.desired, "")
        if spec.mode is api.Mode.RECOMMEND and target.desired != target.workload.values:
            # What was recommended before is not there yet, either.
            slots = target.workload.stated.concurrency
            slots = now.concurrency if slots is None and change else slots
            now, reason = replace(target.workload.values, concurrency=slots), reason or "Recommended"
            advised += [] if change else [target]
        rows.append((target.workload.target, *_moved(now, target.desired), reason))
    rows += [(change.target, *_moved(change.before, change.after), change.reason) for change in decision.released]
    runs = f" with {seen.executors.told} ({seen.executors.source})" if seen.executors else ""
    head = f"Mode {spec.mode}, Airflow {seen.line or 'of unknown version'}{runs}. Nothing is written."
    parts = [wrapped(head), table(rows)]
    parts += [wrapped(f"{change.target}: {change.message}") for change in decision.changes]
    parts += [wrapped(f"{target.workload.target}: {target.why}") for target in advised]
    if findings:
        parts.append("Findings, worst first:")
        parts += [wrapped(f"{item.severity} {item.reason} {item.target}: {item.message}", "  ") for item in findings]
    if waiting:
        parts.append("For the next creation of the pod wait:")
        parts += [_waits(item) for item in waiting]
    if spec.tasks is not None:
        told, _ = task_page.page(spec, seen)
        parts.append("Tasks with pods of their own (`explain task-pods` has what to paste):")
        parts += [wrapped(text, "  ") for text in told]
    return "\n\n".join(parts)


def _waits(item: Waiting) -> str:
    return wrapped(f"{item}{f': not restarted, as {item.blocked}' if item.blocked else ''}.", "  ")


def document(new: api.Status, decision: Decision, waiting: tuple[Waiting, ...]) -> dict[str, Any]:
    """The same for programs, with the names of the status."""
    told = status.as_written(new)
    return {
        "changes": [
            {
                "target": change.target,
                "reason": change.reason,
                "from": status.written(change.before).model_dump(by_alias=True, exclude_none=True),
                "to": status.written(change.after).model_dump(by_alias=True, exclude_none=True),
                "message": change.message,
            }
            for change in decision.changes
        ],
        "findings": told.get("findings", []),
        "targets": told.get("targets", []),
        "conditions": told.get("conditions", []),
        "executor": {"names": new.airflow_executor, "source": new.airflow_executor_source},
        "waiting": [
            {"target": item.target.workload.target, "pod": item.pod.name, "for": item.what, "blocked": item.blocked}
            for item in waiting
        ],
        "helmValues": helm.values(decision, new.airflow_version or None),
        "tasks": told.get("tasks", []),
        "tasksSummary": new.tasks_summary,
        "podTemplate": told.get("podTemplate"),
    }


def page(
    target: str,
    spec: api.Spec,
    seen: Observation,
    prior: api.Status,
    decision: Decision,
    waiting: tuple[Waiting, ...],
) -> str:
    """How the numbers of one target come to be; `KeyError` where the policy has no such target."""
    if target == task_sizes.TARGET:
        told, pasted = task_page.page(spec, seen)
        return "\n\n".join([*map(wrapped, told), *([pasted] if pasted else [])])
    found = next((item for item in decision.targets if item.workload.target == target), None)
    if found is None:
        raise KeyError(target)
    workload = found.workload
    bounds = decide.bounds_of(spec, workload.component, workload.target, workload.name)
    if bounds is None:
        raise KeyError(target)
    item = decide.item_of(spec, bounds, workload, seen, prior)
    pods = counted(len(workload.living), "pod", "pods")
    mode = f"mode {spec.mode}" + (f", but left to the {short(item.ruled_by)}" if item.ruled_by else "")
    sections = [
        f"{target}: container {workload.container} of {workload.label}, {pods}, {mode}.",
        wrapped(found.why),
        section("Memory", _memory(found, item, f"{readable(bounds.min)} to {readable(bounds.max)}")),
    ]
    if spec.cpu(workload.component, workload.target, workload.name) is not None:
        sections.append(section("CPU", _cpu(found, item.cores)))
    if workload.component == "worker":
        sections.append(section("Slots", _slots(spec, found, item.slots)))
    if workload.component == "dag-processor":
        sections.append(section("Parsing", _parsing(spec, found, item.parsing)))
    if mine := [_waits(entry) for entry in waiting if entry.target is found]:
        sections.append("\n".join(["Waiting for the next creation of the pod", *mine]))
    return "\n\n".join(sections)


def _memory(found: TargetDecision, item: decide.Item, bounds: str) -> Iterator[tuple[str, str]]:
    workload, slots = found.workload, item.slots
    yield "template", _sizes(workload.template)
    running = [pod.running for pod in workload.living if pod.running is not None]
    for memory in dict.fromkeys(running):
        yield "in force", f"{_sizes(memory)} in {counted(running.count(memory), 'pod', 'pods')}"
    yield "decided", _sizes(found.desired.memory)
    yield "bounds", f"{bounds} ({found.bounds})"
    if item.bounds.holder:
        yield "room", f"{readable(item.bounds.max)} at most: {item.bounds.holder}"
    short_of = [pod for pod in workload.living if pod.name in found.rooms]
    for pod in short_of:
        yield (
            "room",
            f"{readable(found.rooms[pod.name])} for {short(pod.name)}, as the node {short(pod.node)} has no more",
        )
    peaks = [pod.usage.peak.value for pod in workload.living if pod.usage.peak is not None]
    if peaks:
        yield "peak", f"{readable(int(max(peaks)))} since the container started, page cache included"
    now = [pod.usage.working_set for pod in workload.living if pod.usage.momentary]
    if held := [sample for sample in now if sample is not None]:
        most = max(held, key=lambda sample: sample.value)
        yield "now", f"{readable(int(most.value))} at {most.at:%H:%M:%S}, page cache included (metrics.k8s.io)"
    if slots.footprint is not None:
        how = "measured here" if slots.footprint.measured else "as measured on an empty Airflow of this line"
        yield "model", f"{slots.footprint}, the slot {how}"
    yield from _ahead(item)


def _ahead(item: decide.Item) -> Iterator[tuple[str, str]]:
    """What the coming hours are foreseen to take, and what is made of it."""
    workload, sizing = item.workload, item.sizing
    if (foreseen := sizing.foreseen) is not None and sizing.target is not None:
        days, (_, held_for) = item.spec.objectives.days_per_out_of_memory, spans(item.subject)
        yield (
            "forecast",
            f"{foreseen.usual:.0f} MiB usually, in the next hours; once in {days} days more than "
            f"{foreseen.safe:.0f} MiB, in the next {held_for} hours; from {foreseen.days:.1f} days, {foreseen.rule}",
        )
        yield "asked for", _sizes(sizing.target)
    if workload.component == "worker" or item.seen.executors.local:
        for due in planned.told(item.seen.histories.get(workload.target, History()), item.seen.due):
            yield "due", due
    if sizing.hold:
        yield "held", sizing.hold


def room_of(seen: Observation) -> str:
    """What was looked at that bounds memory beside the policy."""
    room = seen.room
    told = counted(len(room.quotas), "quota of memory", "quotas of memory")
    ranges = counted(len(room.ranges), "limit range", "limit ranges")
    nodes = counted(len(room.nodes), "node", "nodes") if room.largest is not None else "no nodes, which were not shown"
    return f"{told}, {ranges}, {nodes}"


def _cpu(found: TargetDecision, cores: CoresAssessment) -> Iterator[tuple[str, str]]:
    workload, bounds = found.workload, cores.bounds
    if bounds is not None:
        yield "template", cpu_sizes(workload.stated.cpu)
        running = [pod.running_cpu for pod in workload.living if pod.running_cpu is not None]
        for cpu in dict.fromkeys(running):
            yield "in force", f"{cpu_sizes(cpu)} in {counted(running.count(cpu), 'pod', 'pods')}"
        yield "decided", cpu_sizes(found.desired.cpu)
        yield "bounds", f"{readable_cpu(bounds.min)} to {readable_cpu(bounds.max)}"
        known = counted(cores.hours, "hour is", "hours are")
        busy = "too few" if cores.used is None else f"all but the busiest took at most {readable_cpu(cores.used)}"
        yield "used", f"{known} known of the last week: {busy}"
        shares = [pod.usage.throttled.value for pod in workload.living if pod.usage.throttled is not None]
        if shares:
            yield "held back", f"by its limit in {max(shares):.0%} of its scheduling periods, at most"
        if cores.target is not None:
            yield "asked for", cpu_sizes(cores.target)
    if cores.hold:
        yield "held", cores.hold
    if cores.step is not None:
        yield "step", "as said above" if cores.step.why == found.why else cores.step.why


def _slots(spec: api.Spec, target: TargetDecision, found: SlotsAssessment) -> Iterator[tuple[str, str]]:
    entry = spec.worker(target.workload.target, target.workload.name)
    yield "present", "not known" if found.slots is None else f"{found.slots} for each worker"
    if entry is not None and entry.concurrency is not None:
        yield "bounds", f"{entry.concurrency.min} to {entry.concurrency.max}"
    if found.flow is not None:
        tasks = f"{found.flow.running} running, {found.flow.waiting} waiting, {found.flow.lasting}"
        yield (
            "tasks",
            f"{tasks}, for {counted(found.flow.slots, 'slot', 'slots')} in force in "
            f"{counted(found.flow.workers, 'worker', 'workers')}",
        )
        yield "lag", found.flow.told
        demand = counted(found.flow.demand, "slot", "slots")
        yield "demand", f"{demand} for each worker (running + waiting x duration / objective, + 10%)"
    yield from _verdict(target, found.cause, found.told, found.hold, found.step)


def _parsing(spec: api.Spec, target: TargetDecision, found: ParsingAssessment) -> Iterator[tuple[str, str]]:
    wanted = spec.dag_processor.parsing if spec.dag_processor is not None else None
    if wanted is not None:
        yield "bounds", f"interval {wanted.interval_seconds.min} to {wanted.interval_seconds.max} s"
        yield "objective", f"{spec.objectives.dag_freshness_seconds} s, with at most {wanted.cpu} of CPU"
    if found.parsing is not None:
        seen = found.parsing
        yield (
            "files",
            f"{seen.files}, parsed every {seen.cycle:.0f} s, {seen.seconds:.2f} s each; the oldest parse was "
            f"{seen.oldest:.0f} s ago",
        )
        yield "CPU", f"{found.cpu or 0:.2f} cores; {parsing.cost(found)}"
        for file in seen.slowest:
            yield "slow", f"{file.name} {file.seconds:.2f} s"
    if found.interval is not None:
        yield "right", f"{found.interval} s"
    yield from _verdict(target, found.cause, found.told, found.hold, found.step)


def _verdict(target: TargetDecision, cause: str, told: str, hold: str, step: Step | None) -> Iterator[tuple[str, str]]:
    if cause:
        yield "cause", f"{cause}: {told}"
    if hold:
        yield "held", hold
    if step:
        yield "step", "as said above" if step.why == target.why else step.why
    elif not cause and not hold:
        yield "step", "none: the objective is met"


def _moved(before: Values, after: Values) -> tuple[str, str]:
    """What is there, and what of it is to be other."""
    there = _parts(before)
    other = [part for part in _parts(after) if part not in there]
    return ", ".join(there), ", ".join(other) or ("unchanged" if before == after else shown(after))


def shown(values: Values) -> str:
    """Values in a few words."""
    return ", ".join(_parts(values))


def _parts(values: Values) -> list[str]:
    parts = [_sizes(values.memory)]
    if values.cpu != Cpu():
        parts.append(f"CPU {cpu_sizes(values.cpu)}")
    if values.concurrency is not None:
        parts.append(counted(values.concurrency, "slot", "slots"))
    if values.interval is not None:
        parts.append(f"parse every {values.interval} s")
    if values.processes is not None:
        parts.append(counted(values.processes, "parsing process", "parsing processes"))
    return parts


def _sizes(memory: Memory) -> str:
    request = "none" if memory.request is None else readable(memory.request)
    limit = "none" if memory.limit is None else readable(memory.limit)
    return f"{request} / {limit}"


def section(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Rows of a name and a text under a title."""
    lines = [title]
    for name, text in rows:
        lines.append(_filled(text, f"  {name:<10}", " " * 12))
    return "\n".join(lines)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows under one another, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph that fits a terminal."""
    return _filled(text, indent, f"{indent}  ")


def _filled(text: str, first: str, others: str) -> str:
    # Names are not broken at their hyphens: they are to be copied.
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=False
    )

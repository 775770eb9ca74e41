"""How often, and by how many processes, DAG files should be parsed. Pure.

The interval is the largest that keeps DAGs fresh, or a larger one where parsing would take more than its share of CPU.
Airflow reads it at its start only, so a change costs a restart, and is made only where something is wrong.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from airflow_tuner import api, environment, quantity
from airflow_tuner.environment import INTERVAL, PROCESSES
from airflow_tuner.model import Observation, Values, Workload
from airflow_tuner.sentence import listed, short
from airflow_tuner.steps import Past, Step
from airflow_tuner.telemetry import Parsing

EAGER = "ParsingEager"
"""The word for that files are parsed more often than the objective asks for: a reason of changes, nothing is wrong."""

DEFAULT_PROCESSES = 2
"""Airflow's own, where the container states none (both lines)."""

TOLERANCE = 1.2
"""A share or an objective is missed from this times it on: both are measured over a short time."""

SPARE = 12
"""Seconds of the freshness objective left for the file's turn, its parse and serialising, and the next look (measured:
files were parsed 4 to 15 s after their interval); of an objective below a minute a fifth."""

ROOM = 1.05
"""On the seconds of a round that must fit the objective: files take longer by turns."""

SPARED = 0.1
"""Cores from which parsing more seldom is worth a restart though nothing is wrong."""

CALM = timedelta(days=1)
"""So long nothing was changed about parsing before it becomes more seldom though nothing is wrong."""

STEADY = timedelta(hours=1)
"""So long the container has run before that: files come and go with a rollout."""

ROUNDS = 2
"""Rounds over which their rate and cost are averaged at least: between two of them parsing costs nothing (measured: at
118 s between rounds, 60 s saw a fifteenth of the cost)."""

WORTH = 0.2
"""Least relative change of the interval that is worth a restart."""

IMPOSSIBLE = 10
"""Times the processes that parse from which more files would be parsed at once than can be. So many, as airflow.cfg may
give more processes than the environment tells; a unit that is wrong is wrong by a thousand."""

TIMEOUT = 50
"""Seconds of a parse after which Airflow ends it (dag_file_processor_timeout, both lines): no mean is above it."""

DOUBTFUL = 2
"""The same as `IMPOSSIBLE` where the mean is above `TIMEOUT`, too."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the dag-processor needs, and why it gets it or not."""

    parsing: Parsing | None = None
    cpu: float | None = None
    """Cores in use."""
    share: float = 0.0
    """Cores it may take."""
    interval: int | None = None
    """Seconds that are right; `None`: not known."""
    cause: str = ""
    """One CamelCase word; empty where nothing is wrong."""
    told: str = ""
    hold: str = ""
    """Why nothing is done; empty where nothing needs to be, or something is."""
    step: Step | None = None


def assess(spec: api.Spec, workload: Workload, past: Past, before: Values, seen: Observation) -> Assessment:
    """Look at the dag-processor. `before`: what it should have so far."""
    wanted = spec.dag_processor.parsing if spec.dag_processor is not None else None
    if workload.component != "dag-processor" or wanted is None:
        return Assessment(hold="The policy names no parsing for it.", step=_inside(None, workload, before))
    found, line = seen.airflow.parsing, seen.line
    share = quantity.cores(wanted.cpu)
    pods = [pod for pod in workload.living if pod.running is not None]
    if hold := _untouchable(workload, line):
        return Assessment(share=share, hold=hold)
    if (inside := _inside(wanted, workload, before)) is not None:
        return Assessment(share=share, step=inside)
    if found is None or not pods or not all(pod.usage.cpu_of_rounds for pod in pods):
        told = (
            seen.airflow.problem or seen.airflow.doubt or "How DAG files are parsed, or the CPU it takes, is not known."
        )
        return Assessment(share=share, hold=told)
    cpu = sum(pod.usage.cpu_of_rounds.value for pod in pods if pod.usage.cpu_of_rounds is not None)
    facts = _right(spec, wanted, workload, before, Assessment(found, cpu, share), found, cpu)
    hold = ""
    if facts.cause:
        hold = _waits(facts.cause, spec, workload, past, before, seen) or _young(spec, facts, workload, seen)
    step = _step(spec, wanted, workload, before, facts) if facts.cause and not hold else None
    # Parsing more often than need be is nothing wrong.
    return replace(facts, cause="" if facts.cause == EAGER else facts.cause, hold=hold, step=step)


def rounds(spec: api.Spec, workloads: Iterable[Workload], line: str | None) -> int:
    """Seconds that hold `ROUNDS` rounds at the interval in force, and not less than `metrics.windowSeconds`."""
    processors = [workload for workload in workloads if workload.component == "dag-processor"]
    told = [environment.stated("dag-processor", pod.environment, line).interval for w in processors for pod in w.living]
    intervals = [interval for interval in (*told, *(w.stated.interval for w in processors)) if interval is not None]
    return max(spec.metrics.window_seconds, ROUNDS * max(intervals, default=0))


def doubt(found: Parsing | None, workloads: Iterable[Workload], line: str | None) -> str:
    """Which two numbers about parsing contradict each other; empty where none do.

    Airflow 3 sends seconds where milliseconds are meant, and `telemetry` corrects that. One that sends what it should
    would be taken for a thousand times too slow.
    """
    if found is None:
        return ""
    parsers = [item for item in workloads if item.component == "dag-processor"]
    parsers = parsers or [item for item in workloads if item.component == "scheduler" and line == "2"]
    born = [
        environment.stated("dag-processor", pod.environment, line).processes or _processes(item.stated)
        for item in parsers
        for pod in item.living
    ]
    processes = sum(born)
    at_once = found.rate * found.seconds
    times = DOUBTFUL if found.seconds > TIMEOUT else IMPOSSIBLE
    if not processes or at_once <= times * processes:
        return ""
    return (
        f"By airflow_dag_processing_last_duration {found.rate:.2f} parses of {found.seconds:.1f} s begin each second, "
        f"so {at_once:.0f} DAG files would be parsed at once; there are {processes} processes for it."
    )


def _untouchable(workload: Workload, line: str | None) -> str:
    """Why nothing can be said about its parsing; empty where something can."""
    if line is None:
        return "Airflow's major version is not known: state spec.airflow.version."
    if workload.referenced & {INTERVAL[line], PROCESSES[line]}:
        return "Parsing is set by reference (valueFrom): that is left alone."
    return ""


def _inside(wanted: api.Parsing | None, workload: Workload, before: Values) -> Step | None:
    """What was decided under other bounds moves inside the present ones; what the template says stays."""
    if workload.component != "dag-processor":
        return None
    stated = workload.stated
    interval, processes = before.interval, before.processes
    if interval != stated.interval:
        bounds = wanted.interval_seconds if wanted is not None else None
        interval = _held(interval, bounds.min, bounds.max) if bounds is not None else stated.interval
    if processes != stated.processes:
        most = wanted.processes if wanted is not None else None
        processes = _held(processes, most.min, most.max) if most is not None else stated.processes
    after = replace(before, interval=interval, processes=processes)
    if after == before:
        return None
    parts = [
        f"parsing interval {_shown(before.interval)} -> {_shown(interval)}" if interval != before.interval else "",
        f"parsing processes {_shown(before.processes)} -> {_shown(processes)}" if processes != before.processes else "",
    ]
    change = " and ".join(part for part in parts if part)
    return Step(
        after,
        "BoundsChanged",
        f"{change[0].upper()}{change[1:]} for {short(workload.label)}: the policy's bounds have changed. It takes "
        "effect at the next start of the pod.",
    )


def _held(value: int | None, low: int, high: int) -> int | None:
    return None if value is None else min(max(value, low), high)


def _shown(value: int | None) -> str:
    return "as configured" if value is None else f"{value}"


def _waits(cause: str, spec: api.Spec, workload: Workload, past: Past, before: Values, seen: Observation) -> str:
    """Why nothing is done yet about what is wrong; empty where something can be."""
    if before.memory.limit is None:
        return "The container has no memory limit: it gets one first."
    changed, cooldown = past.parsing_changed, timedelta(seconds=spec.changes.cooldown.parsing_seconds)
    cooldown = max(cooldown, CALM) if cause == EAGER else cooldown
    if changed is not None and seen.at - changed < cooldown:
        return f"Parsing was changed at {changed:%H:%M:%S}: the cooldown is running."
    born = [environment.stated(workload.component, pod.environment, seen.line) for pod in workload.living]
    behind = any(
        (told.interval or workload.stated.interval, told.processes or workload.stated.processes)
        != (before.interval, before.processes)
        for told in born
    )
    if behind and spec.mode is api.Mode.ENFORCE:
        return "What was decided last is not in force yet: it waits for the next start of the pod."
    return ""


def _young(spec: api.Spec, facts: Assessment, workload: Workload, seen: Observation) -> str:
    """Why parsing is neither made more frequent nor more seldom yet: a container that has just begun tells little."""
    since = max((pod.started for pod in workload.living if pod.started is not None), default=None)
    needed = timedelta(seconds=rounds(spec, [workload], seen.line))
    needed = max(needed, STEADY) if facts.cause == EAGER else needed
    if facts.cause not in {"DagsStale", EAGER} or since is None or seen.at - since >= needed:
        return ""
    after = f"{needed.total_seconds():.0f} s after that"
    return f"{short(workload.label)} runs since {since:%H:%M:%S}: what a round costs is known {after}."


def _right(
    spec: api.Spec,
    wanted: api.Parsing,
    workload: Workload,
    before: Values,
    facts: Assessment,
    found: Parsing,
    cpu: float,
) -> Assessment:
    """The right interval, and what is wrong now."""
    fresh = spec.objectives.dag_freshness_seconds
    by_cpu = math.ceil(cpu * found.cycle / facts.share)
    # Once they have begun at different times, files do not wait for a whole round.
    by_freshness = math.floor(fresh - _spare(fresh))
    bounds = wanted.interval_seconds
    interval = min(max(by_cpu, by_freshness, bounds.min), bounds.max)
    facts = replace(facts, interval=interval)
    told = (
        f"{found.files} DAG files are parsed every {found.cycle:.0f} s (the oldest parse was {found.oldest:.0f} s "
        f"ago), {found.seconds:.1f} s each; {short(workload.label)} takes {cpu:.2f} cores of the "
        f"{facts.share:g} it may. {_slowest(found)}"
    )
    if cpu > TOLERANCE * facts.share:
        return replace(facts, cause="ParsingOverloaded", told=told)
    if found.oldest > TOLERANCE * fresh:
        return replace(facts, cause="DagsStale", told=f"{told} The objective is {fresh} s.")
    present = before.interval or found.cycle
    if interval >= (1 + WORTH) * present and cpu * (1 - present / interval) >= SPARED and found.oldest <= fresh:
        return replace(facts, cause=EAGER, told=f"{told} The objective of {fresh} s asks for no more.")
    return facts


def _step(
    spec: api.Spec,
    wanted: api.Parsing,
    workload: Workload,
    before: Values,
    facts: Assessment,
) -> Step | None:
    found, interval = facts.parsing, facts.interval
    if found is None or interval is None:
        return None
    processes = _enough(spec, wanted, before, facts, found)
    # Overloaded, it is never parsed more often for that; stale, never more seldom.
    if facts.cause in {"ParsingOverloaded", EAGER}:
        worth = interval >= (1 + WORTH) * (before.interval or found.cycle)
    else:
        # Where one round follows the other without a pause, the interval is not what files wait for.
        pauses = _loop(found, _processes(before)) <= (1 - WORTH) * found.cycle
        worth = pauses and interval <= (1 - WORTH) * (before.interval or found.cycle)
    after = replace(before, interval=interval if worth else before.interval, processes=processes)
    if after == before:
        return None
    parts = []
    if after.interval != before.interval:
        stated = f"{before.interval} s" if before.interval else f"as configured (every {found.cycle:.0f} s)"
        parts.append(f"parsing interval {stated} -> {after.interval} s")
    if after.processes != before.processes:
        parts.append(f"parsing processes {_processes(before)} -> {after.processes}")
    change = " and ".join(parts)
    return Step(
        after,
        facts.cause,
        f"{change[0].upper()}{change[1:]} for {short(workload.label)}: {facts.told} Rule: "
        f"{cost(facts)} It takes effect at the next start of the pod.",
    )


def cost(facts: Assessment) -> str:
    """How the interval came to be."""
    found, cpu = facts.parsing, facts.cpu
    if found is None or cpu is None:
        return ""
    return (
        f"one round costs {cpu * found.cycle:.0f} CPU seconds, which fit {facts.share:g} cores every "
        f"{math.ceil(cpu * found.cycle / facts.share)} s."
    )


def _enough(spec: api.Spec, wanted: api.Parsing, before: Values, facts: Assessment, found: Parsing) -> int | None:
    """More processes where one round does not fit the objective, and the CPU share allows it."""
    fresh, present = spec.objectives.dag_freshness_seconds, _processes(before)
    within = (facts.cpu or 0) * found.cycle <= facts.share * fresh
    room = (fresh - _spare(fresh)) / ROOM
    if wanted.processes is None or not within or _loop(found, present) <= room:
        return before.processes
    needed = math.ceil(found.files * found.seconds / room)
    enough = min(max(needed, wanted.processes.min), wanted.processes.max)
    return enough if enough > present else before.processes


def _spare(fresh: int) -> float:
    return min(SPARE, fresh / 5)


def _loop(found: Parsing, processes: int) -> float:
    """Seconds that one round over all files takes."""
    return found.files * found.seconds / processes


def _processes(values: Values) -> int:
    return values.processes or DEFAULT_PROCESSES


def _slowest(found: Parsing) -> str:
    if not found.slowest:
        return "Which files are slow is not known."
    files = [f"{item.name} {item.seconds:.1f} s" for item in found.slowest[:3]]
    return f"Slowest: {listed(files)}."

"""How many triggers a triggerer should take, or how many triggerers there should be. Pure.

All triggers of a triggerer run in one process, most of whose work is in one thread: memory bounds how many fit, and one
core how many get on.
"""

import math
from dataclasses import dataclass

from airflow_tuner import autoscaler, lag
from airflow_tuner.model import Observation, Pod, Workload
from airflow_tuner.quantity import MEBIBYTE, readable
from airflow_tuner.sentence import counted, short
from airflow_tuner.steps import PROBE_SPIKE
from airflow_tuner.triggers import Triggerer

BASE = {"3": 267 * MEBIBYTE}
"""A triggerer without triggers (measured on 3.3.2)."""

PER_TRIGGER = 41 * 1024
"""Bytes of a trigger that holds nothing of its own (measured on 3.3.2: a hundred that wait for a time took 4 MiB)."""

CORE = 0.9
"""Cores that a triggerer uses from which its event loop is full: it is one thread."""

COARSE = 50
"""A capacity is told as a multiple of that."""


@dataclass(frozen=True, slots=True)
class Law:
    """What triggers take, in bytes."""

    base: int
    """Without triggers, as far as these can be told from the rest."""
    per_trigger: float
    source: str
    """Where that is known from, as a clause."""

    def most(self, limit: int) -> int:
        """Triggers that a limit carries, beside a liveness probe."""
        return max(0, math.floor((limit - self.base - PROBE_SPIKE) / self.per_trigger))

    def told(self, triggers: int) -> str:
        """As a sum."""
        need = self.base + triggers * self.per_trigger + PROBE_SPIKE
        each = f"{self.per_trigger / 1024:.0f} KiB"
        probe = readable(PROBE_SPIKE)
        return f"{readable(self.base)} + {triggers} x {each} + {probe} = {readable(round(need))}, {self.source}"


def law(held: float, triggers: int, found: Triggerer, line: str | None) -> Law:
    """What triggers take in a triggerer that holds so many bytes with so many triggers."""
    base = BASE.get(line or "")
    if found.per_trigger is not None and found.per_trigger >= PER_TRIGGER:
        each, source = found.per_trigger, "a trigger as its memory rose and fell with them within a day"
    elif base is not None and (held - base) > PER_TRIGGER * triggers:
        # Whatever else it holds counts as theirs: too few are told rather than too many.
        each, source = (held - base) / triggers, "a trigger as all that it holds beyond an empty one"
    else:
        each, source = PER_TRIGGER, "a trigger as measured where it holds nothing of its own"
    return Law(max(0, round(held - each * triggers)), each, source)


def advice(workload: Workload, seen: Observation, found: Triggerer, most_memory: int | None) -> str:
    """What would make room for more triggers, with the numbers; empty where too little is known.

    `most_memory`: the policy's maximum, where it has one.
    """
    pods = [pod for pod in workload.living if pod.running is not None]
    if not pods or not found.running:
        return ""
    running, wanted = found.running, _wanted(found, len(pods))
    capacity = running + found.free
    if (busy := _busy(workload, pods)) is not None:
        asked = None if wanted is None else math.ceil(wanted / running)
        return f"{busy}: more triggers in it would only share that. {_more(workload, seen, len(pods), asked)}"
    known = [pod.usage.anonymous.value for pod in pods if pod.usage.anonymous is not None]
    limits = [pod.running.limit for pod in pods if pod.running is not None and pod.running.limit]
    if not known:
        return ""
    took = law(max(known), running, found, seen.line)
    each = 2 * capacity if wanted is None else math.ceil(wanted / len(pods))
    asked = max(COARSE * math.ceil(each / COARSE), capacity)
    limit = min(limits) if len(limits) == len(pods) else None
    largest = max((size for size in (limit, most_memory) if size is not None), default=None)
    room = asked if largest is None else min(asked, COARSE * (took.most(largest) // COARSE))
    if room <= capacity < asked or asked <= capacity:
        ended = "" if asked <= capacity else f"Memory ends at {took.most(largest or 0)}: {took.told(asked)}. "
        return f"{ended}{_more(workload, seen, len(pods), None if wanted is None else math.ceil(wanted / capacity))}"
    needs = took.base + room * took.per_trigger + PROBE_SPIKE
    with_it = f" and a memory limit of {readable(round(needs))}" if limit is not None and needs > limit else ""
    option = "capacity" if seen.line == "3" else "default_capacity"
    first = f"Set config.triggerer.{option} to {room} (now {capacity}){with_it}: {took.told(room)}."
    if room < asked and wanted is not None:
        return f"{first} {_more(workload, seen, len(pods), math.ceil(wanted / room))}"
    return first


def _wanted(found: Triggerer, triggerers: int) -> int | None:
    """Triggers that are asked for, with a margin; `None` where that is not known."""
    if found.deferred is None or found.running is None:
        return None
    return round(lag.DEMAND_MARGIN * max(found.deferred, found.running * triggerers))


def _busy(workload: Workload, pods: list[Pod]) -> str | None:
    """Which triggerer has no CPU left, as a clause."""
    if (told := lag.cpu_short(workload, pods)) is not None:
        return f"Its CPU is short ({told})"
    used = [(pod.usage.cpu.value, pod.name) for pod in pods if pod.usage.cpu is not None and not pod.usage.momentary]
    cores, name = max(used, default=(0.0, ""))
    return f"{short(name)} uses {cores:.2f} cores, and its event loop can use one" if cores >= CORE else None


def _more(workload: Workload, seen: Observation, now: int, wanted: int | None) -> str:
    """More triggerers, or what decides how many there are."""
    if scaler := autoscaler.scaler(seen.autoscalers_of(workload)):
        return f"How many triggerers there are is left to the {short(scaler)}."
    if wanted is None or wanted <= now:
        return "Add triggerers (triggerer.replicas)."
    return f"Run {counted(wanted, 'triggerer', 'triggerers')} instead of {now} (triggerer.replicas)."

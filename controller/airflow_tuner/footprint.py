"""The memory that a Celery worker's slots take: `base + slots x per-slot + tail`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_tuner import leak, quantity
from airflow_tuner.model import Pod
from airflow_tuner.quantity import readable
from airflow_tuner.steps import PROBE_SPIKE, Past

MI = quantity.MEBIBYTE

BASE = {"3": 255 * MI, "2": 261 * MI}
"""Memory of a worker without tasks, by Airflow line (measured on 3.3.2 and 2.11.2 with 1 to 16 slots)."""

PER_SLOT = {"3": 86 * MI, "2": 105 * MI}
"""Memory of a busy slot whose task holds nothing of its own (the same measurement)."""

GROWN = 50 * MI
"""What a slot takes more that is added while the worker runs: it is forked from a process that has grown, and makes its
own what it shared (measured on 3.3.2: 10 slots from birth take 1011 MiB, 10 of which 8 were added 1413 MiB)."""

UNSEEN = 0.5
"""What the task in each slot that is added may hold beyond the usual, as a share of that: tasks that wait have not been
seen yet (without it 28 tasks of 20 MiB got nine slots at 1509 MiB on 3.3.2, and five of them were killed)."""

SCHEDULER = {"3": 180 * MI}
"""Memory of a scheduler that runs no task (measured on 3.3.2). With the LocalExecutor on Airflow 2 nothing was."""

PER_TASK = {"3": 53 * MI}
"""Memory of a task that holds nothing of its own, in a scheduler that runs it (LocalExecutor; measured on 3.3.2 in
two runs: 1, 4 and 16 tasks at once took 229, 377 and 1018 MiB at most)."""

NEEDS_MORE = "2"
"""The line that one that is not known is taken for."""

FULL_ENOUGH = 0.5
"""Share of a worker's slots that must be busy for its memory to say what a slot takes."""


WARM = 0.7
"""What a slot keeps of that when its task is over, as a share (measured on 3.3.2: 62 of 86 MiB)."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What slots take, in bytes."""

    base: int
    per_slot: int
    tail: int
    """Beyond the slots' usual: the largest task known, at least a probe's spike."""
    measured: bool = False
    """A slot was measured here, and takes more than the table says."""
    grown: int = GROWN
    """What a slot takes more that is added while the process runs."""
    unseen: float = UNSEEN
    """Share of a slot that the task in each added one may hold beyond it."""

    def need(self, slots: int, added: int = 0) -> int:
        """Limit that carries so many slots, `added` of them while the worker runs, in whole MiB."""
        return quantity.rounded(self.base + slots * self.per_slot + added * self.grown + self._spare(added))

    def most(self, limit: int, slots: int) -> int:
        """Slots that a limit carries, in a worker that has `slots` now."""
        room = limit - self.need(slots)
        if room < 0:
            return max(0, slots + room // self.per_slot)
        each = self.per_slot + self.grown
        unseen = limit - replace(self, tail=PROBE_SPIKE).need(slots)
        return slots + min(room // each, int(unseen // (each + self.unseen * self.per_slot)))

    def told(self, slots: int, added: int) -> str:
        """As a sum."""
        grown = f" + {added} x {readable(self.grown)}" if added else ""
        need = readable(self.need(slots, added))
        spare = readable(self._spare(added))
        return f"{readable(self.base)} + {slots} x {readable(self.per_slot)}{grown} + {spare} = {need}"

    def _spare(self, added: int) -> int:
        """Beyond the usual: the largest task known, or what those in the added slots may hold."""
        return max(self.tail, PROBE_SPIKE + int(max(0, added) * self.unseen * self.per_slot))

    def __str__(self) -> str:
        return f"{readable(self.base)} + slots x {readable(self.per_slot)} + {readable(self.tail)}"


def footprint(pods: Sequence[Pod], slots: int, running: int, past: Past, line: str | None, now: datetime) -> Footprint:
    """What a slot takes here: as the table says, or more where full workers show it.

    `slots` of each worker, `running` tasks in all of them. A kill says that more than its limit was wanted; what a pod
    has leaked is no task's.
    """
    return _fitted(pods, slots, running, past, BASE[line or NEEDS_MORE], PER_SLOT[line or NEEDS_MORE], now)


def in_scheduler(
    pods: Sequence[Pod], slots: int, running: int, past: Past, line: str | None, now: datetime
) -> Footprint | None:
    """The same of a scheduler that runs tasks itself; `None` where it was not measured on this Airflow line."""
    if line not in SCHEDULER:
        return None
    # Its slots are there from its start: another number of them is another start.
    return replace(_fitted(pods, slots, running, past, SCHEDULER[line], PER_TASK[line], now), grown=0, unseen=0.0)


def _fitted(
    pods: Sequence[Pod], slots: int, running: int, past: Past, base: int, fixed: int, now: datetime
) -> Footprint:
    usual_busy = running / len(pods) if pods else 0
    found = []
    for pod in pods:
        busy = pod.slots.busy if pod.slots is not None else usual_busy
        held = leak.without(pod.usage.anonymous, pod, now)
        if held is not None and busy >= max(1, FULL_ENOUGH * slots):
            found.append((held - base) / (busy + WARM * max(0, slots - busy)))
    per_slot = max(fixed, int(max(found, default=0)))
    usual = base + slots * per_slot
    most = (leak.without(pod.usage.anonymous_day, pod, now) for pod in pods)
    tails = [int(held) - usual for held in most if held is not None]
    if past.raised is not None and past.raised.before is not None:
        tails.append(past.raised.before + PROBE_SPIKE - usual)
    return Footprint(base, per_slot, max([PROBE_SPIKE, *tails]), measured=per_slot > fixed)

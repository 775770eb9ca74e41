"""How full the triggerers are, and what their memory has to do with the triggers in them over a day. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow_tuner.signals import Series

LOOKS = 24
"""Looks, five minutes apart, that both must be known at: two hours."""

ALIKE = 0.7
"""Correlation of memory with triggers from which one explains half of the other."""

SPREAD = 0.1
"""Standard deviation of the triggers, as a share of their mean, below which a day shows nothing of what one takes."""


@dataclass(frozen=True, slots=True)
class Triggerer:
    """How full the triggerers are; Airflow 2 does not say it."""

    running: int | None
    """Triggers in one of them."""
    free: int
    """Triggers that one of them could still take, at most within three minutes."""
    deferred: int | None = None
    """Slots of deferred tasks, in all pools: so many triggers are wanted, where a task has one slot."""
    per_trigger: float | None = None
    """Bytes that one trigger more took within a day; `None` where that does not show it."""


def read(rates: Mapping[str, float], of_a_day: Iterable[Series]) -> Triggerer | None:
    """Out of the answers to `questions.SIGNS` and `questions.TRIGGERS`; `None` where no triggerer tells it."""
    if not rates.get("triggerer_beats") or "triggers_free" not in rates:
        return None
    running, deferred = (round(rates[name]) if name in rates else None for name in ("triggers", "deferred"))
    told = {item.labels.get("signal", ""): item.value for item in of_a_day}
    return Triggerer(running, round(rates["triggers_free"]), deferred, per_trigger(told))


def per_trigger(told: Mapping[str, float]) -> float | None:
    """Bytes that one trigger more took; `None` where a day does not show it. `told`: `questions.TRIGGER_MEMORY`."""
    parts = ("trigger_looks", "trigger_mean", "trigger_held", "trigger_squares", "trigger_held_squares", "trigger_both")
    if not all(part in told for part in parts):
        return None
    looks, mean, held, squares, held_squares, both = (told[part] for part in parts)
    spread, held_spread, together = squares - mean**2, held_squares - held**2, both - mean * held
    if looks < LOOKS or mean <= 0 or spread < (SPREAD * mean) ** 2 or held_spread <= 0 or together <= 0:
        return None
    if together**2 < ALIKE**2 * spread * held_spread:
        return None
    return together / spread

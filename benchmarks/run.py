"""One run: a story, a seed, and who is in charge."""

import time
from collections.abc import Callable, Mapping
from functools import cache

import click

from airflow_tuner import simulate
from airflow_tuner.fleet.scenarios import SCENARIOS, Scenario, shortened
from airflow_tuner.fleet.weeks import Weeks
from benchmarks import controllers, oracle
from benchmarks.score import Score
from benchmarks.tuned import Tuner

OBJECTIVE = 60.0
"""Seconds that a task may wait; as in the policy of the tuner."""

TIGHT = 1.1
"""Times the peak of the days that somebody looked at."""

QUIET = 10.0
"""Seconds between two words on how far a run is."""

Made = Callable[[Weeks], controllers.Controller]

CONTROLLERS: Mapping[str, Made | None] = {
    "oracle": None,
    "manual": controllers.Static,
    "tight": controllers.Static,
    "vpa": controllers.Vpa,
    "krr": controllers.Krr,
    "autopilot-max": controllers.Autopilot,
    "autopilot-p98": controllers.AutopilotP98,
    "keda": controllers.Keda,
    "tuner": Tuner,
}
"""By name; the oracle needs none."""


def scenario(name: str, days: int | None) -> Scenario:
    """A story, or the beginning of it."""
    made = SCENARIOS[name]
    return made if days is None else shortened(made, days)


@cache
def peak(name: str, seed: int) -> float:
    """Of the days that somebody looked at before all this."""
    return simulate.seen_peak(SCENARIOS[name], seed)


def played(name: str, seed: int, controller: str, days: int | None = None, ablation: tuple[str, ...] = ()) -> Score:
    """The whole story, with its score."""
    made, kind = scenario(name, days), CONTROLLERS[controller]
    if kind is None:
        return oracle.played(made, seed, OBJECTIVE)
    size = simulate.rounded((TIGHT if controller == "tight" else simulate.CAREFUL) * peak(name, seed))
    weeks = Weeks(made, seed, size, size, objective=OBJECTIVE)
    acting = Tuner(weeks, ablation) if kind is Tuner else kind(weeks)
    label = controller + "".join(f" {one}" for one in ablation)
    score = Score(name, seed, label)
    told, total = time.monotonic(), made.warm_up + made.days
    try:
        while weeks.day < total:
            if time.monotonic() - told >= QUIET:
                told = time.monotonic()
                click.echo(f"{name} {seed} {label}: day {weeks.day:.1f} of {total}", err=True)
            if weeks.minute == made.warm_up * 1440:
                score.begin(weeks, acting.changes)
            weeks.step()
            if weeks.minute > made.warm_up * 1440:
                score.add(weeks)
            acting.act()
    finally:
        acting.close()
    return score.end(weeks, acting.changes)

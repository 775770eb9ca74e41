"""`make scale`: what a turn costs with weeks of history, and what a thousand Airflows side by side cost and hold.

Each turn is the whole of it but for reading and writing: learn, diagnose, decide, and the new status. What is observed
comes from the fleet model, the past is drawn for each Airflow.
"""

import math
import random
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from airflow_tuner import api, policies, simulate
from airflow_tuner.fleet.scenarios import SCENARIOS
from airflow_tuner.fleet.weeks import Weeks
from airflow_tuner.history import History, hour_of, of_tasks
from airflow_tuner.model import Memory, Observation
from airflow_tuner.outcome import outcome
from airflow_tuner.played import Played
from airflow_tuner.quantity import MEBIBYTE

PAST = 5 * 7 * 24
"""Hours of history, as many as a forecast looks at."""

SIZE = 3000
"""MiB of each worker, to begin with."""

WORKER = "worker/default"
TARGETS = {WORKER: 900, of_tasks(WORKER): 60, "scheduler": 300, "dag-processor": 250}
"""With the middle of what each took."""

Drawn = dict[str, History]


def seen(workers: int, minutes: int) -> list[Observation]:
    """So many looks, a minute apart, from 10:50 on the second day on: with the change of an hour."""
    weeks = Weeks(replace(SCENARIOS["steady"], workers=workers), 1, SIZE, SIZE)
    played = Played(weeks, Memory(SIZE * MEBIBYTE, SIZE * MEBIBYTE))
    looks: list[Observation] = []
    begin = 35 * 60 - 10
    while len(looks) < minutes:
        weeks.step()
        look = played.look()
        if weeks.minute >= begin:
            looks.append(look)
    return looks


def past(seed: int, end: int) -> Drawn:
    """Hourly peaks with a day's and a week's shape, until an hour."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    return {
        target: History(end - PAST, tuple(_peak(chance, middle, hour) for hour in range(end - PAST, end)))
        for target, middle in TARGETS.items()
    }


def _peak(chance: random.Random, middle: int, hour: int) -> int:
    daily, weekly = math.sin(hour * math.tau / 24), math.sin(hour * math.tau / 168)
    return max(1, round(middle * (1 + 0.4 * daily + 0.1 * weekly) * math.exp(chance.gauss(0, 0.1))))


class Deployment:
    """One Airflow with its past, turn after turn."""

    def __init__(self, spec: api.Spec, seed: int, end: int) -> None:
        self._spec, self._seed, self._status = spec, seed, api.Status()
        self._histories = past(seed, end)

    def turn(self, look: Observation) -> float:
        """Seconds of CPU that it took."""
        begun = time.process_time()
        given = replace(look, histories=self._histories)
        came = outcome(self._spec, given, self._status, identity=f"uid-{self._seed}")
        self._status, self._histories = came.status, dict(came.seen.histories)
        return time.process_time() - begun


def _spec() -> api.Spec:
    document = simulate.parsed(simulate.POLICY)
    document["spec"]["scheduler"] = {"memory": {"min": "256Mi", "max": "4Gi"}}
    return policies.parsed(document)[0]


def _told(name: str, times: Sequence[float]) -> str:
    ordered = sorted(1000 * one for one in times)
    parts = [ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], ordered[-1]]
    return f"| {name} | {' | '.join(f'{one:.1f}' for one in parts)} | {sum(ordered) / len(ordered):.1f} |"


def _resident() -> float:
    """MiB, the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _rows(workers: int, many: int, turns: int) -> Iterator[str]:
    spec, day = _spec(), seen(workers, 1440)
    end = hour_of(day[0].at)
    alone = Deployment(spec, 1, end)
    yield _told(f"one Airflow, {workers} workers, a day of turns", [alone.turn(look) for look in day])
    before = _resident()
    looks = seen(4, turns)
    fleet = [Deployment(spec, seed, end) for seed in range(2, many + 2)]
    for name, part in (("first", looks[: turns // 2]), ("then", looks[turns // 2 :])):
        times = [one.turn(look) for look in part for one in fleet]
        yield _told(f"{many} Airflows of 4 workers, {name} {len(part)} turns of each", times)
        yield f"  resident {_resident():.0f} MiB, of which {_resident() - before:.0f} MiB for the {many}"


@click.command()
@click.option("--workers", default=20, show_default=True)
@click.option("--many", default=1000, show_default=True, help="Airflows side by side.")
@click.option("--turns", default=20, show_default=True, help="Of each of them.")
def main(workers: int, many: int, turns: int) -> None:
    """Measure, and print a table in milliseconds of CPU."""
    click.echo("| | median | 99 % | most | mean |\n| --- | --- | --- | --- | --- |")
    for row in _rows(workers, many, turns):
        click.echo(row)


if __name__ == "__main__":
    main()

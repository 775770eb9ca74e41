"""Days on which nothing is wrong: what a healthy Airflow goes through, and should not be troubled for."""

import math
import random
from collections.abc import Callable
from typing import Any

from testbed.model_world import DAY, HOUR, Act, World

LOOK = 390.0
"""Seconds between two looks: at any time within what comes every five minutes, or every hour."""

JITTER = 30.0
"""Seconds by which runs come late, so that none keeps step with scrapes and looks."""

GRACE = 900.0
"""Seconds after the beginning for which nothing is looked at: everything starts at once then."""


def office(at: float) -> float:
    """How busy an Airflow is at that second of a week that begins on a Monday: from 0.15 to 1, on weekends 0.15."""
    day, hour = int(at // DAY) % 7, at % DAY / HOUR
    if day >= 5 or not 6 <= hour <= 20:
        return 0.15
    return max(0.15, math.sin((hour - 6) / 14 * math.pi))


def day_to_day(world: World) -> None:
    """An ordinary load with its days and weeks, deploys, drained nodes, failed tasks, and scrapes that fail."""
    rng = random.Random(world.seed * 104729)  # noqa: S311 - a model, not a secret
    load(world, rng)
    _changes(world, rng)


def load(world: World, rng: random.Random) -> None:
    """DAGs of many sizes. The largest, once a week, fills the slots, and the last of it waits less than 30 s."""

    def some(dag: str, count: float, seconds: float, *, always: bool = False, **job: Any) -> Act:  # noqa: ANN401 - any field of a job
        def act(world: World) -> None:
            busy = 1.0 if always else office(world.fleet.now)
            number = max(1, round(count * busy * rng.uniform(0.7, 1.3)))
            world.fleet.trigger(dag, number, seconds, **{"seconds_spread": 0.4, "fails": 0.01, **job})

        return act

    def comes(seconds: float, act: Act, first: float) -> None:
        world.every(seconds, act, first, JITTER)

    comes(60, some("each_minute", 1, 5, always=True), rng.uniform(0, 60))
    comes(300, some("each_five_minutes", 4, 12, mebibytes=20, memory_spread=0.5), rng.uniform(0, 300))
    for number in range(3):
        size = rng.uniform(20, 80)
        hourly = some(f"hourly_{number}", rng.uniform(3, 6), rng.uniform(20, 90), mebibytes=size, cpu=rng.random() / 3)
        comes(HOUR, hourly, rng.uniform(0, HOUR))
    comes(6 * HOUR, some("reports", 2, 120, reads=200, mebibytes=60, always=True), rng.uniform(0, 6 * HOUR))
    slots = world.slots * world.workers
    # What begins at the full hour: more than there are slots, and short.
    comes(HOUR, some("full_hour", slots * 1.2, 8), 0)
    nightly = some("nightly", slots * 0.8, 40, always=True, mebibytes=50, memory_spread=0.8, cpu=0.3)
    comes(DAY, nightly, rng.uniform(1, 4) * HOUR)
    for part in range(12):
        # 20 short tasks every five minutes of an hour, and once a week four times as many.
        comes(DAY, some("steps", 20, 2, always=True), 5 * HOUR + 300 * part)
        comes(7 * DAY, some("steps", 60, 2, always=True), 2 * DAY + 5 * HOUR + 300 * part + 20)
    weekly = some("weekly", slots * 1.4, 15, always=True, seconds_spread=0.1, mebibytes=40, fails=0.0)
    comes(7 * DAY, weekly, 5 * DAY + rng.uniform(2, 5) * HOUR)


def _changes(world: World, rng: random.Random) -> None:
    """Deploys, drained pods, other DAG files, an exporter that begins again, and failed scrapes."""

    def deploy(world: World) -> None:
        for component in world.shapes:
            world.roll(component)

    def drain(world: World) -> None:
        component = rng.choice([*world.shapes])
        if living := world.living(component):
            world.replace(rng.choice(living))

    def gap(world: World) -> None:
        world.silent[rng.choice(("airflow", "containers"))] = world.now + rng.choice((30, 30, 60, 90))

    def file(world: World) -> None:
        world.fleet.files(rng.randint(1, 6), rng.uniform(0.05, 0.3), "new")

    def exporter(world: World) -> None:
        world.fleet.restart_exporter()

    every: tuple[tuple[float, Act], ...] = ((3 * DAY, deploy), (DAY, drain), (DAY, file), (4 * DAY, exporter))
    for seconds, act in every:
        world.every(seconds, act, rng.uniform(0.3, 0.9) * min(seconds, DAY))
    for _ in range(4):
        world.every(DAY, gap, rng.uniform(0, DAY))


def lived(name: str, seed: int, number: int, days: float, wanted: Callable[[str], bool], look: float = LOOK) -> World:
    """An Airflow that has lived so many days. Its size, line and kind of workers go by its number."""
    line, broker = ("2" if number % 3 == 2 else "3"), number % 2 == 0
    slots, workers = ((8, 2), (16, 1), (4, 3), (8, 3))[number % 4]
    world = World(
        name,
        seed,
        wanted,
        line=line,
        broker=broker,
        slots=slots,
        workers=workers,
        parallelism=max(32, 3 * slots * workers),
        stateful=number % 5 != 0,
    )
    day_to_day(world)
    world.run(GRACE)
    world.run(days * DAY - GRACE, look)
    return world

"""What may happen to an Airflow over weeks, one story each. Data; all of it is invented, but for the laws of memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from airflow_tuner.fleet.loads import OFFICE, Burst, Load, On

MONDAY = date(2026, 6, 1)
TUESDAY = date(2026, 6, 2)
"""Where Mondays matter: none of the days that somebody looks at before is one."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time, in days since the beginning, and how much it changes."""

    first: float
    last: float
    factor: float = 1.0

    def holds(self, day: float) -> bool:
        """Whether that time lies in it."""
        return self.first <= day < self.last


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story. Days count from the beginning; those before `warm_up` are there to learn from, and are not scored."""

    name: str
    told: str
    """In a sentence."""
    loads: tuple[Load, ...]
    workers: int = 20
    slots: int = 16
    """Of each worker, as its user has set it."""
    warm_up: int = 7
    days: int = 21
    """Scored ones."""
    telling: int = 7
    """Of them those in which what it is about has come."""
    begin: date = MONDAY
    growth: tuple[tuple[float, float], ...] = ()
    """From a day on, so many times the load."""
    leak: float = 0.0
    """MiB per hour in each worker."""
    files: tuple[tuple[float, int, float], ...] = ((0.0, 120, 0.6),)
    """From a day on, so many DAG files, of so many seconds a parse."""
    interval: float = 30.0
    """Seconds between two parses of a file, and processes: Airflow's defaults."""
    processes: int = 2
    database: tuple[Span, ...] = ()
    """It is so many times slower."""
    outages: tuple[Span, ...] = ()
    """There are no metrics."""
    neighbours: tuple[Span, ...] = field(default=())
    """Others on the nodes make tasks take so many times longer."""


ETL = Load("etl", 220, 45, daily=5200, hours=OFFICE, memory_spread=0.7, seconds_spread=0.6, reads=2)
CALLS = Load("calls", 40, 15, daily=8000, bursts=(Burst(60, on=On.HOURLY),), cpu=0.05)
WAITS = Load("spark", 1400, 60, daily=500, cpu=0.02)
FRAMES = Load("frames", 380, 160, daily=360, hours=OFFICE, memory_spread=0.6, tail=0.01, most=1500, cpu=0.8, reads=20)
REPORTS = (
    Load("report-1", 600, 600, bursts=(Burst(20, hour=1.0),), memory_spread=0.15, cpu=0.8),
    Load("report-7", 900, 900, bursts=(Burst(12, hour=7.5),), memory_spread=0.15, cpu=0.8),
    Load("report-13", 500, 1200, bursts=(Burst(6, hour=13.0),), memory_spread=0.15, cpu=0.8),
)
NIGHT = Load("night", 300, 90, bursts=(Burst(80, hour=2.0),), memory_spread=0.6)

USUAL = (ETL, CALLS, WAITS, FRAMES, NIGHT, *REPORTS)

MIDNIGHT = Load("midnight", 420, 220, bursts=(Burst(240, hour=0.0),), memory_spread=0.5, cpu=0.5)
WEEKLY = Load("weekly", 900, 500, bursts=(Burst(120, hour=6.0, on=On.MONDAYS),), memory_spread=0.4, cpu=0.6)
MONTHLY = Load("monthly", 1200, 450, bursts=(Burst(200, hour=5.0, on=On.MONTH_ENDS),), memory_spread=0.4, cpu=0.6)
MONSTER = Load("monster", 1800, 3000, bursts=(Burst(1, hour=3.5),), memory_spread=0.1, most=4000, cpu=1.0)
READERS = Load("readers", 300, 60, daily=1500, reads=400, memory_spread=0.4)
LOOPS = Load("loops", 20, 12, daily=3000)
RUNAWAY = replace(LOOPS, daily=576000, first=15.4, last=15.65)
"""The same DAG, as it starts itself again and again."""

_ALL = (
    Scenario("steady", "A mixed load by day, less at night, month after month.", USUAL),
    Scenario("midnight", "240 tasks of 220 MiB start at midnight, and end within half an hour.", (*USUAL, MIDNIGHT)),
    Scenario("weekly", "120 tasks of 500 MiB on Monday mornings.", (*USUAL, WEEKLY), begin=TUESDAY),
    Scenario(
        "month-end",
        "200 tasks of 450 MiB on the last day of a month.",
        (*USUAL, MONTHLY),
        begin=date(2026, 3, 25),
        days=35,
        telling=35,
    ),
    Scenario("monster", "One task of 3 GiB each night, on any of the workers.", (*USUAL, MONSTER)),
    Scenario("leak", "Workers leak 6 MiB an hour.", USUAL, leak=6.0),
    Scenario("page-cache", "Tasks read large files: page cache fills what is free.", (*USUAL, READERS)),
    Scenario(
        "runaway", "A DAG starts 400 tasks a minute instead of 2, for six hours of day 15.", (*USUAL, LOOPS, RUNAWAY)
    ),
    Scenario(
        "slow-database",
        "The scheduler's query takes seconds, for three hours each on four days.",
        USUAL,
        database=tuple(Span(day + 0.4, day + 0.525, 600.0) for day in (9, 13, 17, 23)),
    ),
    Scenario("slots-high", "48 slots for each worker, far more than tasks.", USUAL, slots=48),
    Scenario("slots-low", "3 slots for each worker: tasks queue by day.", USUAL, slots=3),
    Scenario("doubled", "From day 14 on twice the load.", USUAL, telling=14, growth=((0.0, 1.0), (14.0, 2.0))),
    Scenario(
        "files",
        "From day 14 on five times the DAG files.",
        USUAL,
        telling=14,
        files=((0.0, 120, 0.6), (14.0, 600, 0.6)),
    ),
    Scenario(
        "outage",
        "No metrics for a day, and for six hours on a Monday.",
        (*USUAL, WEEKLY),
        outages=(Span(11.0, 12.0), Span(20.1, 20.35)),
        begin=TUESDAY,
    ),
    Scenario(
        "neighbour",
        "Others on the nodes make tasks take 1.6 times as long, by hours.",
        USUAL,
        neighbours=tuple(
            Span(day + hour / 24, day + (hour + 2) / 24, 1.6) for day in range(8, 28, 2) for hour in (9, 14)
        ),
    ),
)

SCENARIOS: Mapping[str, Scenario] = {made.name: made for made in _ALL}


def shortened(scenario: Scenario, days: int, warm_up: int | None = None) -> Scenario:
    """With other numbers of days."""
    return replace(scenario, days=days, warm_up=min(scenario.warm_up, days) if warm_up is None else warm_up)

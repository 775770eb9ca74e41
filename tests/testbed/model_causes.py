"""The causes that are brought about in a modelled Airflow: the weakest that a user would notice, and a plain one.

With each stands, decided before it is run: the finding that names it, and what else may follow from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from testbed.model_days import load
from testbed.model_pods import MEBIBYTE
from testbed.model_world import HOUR, Act, World, ordinary


class Begin(Protocol):
    """Brings a cause about."""

    def __call__(self, world: World, *, plain: bool) -> None:
        """Do it; `plain`: not the weakest."""


MINUTES = 60.0
LONG = 31 * HOUR
"""A history that holds a day of a DAG's pace, six hours before (RunawayTasks)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that makes an Airflow slow, or kills it. Findings as `Reason/Word target`, or a beginning of that."""

    name: str
    weak: str
    """What the weakest is, in words."""
    plain: str
    wanted: tuple[str, ...]
    """Any of these names it."""
    begin: Begin
    follows: tuple[str, ...] = ()
    """What may be found because of it."""
    setup: Mapping[str, Any] = field(default_factory=dict)
    """What the world is, from its beginning: fields of `World`."""
    plainly: Mapping[str, Any] = field(default_factory=dict)
    """What it is where the cause is plain, beyond that."""
    before: Begin | None = None
    """A load that it has from its beginning."""
    history: float = HOUR
    """Seconds before it."""
    lasts: float = 30 * MINUTES
    """Seconds for which it is looked at."""
    look: float = 30.0
    lines: tuple[str, ...] = ("2", "3")
    """Airflow lines on which it can be told."""


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a finding is one of these."""
    return any(name == pattern or name.startswith((f"{pattern} ", f"{pattern}/")) for pattern in patterns)


def _burst(dag: str, count: int, seconds: float, **job: Any) -> Act:  # noqa: ANN401 - any field of a job
    def act(world: World) -> None:
        world.fleet.trigger(dag, count, seconds, **{"seconds_spread": 0.2, **job})

    return act


# Tasks that wait.


def few_slots(world: World, *, plain: bool) -> None:
    if plain:
        world.every(280, _burst("load", 200, 20))
        return
    # As many come as 16 slots work off; 45 wait, the last of them a minute: twice the objective.
    _burst("load", 45 + 16, 20)(world)
    world.every(30, _burst("load", 22, 20), 30)


def small_pool(world: World, *, plain: bool) -> None:
    world.every(60, _burst("pooled", 60 if plain else 3, 30, pool="small"))


def parallelism(world: World, *, plain: bool) -> None:
    world.roll("scheduler", environment={"AIRFLOW__CORE__PARALLELISM": "4" if plain else "12"})
    world.every(300, _burst("load", 60, 60), 60)


def hungry_tasks(world: World, *, plain: bool) -> None:
    cpu = 0.9 if plain else 0.35
    _burst("load", 45 + 16, 20, cpu=cpu)(world)
    world.every(30, _burst("load", 22, 20, cpu=cpu), 30)


def runaway(world: World, *, plain: bool) -> None:
    if plain:
        _burst("steps", 4000, 10)(world)
    else:
        # 11 a minute before; 5.5 to 6.5 times of it now.
        world.every(60, _burst("steps", 66, 3))


def steps_of_a_day(world: World, *, plain: bool) -> None:
    del plain
    world.every(60, _burst("steps", 11, 3))


def stall(world: World, *, plain: bool) -> None:
    # The chart's own case: all slots busy and as many messages again reserved when the main process dies.
    _burst("load", 60 if plain else 16, 60)(world)
    world.after(40, lambda world: world.crash(world.living("worker")[0]))


# The scheduler, the database, the triggerer.


def starved_scheduler(world: World, *, plain: bool) -> None:
    world.fleet.burden(0.8)
    world.roll("scheduler", cores=0.06 if plain else 0.09)


def stopped_scheduler(world: World, *, plain: bool) -> None:
    (pod,) = world.living("scheduler")
    if plain:
        world.crash(pod, back=False)
    else:
        world.fleet.freeze(pod.name)


def slow_database(world: World, *, plain: bool) -> None:
    if plain:
        # As measured with the pools' table locked 8 s of every 10.
        world.fleet.lock_database(2.3)
    else:
        world.fleet.slow_database(1.3)


def full_triggerer(world: World, *, plain: bool) -> None:
    world.fleet.defer(5000 if plain else 1000)


# Memory.


def held_now(world: World) -> float:
    """Most anonymous memory of a worker now, in MiB."""
    return max(world.fleet.reading(pod.name).rss for pod in world.living("worker")) / MEBIBYTE


def large_task(world: World, *, plain: bool) -> None:
    limit = world.shapes["worker"].limit
    size = 2 * limit if plain else limit * 1.05 - held_now(world)
    world.fleet.trigger("large", 1, 60, size, retries=1)


def full_tasks(world: World, *, plain: bool) -> None:
    """A task that takes a worker to so much of its limit, again and again; a probe takes 130 MiB more for a moment.

    It comes after two minutes, in which it is seen what the worker holds at rest.
    """
    resting: list[float] = []

    def look(world: World) -> None:
        resting.append(min(world.fleet.reading(pod.name).rss for pod in world.living("worker")) / MEBIBYTE)

    def begin(world: World) -> None:
        size = (0.935 if plain else 0.91) * world.shapes["worker"].limit - min(resting) - 24
        world.every(600, _burst("holding", 1, 570, mebibytes=size, seconds_spread=0.0))

    for number in range(24):
        world.after(5.0 * number, look)
    world.after(120, begin)


def leaking(component: str, world: World, *, plain: bool) -> None:
    (pod, *_) = world.living(component)
    held = world.fleet.reading(pod.name).rss / MEBIBYTE
    weeks = 0.5 if plain else 1.0
    world.fleet.leak(component, (pod.shape.limit - held) / (weeks * 7 * 24))


def days(world: World, *, plain: bool) -> None:
    """A load with days and nights."""
    del plain
    load(world, world.rng)


def cached(world: World, *, plain: bool) -> None:
    world.fleet.keep_cache("worker", 1.0 if plain else 0.96, 8000)


def more_slots(world: World, *, plain: bool) -> None:
    limit, laws = world.shapes["worker"].limit, 86
    # As many as do not fit by one, or twice as many as fit.
    fit = int((limit - 255 - 130) / laws)
    world.roll("worker", slots=2 * fit if plain else fit + 2)


# Parsing.


def slow_files(world: World, *, plain: bool) -> None:
    world.fleet.files(24, 5.0 if plain else 0.9)


def many_files(world: World, *, plain: bool) -> None:
    world.fleet.files(1500 if plain else 150, 0.15)


def slow_file(world: World, *, plain: bool) -> None:
    world.fleet.files(1, 16.0 if plain else 2.0, "slow")


def broken_files(world: World, *, plain: bool) -> None:
    world.fleet.break_files(8 if plain else 1)


# Limits of CPU, and nodes.


def throttled(world: World, *, plain: bool) -> None:
    world.roll("triggerer", cores=0.08 if plain else 0.15)


def evicted(world: World, *, plain: bool) -> None:
    for component in ("worker", "scheduler") if plain else ("triggerer",):
        world.evict(world.living(component)[0])


DIED = (
    "StrandedTasks worker",
    "QueueLagHigh/StrandedTasks",
    "QueueLagHigh/WorkersIdle",
    "QueueLagHigh/CpuUnknown",
)
"""What may follow from the death of a worker: the new one's CPU is known after a minute."""

LATE = ("QueueLagHigh/SlotsExhausted", "QueueLagHigh/SlotsSuffice")
"""What may follow where more tasks are brought than slots can take."""

TIGHT = ("ConcurrencyExceedsMemory worker", "MemoryHeadroomLow worker")
"""What may follow where tasks in a worker hold much."""

KILLED = ("OutOfMemory",)
UNSEEN = ("AirflowMetricsMissing policy",)
SMALL = {"slots": 4, "workers": 1, "parallelism": 8}
CHART = {"slots": 16, "workers": 1, "parallelism": 32}

CAUSES = (
    Cause(
        "slots exhausted",
        "the last of 45 waiting tasks waits 60 s, objective 30 s",
        "200 tasks of 20 s at once on 16 slots, every 280 s",
        ("QueueLagHigh/SlotsExhausted worker",),
        few_slots,
        LATE,
    ),
    Cause(
        "pool exhausted",
        "3 tasks of 30 s a minute in a pool of one slot",
        "60 tasks of 30 s a minute in a pool of one slot",
        ("QueueLagHigh/PoolExhausted pool/small",),
        small_pool,
        setup={"pools": {"small": 1}},
    ),
    Cause(
        "core.parallelism capped",
        "60 tasks of 60 s, 16 slots, core.parallelism 12",
        "the same with 4",
        ("QueueLagHigh/ParallelismCapped scheduler",),
        parallelism,
        # What was handed out before the new scheduler waits for a moment.
        ("QueueLagHigh/ParallelismCapped worker", *LATE),
    ),
    Cause(
        "workers CPU-bound",
        "tasks that compute 35 % of their time, two cores for eight slots",
        "90 %, one core for eight slots",
        ("QueueLagHigh/WorkersCpuBound worker",),
        hungry_tasks,
        # Slots are exhausted until the CPU's average over five minutes has seen it.
        ("CpuLimitThrottling worker", *LATE),
        setup={"shaped": {"worker": {"cores": 2.0}}},
        plainly={"shaped": {"worker": {"cores": 1.0}}},
    ),
    Cause(
        "scheduler short of CPU",
        "loops of 0.8 CPU seconds (the longest measured) under a limit of 0.09 cores",
        "the same under 0.06",
        ("SchedulerUnderResourced scheduler",),
        starved_scheduler,
        ("CpuLimitThrottling scheduler", "ProbeTooTight scheduler"),
        lasts=45 * MINUTES,
    ),
    Cause(
        "scheduler stopped",
        "SIGSTOP: its pod seems well",
        "its container dies at each start",
        ("SchedulerDown scheduler",),
        stopped_scheduler,
        UNSEEN,
    ),
    Cause(
        "database slow",
        "the critical query takes 1.3 s",
        "a lock: the critical section takes 2.3 s and computes nothing, its query 3 ms",
        ("DatabaseSlow scheduler",),
        slow_database,
        ("QueueLagHigh/DatabaseSlow worker",),
    ),
    Cause(
        "runaway DAG",
        "six times its usual tasks (110 -> 660 in ten minutes)",
        "4000 tasks at once",
        ("RunawayTasks dag/steps",),
        runaway,
        ("QueueLagHigh/RunawayTasks worker", *LATE),
        before=steps_of_a_day,
        history=LONG,
    ),
    Cause(
        "stranded tasks",
        "the main process of the only worker dies: 4 slots, core.parallelism 8",
        "the same with 16 and 32, the chart's defaults",
        ("StrandedTasks worker",),
        stall,
        (*DIED, *LATE, "QueueLagHigh/ParallelismCapped worker"),
        setup=SMALL,
        plainly=CHART,
        lasts=20 * MINUTES,
    ),
    Cause(
        "task larger than the limit, process killed",
        "5 % above the limit",
        "twice the limit",
        ("OutOfMemory worker",),
        large_task,
        TIGHT,
    ),
    Cause(
        "task larger than the limit, container killed",
        "5 % above the limit",
        "twice the limit",
        ("OutOfMemory worker",),
        large_task,
        (*TIGHT, *DIED),
        setup={"group_kills": True},
    ),
    Cause(
        "leak in the scheduler",
        "fills the limit in a week",
        "in half a week",
        ("MemoryLeakSuspected scheduler",),
        partial(leaking, "scheduler"),
        ("MemoryHeadroomLow scheduler", "OutOfMemory scheduler"),
        before=days,
        lasts=38 * HOUR,
        look=600.0,
    ),
    Cause(
        "leak in the workers",
        "fills the limit in a week",
        "in half a week",
        ("MemoryLeakSuspected worker",),
        partial(leaking, "worker"),
        (*TIGHT, *KILLED),
        before=days,
        lasts=38 * HOUR,
        look=600.0,
    ),
    Cause(
        "page cache that looks like demand",
        "96 % of it counted as active",
        "all of it",
        ("PageCacheNotDemand worker",),
        cached,
    ),
    Cause(
        "concurrency exceeds memory",
        "two slots more than the limit carries",
        "twice as many",
        ("ConcurrencyExceedsMemory worker",),
        more_slots,
    ),
    Cause(
        "memory headroom low",
        "a task that takes a worker to 91 % of its limit",
        "to 93.5 %",
        ("MemoryHeadroomLow worker",),
        full_tasks,
        (*TIGHT, *KILLED),
        # So large that a probe, and a few tasks more, still fit.
        setup={"shaped": {"worker": {"limit": 5120, "request": 2560}}},
    ),
    Cause(
        "slow DAG files",
        "24 files of 0.9 s every 30 s: 0.7 of 0.5 cores",
        "24 files of 5 s",
        ("DagParsingOverloaded/ParsingOverloaded dag-processor", "DagParsingOverloaded/DagsStale dag-processor"),
        slow_files,
    ),
    Cause(
        "many DAG files",
        "150 files of 0.15 s every 30 s: 0.75 of 0.5 cores",
        "1500 files",
        ("DagParsingOverloaded/ParsingOverloaded dag-processor", "DagParsingOverloaded/DagsStale dag-processor"),
        many_files,
    ),
    Cause(
        "a DAG file that parses slowly",
        "one file of 2 s among 24 of 0.15 s",
        "one of 16 s",
        ("ParseOffenders dag-processor",),
        slow_file,
        ("DagParsingOverloaded",),
    ),
    Cause(
        "import errors",
        "one file",
        "eight files",
        ("ImportErrors dag-processor",),
        broken_files,
    ),
    Cause(
        "triggerer full",
        "just full: 1000 triggers",
        "5000 deferred tasks",
        ("TriggererSaturated triggerer",),
        full_triggerer,
        lines=("3",),
    ),
    Cause(
        "CPU limit throttles",
        "the triggerer under 0.15 cores",
        "under 0.08",
        ("CpuLimitThrottling triggerer",),
        throttled,
        ("ProbeTooTight triggerer",),
    ),
    Cause(
        "node evicts",
        "the triggerer's pod",
        "pods of a worker and the scheduler",
        ("PodsEvicted",),
        evicted,
        (*DIED, "AirflowMetricsMissing"),
        setup={"stateful": False},
    ),
)


def cause(name: str) -> Cause:
    """A cause by its name."""
    return next(one for one in CAUSES if one.name == name)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two causes at once."""

    first: str
    second: str
    setup: Mapping[str, Any] = field(default_factory=dict)
    wanted: tuple[str, ...] = ("first", "second")
    """Which of the two must be named."""
    forbidden: tuple[str, ...] = ()
    """What must not be said any more once the first is named: the remedy of the other would do harm."""
    why: str = ""


SLOTS = ("QueueLagHigh/SlotsExhausted",)

PAIRS = (
    Pair("database slow", "slots exhausted", wanted=("first",), forbidden=SLOTS, why="more slots load it more"),
    Pair("runaway DAG", "slots exhausted", wanted=("first",), forbidden=SLOTS, why="more slots run it faster"),
    Pair(
        "stranded tasks",
        "task larger than the limit, container killed",
        {"parallelism": 32, "slots": 16, "workers": 1},
        forbidden=SLOTS,
        why="the stall ends by itself",
    ),
    Pair("workers CPU-bound", "slots exhausted", wanted=("first",), forbidden=SLOTS, why="more slots share the CPU"),
    Pair("leak in the workers", "slots exhausted"),
    Pair("pool exhausted", "slots exhausted"),
    Pair("core.parallelism capped", "pool exhausted"),
    Pair("slow DAG files", "scheduler short of CPU"),
    Pair("scheduler short of CPU", "database slow", wanted=("first",), forbidden=("DatabaseSlow",), why="it computes"),
    Pair("scheduler stopped", "slots exhausted", wanted=("first",), forbidden=SLOTS, why="nothing is scheduled"),
    Pair("page cache that looks like demand", "slots exhausted"),
    Pair("page cache that looks like demand", "task larger than the limit, process killed"),
    Pair("page cache that looks like demand", "leak in the scheduler", wanted=("first", "second")),
    Pair("leak in the workers", "leak in the scheduler"),
    Pair("import errors", "slow DAG files"),
    Pair("a DAG file that parses slowly", "import errors"),
    Pair("triggerer full", "slots exhausted"),
    Pair("CPU limit throttles", "pool exhausted"),
    Pair("node evicts", "pool exhausted"),
    Pair("concurrency exceeds memory", "many DAG files"),
    Pair("memory headroom low", "database slow"),
    Pair("task larger than the limit, process killed", "slots exhausted"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One world with what is brought about in it."""

    name: str
    causes: tuple[Cause, ...]
    plain: bool
    seed: int
    wanted: tuple[tuple[str, ...], ...]
    follows: tuple[str, ...]
    forbidden: tuple[str, ...] = ()
    setup: Mapping[str, Any] = field(default_factory=dict)
    line: str = "3"
    broker: bool = True

    @property
    def history(self) -> float:
        """Seconds before the causes."""
        return max(cause.history for cause in self.causes)

    def played(self, wanted: Callable[[str], bool]) -> World:
        """The world, with all that happens in it."""
        fields: dict[str, Any] = {}
        for one in self.causes:
            fields |= {**one.setup, **(one.plainly if self.plain else {})}
        fields |= self.setup
        world = World(self.label, self.seed, wanted, line=self.line, broker=self.broker, **fields)
        ordinary(world)
        for one in self.causes:
            if one.before is not None:
                one.before(world, plain=self.plain)
        quiet = 20 * MINUTES
        world.run(self.history - quiet)
        look = max(one.look for one in self.causes)
        world.run(quiet, 30.0 if look < quiet else 300.0)
        for one in self.causes:
            world.after(0.0, partial(one.begin, plain=self.plain))
        world.run(max(one.lasts for one in self.causes), look)
        return world

    @property
    def label(self) -> str:
        """A name for its series."""
        kept = "".join(char if char.isalnum() else "-" for char in self.name)
        return f"{kept}-{'plain' if self.plain else 'weak'}-{self.seed}"


def alone(one: Cause, seed: int, number: int, *, plain: bool) -> Case:
    """A cause alone. The Airflow line and whether the workers answer go by the number of the seed."""
    line = one.lines[-1] if number % 3 else one.lines[0]
    return Case(
        one.name,
        (one,),
        plain,
        seed,
        (one.wanted,),
        (*one.wanted, *one.follows),
        line=line,
        broker=number % 2 == 0,
    )


def together(pair: Pair, seed: int, number: int) -> Case:
    """Two plain causes at once."""
    both = (cause(pair.first), cause(pair.second))
    named = tuple(one.wanted for one, which in zip(both, ("first", "second"), strict=True) if which in pair.wanted)
    follows = tuple(pattern for one in both for pattern in (*one.wanted, *one.follows))
    lines = set(both[0].lines) & set(both[1].lines)
    return Case(
        f"{pair.first} + {pair.second}",
        both,
        plain=True,
        seed=seed,
        wanted=named,
        follows=follows,
        forbidden=pair.forbidden,
        setup=pair.setup,
        line="2" if "2" in lines and number % 3 == 0 else "3",
        broker=number % 2 == 0,
    )


def lasting(case: Case, seconds: float) -> Case:
    """A case that is looked at for less."""
    return replace(case, causes=tuple(replace(one, lasts=min(one.lasts, seconds)) for one in case.causes))

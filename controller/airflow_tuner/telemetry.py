"""What Airflow says of itself, made of its series, with its known lies corrected. Pure.

* Series without a label beside labelled ones are copies in which the last writer wins: left out.
* `executor_*` comes twice on Airflow 3, with and without its label: the larger counts, not the sum. Of several
  executors those with a label alone count: the other copy is that of any of them.
* A gauge outlives its sender: without the scheduler's heartbeat none of them counts.
* Airflow 3 sends `dag_processing.last_duration` in seconds where milliseconds are meant.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from airflow_tuner import executor, questions, singles, triggers
from airflow_tuner.executor import Executors
from airflow_tuner.signals import Series
from airflow_tuner.singles import Held, TaskMemory
from airflow_tuner.triggers import Triggerer

SECONDS_SENT_AS_MILLISECONDS = 1000.0
LEAST = 120
"""Seconds over which a gauge's least value is asked for: what lasts so long does not just pass. Four times what
Airflow 3 leaves between two tellings of its tasks' states."""

QUIET_MOST = 900
"""Seconds that the last start of a task is looked back for."""

QUIET_STEP = 15
"""Seconds between two looks for it: tasks have ceased to start where more than one of them is without."""

_POOL = re.compile(r"airflow_pool_(queued|running|scheduled)_slots(?:_(.+))?")

Answers = Mapping[str, tuple[Series, ...]]


@dataclass(frozen=True, slots=True)
class Pool:
    """An Airflow pool, in slots."""

    name: str
    open: int | None
    """`None`: without end."""
    running: int
    queued: int
    """Given to the executor: they wait for a worker."""
    scheduled: int
    """They could run, and wait for the pool, the executor, their DAG's own limits or the scheduler."""
    open_least: int | None = None
    """Least open slots within five minutes; `None`: not known, or without end."""

    @property
    def full(self) -> bool:
        """Nothing more can be queued, and something waits for that."""
        return self.open is not None and self.open <= 0 < self.scheduled

    @property
    def startable(self) -> int:
        """Slots that scheduled tasks could take in it."""
        return self.scheduled if self.open is None else min(self.scheduled, max(0, self.open))


@dataclass(frozen=True, slots=True)
class Pace:
    """How many tasks of a DAG ended within ten minutes."""

    dag: str
    now: int
    most: int | None
    """At most within ten minutes of the day that ended six hours ago, and at this time of the week before; `None`: it
    is not known, as the DAG is younger."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """How tasks flow. `None` where it is not known."""

    pools: tuple[Pool, ...]
    queued: Mapping[str, int]
    """Tasks that wait for a worker, by Celery queue; empty on Airflow 2."""
    running: Mapping[str, int]
    """Tasks that run, by Celery queue; empty on Airflow 2."""
    open_slots: int | None = None
    """What the executor would still take, of core.parallelism."""
    handed_out: int | None = None
    """What the executor has handed to Celery, waiting there or running."""
    started: float | None = None
    """Tasks per second."""
    duration: float | None = None
    """Mean seconds of the tasks that ended."""
    longest: float | None = None
    """Seconds; 99 % are shorter."""
    critical: float | None = None
    """Mean seconds of the scheduler's critical query."""
    section: float | None = None
    """Mean seconds of its whole critical section, in which it also waits for locks."""
    busy_day: int | None = None
    """Most slots busy at once within a whole day."""
    handed_out_least: int | None = None
    """Least of `handed_out` within `LEAST` seconds."""
    waiting_least: int | None = None
    """Least slots asked for that waited for a worker, in all pools, within `LEAST` seconds."""
    queued_least: Mapping[str, int] = field(default_factory=dict)
    """Least tasks that waited for a worker within `LEAST` seconds, by Celery queue; empty on Airflow 2."""
    paces: tuple[Pace, ...] = ()
    """Of the busiest DAGs, the busiest first."""
    pace: int | None = None
    """Tasks of all DAGs that ended within ten minutes."""
    quiet: float | None = None
    """Seconds since the last start of a task, at most; 0: one was within `LEAST` seconds."""
    ran: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Tasks that ran within `LEAST` seconds, by Celery queue: `dag.task`, and how many at once; empty on Airflow 2."""
    largest: tuple[TaskMemory, ...] = ()
    """The largest tasks, the largest first; empty on Airflow 3."""
    held: tuple[Held, ...] = ()
    """DAGs whose tasks are held back before they are queued."""
    open_least: int | None = None
    """Least of `open_slots` within five minutes, of any executor."""
    starving: int | None = None
    """Most tasks within five minutes that lacked slots of their pool."""
    killed: tuple[str, ...] = ()
    """Tasks whose process SIGKILL ended within `LEAST` seconds, as their series name them: Airflow 2 alone tells it."""

    @property
    def parallelism(self) -> int | None:
        """core.parallelism; each scheduler has as many."""
        if self.open_slots is None or self.handed_out is None:
            return None
        return self.open_slots + self.handed_out

    def waiting_in(self, queues: Iterable[str] | None) -> int:
        """Slots asked for that wait for a worker; `None`: in all queues."""
        if queues is None:
            return sum(pool.queued for pool in self.pools)
        return sum(self.queued.get(queue, 0) for queue in queues)

    def running_in(self, queues: Iterable[str] | None) -> int:
        """Slots busy; `None`: in all queues."""
        if queues is None:
            return sum(pool.running for pool in self.pools)
        return sum(self.running.get(queue, 0) for queue in queues)

    @property
    def startable(self) -> int:
        """Slots that scheduled tasks could take in their pools."""
        return sum(pool.startable for pool in self.pools)


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A DAG file, as its metric names it, and the mean seconds of a parse."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Parsing:
    """How DAG files are parsed."""

    files: int
    rate: float
    """Parses per second."""
    seconds: float
    """Mean seconds of one parse."""
    loop: float | None
    """Seconds of the last whole loop, as the dag-processor says."""
    queue: int | None
    """Files that wait to be parsed."""
    oldest: float
    """Most seconds within the window that a file was not parsed."""
    slowest: tuple[ParsedFile, ...] = ()

    @property
    def cycle(self) -> float:
        """Seconds between two parses of a file, on average."""
        return self.files / self.rate


@dataclass(frozen=True, slots=True)
class Airflow:
    """What Airflow says of itself. `problem` says what is missing."""

    tasks: Tasks | None = None
    parsing: Parsing | None = None
    problem: str = ""
    doubt: str = ""
    """Which numbers about parsing contradict each other: then `parsing` is `None`."""
    still: bool = False
    """The scheduler's heartbeat is known, and has not moved in three minutes."""
    loop: float | None = None
    """Mean seconds of the scheduler's loop."""
    beats: float | None = None
    """Heartbeats of all schedulers within three minutes."""
    import_errors: int | None = None
    """DAG files that could not be imported, for two minutes at least."""
    triggerer: Triggerer | None = None


def executors(answers: Answers) -> Executors:
    """What runs the tasks, as Airflow 3 says it."""
    gauges = answers.get(questions.GAUGES.name, ())
    if len(_senders(gauges)) > 1:
        # Another Airflow's are among them.
        return executor.UNKNOWN
    found = [item for item in gauges if item.labels.get("__name__") == "airflow_executor_open_slots"]
    return executor.gauges(item.labels.get("executor", "") for item in found)


def read(answers: Answers, line: str | None, runs: Executors = executor.UNKNOWN) -> Airflow:
    """Airflow's signals out of the answers to `questions.AIRFLOW`; `line` is the major version, `2` or `3`.

    `runs`: what runs the tasks.
    """
    gauges = answers.get(questions.GAUGES.name, ())
    senders = _senders(gauges)
    if not senders:
        return Airflow(
            problem="The metrics source has no series of this Airflow (airflow_scheduler_heartbeat). Check that it "
            "scrapes Airflow's StatsD exporter, or receives its OpenTelemetry, and spec.metrics.airflowMatchLabels."
        )
    if len(senders) > 1:
        told = " and ".join(", ".join(f"{key}={value}" for key, value in sender) for sender in sorted(senders)[:2])
        return Airflow(
            problem=f"The metrics source has series of {len(senders)} Airflows ({told}). Name this one's labels in "
            "spec.metrics.airflowMatchLabels."
        )
    of_files = answers.get(questions.SLOWEST_FILES.name, ())
    answered = [
        *answers.get(questions.AIRFLOW_RATES.name, ()),
        *answers.get(questions.AIRFLOW_SIGNS.name, ()),
    ]
    answered += [item for item in of_files if "signal" in item.labels]
    rates = {item.labels.get("signal", ""): item.value for item in answered if "dag_id" not in item.labels}
    by_dag = [item for item in answered if "dag_id" in item.labels]
    if not rates.get("beats"):
        if "beats" not in rates or "known" not in rates:
            # A scheduler beats every 5 s.
            problem = "The scheduler's heartbeat has been scraped for a moment only: what moves is known within 30 s."
        else:
            problem = (
                "The scheduler's heartbeat did not move in three minutes: what Airflow's metrics say is old. Look at "
                "the scheduler."
            )
        return Airflow(problem=problem, still="beats" in rates and "known" in rates)
    return Airflow(
        tasks=replace(
            _tasks(gauges, answers.get(questions.QUEUES.name, ()), rates, runs),
            paces=_paces(by_dag),
            largest=singles.largest(answered),
        ),
        parsing=_parsing(gauges, rates, tuple(item for item in of_files if "signal" not in item.labels), line),
        loop=rates["loop_seconds"] / rates["loops"] if rates.get("loops") and "loop_seconds" in rates else None,
        beats=rates["beats"],
        # Gauges outlive their sender; between two rounds of parsing the age of the files still moves.
        import_errors=_whole(rates.get("import_errors")) if rates.get("parses") or rates.get("files") else None,
        triggerer=triggers.read(rates, answers.get(questions.TRIGGERS.name, ())),
    )


def _senders(gauges: tuple[Series, ...]) -> set[tuple[tuple[str, str], ...]]:
    """The labels of each Airflow whose scheduler's heartbeat is among them."""
    beating = (item for item in gauges if item.labels.get("__name__") == "airflow_scheduler_heartbeat")
    return {tuple(sorted(_identity(item).items())) for item in beating}


def _identity(item: Series) -> dict[str, str]:
    return {key: value for key, value in item.labels.items() if key not in {"__name__", "type"}}


def _tasks(
    gauges: tuple[Series, ...], queues: tuple[Series, ...], rates: Mapping[str, float], runs: Executors
) -> Tasks:
    by_queue: dict[str, dict[str, int]] = {"airflow_ti_queued": {}, "airflow_ti_running": {}, "queued_least": {}}
    open_least: dict[str, int] = {}
    for item in queues:
        kind = item.labels.get("signal") or item.labels.get("__name__", "")
        if kind == "open_least":
            open_least[_mapped(item.labels.get("pool", ""))] = round(item.value)
        elif kind in by_queue:
            by_queue[kind][item.labels.get("queue", "")] = round(item.value)
    ended, whole_day = rates.get("ended", 0), rates.get("busy_day_samples", 0) >= DAY_SAMPLES
    critical, sections = rates.get("critical", 0), rates.get("sections", 0)
    return Tasks(
        pools=tuple(replace(pool, open_least=open_least.get(pool.name)) for pool in _pools(gauges)),
        queued=by_queue["airflow_ti_queued"],
        running=by_queue["airflow_ti_running"],
        open_slots=_of_executor(gauges, "airflow_executor_open_slots", runs),
        handed_out=(handed_out := _of_executor(gauges, "airflow_executor_running_tasks", runs)),
        started=rates.get("started"),
        duration=rates["ended_seconds"] / ended if ended > 0 and "ended_seconds" in rates else None,
        longest=rates.get("longest"),
        critical=rates["critical_seconds"] / critical if critical > 0 and "critical_seconds" in rates else None,
        section=rates["section_seconds"] / sections if sections > 0 and "section_seconds" in rates else None,
        busy_day=round(rates["busy_day"]) if whole_day and "busy_day" in rates else None,
        handed_out_least=None if handed_out is None else _whole(rates.get("handed_out_least")),
        waiting_least=_whole(rates.get("waiting_least")),
        queued_least=by_queue["queued_least"],
        quiet=_quiet(rates),
        pace=_whole(rates.get("dags_now")),
        ran=singles.ran(queues),
        held=singles.held(queues),
        open_least=_whole(rates.get("executor_open_least")),
        starving=_whole(rates.get("starving")),
        killed=singles.killed(queues),
    )


def _paces(answered: Iterable[Series]) -> tuple[Pace, ...]:
    """The DAGs' paces; a count that fell in between, as its exporter began again, is none."""
    told: dict[str, dict[str, float]] = {}
    for item in answered:
        told.setdefault(item.labels["dag_id"], {})[item.labels.get("signal", "")] = max(0.0, item.value)
    found = [
        Pace(
            dag,
            round(values["dag_now"]),
            round(max(values["dag_day"], values.get("dag_week", 0))) if "dag_day" in values else None,
        )
        for dag, values in told.items()
        if "dag_now" in values
    ]
    return tuple(sorted(found, key=lambda pace: (-pace.now, pace.dag)))


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _quiet(rates: Mapping[str, float]) -> float | None:
    if "started" not in rates or rates.get("looks", 0) < LEAST / QUIET_STEP - 1:
        # That nothing started is not known where starts themselves are not.
        return None
    # Each look is over the LEAST seconds before it, so that much earlier was the start that the last of them still saw.
    since = rates.get("quiet", QUIET_MOST)
    return since + LEAST if since > QUIET_STEP else 0.0


DAY_SAMPLES = 1368
"""Looks of a day, a minute apart, that must be there for it to count as whole: 95 % of 1440. Five minutes apart they
missed bursts: on a modelled day 67 busy slots of 113."""


def _pools(gauges: tuple[Series, ...]) -> tuple[Pool, ...]:
    states: dict[str, dict[str, int]] = {}
    for item in gauges:
        name = item.labels.get("__name__", "")
        if found := _POOL.fullmatch(name):
            if pool := found[2] or _mapped(item.labels.get("pool", "")):
                states.setdefault(pool, {})[found[1]] = round(item.value)
        elif name == "airflow_pool_open_slots" and item.labels.get("pool"):
            states.setdefault(_mapped(item.labels["pool"]), {})["open"] = round(item.value)
    return tuple(
        # A pool of -1 slots has infinitely many open ones, which is no value of a sample.
        Pool(name, state.get("open"), state.get("running", 0), state.get("queued", 0), state.get("scheduled", 0))
        for name, state in sorted(states.items())
    )


def _mapped(pool: str) -> str:
    """The exporter makes every other character of a name an underscore; a label keeps the name as it is."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", pool)


def _largest(gauges: tuple[Series, ...], name: str) -> int | None:
    found = [item.value for item in gauges if item.labels.get("__name__") == name]
    return round(max(found)) if found else None


def _of_executor(gauges: tuple[Series, ...], name: str, runs: Executors) -> int | None:
    """Celery's number, or that of what runs tasks in the scheduler; of several executors only one that is labelled."""
    found = [item for item in gauges if item.labels.get("__name__") == name]
    kind = executor.CELERY if runs.celery else executor.LOCAL if runs.local else ""
    # Airflow 3 tells each of several executors apart.
    own = [item.value for item in found if kind and kind in item.labels.get("executor", "")]
    if runs.several:
        return round(max(own)) if own else None
    return round(max(own or [item.value for item in found])) if found else None


def _parsing(
    gauges: tuple[Series, ...], rates: Mapping[str, float], slowest: tuple[Series, ...], line: str | None
) -> Parsing | None:
    files, rate = max(rates.get("files", 0), rates.get("parsed", 0)), rates.get("parses", 0)
    if files <= 0 or rate <= 0 or "parse_seconds" not in rates or line is None:
        return None
    factor = SECONDS_SENT_AS_MILLISECONDS if line == "3" else 1.0
    loops = [item.value for item in gauges if item.labels.get("__name__") == "airflow_dag_processing_total_parse_time"]
    return Parsing(
        files=round(files),
        rate=rate,
        seconds=rates["parse_seconds"] / rate * factor,
        loop=max(loops, default=None),
        queue=_largest(gauges, "airflow_dag_processing_file_path_queue_size"),
        oldest=rates.get("oldest", 0),
        slowest=tuple(
            ParsedFile(item.labels.get("file", ""), item.value * factor)
            for item in sorted(slowest, key=lambda item: -item.value)
        ),
    )

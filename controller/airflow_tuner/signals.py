"""The catalogue of signals: what is asked of Prometheus, in which unit, and what its absence means. Data, not code.

In the PromQL, `$container` stands for the matchers of this Airflow's containers, `$cluster` for those of the cluster,
`$airflow` for those of Airflow's own series, `$window` for the time that rates are averaged over, and `$rounds` for the
time that rates of parsing are: it holds whole rounds over the DAG files.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template


@dataclass(frozen=True, slots=True)
class Signal:
    """Something to ask for, as one instant query; each series of the answer is one value."""

    name: str
    promql: str
    unit: str
    absence: str
    """What it means when there is no sample."""
    parts: tuple[str, ...] = ()
    """Names of what one question asks for at once, told apart by the label `signal`; empty: it is one thing."""
    lasts: float = 0.0
    """Seconds for which an answer is as good as new: what is seen over hours is not asked in every turn."""


@dataclass(frozen=True, slots=True)
class Series:
    """One value of one series."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose series are asked for, as matchers of PromQL."""

    container: str
    cluster: str
    airflow: str
    window: int
    """Seconds."""
    rounds: int
    """Seconds; not less than the window."""


def query(signal: Signal, scope: Scope) -> str:
    """The PromQL of a signal for one Airflow."""
    return Template(signal.promql).substitute(
        container=scope.container,
        cluster=scope.cluster,
        airflow=scope.airflow,
        window=f"{scope.window}s",
        rounds=f"{scope.rounds}s",
    )


def parted(found: tuple[Series, ...], signal: Signal) -> dict[str, tuple[Series, ...]]:
    """The answer to a signal, by the names of its parts."""
    if not signal.parts:
        return {signal.name: found}
    return {name: tuple(item for item in found if item.labels.get("signal") == name) for name in signal.parts}


def _apart(questions: Mapping[str, str]) -> str:
    """Several questions as one."""
    return " or ".join(f'label_replace({promql},"signal","{name}","","")' for name, promql in questions.items())


# Memory of containers, from cAdvisor.

PROCESS_KILLS = Signal(
    "process_kills",
    "container_oom_events_total{$container}",
    "kills since the container started",
    "no kill of a single process can be seen; kills of whole containers still are, through the API server",
)
"""cAdvisor copies the kernel's count at its housekeeping, every 10 to 15 s. The series belongs to the container's id
and ends with it."""

PROCESS_KILLS_BEFORE = Signal(
    "process_kills_before",
    "container_oom_events_total{$container} offset 1h",
    "kills since the container started, one hour ago",
    "the container, or the metrics source, is younger: every kill it shows counts as recent",
)

PEAK = Signal(
    "peak",
    "container_memory_max_usage_bytes{$container}",
    "bytes",
    "the limit at which a process was killed is taken to be the limit in force",
)
"""The kernel's own high-water mark since the container started (memory.max_usage_in_bytes, memory.peak): it misses no
spike, and contains page cache."""

WORKING_SET = Signal(
    "working_set",
    "max_over_time(container_memory_working_set_bytes{$container}[1d])",
    "bytes",
    "a container without a limit gets none",
)

SAMPLED_AT = Signal(
    "sampled_at",
    "timestamp(container_memory_working_set_bytes{$container})",
    "seconds since the epoch",
    "there are no container metrics at all",
)
"""When the newest sample was taken: an instant query itself answers with the time it was asked."""

_RSS = "container_memory_rss{$container}"

ANONYMOUS = {
    "anonymous": f"max_over_time({_RSS}[$window])",
    "anonymous_day": f"max_over_time({_RSS}[1d])",
    "anonymous_before": f"{_RSS} offset 1d",
}
"""What each is: the most anonymous memory within the window and within a day, and what it was a day ago."""

ANONYMOUS_MEMORY = Signal(
    "anonymous_memory",
    _apart(ANONYMOUS),
    "bytes",
    "the memory of a slot is taken to be that of an empty task, and no task is known to need more than the others",
    parts=(*ANONYMOUS,),
)
"""Anonymous memory: what a task holds, without the page cache that the kernel gives back."""

MEMORY = (PROCESS_KILLS, PROCESS_KILLS_BEFORE, PEAK, WORKING_SET, SAMPLED_AT, ANONYMOUS_MEMORY)
"""Asked in every turn."""

HOUR = 3600.0

EVEN = 0.97
"""How straight a rise must be: the correlation of floors with time. A line has 1, a step among five floors at most
0.95, a rise that halves every six hours 0.93."""


def _growing(hours: int, floors: int) -> str:
    """Slope of the floors of anonymous memory of so many successive windows, where they rise evenly.

    A floor is the least of a window: what tasks take and give back is not in it. Five floors six hours apart compare
    the same hour of two days, so that no daily peak rises through all of them.
    """
    found = f"min_over_time({_RSS}[{hours}h])[{hours * floors}h:{hours}h]"
    # The standard deviation of times so far apart: slope x that / the floors' own is their correlation with time.
    apart = hours * HOUR * math.sqrt((floors**2 - 1) / 12)
    straight = f"deriv({found}) * {apart / EVEN:.0f} > stddev_over_time({found})"
    return f"(({straight}) / {apart / EVEN:.0f}) and changes({found}) >= {floors - 1}"


LEAK_SPANS = {"growth_days": (6, 5), "growth_hours": (1, 6)}
"""Hours of a window, and how many windows."""

GROWTH = Signal(
    "growth",
    _apart({name: _growing(hours, floors) for name, (hours, floors) in LEAK_SPANS.items()}),
    "bytes per second",
    "no container's floor of anonymous memory rises evenly, or it is not known for long enough",
    parts=(*LEAK_SPANS,),
    lasts=600.0,
)
"""It answers with the few that rise. It is asked every ten minutes, as it reads many samples and they change slowly."""

# What containers do now, from cAdvisor.

CPU = Signal(
    "cpu",
    "rate(container_cpu_usage_seconds_total{$container}[$window])",
    "cores",
    "slots are not raised",
)

CPU_OF_ROUNDS = Signal(
    "cpu_of_rounds",
    "rate(container_cpu_usage_seconds_total{$container}[$rounds])",
    "cores",
    "how DAG files are parsed is not changed",
)
"""Between two rounds parsing costs nothing: measured at 118 s between rounds, 60 s saw a fifteenth of the cost."""

THROTTLED = Signal(
    "throttled",
    "rate(container_cpu_cfs_throttled_periods_total{$container}[$window])"
    " / rate(container_cpu_cfs_periods_total{$container}[$window])",
    "share of the scheduling periods",
    "the container has no CPU limit, or was not throttled",
)

NODE_CPU = Signal(
    "node_cpu",
    '(sum by (instance) (rate(container_cpu_usage_seconds_total{id="/",$cluster}[$window]))'
    " / max by (instance) (machine_cpu_cores{$cluster}))"
    " * on (instance) group_right () (container_memory_working_set_bytes{$container} * 0 + 1)",
    "share of the node's cores, for each container on it",
    "only the container's own limit and throttling tell whether CPU is short",
)

CONTAINERS = (CPU, CPU_OF_ROUNDS, THROTTLED, NODE_CPU)
"""Asked where slots or parsing are tuned."""

# Airflow's own, by the names of the official chart's statsd-exporter mapping (Airflow 2 and 3).

GAUGES = Signal(
    "gauges",
    '{__name__=~"airflow_(executor_open_slots|executor_running_tasks|pool_open_slots'
    "|pool_(queued|running|scheduled)_slots_.+|dag_processing_total_parse_time|dag_processing_file_path_queue_size"
    '|scheduler_heartbeat)",$airflow}',
    "as each is named",
    "slots and parsing are left alone",
)

_QUEUED = 'min_over_time((sum by (queue) (airflow_ti_queued{queue!="",$airflow}))[2m:15s])'

QUEUES = Signal(
    "queues",
    'sum by (__name__, queue) ({__name__=~"airflow_ti_(queued|running)",queue!="",$airflow})'
    f' or label_replace({_QUEUED},"signal","queued_least","","")',
    "tasks",
    "Airflow 2 has none: which queue waits is then known only where all workers serve the same ones",
)

_PARSED = 'airflow_dag_processing_last_run_seconds_ago{dag_file!="",$airflow}'
# Airflow says it every 30 s for each file it knows. The gauge outlives its file: one that counts moves, or is new.
_LIVING = f"((changes({_PARSED}[2m]) > 0) or ({_PARSED} unless {_PARSED} offset 2m))"


def _of_files(kind: str, offset: str = "") -> str:
    """The parse timers of all files. The file is a part of the series' name, and becomes a label here."""
    name = "airflow_dag_processing_last_duration_"
    return (
        f'label_replace({{__name__=~"{name}.+_{kind}",$airflow}}{offset},"file","$$1","__name__","{name}(.+)_{kind}")'
    )


# The gauge comes late for a new file, whose own counter is there with its first parse.
_NOW, _BEFORE = _of_files("count"), _of_files("count", " offset $rounds")
_BUSY = '(sum({__name__=~"airflow_pool_running_slots_.+",$airflow}))[1d:5m]'
_HANDED_OUT = 'min_over_time(airflow_executor_running_tasks{{executor{}"{}",$airflow}}[2m])'
# The exporter forgets a quantile about ten minutes after the last task.
_LONGEST = '(max(airflow_task_duration{dag_id!="",quantile="0.99",$airflow}))'
_STARTING = "timestamp(sum(rate(airflow_ti_start{$airflow}[2m])) > 0)[15m:15s]"


_TASKS = 'airflow_task_duration_count{dag_id!="",$airflow}'


def pace(now: str = "10m", day: str = "1d", before: str = "6h", week: str = "2h", back: str = "167h") -> dict[str, str]:
    """Tasks that ended within `now`, of the three DAGs with most: at present, and at most before.

    Before: in the `day` that ended so long `before`, and in the part of a `week` ago that ended so long `back`. Those
    are differences of counters, as a rate would read every sample of a day.
    """
    ended = f"sum by (dag_id) (increase({_TASKS}[{now}]))"
    past = f"(sum by (dag_id) ({_TASKS} - {_TASKS} offset {now}))"
    most = f"topk(3, {ended})"
    return {
        "dag_now": most,
        # Only of a DAG that was there when that day began.
        "dag_day": f"max_over_time({past}[{day}:{now}] offset {before}) and on (dag_id) {most}"
        f" and on (dag_id) sum by (dag_id) ({_TASKS} offset {day})",
        "dag_week": f"max_over_time({past}[{week}:{now}] offset {back}) and on (dag_id) {most}",
        "dags_now": f"sum({ended})",
    }


def _rate(series: str, matchers: str = "$airflow", window: str = "$window") -> str:
    return f"sum(rate({series}{{{matchers}}}[{window}]))"


def _lately(series: str) -> str:
    """Over two minutes, or where those hold less than two samples, over the window.

    A slow loop counts less often: at a window of 300 s the mean of a section that waits 2.3 s is above one second only
    after 210 s, in which more slots would be given; at 120 s after 85 s.
    """
    return f"({_rate(series, window='2m')} or {_rate(series)})"


RATES = {
    "started": _rate("airflow_ti_start"),
    "ended": _rate("airflow_task_duration_count", 'dag_id!="",$airflow'),
    "ended_seconds": _rate("airflow_task_duration_sum", 'dag_id!="",$airflow'),
    "longest": f'max(max_over_time({_LONGEST}[1d:5m]) or label_replace({_LONGEST},"of","now","",""))',
    "critical": _lately("airflow_scheduler_critical_section_query_duration_count"),
    "critical_seconds": _lately("airflow_scheduler_critical_section_query_duration_sum"),
    "sections": _lately("airflow_scheduler_critical_section_duration_count"),
    "section_seconds": _lately("airflow_scheduler_critical_section_duration_sum"),
    "beats": "sum(increase(airflow_scheduler_heartbeat{$airflow}[3m]))",
    "known": "max(airflow_scheduler_heartbeat{$airflow} offset 30s)",
    "busy_day": f"max_over_time({_BUSY})",
    "busy_day_samples": f"count_over_time({_BUSY})",
    "parses": _rate("airflow_dag_processing_last_duration_count", window="$rounds"),
    "parse_seconds": _rate("airflow_dag_processing_last_duration_sum", window="$rounds"),
    "files": f"count({_LIVING})",
    "parsed": f"count(({_NOW} unless on (file) {_BEFORE}) or ({_NOW} > on (file) {_BEFORE}))",
    "oldest": f"max(max_over_time({_PARSED}[$rounds]) and {_LIVING})",
}
"""What each is: tasks started and ended per second, seconds of the ended ones per second, the longest task of a day
(99 %), runs per second of the scheduler's critical query and of its whole critical section, with their seconds,
heartbeats of three minutes, their count 30 s ago, most slots busy at once within a day (and of how many looks, five
minutes apart), parses per second and their seconds, files, files that were parsed within the rounds, and the most
seconds that a file was not parsed."""

SIGNS = {
    # Airflow 3 tells each of several executors apart, Airflow 2 none.
    "handed_out_least": f"max({_HANDED_OUT.format('=~', '.*Celery.*')}) or max({_HANDED_OUT.format('=', '')})",
    "waiting_least": 'min_over_time((sum({__name__=~"airflow_pool_queued_slots_.+",$airflow}))[2m:15s])',
    "quiet": f"time() - max_over_time({_STARTING})",
    "looks": "count_over_time((sum(rate(airflow_ti_start{$airflow}[2m])))[2m:15s])",
    "loops": _rate("airflow_scheduler_scheduler_loop_duration_count"),
    "loop_seconds": _rate("airflow_scheduler_scheduler_loop_duration_sum"),
    "import_errors": "max(min_over_time(airflow_dag_processing_import_errors{$airflow}[2m]))",
    "triggers": "max(airflow_triggers_running{$airflow})",
    # Of several triggerers the last to tell wins, in turn: in three minutes each has told it often.
    "triggers_free": "max(max_over_time(airflow_triggerer_capacity_left{$airflow}[3m]))",
    "triggerer_beats": "sum(increase(airflow_triggerer_heartbeat{$airflow}[3m]))",
    **pace(),
}
"""What each is: least tasks handed out and least that waited within two minutes, seconds since the last look that saw a
task start in the two minutes before it, looks in two minutes that could tell, the scheduler's loops per second and
their seconds, least errors of import in two minutes, triggers of a triggerer, most that one could take within three
minutes, their heartbeats in three minutes, and how many tasks of the busiest DAGs ended."""


AIRFLOW_RATES = Signal("rates", _apart(RATES), "as each is named", "slots and parsing are left alone")

# A question of its own, as a question travels in a URL, of which proxies take 8 KiB.
AIRFLOW_SIGNS = Signal("signs", _apart(SIGNS), "as each is named", "nothing is said of what it would tell")


def _by_file(kind: str) -> str:
    return f"rate({_of_files(kind)}[$rounds:15s])"


# A file that is new has no rate yet: all its parses count.
_NEW = f"({_of_files('sum')} unless on (file) {_of_files('sum', ' offset $rounds')})"

SLOWEST_FILES = Signal(
    "slowest_files",
    f"topk(5, {_by_file('sum')} / ({_by_file('count')} > 0) or {_NEW} / {_of_files('count')})",
    "seconds for each parse (a thousandth of it on Airflow 3)",
    "no file can be named",
)

AIRFLOW = (GAUGES, QUEUES, AIRFLOW_RATES, AIRFLOW_SIGNS, SLOWEST_FILES)
"""Asked where slots or parsing are tuned."""

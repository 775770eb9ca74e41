"""The signals that Airflow sends of itself, as questions to Prometheus in each of its namings. Data, not code.

The catalogue's form, and what `$airflow`, `$window` and `$rounds` stand for, is in `signals`.
"""

from dataclasses import replace

from airflow_tuner.namings import CHART, NAMINGS, Naming
from airflow_tuner.signals import Signal, apart, named

GAUGES = named("gauges", lambda on: on.gauges, "as each is named", "slots and parsing are left alone")

_RAN = 'max by (queue, dag_id, task_id) (max_over_time(airflow_ti_running{queue!="",dag_id!="",$airflow}[2m]))'
# Airflow 2 makes a series of each run, whose name ends with the signal that ended it: -9.
_KILLED = '{__name__=~"airflow_local_task_job_task_exit_.+__9",$airflow}'
_NAME = '"task","$$1","__name__","airflow_local_task_job_task_exit_[0-9]+_(.+)__9"'


def held(on: Naming, span: str = "5m", step: str = "1m", looks: int = 5) -> dict[str, str]:
    """The three DAGs of which most tasks were scheduled at every look within `span`, and what else each did then.

    A gauge is missing before its first value, which is not zero: so many `looks` must be there.
    """
    scheduled = f"({on.of_dags.replace('$state', 'scheduled')})[{span}:{step}]"
    active = f"({on.of_dags.replace('$state', 'queued|running')})[{span}:{step}]"
    most = f"topk(3, min_over_time({scheduled}) > 0 and count_over_time({scheduled}) >= {looks})"
    return {
        "held": most,
        "held_least": f"min_over_time({active}) and on (dag_id) {most}",
        "held_most": f"max_over_time({active}) and on (dag_id) {most}",
        "held_ended": f"sum by (dag_id) (increase({on.ends}[{span}])) and on (dag_id) {most}",
        "open_least": f'min by ({on.pool}) (min_over_time(airflow_pool_open_slots{{{on.pool}!="",$airflow}}[{span}]))',
    }


def _queues(on: Naming) -> str:
    killed = f"label_replace({_KILLED} unless {_KILLED} offset 2m,{_NAME})"
    parts = {"queued_least": f"min_over_time(({on.queued})[2m:15s])", "ran": f"topk(20, {_RAN} > 0)"}
    # Without a counter that moves it is not known whether what a DAG ran was replaced.
    parts |= {"killed": f"topk(5, {killed})", **(held(on) if on.ends else {})}
    return f"{on.states} or {apart(parts)}"


QUEUES = named(
    "queues",
    _queues,
    "tasks",
    "Airflow 2 has none: which queue waits is then known only where all workers serve the same ones",
)
"""Tasks that wait and run, by queue; the least that waited, and those that ran within two minutes by name (the twenty
of which most did); on Airflow 2 also those whose process was killed meanwhile. And by DAG what is scheduled and stays
so: least tasks scheduled within five minutes, least and most that ran or were queued, and how many ended; and the
least open slots of each pool."""


def pace(
    ends: str, now: str = "10m", day: str = "1d", before: str = "6h", week: str = "2h", back: str = "167h"
) -> dict[str, str]:
    """Tasks that ended within `now`, of the three DAGs with most: at present, and at most before.

    Before: in the `day` that ended so long `before`, and in the part of a `week` ago that ended so long `back`. Those
    are differences of counters, as a rate would read every sample of a day.
    """
    ended = f"sum by (dag_id) (increase({ends}[{now}]))"
    past = f"(sum by (dag_id) ({ends} - {ends} offset {now}))"
    most = f"topk(3, {ended})"
    return {
        "dag_now": most,
        # Only of a DAG that was there when that day began.
        "dag_day": f"max_over_time({past}[{day}:{now}] offset {before}) and on (dag_id) {most}"
        f" and on (dag_id) sum by (dag_id) ({ends} offset {day})",
        "dag_week": f"max_over_time({past}[{week}:{now}] offset {back}) and on (dag_id) {most}",
        "dags_now": f"sum({ended})",
    }


def _timer(fragment: str, series: str, over: str = "$window") -> str:
    """Of a timer: how often, or for how many seconds."""
    return fragment.replace("$series", series).replace("$matchers", "$airflow").replace("$over", over)


def _lately(fragment: str, series: str) -> str:
    """The same over two minutes, or where those hold less than two samples, over the window.

    A slow loop counts less often: at a window of 300 s the mean of a section that waits 2.3 s is above one second only
    after 210 s, in which more slots would be given; at 120 s after 85 s.
    """
    return f"({_timer(fragment, series, '2m')} or {_timer(fragment, series)})"


def _of_files(on: Naming, kind: str, offset: str = "") -> str:
    """The parse timers of all files."""
    return on.files.replace("$kind", kind).replace("$offset", offset)


_MEM = "airflow_task_mem_usage_"
# The task is a part of the series' name, and becomes a label here. A gauge outlives its task: one that counts moves.
_PERCENT = f'label_replace({{__name__=~"{_MEM}.+",$airflow}},"task","$$1","__name__","{_MEM}(.+)")[30m:1m]'
_WORKERS = 'container_memory_working_set_bytes{$container,container=~".*worker"}'
_NODES = f"machine_memory_bytes{{$cluster}} and on (instance) {_WORKERS}"
_LIVE = f"(changes({_PERCENT}) > 0 or count_over_time({_PERCENT}) < 29)"
TASK_MEMORY = f"topk(5, max_over_time({_PERCENT}) and {_LIVE}) / 100 * scalar(min({_NODES}))"
"""Bytes of the largest tasks of half an hour. Airflow 2 tells them as percents of the whole node's memory; where nodes
differ, the smallest counts. What does not move was told by a task that holds as much all the time, or by none any more:
then it is older than that half hour."""


def rates(on: Naming) -> dict[str, str]:
    """How tasks flow and how files are parsed.

    What each is: tasks started and ended per second, seconds of the ended ones per second, the longest task of a day
    (99 %), runs per second of the scheduler's critical query and of its whole critical section, with their seconds,
    heartbeats of three minutes, their count 30 s ago, most slots busy at once within a day (and of how many looks, a
    minute apart), and parses per second with their seconds.
    """
    query, section = (f"airflow_scheduler_critical_section_{name}duration" for name in ("query_", ""))
    parse = "airflow_dag_processing_last_duration"
    beats = f"airflow_scheduler_heartbeat{on.total}{{$airflow}}"
    busy = f"({on.slots.replace('$state', 'running')})[1d:1m]"
    return {
        **on.tasks,
        "critical": _lately(on.runs, query),
        "critical_seconds": _lately(on.seconds, query),
        "sections": _lately(on.runs, section),
        "section_seconds": _lately(on.seconds, section),
        "beats": f"sum(increase({beats}[3m]))",
        "known": f"max({beats} offset 30s)",
        "busy_day": f"max_over_time({busy})",
        "busy_day_samples": f"count_over_time({busy})",
        "parses": _timer(on.runs, parse, "$rounds"),
        "parse_seconds": _timer(on.seconds, parse, "$rounds"),
    }


def signs(on: Naming) -> dict[str, str]:
    """What lasts, what is late, and what each of the busiest DAGs does.

    What each is: least tasks handed out and least that waited within two minutes, seconds since the last look that saw
    a task start in the two minutes before it, looks in two minutes that could tell, the scheduler's loops per second
    and their seconds, least errors of import in two minutes, triggers of a triggerer, most that one could take within
    three minutes, slots of deferred tasks, heartbeats of triggerers in three minutes, how many tasks of the busiest
    DAGs ended, the memory of the largest tasks, and within five minutes the least open slots of the executor and the
    most tasks that lacked a pool's.
    """
    # Airflow 3 tells each of several executors apart, Airflow 2 none.
    handed_out = f'max(min_over_time(airflow_executor_running_tasks{{{on.executor}=~".*Celery.*",$airflow}}[2m]))'
    alone = f'max(min_over_time(airflow_executor_running_tasks{{{on.executor}="",$airflow}}[2m]))'
    loop = "airflow_scheduler_scheduler_loop_duration"
    queued = f"({on.slots.replace('$state', 'queued')})[2m:15s]"
    return {
        "task_memory": TASK_MEMORY,
        "executor_open_least": "min(min_over_time(airflow_executor_open_slots{$airflow}[5m]))",
        "starving": "max(max_over_time(airflow_scheduler_tasks_starving{$airflow}[5m]))",
        "handed_out_least": f"{handed_out} or {alone}",
        # Where two minutes are not known, nothing is known to have waited for so long.
        "waiting_least": f"min_over_time({queued}) and count_over_time({queued}) >= 8",
        "quiet": f"time() - max_over_time(timestamp({on.starts})[15m:15s])",
        "looks": f"count_over_time(({on.looks})[2m:15s])",
        "loops": _timer(on.runs, loop),
        "loop_seconds": _timer(on.seconds, loop),
        "import_errors": "max(min_over_time(airflow_dag_processing_import_errors{$airflow}[2m]))",
        "triggers": "max(airflow_triggers_running{$airflow})",
        # Of several triggerers the last to tell wins, in turn: in three minutes each has told it often.
        "triggers_free": "max(max_over_time(airflow_triggerer_capacity_left{$airflow}[3m]))",
        "deferred": on.slots.replace("$state", "deferred"),
        "triggerer_beats": f"sum(increase(airflow_triggerer_heartbeat{on.total}{{$airflow}}[3m]))",
        **(pace(on.ends) if on.ends else {}),
    }


def files(on: Naming) -> dict[str, str]:
    """What is known of all files.

    What each is: files, those that were parsed within the rounds, and the most seconds that one was not parsed. Airflow
    says an age every 30 s for each file it knows. The gauge outlives its file: one that counts moves, or is new. It
    comes late for a new file, whose own counter is there with its first parse.
    """
    living = [f"((changes({age}[2m]) > 0) or ({age} unless {age} offset 2m))" for age in on.ages]
    once = f"max without ({','.join(on.senders)}) " if on.senders else ""
    oldest = [f"max(max_over_time({age}[$rounds]) and {one})" for age, one in zip(on.ages, living, strict=True)]
    # Once by file, as of two Airflows it is to be told, and no question to fail.
    now, before = (f"max by ({on.by}) ({_of_files(on, 'count', offset)})" for offset in ("", " offset $rounds"))
    return {
        "files": " or ".join(f"count({once}{one})" for one in living),
        "parsed": f"count({now} unless ({now} <= {before}))",
        "oldest": " or ".join([*oldest, *([on.oldest] if on.oldest else [])]),
    }


RATES, SIGNS, FILES = rates(CHART), signs(CHART), files(CHART)

AIRFLOW_RATES = named("rates", lambda on: apart(rates(on)), "as each is named", "slots and parsing are left alone")

# A question of its own, as a question travels in a URL, of which proxies take 8 KiB.
AIRFLOW_SIGNS = named("signs", lambda on: apart(signs(on)), "as each is named", "nothing is said of what it would tell")


def _slowest(on: Naming) -> str:
    total, count = _of_files(on, "sum"), _of_files(on, "count")
    # A file that is new has no rate yet: all its parses count.
    new = f"({total} unless on ({on.by}) {_of_files(on, 'sum', ' offset $rounds')})"
    each = f"rate(({total})[$rounds:15s]) / (rate(({count})[$rounds:15s]) > 0) or {new} / {count}"
    return f"topk(5, {on.factor}({each})) or {apart(files(on))}"


SLOWEST_FILES = named(
    "slowest_files",
    _slowest,
    "seconds for each parse (a thousandth of it on Airflow 3), and the parts as each is named",
    "parsing is left alone",
)


def _hourly(on: Naming) -> str:
    slots = " + ".join(on.slots.replace("$state", state) for state in ("running", "queued"))
    parts = {"all": slots, "queue": f"sum by (queue) ({on.states})"}
    return apart({name: f"max_over_time(({promql})[1h:1m])" for name, promql in parts.items()})


HOURLY_TASKS = named("hourly_tasks", _hourly, "tasks", "the history of tasks begins with the operator")
"""Most tasks that ran or waited for a worker at once in each hour, in all queues and in each; asked as a range, hour by
hour, of the time before the operator looked."""

_TRIGGERS = "max(airflow_triggers_running{$airflow})"
_HELD = 'max(container_memory_rss{$container,container=~"(airflow-)?triggerer"})'


def _over_a_day(function: str, value: str) -> str:
    return f"{function}_over_time(({value})[1d:5m])"


TRIGGER_MEMORY = {
    "trigger_looks": _over_a_day("count", f"{_TRIGGERS} + {_HELD}"),
    "trigger_mean": _over_a_day("avg", f"{_TRIGGERS} + 0 * {_HELD}"),
    "trigger_held": _over_a_day("avg", f"{_HELD} + 0 * {_TRIGGERS}"),
    "trigger_squares": _over_a_day("avg", f"{_TRIGGERS} ^ 2 + 0 * {_HELD}"),
    "trigger_held_squares": _over_a_day("avg", f"{_HELD} ^ 2 + 0 * {_TRIGGERS}"),
    "trigger_both": _over_a_day("avg", f"{_TRIGGERS} * {_HELD}"),
}
"""Looks of a day at which both are known, and the means there of the triggers of a triggerer, its anonymous memory,
their squares and their product: what a line through them needs."""

TRIGGERS = replace(
    named(
        "triggers_of_a_day",
        lambda _: apart(TRIGGER_MEMORY),
        "triggers, bytes, and their products",
        "what a trigger takes is known from an empty triggerer, or a table",
    ),
    lasts=600.0,
    rests=600.0,
)

AIRFLOW = (GAUGES, QUEUES, AIRFLOW_RATES, AIRFLOW_SIGNS, SLOWEST_FILES, TRIGGERS)
"""Asked where slots or parsing are tuned, or tasks run in a scheduler that the policy names."""


def _moved(on: Naming) -> str:
    """Zero where there are such series, and more where they move."""
    return f"0 * ({on.there}) + ({' or '.join([*on.moving, 'vector(0)'])})"


NAMED = Signal(
    "named",
    apart({on.name: f"({_moved(on)})" for on in NAMINGS.values()}),
    "changes within five minutes, by naming",
    "the naming is as it was last known; where none is, nothing of Airflow is read",
    parts=(*NAMINGS,),
    lasts=600.0,
)
"""Which namings there are. It is asked every ten minutes, as few change theirs."""

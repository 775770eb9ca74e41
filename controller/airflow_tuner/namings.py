"""How Airflow's own metrics are named, by the way in which they come to Prometheus. Data, not code.

Each naming was taken from what Airflow 3.3.2 and 2.11.2 told a real exporter: `tests/edges/data` has the series. In the
fragments `$airflow`, `$window` and `$rounds` stand for what they do in `signals`, and each field says what else does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Naming:
    """One naming: the fragments that the questions about Airflow itself are composed of."""

    name: str
    """As the policy and its status call it."""
    told: str
    """Who gives such names, for people."""
    there: str
    """One value where there are series that this naming alone has."""
    moving: tuple[str, ...]
    """How far they moved within five minutes: the first of these that there is. An exporter keeps what is sent no more.
    """
    runs: str
    """How often the timer `$series` with `$matchers` was told, per second within the time `$over`."""
    seconds: str
    """Seconds that it told, per second."""
    gauges: str
    """The gauges, and the scheduler's heartbeat."""
    slots: str
    """Slots in a `$state`, in all pools."""
    executor: str
    """Label with the executor's name."""
    pool: str
    """Label with a pool's name."""
    of_dags: str
    """Tasks in a `$state`, or in one of several, by DAG."""
    states: str
    """Tasks in a state, by Celery queue and name of the series."""
    queued: str
    """Tasks that wait for a worker, by Celery queue."""
    starts: str
    """Series that know of starts of tasks within two minutes."""
    looks: str
    """Series that tell whether starts could be seen."""
    tasks: Mapping[str, str]
    """`started`, `ended`, `ended_seconds` and `longest`, as `questions.RATES` explains them."""
    ends: str
    """Counter of the tasks that ended, with the label dag_id; empty: there is none that moves."""
    ages: tuple[str, ...]
    """Seconds since each file was parsed; the first of these selectors that finds something counts."""
    files: str
    """Parses of each file (`$kind` is `count`), or the time that they took (`sum`), at an `$offset`."""
    by: str
    """Labels that tell files apart."""
    factor: str = ""
    """What makes seconds of that time."""
    oldest: str = ""
    """The most seconds that any was not parsed, where no selector of `ages` finds something."""
    total: str = ""
    """End of a counter's name."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that have another name here, and the one that `telemetry` reads."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The same of series."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Lines of Airflow that tell too little in it for anything to rest on it, and what."""
    senders: tuple[str, ...] = ()
    """Labels that tell the processes of one Airflow apart; empty: they all tell one exporter."""


_AGE = "airflow_dag_processing_last_run_seconds_ago"
_PARSE = "airflow_dag_processing_last_duration"
_POOL_NAMES = "executor_open_slots|executor_running_tasks|pool_open_slots|pool_(queued|running|scheduled)_slots"
_PARSE_NAMES = "dag_processing_total_parse_time|dag_processing_file_path_queue_size"
_LABELS = {"pool_name": "pool", "executor_class_name": "executor", "name": "executor", "file_name": "file"}
"""By Airflow's tags. Airflow before 3.3 calls the executor's class `name`."""


def _moving(label: str) -> str:
    """How often the ages of files changed, while the scheduler sends its heartbeat by StatsD."""
    return (
        f'max(changes({_AGE}{{{label}!="",$airflow}}[5m]))'
        " * (sum(increase(airflow_scheduler_heartbeat{$airflow}[5m])) > bool 0)"
    )


CHART = Naming(
    name="Chart",
    told="the official chart's StatsD exporter",
    there='count({__name__=~"airflow_pool_queued_slots_.+",$airflow})',
    moving=(_moving("dag_file"),),
    runs="sum(rate($series_count{$matchers}[$over]))",
    seconds="sum(rate($series_sum{$matchers}[$over]))",
    gauges=f'{{__name__=~"airflow_({_POOL_NAMES}_.+|{_PARSE_NAMES}|scheduler_heartbeat)",$airflow}}',
    slots='sum({__name__=~"airflow_pool_$state_slots_.+",$airflow})',
    executor="executor",
    pool="pool",
    of_dags='sum by (dag_id) ({__name__=~"airflow_ti_($state)",dag_id!="",$airflow})',
    states='sum by (__name__, queue) ({__name__=~"airflow_ti_(queued|running)",queue!="",$airflow})',
    queued='sum by (queue) (airflow_ti_queued{queue!="",$airflow})',
    starts="sum(rate(airflow_ti_start{$airflow}[2m])) > 0",
    looks="sum(rate(airflow_ti_start{$airflow}[2m]))",
    tasks={
        "started": "sum(rate(airflow_ti_start{$airflow}[$window]))",
        "ended": 'sum(rate(airflow_task_duration_count{dag_id!="",$airflow}[$window]))',
        "ended_seconds": 'sum(rate(airflow_task_duration_sum{dag_id!="",$airflow}[$window]))',
        # The exporter forgets a quantile about ten minutes after the last task.
        "longest": 'max(max_over_time((max(airflow_task_duration{dag_id!="",quantile="0.99",$airflow}))[1d:5m])'
        ' or label_replace((max(airflow_task_duration{dag_id!="",quantile="0.99",$airflow})),"of","now","",""))',
    },
    ends='airflow_task_duration_count{dag_id!="",$airflow}',
    ages=(f'{_AGE}{{dag_file!="",$airflow}}',),
    # The file is a part of the series' name, and becomes a label here.
    files=f'label_replace({{__name__=~"{_PARSE}_.+_$kind",$airflow}}$offset,"file","$$1","__name__","{_PARSE}_(.+)_$kind")',
    by="file",
)
"""StatsD through the mapping of the official chart's exporter: pools and files are partly in the names of series."""


def _alike(series: str) -> str:
    """Each task once: with the old names on, a mapping tells one in a group again, with __ for the dots of its name."""
    told = f'label_replace({series},"alike","$$1","task_id","(.*)")'
    for _ in range(2):
        told = f'label_replace({told},"alike","$${{1}}__$$2","alike","(.+)[.](.+)")'
    return told


TAGGED = replace(
    CHART,
    name="Tagged",
    told="StatsD with tags",
    # OpenTelemetry has the first, and another heartbeat.
    there='count(airflow_pool_queued_slots{pool_name!="",$airflow}) and count(airflow_scheduler_heartbeat{$airflow})',
    # Airflow before 3.3 tells the age of files without a tag: only a mapping makes a label of it.
    moving=(_moving("file_name"), _moving("dag_file")),
    # With the old names on, a mapping gives the same gauges once more, with its own labels.
    gauges=f'{{__name__=~"airflow_({_POOL_NAMES}|{_PARSE_NAMES}|scheduler_heartbeat)",pool="",executor="",$airflow}}',
    slots='sum(airflow_pool_$state_slots{pool_name!="",$airflow})',
    executor="executor_class_name",
    pool="pool_name",
    # Without the twins that a mapping gives to tasks in a group.
    of_dags='sum by (dag_id) ({__name__=~"airflow_ti_($state)",dag_id!="",task_id!~".+__.+",$airflow})',
    states="sum by (__name__, queue) (max by (__name__, queue, dag_id, alike)"
    f""" ({_alike('{__name__=~"airflow_ti_(queued|running)",queue!="",$airflow}')}))""",
    queued=f"""sum by (queue) (max by (queue, dag_id, alike) ({_alike('airflow_ti_queued{queue!="",$airflow}')}))""",
    # Not the durations: behind a mapping, with the old names on, each of them is counted there twice.
    ends='airflow_ti_finish{dag_id!="",$airflow}',
    ages=(f'{_AGE}{{file_name!="",$airflow}}', f'{_AGE}{{dag_file!="",$airflow}}'),
    oldest=f'max_over_time((max({{__name__=~"{_AGE}_.+",$airflow}}))[$rounds:15s])',
    files=f'sum by (bundle_name, file_name) ({_PARSE}_$kind{{file_name!="",$airflow}}$offset)',
    by="bundle_name, file_name",
    labels=_LABELS,
)
"""StatsD with `[metrics] statsd_influxdb_enabled`: pools, files and tasks are labels, with or without a mapping."""

_BEAT = "airflow_scheduler_heartbeat_total{$airflow}"
_START = "airflow_ti_start_total{$airflow}"
# Each task is a process, and each process a series of its own. It comes when the task ends, or in each interval of
# exports while it runs; its counter is 1 from the beginning, and never moves.
_STARTED = f"count(count_over_time({_START}[2m]) unless count_over_time({_START}[5m] offset 2m))"
_TASK = 'airflow_task_duration_milliseconds{dag_id!="",$airflow}'
# A scheduler that is gone is in the answers for five minutes more: that it beats no more is known sooner.
_LIVES = f"and on (instance) (increase({_BEAT}[3m]) > 0)"

OPENTELEMETRY = Naming(
    name="OpenTelemetry",
    told="Airflow's OpenTelemetry exporter",
    there=f"count({_BEAT})",
    moving=(f"sum(increase({_BEAT}[5m]))",),
    total="_total",
    runs="sum(histogram_count(rate($series_milliseconds{$matchers}[$over])))",
    seconds="0.001 * sum(histogram_sum(rate($series_milliseconds{$matchers}[$over])))",
    gauges=f'{{__name__=~"airflow_({_POOL_NAMES})",$airflow}} {_LIVES}'
    f' or {{__name__=~"airflow_({_PARSE_NAMES}|scheduler_heartbeat_total)",$airflow}}',
    # Each scheduler tells all pools and queues.
    slots=f'sum(max by (pool_name) (airflow_pool_$state_slots{{pool_name!="",$airflow}} {_LIVES}))',
    executor="executor_class_name",
    pool="pool_name",
    of_dags="sum by (dag_id) (max by (__name__, queue, dag_id, task_id)"
    f' ({{__name__=~"airflow_ti_($state)",dag_id!="",$airflow}} {_LIVES}))',
    states="sum by (__name__, queue) (max by (__name__, queue, dag_id, task_id)"
    f' ({{__name__=~"airflow_ti_(queued|running)",queue!="",$airflow}} {_LIVES}))',
    queued=f'sum by (queue) (max by (queue, dag_id, task_id) (airflow_ti_queued{{queue!="",$airflow}} {_LIVES}))',
    starts=f"{_STARTED} > 0",
    # That none starts is known only where starts were told of late.
    looks=f"sum(rate({_BEAT}[2m])) and on () count(count_over_time({_START}[1h]))",
    tasks={
        "started": f"0 * count(count_over_time({_START}[1h])) + ({_STARTED} / 120 or vector(0))",
        # Of all in the window: only their ratio counts.
        "ended": f"sum(histogram_count(last_over_time({_TASK}[$window])))",
        "ended_seconds": f"0.001 * sum(histogram_sum(last_over_time({_TASK}[$window])))",
        "longest": f"0.001 * max(histogram_quantile(0.99, sum by (dag_id, task_id) (last_over_time({_TASK}[1h]))))",
    },
    ends="",
    ages=(f'{_AGE}{{file_name!="",$airflow}}',),
    files=f'sum by (bundle_name, file_name) (histogram_$kind({_PARSE}_milliseconds{{file_name!="",$airflow}}$offset))',
    by="bundle_name, file_name",
    factor="0.001 * ",
    labels=_LABELS,
    names={"airflow_scheduler_heartbeat_total": "airflow_scheduler_heartbeat"},
    # Measured on 2.11.2: of the gauges with labels only the first that was set is sent, timers are gauges of the last
    # value, and the processes of tasks end before they have sent anything.
    unfit={
        "2": "Airflow 2 tells by OpenTelemetry of one pool only, and neither how often anything happened nor of tasks, "
        "so nothing rests on it. Let it send StatsD (config.metrics.statsd_on of the chart)."
    },
    # The first is Prometheus' own; the others come with a collector, by how it is set.
    senders=("instance", "exported_instance", "service_instance_id", "host_name", "k8s_pod_name", "pod"),
)
"""`[metrics] otel_on`, received by Prometheus itself or by a collector, in Prometheus' own translation of names.

Timers are native histograms of milliseconds; before Airflow 3.3 they are gauges, and what rests on them is not known.
"""

NAMINGS = {one.name: one for one in (TAGGED, CHART, OPENTELEMETRY)}
"""All of them, by name. Of several that move the first counts: Airflow with tags may send the old names as well."""


def chosen(moved: Mapping[str, float]) -> Naming | None:
    """The naming in use, by how far the series of those that there are moved within five minutes."""
    found = [one for one in NAMINGS.values() if one.name in moved]
    return max(found, key=lambda one: moved[one.name] > 0, default=None)

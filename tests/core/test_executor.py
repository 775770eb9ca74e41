"""What runs Airflow's tasks is known from what there is, and nothing of Celery's is said where Celery does not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import api, executor, explain, inventory, operator, questions, report, telemetry
from airflow_tuner.executor import Executors
from airflow_tuner.model import Death, Finding, Pod, Severity, TaskPod
from airflow_tuner.signals import Series
from core import test_inventory, test_stranded
from core.test_concurrency import celery
from core.test_inventory import KILLED, LABELS, Object, workload
from core.test_telemetry import GAUGES, gauge
from core.test_telemetry import read as told
from core.worlds import (
    NOW,
    Turn,
    airflow,
    memory,
    observed,
    pod,
    scheduler,
    slots,
    slots_spec,
    spec,
    tasks,
    turn,
    usage,
    worker,
)

WHERE = "label executor of Deployment/airflow-scheduler"
LOCAL = Executors(("LocalExecutor",), WHERE)
SEQUENTIAL = Executors(("SequentialExecutor",), WHERE)
KUBERNETES = Executors(("KubernetesExecutor",), WHERE)
BOTH = Executors(("CeleryExecutor", "KubernetesExecutor"), WHERE)
BOUNDS = {"memory": {"min": "512Mi", "max": "8Gi"}}
OF_SCHEDULER = spec(workers=[], scheduler=BOUNDS)


# What is known, and from where


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("CeleryExecutor", ("CeleryExecutor",)),
        (" LocalExecutor , KubernetesExecutor ", ("LocalExecutor", "KubernetesExecutor")),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", ("CeleryExecutor",)),
        ("LocalExecutor,heavy:my.own.module.EcsExecutor", ("LocalExecutor", "EcsExecutor")),
        ("quick:LocalExecutor,CeleryExecutor", ("LocalExecutor", "CeleryExecutor")),
        (
            "LocalExecutor;team1=CeleryExecutor;team2=my.KubernetesExecutor",
            ("LocalExecutor", "CeleryExecutor", "KubernetesExecutor"),
        ),
        ("", ()),
        ("$(EXECUTOR)", ()),
        ("CeleryExecutor,,", ("CeleryExecutor",)),
        ("CeleryExecutor" * 40, ()),
    ],
)
def test_the_option_is_read_with_its_lists_paths_aliases_and_teams(text: str, names: tuple[str, ...]) -> None:
    assert executor.option(text, "there").names == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("CeleryKubernetesExecutor", ("CeleryKubernetesExecutor",)),
        ("LocalExecutor-CeleryExecutor-KubernetesExecutor", ("LocalExecutor", "CeleryExecutor", "KubernetesExecutor")),
        # The chart cuts what is too long for a label, and takes a dot at its end away.
        ("airflow.providers.celery.executors.celery_executor.CeleryExecuto", ("CeleryExecutor",)),
        ("airflow.providers.cncf.kubernetes.executors.kubernetes_executor", ("KubernetesExecutor",)),
        ("LocalExecutor-some.other.place.of.executors.that.is.long.enough.t", ()),
        ("KubernetesExecutor-airflow.providers.celery.executors.celery", ()),
    ],
)
def test_the_charts_label_is_read_also_where_it_was_cut(text: str, names: tuple[str, ...]) -> None:
    assert executor.label(text, "there").names == names


@pytest.mark.parametrize(
    ("name", "celery", "local", "kubernetes", "several"),
    [
        ("CeleryExecutor", True, False, False, False),
        ("KubernetesExecutor", False, False, True, False),
        ("CeleryKubernetesExecutor", True, False, True, True),
        ("LocalKubernetesExecutor", False, True, True, True),
        ("SequentialExecutor", False, True, False, False),
        ("MyCeleryExecutor", True, False, False, False),
        ("AwsEcsExecutor", False, False, False, False),
    ],
)
def test_a_name_says_where_tasks_run(name: str, *, celery: bool, local: bool, kubernetes: bool, several: bool) -> None:
    runs = executor.option(name, "there")
    assert (runs.celery, runs.local, runs.kubernetes, runs.several) == (celery, local, kubernetes, several)


def test_what_is_not_known_is_taken_for_celery() -> None:
    assert (executor.UNKNOWN.celery, executor.UNKNOWN.local, executor.UNKNOWN.several) == (True, False, False)


def a_scheduler(label: str | None = None, *env: Object, name: str = "airflow-scheduler") -> Object:
    labels = {**LABELS, "component": "scheduler"} | ({} if label is None else {"executor": label})
    item = workload(name, "scheduler", "scheduler", "scheduler-log-groomer", labels=labels)
    item["spec"]["template"]["spec"]["containers"][0]["env"] = list(env)
    return item


OPTION = {"name": "AIRFLOW__CORE__EXECUTOR", "value": "LocalExecutor"}
BY_REFERENCE = {"name": "AIRFLOW__CORE__EXECUTOR", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
BY_COMMAND = {"name": "AIRFLOW__CORE__EXECUTOR_CMD", "value": "cat /executor"}


def test_the_policy_goes_before_the_environment_and_that_before_the_label() -> None:
    item = a_scheduler("KubernetesExecutor", OPTION)
    assert inventory.executors([item], "CeleryExecutor") == Executors(("CeleryExecutor",), "spec.airflow.executor")
    found = inventory.executors([item], None)
    assert found == Executors(("LocalExecutor",), "AIRFLOW__CORE__EXECUTOR of Deployment/airflow-scheduler")
    assert inventory.executors([a_scheduler("KubernetesExecutor")], None) == KUBERNETES


@pytest.mark.parametrize("entry", [BY_REFERENCE, BY_COMMAND])
def test_what_is_set_by_reference_is_not_known_whatever_the_label_says(entry: Object) -> None:
    assert not inventory.executors([a_scheduler("KubernetesExecutor", entry)], None)


def test_two_schedulers_that_differ_tell_nothing() -> None:
    other = a_scheduler("CeleryExecutor", name="other-scheduler")
    assert not inventory.executors([a_scheduler("KubernetesExecutor"), other], None)
    assert inventory.executors([a_scheduler("CeleryExecutor"), other], None).names == ("CeleryExecutor",)


def test_airflow_3_tells_it_in_its_gauges_and_workers_are_the_weakest_sign() -> None:
    answers = {questions.GAUGES.name: GAUGES}
    assert telemetry.executors(answers).names == ("CeleryExecutor",)
    assert not telemetry.executors({questions.GAUGES.name: (gauge("executor_open_slots", 3),)})
    assert inventory.executors_of([worker()]) == Executors(("CeleryExecutor",), "there is StatefulSet/airflow-worker")
    assert not inventory.executors_of([scheduler()])


def test_of_several_airflows_in_one_source_none_tells_this_ones_executor() -> None:
    beats = [Series({"__name__": "airflow_scheduler_heartbeat", "job": job}, 9.0) for job in ("ours", "theirs")]
    assert not telemetry.executors({questions.GAUGES.name: (*GAUGES, *beats)})


def test_the_policy_takes_executors_as_airflow_has_them_and_nothing_that_is_none() -> None:
    for text in ("CeleryExecutor", "LocalExecutor, a:my.own.KubernetesExecutor"):
        assert spec(airflow={"release": "airflow", "executor": text}).airflow.executor == text
    for text in ("", "celery", "CeleryExecutor;", "CeleryExecutor Kubernetes"):
        with pytest.raises(ValueError, match="executor"):
            spec(airflow={"release": "airflow", "executor": text})


def test_status_report_and_plan_say_what_runs_tasks_and_where_that_is_known_from() -> None:
    last = turn(OF_SCHEDULER, observed(scheduler(pod()), executors=LOCAL))
    assert (last.status.airflow_executor, last.status.airflow_executor_source) == ("LocalExecutor", WHERE)
    assert f"  executor  LocalExecutor ({WHERE})" in report.text("n/p", last.seen, ())
    assert report.document("n/p", last.seen, ())["executors"] == ["LocalExecutor"]
    planned = explain.plan(OF_SCHEDULER, last.seen, (), last.decision, ())
    assert " ".join(planned.split()).startswith(
        f"Mode Enforce, Airflow 3 with LocalExecutor ({WHERE}). Nothing is written."
    )


def test_what_is_not_known_is_not_in_the_status() -> None:
    last = turn(spec(), observed(worker(pod())))
    assert (last.status.airflow_executor, last.status.airflow_executor_source) == ("", "")
    assert "executor  not known: taken for the CeleryExecutor" in report.text("n/p", last.seen, ())


# Where Celery does not run tasks


def without(runs: Executors, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the observation
    """A group of workers that is late, had Celery to do with it."""
    return turn(
        slots_spec(),
        observed(celery(2, 2), airflow=airflow(tasks(30, 4, duration=60.0)), broker="", executors=runs, **fields),
    )


def test_slots_of_workers_are_left_alone_where_celery_runs_no_task() -> None:
    assert without(executor.UNKNOWN).reasons == ["SlotsExhausted"]
    for runs in (KUBERNETES, LOCAL):
        last = without(runs)
        assert (last.reasons, last.found) == ([], [])
        told = explain.page("worker/default", slots_spec(), last.seen, api.Status(), last.decision, ())
        assert (
            f"held This Airflow runs its tasks with the {runs.told} ({WHERE}), and not on Celery workers."
            in " ".join(told.split())
        )


def test_workers_that_are_not_there_are_explained_by_the_executor() -> None:
    (finding,) = turn(slots_spec(), observed(scheduler(pod()), executors=KUBERNETES)).findings
    assert finding.reason == "TargetsNotFound"
    assert finding.message.endswith(
        f"This Airflow runs its tasks with the KubernetesExecutor ({WHERE}), and not on Celery workers. Remove "
        "spec.workers from the policy."
    )
    (finding,) = turn(slots_spec(), observed(scheduler(pod()))).findings
    assert "Celery" not in finding.message


def test_memory_of_workers_is_still_tuned_whatever_the_executor() -> None:
    killed = worker(pod(died=NOW - timedelta(seconds=20)))
    assert turn(spec(), observed(killed, executors=KUBERNETES)).reasons == ["OutOfMemory"]


def test_slots_that_do_not_fit_are_celerys_alone() -> None:
    tight = worker(pod(limit=1024, slots=slots(16, 2)))
    assert "ConcurrencyExceedsMemory" in turn(spec(), observed(tight)).found
    assert "ConcurrencyExceedsMemory" not in turn(spec(), observed(tight, executors=KUBERNETES)).found


@pytest.mark.parametrize("broker", [True, False], ids=["broker", "no broker"])
def test_stranded_tasks_are_celerys_alone_and_of_several_executors_need_the_workers_word(*, broker: bool) -> None:
    world = test_stranded.World(broker=broker)
    world.fleet.trigger("load", 200, 20)
    world.scrapes.advance(60)
    world.kill("airflow-worker-0")
    world.scrapes.advance(240)
    last, policy = world.look(), slots_spec(high=64, memory_max="64Gi")

    def stranded(runs: Executors) -> bool:
        return "StrandedTasks" in turn(policy, replace(last.seen, executors=runs)).found

    assert stranded(Executors(("CeleryExecutor",), WHERE))
    assert not stranded(KUBERNETES)
    assert stranded(BOTH) == broker


def test_a_full_pool_is_told_without_a_word_about_workers() -> None:
    pool = telemetry.Pool("default_pool", open=0, running=128, queued=0, scheduled=20)
    seen = observed(scheduler(pod()), airflow=airflow(replace(tasks(), pools=(pool,))), executors=KUBERNETES)
    (finding,) = [one for one in turn(slots_spec(), seen).findings if one.reason == "QueueLagHigh"]
    assert finding.message.endswith("20 more slots are asked for. Raise the pool's slots, or let its tasks wait.")


def test_a_runaway_is_told_without_a_word_about_workers() -> None:
    flow = tasks(30, 2, paces=(telemetry.Pace("load", 4200, 120),), pace=4200)
    seen = observed(scheduler(pod()), airflow=airflow(flow), executors=KUBERNETES)
    message = only(turn(slots_spec(), seen), "RunawayTasks").message
    assert "in 10 minutes. Not meant: pause the DAG" in message


def test_the_report_says_that_no_broker_is_asked() -> None:
    seen = observed(scheduler(pod()), executors=KUBERNETES)
    assert "  broker    not asked: no Celery worker runs tasks" in report.text("n/p", seen, ())


# Celery as one of several


def test_of_several_executors_only_celerys_own_gauges_count() -> None:
    others = [item for item in GAUGES if not item.labels.get("executor")]
    kubernetes = gauge("executor_running_tasks", 400, executor="KubernetesExecutor")
    unlabelled = told(gauges=(*others, kubernetes), runs=BOTH).tasks
    assert unlabelled is not None
    assert (unlabelled.handed_out, unlabelled.open_slots, unlabelled.handed_out_least) == (None, None, None)
    labelled = told(gauges=(*GAUGES, kubernetes), runs=BOTH).tasks
    assert labelled is not None
    assert (labelled.handed_out, labelled.open_slots) == (29, 3)


def mixed(handed_out: int | None, *pods: Pod, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the tasks
    """Thirty tasks wait in the pools; whose they are, the pools do not say."""
    flow = tasks(30, 4, duration=60.0, handed_out=handed_out, open_slots=20, **fields)
    seen = observed(
        celery(2, 2) if not pods else worker(*pods, stated=celery(2, 2).stated),
        airflow=airflow(flow),
        broker="",
        executors=BOTH,
    )
    return turn(slots_spec(), seen)


def test_of_several_executors_celerys_lag_is_what_was_handed_to_it_and_does_not_run() -> None:
    late = mixed(20)
    assert late.reasons == ["SlotsExhausted"]
    assert "16 tasks wait for 4 slots" in late.findings[0].message
    assert mixed(4).found == []


def test_of_several_executors_nothing_is_claimed_without_celerys_own_numbers() -> None:
    for last in (mixed(None), mixed(20, pod(), pod("airflow-worker-1"))):
        assert (last.reasons, last.found) == ([], [])
    told = explain.page("worker/default", slots_spec(), last.seen, api.Status(), last.decision, ())
    assert "held      Of several executors, how many tasks wait for Celery" in told


# Tasks in the scheduler's container


def local(waiting: int, running: int, parallelism: int = 16, **fields: Any) -> Turn:  # noqa: ANN401 - `runs`, `limit`, `line`, or of the tasks
    """A scheduler that runs tasks itself. As Airflow 3.3.2 says it: all slots are open, whatever runs."""
    runs, line, limit = fields.pop("runs", LOCAL), fields.pop("line", "3"), fields.pop("limit", 2048)
    known = {"open_slots": parallelism, "handed_out": 0, "duration": 60.0, **fields}
    pods = fields.pop("pods", (pod("airflow-scheduler-0", limit=limit, usage=usage(cpu=0.6)),))
    known.pop("pods", None)
    workload = scheduler(*pods)
    return turn(
        OF_SCHEDULER, observed(workload, airflow=airflow(tasks(waiting, running, **known)), executors=runs, line=line)
    )


def only(last: Turn, reason: str) -> Finding:
    (finding,) = [one for one in last.findings if one.reason == reason]
    return finding


def test_tasks_that_wait_for_the_scheduler_are_told_with_what_its_memory_carries() -> None:
    finding = only(local(40, 16), "QueueLagHigh")
    assert (finding.severity, finding.target) == (Severity.WARNING, "scheduler")
    assert finding.message == (
        "40 tasks wait for 16 slots, about 152 s at the present pace; the objective is 30 s. ParallelismCapped: All 16 "
        "slots of core.parallelism are taken, by tasks that run or start, and that in the scheduler's own container "
        "(LocalExecutor). Raise config.core.parallelism of the chart: its memory limit of 2048 MiB carries 32."
    )


def test_tasks_that_start_hold_their_slots_as_those_do_that_run() -> None:
    assert "QueueLagHigh" not in local(40, 8).found
    assert "QueueLagHigh" not in local(40, 8, waiting_least=0).found
    assert "ParallelismCapped" in only(local(40, 8, waiting_least=20), "QueueLagHigh").message
    assert "QueueLagHigh" not in local(40, 7, waiting_least=20).found


def test_where_memory_ends_more_parallelism_is_not_advised_alone() -> None:
    message = only(local(40, 16, limit=1100), "QueueLagHigh").message
    assert "Its memory limit of 1100 MiB carries no more" in message
    assert "raise that together with config.core.parallelism" in message


def test_on_airflow_2_nothing_is_claimed_of_that_memory() -> None:
    last = local(40, 16, open_slots=0, handed_out=16, line="2", limit=700)
    assert "as far as the memory of that container goes." in only(last, "QueueLagHigh").message
    assert "ConcurrencyExceedsMemory" not in last.found


def test_what_is_scheduled_waits_too_where_the_executor_takes_nothing_more() -> None:
    pool = telemetry.Pool("default_pool", open=100, running=16, queued=0, scheduled=25)
    last = local(0, 16, open_slots=0, handed_out=16, pools=(pool,))
    assert "25 tasks wait for 16 slots" in only(last, "QueueLagHigh").message


@pytest.mark.parametrize(
    "healthy",
    [
        {"waiting": 0, "running": 16},  # all work, nobody waits
        {"waiting": 2, "running": 3},  # they begin
        {"waiting": 2, "running": 3, "parallelism": 0},  # without end
        {"waiting": 4, "running": 16, "duration": 3.0},  # within the objective
        {"waiting": 40, "running": 16, "runs": Executors(("LocalKubernetesExecutor",), WHERE)},  # whose are they
    ],
)
def test_a_scheduler_that_keeps_up_is_left_in_peace(healthy: dict[str, Any]) -> None:
    assert local(**healthy).found == []


def test_a_scheduler_without_cpu_or_database_is_not_told_to_run_more() -> None:
    busy = pod("airflow-scheduler-0", limit=4096, usage=usage(cpu=2.0, throttled=0.5))
    assert "SchedulerUnderResourced: CPU holds tasks back" in only(local(40, 16, pods=(busy,)), "QueueLagHigh").message
    assert "DatabaseSlow: " in only(local(40, 16, critical=3.0), "QueueLagHigh").message


def test_the_sequential_executor_runs_one_task_at_a_time() -> None:
    message = only(local(9, 1, parallelism=32, runs=SEQUENTIAL, line="2"), "QueueLagHigh").message
    assert message.startswith("9 tasks wait for 1 slot, ")
    assert "Set executor: LocalExecutor in the chart's values" in message


def test_tasks_that_would_not_fit_the_scheduler_are_told_before_anybody_dies() -> None:
    finding = only(local(0, 2, parallelism=32, limit=1024), "ConcurrencyExceedsMemory")
    assert (finding.severity, finding.target) == (Severity.WARNING, "scheduler")
    assert finding.message == (
        "32 tasks do not fit the memory limit of 1024 MiB in 1 of 1 pod of Deployment/airflow-scheduler, e.g. "
        "airflow-scheduler-0: tasks run in that container (LocalExecutor), core.parallelism allows so many, and they "
        "would need 180 MiB + 32 x 53 MiB + 130 MiB = 2006 MiB. The limit carries 13. Set config.core.parallelism to "
        "13 at most, or the limit to 2006 MiB at least, or use Celery workers."
    )


def test_a_kill_in_the_scheduler_says_that_tasks_run_there() -> None:
    dead = (pod("airflow-scheduler-0", died=NOW - timedelta(seconds=20)),)
    message = only(local(0, 2, pods=dead), "OutOfMemory").message
    assert message.endswith(
        " Tasks run in this container, up to 16 at once (core.parallelism), as the executor is LocalExecutor: they "
        "died with it."
    )
    one = (pod("airflow-scheduler-0", limit=4096, usage=usage(kills=1, peak=4096)),)
    assert only(local(0, 2, pods=one), "OutOfMemory").message.endswith(" as the executor is LocalExecutor.")
    other = turn(OF_SCHEDULER, observed(scheduler(*dead), executors=KUBERNETES))
    assert "Tasks run" not in only(other, "OutOfMemory").message


def test_a_scheduler_that_could_run_more_tasks_than_it_did_is_not_called_too_large() -> None:
    day = usage(cpu=0.6, anonymous_day=300, anonymous_before=300)
    one = pod("airflow-scheduler-0", request=4096, limit=4096, started=NOW - timedelta(days=2), usage=day)
    assert "MemoryOverprovisioned" in local(0, 2, parallelism=32, pods=(one,), runs=KUBERNETES).found
    assert "MemoryOverprovisioned" not in local(0, 2, parallelism=36, pods=(one,)).found


# Tasks in pods of their own


def a_task_pod(name: str = "etl-load-x1", **parts: Any) -> Object:  # noqa: ANN401 - of a pod
    """A pod as the KubernetesExecutor makes it of the chart's template: it carries the workers' labels."""
    made = test_inventory.pod(name, "", container="base", **parts)
    labels = {**LABELS, "component": "worker", "kubernetes_executor": "True", "dag_id": "etl", "task_id": "load"}
    metadata = {key: value for key, value in made["metadata"].items() if key != "ownerReferences"}
    return {**made, "metadata": {**metadata, "labels": {**labels, "airflow-worker": "7", "try_number": "1"}}}


def test_pods_of_tasks_are_no_workers_of_celery_but_are_known() -> None:
    sets = workload("airflow-worker", "worker", "worker", kind="StatefulSet")
    pods = [a_task_pod(), test_inventory.pod("airflow-worker-0", "airflow-worker")]
    (found,) = inventory.workloads([sets], pods)
    assert [one.name for one in found.pods] == ["airflow-worker-0"]
    (task,) = inventory.task_pods(pods)
    assert (task.name, task.dag, task.task) == ("etl-load-x1", "etl", "load")
    assert (task.memory, task.death, task.unplaced) == (memory(512, 1024), None, "")


def test_a_killed_pod_of_a_task_and_one_that_no_node_takes_are_told_apart() -> None:
    dead = a_task_pod(state={"state": {"terminated": KILLED}}, phase="Failed")
    waits = a_task_pod(
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
    )
    killed, unplaced = inventory.task_pods([dead, waits])
    assert killed.death is not None
    assert (killed.unplaced, unplaced.death, unplaced.unplaced) == ("", None, "0/3 nodes")


def test_pods_of_tasks_wake_nobody_as_they_come_and_go_with_every_task() -> None:
    dead = a_task_pod(state={"state": {"terminated": KILLED}}, phase="Failed")
    assert [operator._mark(one) for one in (a_task_pod(), dead)] == [None, None]  # noqa: SLF001
    assert operator._mark(test_inventory.pod("airflow-worker-0", "airflow-worker"))  # noqa: SLF001


def test_names_that_do_not_fit_a_label_are_read_from_the_annotation() -> None:
    item = a_task_pod()
    item["metadata"]["annotations"] = {"dag_id": "étl", "task_id": "load"}
    assert inventory.task_pods([item])[0].dag == "étl"


def task_pod(name: str = "etl-load-x1", **fields: Any) -> TaskPod:  # noqa: ANN401 - any field of the pod
    known = {"dag": "etl", "task": "load", "created": NOW - timedelta(minutes=2), "memory": memory(512, 512)}
    return TaskPod(name, **{**known, **fields})


def with_task_pods(*pods: TaskPod) -> list[Finding]:
    return list(turn(OF_SCHEDULER, observed(scheduler(pod()), executors=KUBERNETES, task_pods=pods)).findings)


def test_killed_pods_of_tasks_are_told_with_their_dags_and_tasks() -> None:
    died = [NOW - timedelta(minutes=5), NOW - timedelta(minutes=3), NOW - timedelta(hours=2)]
    pods = [task_pod(f"etl-load-x{number}", death=Death(1, at)) for number, at in enumerate(died)]
    (finding,) = with_task_pods(*pods, task_pod("etl-idle"))
    assert (finding.reason, finding.severity, finding.target) == ("OutOfMemory", Severity.CRITICAL, "task-pods")
    assert finding.message == (
        "2 pods of tasks were killed for memory within the hour, the last at 11:57:00: task load of etl (limit "
        "512 MiB). The operator does not size pods of tasks: give the task a larger limit (executor_config, "
        "pod_override) or the chart's pod template, or load less at once in it."
    )
    assert finding.since == died[0]


def test_pods_of_tasks_that_no_node_takes_are_told_once_they_are_late() -> None:
    why = (
        "0/3 nodes are available: 3 Insufficient memory. no new claims to deallocate, preemption: 0/3 nodes are "
        "available: 3 No preemption victims found for incoming pod."
    )
    (finding,) = with_task_pods(task_pod(unplaced=why), task_pod("young", created=NOW, unplaced=why), task_pod("runs"))
    assert (finding.reason, finding.target) == ("QueueLagHigh", "task-pods")
    assert finding.message == (
        "1 pod of a task waits for a node, the first, etl-load-x1 (task load of etl), for 120 s; the objective is 30 s."
        " PodsPending: 0/3 nodes are available: 3 Insufficient memory. Add nodes, or let tasks request less."
    )


def test_pods_of_tasks_that_run_well_are_no_finding() -> None:
    assert with_task_pods(*(task_pod(f"etl-{number}") for number in range(200))) == []

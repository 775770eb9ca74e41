"""Other autoscalers: how they are read, what is said about them, and that a VerticalPodAutoscaler is left in charge."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import api, autoscaler
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.model import Finding, Observation, Severity
from core.worlds import (
    NOW,
    Turn,
    airflow,
    applied,
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

Object = dict[str, Any]
SECOND = timedelta(seconds=1)
WORKER = {"kind": "StatefulSet", "name": "airflow-worker"}
CHARTS_QUERY = (
    "SELECT ceil(COUNT(*)::decimal / 16) FROM task_instance WHERE (state='running' OR state='queued') "
    "AND queue IN ('default')"
)


def horizontal(*metrics: Object, **metadata: Any) -> Object:  # noqa: ANN401 - any field of the metadata
    """A HorizontalPodAutoscaler of the default worker."""
    return {"metadata": {"name": "hpa", **metadata}, "spec": {"scaleTargetRef": WORKER, "metrics": [*metrics]}}


def by(resource: str, kind: str = "Utilization", source: str = "resource") -> Object:
    """A metric of a HorizontalPodAutoscaler."""
    return {"type": "Resource", source: {"name": resource, "target": {"type": kind}}}


def vertical(mode: str | None = "Recreate", *policies: Object) -> Object:
    """A VerticalPodAutoscaler of the default worker."""
    made: Object = {"targetRef": WORKER}
    if mode is not None:
        made["updatePolicy"] = {"updateMode": mode}
    if policies:
        made["resourcePolicy"] = {"containerPolicies": [*policies]}
    return {"metadata": {"name": "vpa"}, "spec": made}


def keda(query: str = CHARTS_QUERY, annotations: Object | None = None, **trigger: str) -> Object:
    """A ScaledObject of the default worker."""
    metadata = {"targetQueryValue": "1", "query": query, **trigger}
    return {
        "metadata": {"name": "keda", "annotations": annotations},
        "spec": {"scaleTargetRef": WORKER, "triggers": [{"type": "postgresql", "metadata": metadata}]},
    }


def read(
    horizontals: tuple[Object, ...] = (), verticals: tuple[Object, ...] = (), scaled: tuple[Object, ...] = ()
) -> tuple[Autoscaler, ...]:
    return autoscaler.read(horizontals, verticals, scaled)


def one(**kinds: tuple[Object, ...]) -> Autoscaler:
    (found,) = read(**kinds)
    assert found.target == "StatefulSet/airflow-worker"
    return found


def seen(*scalers: Autoscaler, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the observation
    return observed(worker(pod()), autoscalers=scalers, **fields)


def other(last: Turn, reason: str = "AnotherAutoscaler") -> list[Finding]:
    return [finding for finding in last.findings if finding.reason == reason]


# How they are read.


def test_one_that_cannot_be_understood_hides_no_other() -> None:
    assert one(verticals=({"metadata": {}}, vertical(), {"spec": 3})).kind == "VerticalPodAutoscaler"
    assert one(horizontals=({"metadata": {"name": "odd"}}, horizontal())).kind == "HorizontalPodAutoscaler"


def test_a_horizontal_one_is_told_by_what_it_goes_by() -> None:
    for metric in (by("cpu"), by("memory", "AverageValue"), {"type": "External", "external": {}}):
        assert not one(horizontals=(horizontal(metric),)).by_memory
    assert one(horizontals=(horizontal(by("cpu"), by("memory")),)).by_memory
    assert one(horizontals=(horizontal(by("memory", source="containerResource")),)).by_memory
    owned = horizontal(by("cpu"), ownerReferences=[{"kind": "ScaledObject", "name": "keda"}])
    assert read(horizontals=(owned,)) == (), "KEDA's own is told as KEDA's"


@pytest.mark.parametrize(
    ("item", "changes", "rules"),
    [
        (vertical(), True, True),
        (vertical("InPlaceOrRecreate"), True, True),
        (vertical(None), True, True),
        (vertical("Initial"), True, False),
        (vertical("Off"), False, False),
        (vertical("Auto", {"containerName": "*", "controlledResources": ["cpu"]}), False, False),
        (vertical("Auto", {"containerName": "worker", "mode": "Off"}), False, False),
        (vertical("Auto", {"containerName": "worker-log-groomer", "mode": "Off"}), True, True),
        (vertical("Auto", {"containerName": "worker"}, {"containerName": "*", "mode": "Off"}), True, True),
        (vertical("Auto", {"containerName": "worker", "controlledResources": ["memory"]}), True, True),
    ],
)
def test_a_vertical_one_rules_memory_unless_it_says_otherwise(item: Object, *, changes: bool, rules: bool) -> None:
    found = one(verticals=(item,))
    assert (found.changes_memory("worker"), found.rules_memory("worker")) == (changes, rules)


@pytest.mark.parametrize(
    ("query", "number"),
    [
        (CHARTS_QUERY, 16),
        ("select ceil( count( * ) :: numeric/8 ) from task_instance", 8),
        ("SELECT ceil(COUNT(*) / 4) FROM task_instance", 4),
        ("SELECT ceil(COUNT(*)::decimal / 16.5) FROM task_instance", None),
        ("SELECT ceil(COUNT(*)::decimal / 0) FROM task_instance", None),
        ("SELECT ceil(COUNT(*)::decimal / 1000) FROM trigger", None),
        ("SELECT COUNT(*) FROM task_instance", None),
        ("", None),
    ],
)
def test_the_slots_that_keda_counts_with_are_in_its_query(query: str, number: int | None) -> None:
    assert one(scaled=(keda(query),)).slots == number


def test_a_query_in_other_units_several_of_them_or_a_paused_object_say_nothing() -> None:
    assert one(scaled=(keda(targetQueryValue="2"),)).slots is None
    both = keda()
    both["spec"]["triggers"] *= 2
    assert one(scaled=(both,)).slots is None
    assert read(scaled=(keda(annotations={autoscaler.PAUSED: "true"}),)) == ()
    bare: Object = {"metadata": {"name": "keda"}, "spec": {"scaleTargetRef": {"name": "airflow-worker"}}}
    (found,) = read(scaled=(bare,))
    assert (found.target, found.slots) == ("Deployment/airflow-worker", None)
    by_memory = {"metadata": {"name": "k"}, "spec": {"scaleTargetRef": WORKER, "triggers": [{"type": "memory"}]}}
    assert one(scaled=(by_memory,)).by_memory


# What is said.


def test_one_that_changes_replicas_alone_is_worth_knowing_and_no_more() -> None:
    for scaler in (one(horizontals=(horizontal(by("cpu")),)), one(scaled=(keda(),))):
        (finding,) = turn(spec(), seen(scaler)).findings
        assert (finding.reason, finding.severity) == ("AnotherAutoscaler", Severity.INFO)
        assert finding.message == (
            f"The {scaler.kind} {scaler.name} changes the replicas of StatefulSet/airflow-worker: that is in nobody's "
            "way."
        )


def test_replicas_that_go_by_memory_as_a_share_of_the_request_are_a_warning() -> None:
    (finding,) = other(turn(spec(), seen(one(horizontals=(horizontal(by("memory")),)))))
    assert finding.severity is Severity.WARNING
    assert "by its memory as a share of the request, which the operator changes" in finding.message


def test_of_several_the_worst_comes_first_in_one_finding() -> None:
    scalers = read(horizontals=(horizontal(by("cpu")),), verticals=(vertical("Initial"),))
    (finding,) = other(turn(spec(), seen(*scalers)))
    assert (finding.severity, finding.target) == (Severity.WARNING, "worker/default")
    assert finding.message.startswith("The VerticalPodAutoscaler vpa (updateMode Initial) sets the memory of new pods")
    assert finding.message.endswith("in nobody's way.")


def test_one_that_only_recommends_or_belongs_to_another_workload_is_not_told() -> None:
    assert turn(spec(), seen(one(verticals=(vertical("Off"),)))).findings == ()
    foreign = replace(one(verticals=(vertical(),)), target="Deployment/airflow-worker")
    assert turn(spec(), seen(foreign)).findings == ()
    uncovered = replace(foreign, target="Deployment/airflow-scheduler")
    assert turn(spec(), observed(worker(pod()), scheduler(pod("s")), autoscalers=(uncovered,))).findings == ()
    cpu = one(verticals=(vertical("Auto", {"containerName": "*", "controlledResources": ["cpu"]}),))
    (finding,) = turn(spec(), seen(cpu)).findings
    assert finding.severity is Severity.INFO
    assert "changes the CPU of StatefulSet/airflow-worker alone" in finding.message


def test_names_of_any_length_fit_into_the_message() -> None:
    long = "x" * 253
    scalers = [
        replace(item, name=long) for item in read(horizontals=(horizontal(by("memory")),), verticals=(vertical(),))
    ]
    (finding,) = other(turn(spec(), seen(*scalers)))
    assert len(finding.message) <= 1024


# A VerticalPodAutoscaler is left in charge.

RULER = one(verticals=(vertical(),))


def killed() -> Turn:
    """A worker whose limit was raised for a kill."""
    last = turn(spec(), observed(worker(pod(died=NOW - SECOND))))
    assert last.limit == 1536
    assert last.status.tuned
    return last


def test_what_a_vertical_one_rules_is_only_recommended_for() -> None:
    last = turn(spec(), observed(worker(pod(died=NOW - SECOND)), autoscalers=(RULER,)))
    assert last.limit == 1536, "recommended"
    assert (last.decision.changes, last.status.tuned, last.status.history) == ((), [], [])
    assert last.status.targets[0].recommended.limit == "1536Mi"
    (finding,) = other(last)
    assert "VerticalPodAutoscaler vpa (updateMode Recreate) changes the memory of StatefulSet/airflow-worker" in (
        finding.message
    )
    assert "only recommends for it, changes no memory and no slots, and does not answer its kills." in finding.message


def test_what_was_decided_before_it_came_is_released_and_told_once() -> None:
    last = killed()
    ruled = replace(applied(last, seconds=60), autoscalers=(RULER,))
    after = turn(spec(), ruled, last.status)
    assert after.reasons == ["Released"]
    assert "Released: the VerticalPodAutoscaler vpa changes its memory. New pods follow the template" in (
        after.decision.changes[0].message
    )
    assert after.status.tuned == []
    assert after.status.history[0].reason == "Released"
    again = turn(spec(), replace(ruled, at=NOW + 90 * SECOND), after.status)
    assert (again.reasons, again.status.tuned) == ([], [])
    assert again.status.history == after.status.history


def test_pods_that_it_has_made_smaller_are_not_resized() -> None:
    last = killed()
    ruled = replace(applied(last, seconds=60), autoscalers=(RULER,))
    small = turn(spec(), ruled, last.status)
    (workload,) = ruled.workloads
    shrunk = replace(workload, pods=(pod(limit=700, request=600, decision="worker-default-1"),))
    after = turn(spec(), replace(ruled, workloads=(shrunk,), at=NOW + 90 * SECOND), small.status)
    assert after.status.tuned == []
    converged = next(item for item in after.status.conditions if item.type == "Converged")
    assert converged.status == "True"
    assert "TemplateChanged" not in after.found


def test_once_it_is_gone_the_recommendation_counts() -> None:
    last = killed()
    ruled = replace(applied(last, seconds=60), autoscalers=(RULER,))
    released = turn(spec(), ruled, last.status)
    free = turn(spec(), replace(ruled, at=NOW + 400 * SECOND, autoscalers=()), released.status)
    assert free.reasons == ["Recommended"]
    assert free.limit == 1536
    assert free.status.tuned


def test_only_its_own_workload_is_left_to_it() -> None:
    bounds = {"memory": {"min": "512Mi", "max": "4Gi"}}
    dead = scheduler(pod("s", died=NOW - SECOND))
    last = turn(spec(scheduler=bounds), observed(worker(pod(died=NOW - SECOND)), dead, autoscalers=(RULER,)))
    assert [change.target for change in last.decision.changes] == ["scheduler"]
    assert [entry.target for entry in last.status.tuned] == ["scheduler"]


def test_while_the_policy_is_paused_what_is_held_stays_held() -> None:
    last = killed()
    ruled = replace(applied(last, seconds=60), autoscalers=(RULER,))
    paused = turn(spec(), ruled, last.status, paused=True)
    assert (paused.reasons, paused.status.tuned) == ([], last.status.tuned)


def test_in_mode_recommend_it_changes_nothing_of_what_is_said() -> None:
    policy = spec(mode="Recommend")
    world = observed(worker(pod(died=NOW - SECOND)))
    ruled = turn(policy, replace(world, autoscalers=(RULER,)))
    assert ruled.decision == turn(policy, world).decision
    assert "In mode Enforce the operator would change nothing of it." in other(ruled)[0].message


@pytest.mark.parametrize(
    "scaler", [*read((horizontal(by("memory")),), (vertical("Initial"), vertical("Off")), (keda(),))]
)
def test_every_other_one_is_in_the_way_of_no_decision(scaler: Autoscaler) -> None:
    world = observed(worker(pod(died=NOW - SECOND)))
    assert turn(spec(), replace(world, autoscalers=(scaler,))).decision == turn(spec(), world).decision


def test_slots_of_what_it_rules_are_not_changed() -> None:
    busy = pod("w", limit=2048, started=NOW - timedelta(hours=1), slots=slots(4), usage=usage(cpu=0.3, anonymous=700))
    world = observed(
        worker(busy, limit=2048),
        airflow=airflow(tasks(waiting=300, running=4, open_slots=100, handed_out=4)),
        broker="",
    )
    assert turn(slots_spec(), world).reasons == ["SlotsExhausted"]
    ruled = turn(slots_spec(), replace(world, autoscalers=(RULER,)))
    assert (ruled.reasons, ruled.status.tuned) == ([], [])


# KedaOutOfStep


def out_of_step(
    *processes: int,
    policy: api.Spec | None = None,
    query: str = CHARTS_QUERY,
    **fields: Any,  # noqa: ANN401 - any field of the workload
) -> list[Finding]:
    pods = [pod(f"w{number}", limit=4096, slots=slots(count, 0)) for number, count in enumerate(processes)]
    world = observed(worker(*pods, limit=4096, **fields), autoscalers=(one(scaled=(keda(query),)),), broker="")
    return other(turn(policy or slots_spec(), world), "KedaOutOfStep")


def test_keda_that_counts_with_more_slots_than_there_are_starts_too_few_workers() -> None:
    (finding,) = out_of_step(8, 8)
    assert (finding.severity, finding.target) == (Severity.WARNING, "worker/default")
    assert finding.message == (
        "The query of the ScaledObject keda counts 16 tasks for each worker of StatefulSet/airflow-worker, and 8 slots "
        "are in force in each: KEDA starts too few workers, and tasks wait. Set config.celery.worker_concurrency of "
        "the Airflow chart's values to 8, which also renders the query anew; or give KEDA a query of your own."
    )


def test_keda_that_counts_with_fewer_starts_too_many() -> None:
    (finding,) = out_of_step(24)
    assert "KEDA starts more workers than the tasks have use for" in finding.message


def test_keda_in_step_or_workers_of_unknown_slots_are_no_finding() -> None:
    assert out_of_step(16) == []
    assert out_of_step(8, 16) == [], "they are on their way"
    assert out_of_step(8, query="SELECT COUNT(*) FROM task_instance") == []
    unknown = observed(worker(pod()), autoscalers=(one(scaled=(keda(),)),))
    assert other(turn(spec(), unknown), "KedaOutOfStep") == []


def test_of_workers_that_grow_and_shrink_by_themselves_the_largest_size_counts() -> None:
    def found(number: int, text: str) -> list[Finding]:
        item = pod(limit=4096, slots=slots(number, 0), environment={"AIRFLOW__CELERY__WORKER_AUTOSCALE": text})
        world = observed(worker(item, limit=4096), autoscalers=(one(scaled=(keda(),)),), broker="")
        return other(turn(slots_spec(), world), "KedaOutOfStep")

    assert found(9, "16,4") == []
    (finding,) = found(10, "2,2")
    assert "and 10 slots are in force" in finding.message


def test_where_no_worker_runs_what_a_new_one_gets_counts() -> None:
    environment = {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "4"}
    stated = replace(worker().stated, concurrency=4)
    (finding,) = out_of_step(environment=environment, stated=stated)
    assert "and 4 slots are in force" in finding.message


def test_the_slots_count_whether_or_not_the_policy_tunes_them() -> None:
    (finding,) = out_of_step(1, policy=spec(high="8Gi"))
    assert "1 slot is in force in each" in finding.message

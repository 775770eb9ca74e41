"""Memory for tasks with pods of their own is recommended from their runs, never set, and lowered on evidence alone."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

from airflow_tuner import api, explain, helm, task_page, task_runs, task_sizes, witness
from airflow_tuner.executor import Executors
from airflow_tuner.model import Death, Memory, Observation, TaskPod
from airflow_tuner.signals import OF_TASKS, Series
from airflow_tuner.task_runs import TaskName, TaskRuns
from airflow_tuner.task_sizes import Advice, Size
from core.worlds import MI, NOW, memory, observed, pod, scheduler, spec, turn

KUBERNETES = Executors(("KubernetesExecutor",), "label executor of Deployment/airflow-scheduler")
BOTH = Executors(("CeleryExecutor", "KubernetesExecutor"), "there")
LOAD = TaskName("etl", "load")


def policy(low: str = "128Mi", high: str = "8Gi", **fields: Any) -> api.Spec:  # noqa: ANN401 - any field of the spec
    return spec(workers=[], tasks={"memory": {"min": low, "max": high, **fields}}, mode="Recommend")


def runs(stem: str = "etl-load", **fields: Any) -> TaskRuns:  # noqa: ANN401 - any field of the runs, sizes in MiB
    """A task that was seen well a hundred times, and fits what its pods have."""
    known: dict[str, Any] = {"runs": 100, "usual": 400, "most": 640, "peak": 700, "limit": 820, "request": 416}
    sizes = {"usual", "most", "peak", "limit", "request", "killed_at"}
    told = {**known, **fields}
    found = {name: value * MI if name in sizes and value is not None else value for name, value in told.items()}
    return TaskRuns(stem, **{"looks": 10 * found["runs"], **found})


def seen(*found: TaskRuns, pods: tuple[TaskPod, ...] = (), **fields: Any) -> Observation:  # noqa: ANN401 - any field of the observation
    names = {one.stem: TaskName(*one.stem.split("-", 1)) for one in found}
    known = {"executors": KUBERNETES, "task_names": names, **fields}
    return observed(scheduler(pod()), task_runs=found, task_pods=pods, **known)


def advised(*found: TaskRuns, rule: api.Spec | None = None, pods: tuple[TaskPod, ...] = ()) -> Advice:
    advice = task_sizes.advice(rule or policy(), seen(*found, pods=pods))
    assert advice is not None
    return advice


def size(rule: api.Spec | None = None, **fields: Any) -> Size:  # noqa: ANN401 - any field of the runs
    (found,) = advised(runs(**fields), rule=rule).changes
    return found


def task_pod(name: str = "etl-load-abcd0123", **fields: Any) -> TaskPod:  # noqa: ANN401 - any field of the pod
    known = {"dag": "etl", "task": "load", "created": NOW - timedelta(minutes=2), "memory": memory(512, 512)}
    return TaskPod(name, **{**known, **fields})


# What one task should have


def test_a_task_whose_values_fit_is_counted_and_not_told() -> None:
    advice = advised(runs())
    assert (advice.changes, advice.fitting, advice.told) == ((), 1, "0 tasks should have other memory, 1 fit.")


def test_the_request_is_the_usual_and_the_limit_the_largest_with_a_margin() -> None:
    found = size(limit=8192, request=4096)
    assert (found.reason, found.before, found.after) == ("Overprovisioned", memory(4096, 8192), memory(416, 800))
    assert found.why == (
        "100 runs within 14 days took at most 640 MiB, nine of ten no more than 400 MiB. Now "
        "request 4096 MiB, limit 8192 MiB -> request 416 MiB, limit 800 MiB."
    )


def test_a_kill_asks_for_more_than_the_limit_that_it_happened_under_and_nothing_is_lowered_for_it() -> None:
    found = size(kills=2, killed_at=820, request=2048)
    assert (found.reason, found.after) == ("OutOfMemory", memory(1248, 1248))
    assert "2 pods were killed for memory under a limit of 820 MiB." in found.why


def test_a_kill_under_a_limit_that_was_raised_since_is_answered_already() -> None:
    assert advised(runs(kills=1, killed_at=512)).changes == ()
    assert advised(runs(kills=1, killed_at=512, limit=8192)).changes == (), "and nothing is lowered so soon"


@pytest.mark.parametrize(
    ("number", "limit", "told"),
    [
        (4, 8192, ""),
        (5, 4576, "5 of 20 runs are known: it is lowered half the way."),
        (19, 4576, "19 of 20 runs are known: it is lowered half the way."),
        (20, 800, ""),
    ],
)
def test_what_rests_on_few_runs_is_lowered_half_the_way_or_not(number: int, limit: int, told: str) -> None:
    advice = advised(runs(runs=number, limit=8192, request=8192))
    if limit == 8192:
        assert advice.changes == ()
    else:
        (found,) = advice.changes
        assert (found.after.limit or 0) // MI == limit
        assert told in found.why


def test_a_raise_does_not_wait_for_more_runs() -> None:
    found = size(runs=1, most=800, usual=800)
    assert (found.reason, found.after) == ("LimitTooSmall", memory(800, 1216))
    assert found.why.startswith("1 run within 14 days took at most 800 MiB")


def test_of_runs_too_short_to_be_seen_the_kernels_own_peak_counts() -> None:
    found = size(looks=150, most=100, usual=90, peak=1000, limit=820)
    assert (found.reason, found.after) == ("LimitTooSmall", memory(1024, 1280))
    assert (
        "They are short, with 150 samples in all: the kernel's own 1000 MiB counts, page cache included." in found.why
    )


def test_without_that_peak_nothing_is_lowered_for_short_runs() -> None:
    assert advised(runs(looks=150, most=100, usual=90, peak=None, limit=8192, request=8192)).changes == ()


def test_a_task_without_a_limit_gets_one_and_one_that_is_not_known_is_told_last() -> None:
    changes = advised(runs("etl-a", limit=None, request=None), runs("etl-b", limit=0)).changes
    assert [(found.reason, found.before, found.after) for found in changes] == [
        ("LimitsMissing", memory(416, None), memory(416, 800)),
        ("NotKnown", None, memory(416, 800)),
    ]
    assert "Now not known -> request 416 MiB" in changes[1].why


def test_what_its_newest_pod_has_goes_before_what_the_metrics_say() -> None:
    older = task_pod("etl-load-aaaa0000", created=NOW - timedelta(hours=1), memory=memory(64, 64))
    (found,) = advised(runs(), pods=(task_pod(memory=memory(4096, 4096)), older)).changes
    assert found.before == memory(4096, 4096)


def test_a_dead_pod_counts_as_a_kill_that_no_metric_shows() -> None:
    dead = task_pod(memory=memory(512, 900), death=Death(1, NOW))
    (found,) = advised(runs(), pods=(dead,)).changes
    assert (found.reason, found.after.limit) == ("OutOfMemory", 1376 * MI)


def test_a_request_alone_may_be_too_small() -> None:
    assert (found := size(request=128)).reason == "RequestTooSmall"
    assert found.after == memory(416, 800)


# The bounds


def test_nothing_is_recommended_beyond_the_bounds_and_it_says_so() -> None:
    found = size(policy(high="1Gi"), most=4096, usual=4000, peak=4096)
    assert found.after == memory(1024, 1024)
    assert found.why.endswith("It asks for 5120 MiB: tasks.memory.max = 1024 MiB ends it.")


def test_what_a_user_gave_a_task_beyond_the_bounds_is_left_where_it_may_need_it() -> None:
    rule = policy(high="1Gi")
    assert advised(runs(most=4096, usual=4000, limit=6000, request=4096), rule=rule).changes == ()
    assert advised(runs(runs=3, limit=6000, request=4096), rule=rule).changes == ()
    (found,) = advised(runs(limit=6000, request=4096), rule=rule).changes
    assert found.after == memory(416, 800)
    killed = size(rule, kills=1, killed_at=6000, limit=6000, request=4096)
    assert (killed.reason, killed.after) == ("OutOfMemory", memory(4096, 6000))
    assert killed.why.endswith("It is above tasks.memory.max = 1024 MiB, and left as it is.")


def test_request_and_limit_are_one_where_the_policy_says_so() -> None:
    assert size(policy(limitEqualsRequest=True), limit=8192, request=8192).after == memory(800, 800)


def test_where_the_policy_names_no_tasks_nothing_is_said() -> None:
    assert task_sizes.advice(spec(), seen(runs(limit=8192))) is None
    assert task_sizes.advice(policy(), seen()) is None


SIZES = st.integers(1, 20_000)


@st.composite
def tasks_seen(draw: st.DrawFn) -> TaskRuns:
    """A task of which anything may be known."""
    usual, most = sorted((draw(SIZES), draw(SIZES)))
    request, limit = draw(st.none() | SIZES), draw(st.none() | st.just(0) | SIZES)
    known: dict[str, Any] = {"usual": usual, "most": most, "peak": draw(st.none() | SIZES), "limit": limit}
    kills = draw(st.integers(0, 3))
    return runs(
        **known,
        request=min(request, limit) if request and limit else request,
        runs=draw(st.integers(1, 200)),
        looks=draw(st.integers(1, 2000)),
        kills=kills,
        killed_at=draw(st.none() | SIZES) if kills else None,
    )


@given(tasks_seen(), st.booleans())
def test_whatever_is_known_it_stays_in_bounds_and_follows_the_evidence(told: TaskRuns, equal: bool) -> None:
    rule = policy("256Mi", "4Gi", limitEqualsRequest=equal)
    advice = advised(told, rule=rule)
    for found in advice.changes:
        least, before = found.after.limit or 0, found.before or Memory()
        assert 0 < (found.after.request or 0) <= least
        assert found.after == before or ((found.after.request or 0) >= 256 * MI and least <= 4096 * MI)
        if before.limit is not None and least < before.limit:
            assert told.runs >= task_sizes.FEW, "no decrease on few runs"
            assert not told.kills, "nor after a kill"
            assert least >= min(4096 * MI, told.most), "nor below what it took"
        assert len(found.why) < 1024
    # Followed, and seen again, it asks for nothing more.
    for found in advice.changes:
        if told.runs >= task_sizes.ENOUGH and found.after != found.before:
            after = replace(told, limit=found.after.limit, request=found.after.request)
            again = advised(after, rule=rule).changes
            assert [one.after for one in again] in ([], [found.after]), "no flapping"


# All of them


def test_the_worst_come_first_then_the_largest_savings_over_all_their_time() -> None:
    found = advised(
        runs("etl-wide", limit=4096, request=2048),
        runs("etl-long", limit=4096, request=2048, looks=9000),
        runs("etl-dead", kills=1, killed_at=820),
        runs("etl-tight", most=820, usual=500),
        runs("etl-fits"),
    )
    assert [one.name.task for one in found.changes] == ["dead", "tight", "long", "wide"]
    assert (found.fitting, found.unknown) == (1, 0)


def test_the_pod_template_fits_the_tasks_of_nine_of_ten_runs() -> None:
    large = runs("etl-large", runs=10, most=3000, usual=2800, peak=3000, limit=4512, request=3008)
    assert advised(runs(), large).template == memory(416, 800)
    assert advised(runs(), replace(large, runs=30, looks=300)).template == memory(2816, 3776)
    assert advised(runs(runs=19, looks=190)).template is None


def test_of_pods_whose_task_is_not_known_nothing_is_said_but_how_many_those_are() -> None:
    names = {"etl-load": LOAD, "very-long": TaskName()}
    found = task_sizes.advice(
        policy(), seen(runs(), runs("other"), runs("very-long"), task_names=names, task_groups=1000)
    )
    assert found is not None
    assert (found.fitting, found.unknown) == (1, 999)
    assert found.told == "0 tasks should have other memory, 1 fit, and of 999 no pod was seen yet."


def test_tasks_are_known_by_the_pods_that_were_seen_and_by_the_status() -> None:
    first = witness.noted(
        witness.NOTHING, observed(task_pods=(task_pod(), task_pod("odd"), task_pod("etl-x-12345678", dag="")))
    )
    assert first.tasks == {"etl-load": LOAD}
    later = witness.noted(first, observed(task_pods=(task_pod("etl-more-12345678", task="more"),)))
    assert later.tasks == {"etl-load": LOAD, "etl-more": TaskName("etl", "more")}
    both = witness.noted(later, observed(task_pods=(task_pod(task="load_too"),)))
    assert both.tasks["etl-load"] == TaskName()
    assert witness.noted(both, observed(task_pods=(task_pod(),))).tasks["etl-load"] == TaskName()
    status = turn(policy(), seen(runs(limit=8192))).status
    assert task_page.names(status) == {"etl-load": LOAD}


def test_no_more_names_are_kept_than_fit() -> None:
    memory_ = witness.Memory(tasks={f"t-{number}": TaskName("t", str(number)) for number in range(witness.MOST_TASKS)})
    kept = witness.noted(memory_, observed(task_pods=(task_pod(),))).tasks
    assert len(kept) == witness.MOST_TASKS
    assert kept["etl-load"] == LOAD
    assert "t-0" not in kept


def test_what_an_answer_lacks_is_not_known_and_odd_names_are_left_out() -> None:
    whole = {name: (Series({"stem": "etl-load"}, 7.0), Series({}, 9.0)) for name in OF_TASKS}
    (found,) = task_runs.read(whole)
    assert (found.stem, found.runs, found.killed_at) == ("etl-load", 7, 7)
    assert task_runs.read({**whole, "task_most": ()}) == ()
    (found,) = task_runs.read({**whole, "task_kills": (), "task_limit": ()})
    assert (found.kills, found.limit) == (0, None)


# How it is told


def test_the_status_holds_twenty_and_keeps_them_while_nothing_is_known() -> None:
    found = turn(policy(), seen(*(runs(f"etl-t{number:02}", limit=8192) for number in range(30))))
    told = found.status
    assert len(told.tasks) == task_page.NAMED
    assert told.tasks[0].reason == "Overprovisioned"
    assert (told.tasks[0].present, told.tasks[0].recommended) == (
        api.Values(request="416Mi", limit="8192Mi"),
        api.Values(request="416Mi", limit="800Mi"),
    )
    assert told.tasks_summary == "30 tasks should have other memory, 0 fit."
    assert told.pod_template == api.Values(request="416Mi", limit="800Mi")
    later = turn(policy(), seen(), told)
    assert (later.status.tasks, later.status.tasks_summary) == (told.tasks, told.tasks_summary)
    assert turn(spec(workers=[]), seen(), told).status.tasks == []


def test_a_task_is_told_with_what_is_to_be_pasted() -> None:
    looked = seen(runs(limit=8192, request=4096))
    done = turn(policy(), looked)
    page = explain.page("task-pods", policy(), looked, api.Status(), done.decision, ())
    assert "Overprovisioned load of etl: 100 runs" in page
    assert "from kubernetes.client import models as k8s" in page
    code = page[page.index("executor_config=") : page.index("# The pod template")]
    compile(f"task({code.strip()})", "page", "eval")
    assert 'requests={"memory": "416Mi"}, limits={"memory": "800Mi"}' in code
    values = yaml.safe_load(page[page.index("# The pod template") :])
    assert values == {
        "workers": {"kubernetes": {"resources": {"requests": {"memory": "416Mi"}, "limits": {"memory": "800Mi"}}}}
    }
    plan = explain.plan(policy(), looked, done.findings, done.decision, ())
    assert "1 task should have other memory" in plan
    document = explain.document(done.status, done.decision, ())
    assert document["tasks"][0]["recommended"] == {"request": "416Mi", "limit": "800Mi"}
    assert document["podTemplate"] == {"request": "416Mi", "limit": "800Mi"}
    json.dumps(document)


@pytest.mark.parametrize(
    ("chart", "runs_with", "begins"),
    [
        ("airflow-1.22.0", KUBERNETES, "workers:\n  kubernetes:\n    resources:"),
        ("airflow-1.18.0", KUBERNETES, "workers:\n  resources:"),
        ("airflow-1.18.0", BOTH, "# In a pod template of your own"),
        ("airflow-1.22.0", BOTH, "workers:\n  kubernetes:\n    resources:"),
    ],
)
def test_where_the_template_has_its_values_depends_on_the_chart(chart: str, runs_with: Executors, begins: str) -> None:
    looked = observed(scheduler(pod(), chart=chart), executors=runs_with)
    assert begins in helm.of_tasks(memory(416, 800), looked)


def test_a_killed_task_is_told_with_the_limit_that_is_recommended_for_it() -> None:
    dead = task_pod(death=Death(1, NOW))
    messages = [one.message for one in turn(policy(), seen(runs(), pods=(dead,))).findings]
    assert "Recommended for load of etl: a limit of 800 MiB." in messages[0]
    assert not any("Recommended for" in one.message for one in turn(spec(), seen(runs(), pods=(dead,))).findings)

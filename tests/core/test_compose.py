"""Containers of a compose project, read as the workloads of one Airflow."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import compose
from airflow_tuner.compose import Baseline, Known
from airflow_tuner.model import Cpu, Memory, Workload
from airflow_tuner.room import DECISION
from core.containers import ID, MI, inspected
from core.worlds import spec

NOTHING = Known()
AT = datetime(2026, 11, 24, 11, 30, tzinfo=UTC)


def only(*items: dict, known: Known = NOTHING) -> Workload:  # type: ignore[type-arg]
    """The one workload of these containers."""
    (found,) = compose.workloads(items, known, "3")
    return found


@pytest.mark.parametrize(
    ("service", "component", "target"),
    [
        ("airflow-scheduler", "scheduler", "scheduler"),
        ("airflow-dag-processor", "dag-processor", "dag-processor"),
        ("airflow-triggerer", "triggerer", "triggerer"),
        ("airflow-apiserver", "api-server", "api-server"),
        ("airflow-webserver", "webserver", "webserver"),
        ("airflow-worker", "worker", "worker/default"),
        ("airflow-worker-heavy", "worker", "worker/heavy"),
        ("worker_2", "worker", "worker/2"),
        ("scheduler", "scheduler", "scheduler"),
    ],
)
def test_the_services_of_the_official_file_are_known_by_their_names(service: str, component: str, target: str) -> None:
    found = only(inspected(service))
    assert (found.component, found.target, found.label) == (component, target, f"Service/{service}")


@pytest.mark.parametrize("service", ["redis", "postgres", "airflow-init", "airflow-cli", "flower", "my-worker"])
def test_other_services_are_none_of_ours(service: str) -> None:
    assert compose.workloads([inspected(service)], NOTHING, "3") == ()


def test_a_label_says_what_a_name_does_not_and_a_one_off_run_is_left_alone() -> None:
    assert only(inspected("jobs", labels={compose.COMPONENT: "worker"})).target == "worker/jobs"
    assert compose.workloads([inspected(labels={compose.ONEOFF: "True"})], NOTHING, "3") == ()


def test_request_and_limit_are_one_number_and_no_limit_is_none() -> None:
    assert only(inspected(limit=700)).template == Memory(700 * MI, 700 * MI)
    bare = only(inspected(limit=None))
    assert (bare.template, bare.pods[0].memory, bare.limits) == (Memory(), Memory(), {})
    assert bare.pods[0].guaranteed


def test_what_the_definition_said_outlives_what_was_set() -> None:
    known = Known({("airflow-worker", "abc"): Baseline(700 * MI, {})}, {ID: 1050 * MI})
    found = only(inspected(limit=1050), known=known)
    (pod,) = found.pods
    assert found.template.limit == 700 * MI
    assert (pod.memory.limit, pod.resized, pod.foreign) == (1050 * MI, True, False)


def test_somebody_elses_hand_on_a_container_shows() -> None:
    known = Known({("airflow-worker", "abc"): Baseline(700 * MI, {})}, {ID: 1050 * MI})
    assert only(inspected(limit=2000), known=known).pods[0].foreign


def test_a_successor_tells_what_its_definition_said() -> None:
    labels = {DECISION: "worker-1", compose.ORIGINAL: Baseline(700 * MI, {}).written}
    found = only(inspected(limit=1050, labels=labels, env=["AIRFLOW__CELERY__WORKER_CONCURRENCY=8"]))
    assert (found.template.limit, found.stated.concurrency) == (700 * MI, None)
    assert found.pods[0].decision == "worker-1"
    assert found.pods[0].environment == {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "8"}


def test_slots_are_read_from_environment_and_command() -> None:
    assert only(inspected()).stated.concurrency == 4
    told = only(inspected(config={"Cmd": ["bash", "-c", "airflow celery worker --concurrency 6 -q heavy,light"]}))
    assert (told.stated.concurrency, told.queues) == (6, ("heavy", "light"))


def test_a_death_of_memory_is_counted_from_what_was_seen_of_it() -> None:
    known = Known(deaths={ID: (AT - timedelta(hours=1), AT)})
    (pod,) = only(inspected(), known=known).pods
    assert pod.death is not None
    assert (pod.death.number, pod.death.at) == (2, AT)


def test_each_start_is_another_life_to_what_the_kernel_counts() -> None:
    again = inspected(state={"StartedAt": "2026-11-24T12:00:00.5Z"})
    assert compose.incarnation(inspected()) != compose.incarnation(again)
    assert compose.incarnation(again).startswith(ID)


def test_a_container_that_ended_is_on_its_way_out_and_one_that_starts_is_not_ready() -> None:
    ended = only(inspected(state={"Status": "exited", "Running": False})).pods[0]
    assert (ended.ending, ended.running, ended.ready) == (True, None, False)
    starting = only(inspected(state={"Health": {"Status": "starting"}})).pods[0]
    assert (starting.ending, starting.ready) == (False, False)
    assert only(inspected(state={"Health": {"Status": "healthy"}})).pods[0].ready


def test_a_container_that_is_started_again_and_again_crashes_unless_it_died_of_memory() -> None:
    state = {"Restarting": True, "Status": "restarting", "ExitCode": 1, "FinishedAt": AT.isoformat()}
    crash = only(inspected(state=state, restarts=3)).pods[0].crash
    assert crash is not None
    assert (crash.restarts, crash.code, crash.put_off) == (3, 1, timedelta())
    assert only(inspected(state=state, restarts=3), known=Known(deaths={ID: (AT,)})).pods[0].crash is None


def test_a_health_check_that_starts_an_airflow_takes_memory() -> None:
    check = {"Test": ["CMD-SHELL", 'celery --app x inspect ping -d "celery@${HOSTNAME}"'], "Timeout": 10 * 10**9}
    probe = only(inspected(config={"Healthcheck": check})).probe
    assert probe is not None
    assert (probe.what, probe.timeout, probe.failures) == ("celery inspect ping", 10, 3)
    assert only(inspected()).probe is None


def test_line_and_executor_are_seen() -> None:
    items = [
        inspected("airflow-apiserver"),
        inspected("airflow-scheduler", env=["AIRFLOW__CORE__EXECUTOR=LocalExecutor"]),
    ]
    assert compose.line(items, None, "") == "3"
    assert compose.line(items, "2", "") == "2"
    assert compose.executors(items, None).names == ("LocalExecutor",)
    assert not compose.executors([inspected()], None)


def test_the_grace_period_is_dockers_where_nothing_is_stated_and_cpus_are_read_both_ways() -> None:
    assert (only(inspected()).grace, only(inspected(config={"StopTimeout": 60})).grace) == (10, 60)
    assert only(inspected(host={"NanoCpus": 1_500_000_000})).cpu_limit == 1.5
    assert only(inspected(host={"CpuQuota": 50_000, "CpuPeriod": 100_000})).cpu_limit == 0.5
    assert only(inspected()).cpu_limit is None


def test_the_labels_of_a_policy_are_those_of_its_project_or_its_own() -> None:
    assert compose.labels(spec(airflow={"release": "flow"})) == {"com.docker.compose.project": "flow"}
    own = spec(airflow={"selector": {"matchLabels": {"team": "a"}}})
    assert compose.labels(own) == {"team": "a"}


@given(
    st.none() | st.integers(1, 2**40),
    st.none() | st.integers(1, 10**6),
    st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
)
def test_a_baseline_is_read_back_as_it_was_written(memory: int | None, cpu: int | None, told: dict[str, str]) -> None:
    base = Baseline(memory, told, cpu)
    assert compose.read_baseline(base.written) == base


@given(st.text())
def test_what_is_no_baseline_is_none(text: str) -> None:
    assert compose.read_baseline(text) is None or '"memory"' in text


def test_a_cpu_limit_is_asked_for_in_the_terms_in_which_it_is_set() -> None:
    assert compose.limited(inspected(host={"NanoCpus": 500_000_000}), 650) == {"NanoCpus": 650_000_000}
    quota = inspected(host={"CpuQuota": 50_000, "CpuPeriod": 50_000})
    assert compose.limited(quota, 1300) == {"CpuPeriod": 50_000, "CpuQuota": 65_000}
    assert compose.cpu(quota) == 1000
    found = only(inspected(host={"NanoCpus": 500_000_000}))
    assert (found.stated.cpu, found.pods[0].cpu, found.limits["cpu"]) == (Cpu(500, 500), Cpu(500, 500), "500m")
    assert only(inspected()).stated.cpu == Cpu(), "none is added"

"""Findings: what is wrong, worst first, in sentences with numbers."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_tuner import diagnose as checks
from airflow_tuner.diagnose import diagnose
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Eviction, Finding, MetricsState, Severity
from core.worlds import NOW, applied, observed, pod, scheduler, spec, turn, usage, worker

SECOND = timedelta(seconds=1)
BOUNDS = {"memory": {"min": "512Mi", "max": "4Gi"}}


def test_a_healthy_deployment_has_no_findings() -> None:
    assert turn(spec(), observed(worker(pod(usage=usage(kills=0, peak=900))))).findings == ()


def test_components_that_are_not_there_are_named_with_the_command_that_looks_for_them() -> None:
    policy = spec(scheduler=BOUNDS, dagProcessor=BOUNDS, triggerer=BOUNDS)
    (finding,) = turn(policy, observed(scheduler(pod()))).findings
    assert (finding.reason, finding.target) == ("TargetsNotFound", "policy")
    assert "was found for: dag-processor, triggerer, worker/default." in finding.message
    assert "`kubectl get deploy,sts -l tier=airflow,release=airflow --show-labels`" in finding.message


def test_a_webserver_is_the_api_server_of_airflow_2() -> None:
    webserver = scheduler(pod(), component="webserver", target="webserver")
    assert turn(spec(apiServer=BOUNDS, workers=[]), observed(webserver)).findings == ()


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (MetricsState.STALE, "MetricsStale"),
        (MetricsState.UNAVAILABLE, "MetricsUnavailable"),
        (MetricsState.ABSENT, "MetricsUnavailable"),
        (MetricsState.CURRENT, "MetricsUnavailable"),
    ],
)
def test_missing_metrics_are_a_finding_that_says_what_still_works(state: MetricsState, reason: str) -> None:
    (finding,) = turn(spec(), observed(worker(pod()), state=state, message="It does not answer.")).findings
    assert finding.reason == reason
    assert finding.message.startswith("It does not answer. Until it is back,")


def test_a_killed_container_stays_a_finding_for_an_hour() -> None:
    died = NOW - timedelta(hours=1)
    (finding,) = turn(spec(), observed(worker(pod(died=died)))).findings
    assert (finding.reason, finding.severity, finding.since) == ("OutOfMemory", Severity.CRITICAL, died)
    assert "1 container of StatefulSet/airflow-worker killed for memory, the last at 11:00:00" in finding.message
    assert "The limit in force is 1024 MiB" in finding.message
    assert turn(spec(), observed(worker(pod(died=died - SECOND)))).findings == ()


def test_killed_processes_are_told_with_their_pods_and_that_kubernetes_shows_nothing() -> None:
    pods = [pod(f"w{number}", usage=usage(kills=number, peak=1024)) for number in range(6)]
    (finding,) = turn(spec(), observed(worker(*pods))).findings
    assert "15 processes killed for memory in w1, w2, w3 and 2 more within the hour" in finding.message
    assert "Kubernetes shows nothing" in finding.message
    assert "load its data in chunks" in finding.message


def test_the_finding_keeps_its_name_after_the_answer() -> None:
    last = turn(spec(), observed(worker(pod(usage=usage(kills=1, peak=1024)))))
    for seconds in (1, 100, 3000):
        after = turn(spec(), applied(last, seconds=seconds), last.status)
        assert after.found == ["OutOfMemory"]
        assert after.findings[0].since == NOW


def test_a_kill_of_the_node_is_told_as_such_also_after_the_answer() -> None:
    last = turn(spec(), observed(worker(pod(usage=usage(kills=1, peak=500)))))
    assert last.found == ["NodeMemoryPressure"]
    assert turn(spec(), applied(last, seconds=1), last.status).found == ["NodeMemoryPressure"]
    unlimited = turn(spec(), observed(worker(pod(limit=None, usage=usage(kills=1)))))
    assert unlimited.found == ["NodeMemoryPressure"]


def test_evicted_pods_are_the_nodes_shortage_for_an_hour() -> None:
    why = "The node was low on resource: memory. Container worker was using 1Gi, request is 512Mi."
    gone = [
        pod(name, running=None, ending=True, eviction=Eviction(NOW - timedelta(minutes=ago), why))
        for name, ago in (("old", 61), ("first", 60), ("last", 2))
    ]
    last = turn(spec(), observed(worker(pod("new"), *gone)))
    (finding,) = last.findings
    assert (finding.reason, finding.severity, finding.since) == (
        "PodsEvicted",
        Severity.CRITICAL,
        NOW - timedelta(hours=1),
    )
    assert finding.message.startswith(
        "2 pods of StatefulSet/airflow-worker evicted within the hour, the last, last, at 11:58:00: The node was low "
        "on resource: memory. Container worker was using 1Gi, request is 512Mi. Its node was short of memory, not the "
        "pod: the operator changes nothing for it."
    )
    assert last.reasons == []
    assert turn(spec(), replace(last.seen, at=NOW + timedelta(hours=1)), last.status).found == []


def test_a_dead_container_with_a_limit_was_killed_by_it_whatever_its_successor_uses() -> None:
    assert turn(spec(), observed(worker(pod(died=NOW, usage=usage(kills=0, peak=50))))).found == ["OutOfMemory"]


def test_the_maximum_is_told_where_the_killed_pod_has_it_though_others_have_less() -> None:
    full = pod("full", limit=4096, died=NOW)
    assert "That is the policy's maximum" in turn(spec(), observed(worker(full, pod("other")))).findings[0].message


def test_a_container_without_a_limit_is_told_until_its_pods_have_one() -> None:
    naked = pod(request=None, limit=None)
    (finding,) = turn(spec(), observed(worker(naked, request=None, limit=None))).findings
    assert finding.reason == "LimitsMissing"
    assert "1 running pod can only get one at the next creation" in finding.message
    assert turn(spec(), observed(worker(request=None, limit=None))).found == ["LimitsMissing"]
    assert turn(spec(), observed(worker(pod(), request=None, limit=None))).found == []


def test_a_resize_that_does_not_arrive_is_told_in_the_words_of_whoever_refused() -> None:
    waiting = pod("a", resize_problem="Deferred: Node didn't have enough resource: memory.")
    seen = observed(worker(waiting, pod("b")), refusals={"b": "no right to resize", "gone": "x"})
    (finding,) = turn(spec(), seen).findings
    assert finding.reason == "ResizeRefused"
    assert (
        "2 of 2 pods of StatefulSet/airflow-worker could not be changed while running, e.g. a: Deferred: Node didn't"
        in (finding.message)
    )
    assert "resource: memory. New pods get" in finding.message


def test_a_pod_that_a_resize_would_restart_is_left_alone_and_told() -> None:
    last = turn(spec(), observed(worker(pod("a", restarts_on_resize=True), pod("b", died=NOW - SECOND))))
    seen = replace(last.seen, at=NOW + SECOND)
    finding = next(item for item in turn(spec(), seen, last.status).findings if item.reason == "ResizeRefused")
    assert "1 of 2 pods" in finding.message
    assert "e.g. a: its resizePolicy would restart the container" in finding.message
    assert turn(spec(mode="Recommend"), seen, last.status).found == ["OutOfMemory"]


def test_pods_born_after_a_decision_without_its_values_show_that_admission_does_not_work() -> None:
    last = turn(spec(), observed(worker(pod(died=NOW - SECOND))))
    seen = applied(last, seconds=60)
    (workload,) = seen.workloads

    def found(seconds: float, **fields: object) -> list[str]:
        born = pod("born", created=NOW + timedelta(seconds=seconds), **fields)  # type: ignore[arg-type]  # fields of a pod
        young = replace(seen, workloads=(replace(workload, pods=(*workload.pods, born)),))
        return turn(spec(), young, last.status).found

    assert found(6) == ["OutOfMemory", "AdmissionNotEffective"]
    assert found(5) == ["OutOfMemory"]
    assert found(6, resized=True) == ["OutOfMemory"]
    assert found(6, limit=1536, decision="policy/worker-default-1") == ["OutOfMemory"]
    assert found(6, limit=999) == ["OutOfMemory", "TemplateChanged"]
    recommend = diagnose(spec(mode="Recommend"), seen, last.status)
    assert [finding.reason for finding in recommend] == ["OutOfMemory"]


def test_pods_born_from_a_template_that_was_just_changed_blame_nobody() -> None:
    last = turn(spec(), observed(worker(pod(died=NOW - SECOND))))
    born = pod("born", created=NOW + 30 * SECOND)
    seen = observed(worker(born, requests={"memory": "512Mi", "cpu": "1"}), at=NOW + 60 * SECOND)
    assert turn(spec(), seen, last.status).found == ["TemplateChanged"]


def test_a_bug_in_one_check_stops_neither_the_others_nor_the_answer_to_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: Case) -> Iterator[Finding]:
        raise ZeroDivisionError(case.seen.at)

    monkeypatch.setattr(checks, "CHECKS", (broken, *checks.CHECKS))
    last = turn(spec(), observed(worker(pod(died=NOW))))
    assert last.found == ["OutOfMemory"]
    assert last.reasons == ["OutOfMemory"]


def test_findings_come_worst_first_and_keep_when_they_began() -> None:
    seen = observed(worker(pod(died=NOW)), scheduler(pod("s", limit=None), limit=None), state=MetricsState.STALE)
    policy = spec(scheduler=BOUNDS)
    first = turn(policy, seen)
    assert first.found == ["OutOfMemory", "MetricsStale", "LimitsMissing"]
    later = turn(policy, replace(seen, at=NOW + 600 * SECOND), first.status)
    assert [finding.since for finding in later.findings] == [NOW] * 3


def test_sentences_stay_inside_the_api_with_names_of_any_length() -> None:
    long = "x" * 250
    workload = worker(
        *[pod(f"{number}{long}"[:253], limit=None, usage=usage(kills=1), died=NOW) for number in range(9)],
        limit=None,
        container=long,
        name=long[:230],
    )
    policy = spec(workers=[{"name": "*", **BOUNDS}, *({"name": f"{n:02}{'y' * 60}", **BOUNDS} for n in range(63))])
    seen = observed(
        workload, state=MetricsState.UNAVAILABLE, message="Z" * 3000, refusals={f"0{long}"[:253]: "w" * 5000}
    )
    last = turn(policy, seen)
    assert set(last.found) == {
        "NodeMemoryPressure",
        "TargetsNotFound",
        "MetricsUnavailable",
        "LimitsMissing",
        "ResizeRefused",
    }
    for finding, written in zip(last.findings, last.status.findings, strict=True):
        assert len(written.message) <= 1024
        if finding.reason != "MetricsUnavailable":
            assert written.message == finding.message

"""`plan`, `explain` and `diagnose` as people run them: with rights of their own, against a cluster, writing nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.test_operator import deployed
from testbed.played_airflow import PlayedAirflow


def looked(airflow: PlayedAirflow, *words: str) -> str:
    """What a command prints, and that it has written nothing."""
    before = written(airflow)
    argv = [sys.executable, "-m", "airflow_tuner", *words, "--namespace", airflow.namespace]
    argv += ["--kubeconfig", str(airflow.control_plane.kubeconfig)]
    done = subprocess.run(argv, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "name one with --prometheus URL" in done.stderr
    assert written(airflow) == before
    return done.stdout


def written(airflow: PlayedAirflow) -> list[str]:
    """Versions of all that an operator writes; of pods that of their spec, as the scheduler writes their status."""

    def of(kind: str, field: str) -> list[str]:
        row = f'{{range .items[*]}}{{.kind}}/{{.metadata.name}} {{.metadata.{field}}}{{"\\n"}}{{end}}'
        return airflow.kubectl("get", kind, f"--output=jsonpath={row}").splitlines()

    told = airflow.kubectl("get", "events", "--field-selector=involvedObject.kind=TuningPolicy", "--output=name")
    return of("pods", "generation") + of("tuningpolicies,tuningcheckpoints", "resourceVersion") + told.splitlines()


@pytest.fixture
def killed(airflow: PlayedAirflow) -> PlayedAirflow:
    """Two workers of 700 MiB, one of which was killed for memory; nobody tunes them yet."""
    deployed(airflow)
    airflow.policy()
    airflow.kill(airflow.pods()[0])
    return airflow


def test_diagnose_says_what_is_wrong_and_what_that_rests_on(killed: PlayedAirflow) -> None:
    told = looked(killed, "diagnose")
    assert f"policy {killed.namespace}/airflow" in told
    assert "Critical OutOfMemory worker/default, since" in told
    assert "1 container of Deployment/airflow-worker killed for memory" in told
    assert "workloads worker/default (2 pods)" in told
    document = json.loads(looked(killed, "diagnose", "--output=json"))
    assert [item["reason"] for item in document["findings"]] == ["OutOfMemory", "MetricsUnavailable"]


def test_plan_says_what_a_turn_would_do_and_does_not_do_it(killed: PlayedAirflow) -> None:
    told = looked(killed, "plan")
    assert "512 MiB / 700 MiB   512 MiB / 1050 MiB   OutOfMemory" in told.replace("MiB       512", "MiB   512"), told
    (change,) = json.loads(looked(killed, "plan", "--output=json"))["changes"]
    assert (change["from"]["limit"], change["to"]["limit"]) == ("700Mi", "1050Mi")
    assert "memory: 1050Mi" in looked(killed, "plan", "--helm-values")
    assert killed.limits() == {"700Mi"}


def test_a_file_for_another_namespace_and_a_target_that_is_not_there_are_told(
    killed: PlayedAirflow, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(killed.kubectl("get", "tuningpolicy", "airflow", "--output=yaml"))
    reach = ["--kubeconfig", str(killed.control_plane.kubeconfig)]
    for words, told in (
        (
            ["plan", "--file", str(file), "-n", "elsewhere"],
            f"for the namespace {killed.namespace}, and --namespace says",
        ),
        (["plan", "-n", "elsewhere"], "The namespace elsewhere has no TuningPolicy: name another with --namespace"),
        (
            ["explain", "worker/big", "--file", str(file)],
            "The policy has no target worker/big; it has: worker/default.",
        ),
    ):
        argv = [sys.executable, "-m", "airflow_tuner", *words, *reach]
        done = subprocess.run(argv, check=False, timeout=60, capture_output=True, text=True)
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr


def test_explain_tells_how_a_limit_came_to_be(killed: PlayedAirflow) -> None:
    told = looked(killed, "explain", "worker/default")
    assert "  in force  512 MiB / 700 MiB in 2 pods" in told
    assert "  decided   512 MiB / 1050 MiB" in told

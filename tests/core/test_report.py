"""What `airflow-tuner diagnose` prints, for people and for programs."""

import json
from dataclasses import replace
from datetime import timedelta

from airflow_tuner import explain, report
from airflow_tuner.model import Severity
from core.test_explain import both
from core.worlds import observed, pod, spec, turn, worker


def test_the_report_tells_the_findings_and_what_they_rest_on() -> None:
    policy, last = both()
    later = turn(policy, replace(last.seen, at=last.seen.at + timedelta(minutes=5)), last.status)
    told = report.text("airflow/airflow", later.seen, later.findings)
    assert told.startswith("Airflow 3, policy airflow/airflow, ")
    assert "Nothing is written.\n\n2 findings (2 Warning), worst first:\n\n" in told
    assert "\n\nWarning QueueLagHigh worker/default, since 5 min\n" in told
    assert "  30 tasks wait for 4 slots" in told
    assert "  workloads worker/default (2 pods), dag-processor (1 pod)" in told
    assert "30 tasks wait and 4 run, 40 DAG files are parsed" in told
    assert "  broker    it answers" in told
    assert all(len(line) <= explain.WIDTH for line in told.splitlines())


def test_a_report_of_a_healthy_airflow_says_so() -> None:
    last = turn(spec(), observed(worker(pod())))
    told = report.text("n/p", last.seen, last.findings)
    assert "Nothing is wrong, as far as can be seen." in told
    assert "What was looked at" in told


def test_a_finding_of_this_very_moment_has_no_age() -> None:
    _, last = both()
    assert "Warning QueueLagHigh worker/default, seen now" in report.text("n/p", last.seen, last.findings)


def test_the_document_for_programs_survives_json_and_keeps_the_order() -> None:
    _, last = both()
    told = json.loads(json.dumps(report.document("n/p", last.seen, last.findings)))
    assert (told["version"], told["policy"], told["airflow"]) == (1, "n/p", "3")
    assert [item["reason"] for item in told["findings"]] == [item.reason for item in last.findings]
    assert {item["severity"] for item in told["findings"]} <= {str(one) for one in Severity}
    assert told["lookedAt"]["broker"] == "it answers"

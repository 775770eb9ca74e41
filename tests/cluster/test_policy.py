"""What the API server says to a policy before any operator has seen it."""

import json
from typing import Any

import pytest

from testbed.commands import CommandFailed
from testbed.controlplane import ControlPlane
from testbed.played_airflow import PlayedAirflow


def bounds(low: Any, high: Any) -> dict[str, Any]:  # noqa: ANN401 - what a user may write
    return {"memory": {"min": low, "max": high}}


SECONDS = {"intervalSeconds": {"min": 15, "max": 600}}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"scheduler": bounds("4Gi", "2Gi")}, "memory.min must not exceed memory.max"),
        ({"scheduler": bounds(-1, "2Gi")}, "memory.min must be more than 0"),
        ({"scheduler": bounds("lots", "2Gi")}, "spec.scheduler.memory.min"),
        ({"scheduler": {"memory": {"min": "1Gi"}}}, "spec.scheduler.memory.max: Required value"),
        ({"airflow": {}}, "name the Airflow deployment by exactly one of airflow.release and airflow.selector"),
        ({"airflow": {"release": "a", "selector": {"matchLabels": {"b": "c"}}}}, "by exactly one of"),
        ({"mode": "Auto"}, 'supported values: "Recommend", "Enforce"'),
        ({"metrics": {"staleAfterSeconds": 5}}, "should be greater than or equal to 30"),
        ({"workers": [{"name": "*", **bounds("1Gi", "2Gi")}] * 2}, "Duplicate value"),
        (
            {"workers": [{"name": "*", **bounds("1Gi", "2Gi"), "concurrency": {"min": 9, "max": 2}}]},
            "concurrency.min must not exceed concurrency.max",
        ),
        (
            {"dagProcessor": {**bounds("1Gi", "2Gi"), "parsing": {"intervalSeconds": {"min": 60, "max": 30}}}},
            "intervalSeconds.min must not exceed intervalSeconds.max",
        ),
        (
            {"dagProcessor": {**bounds("1Gi", "2Gi"), "parsing": {**SECONDS, "cpu": 0}}},
            "parsing.cpu must be more than 0",
        ),
        ({"celery": {"brokerSecretRef": {"key": "connection"}}}, "celery.brokerSecretRef.name: Required value"),
        ({"airflow": {"release": "a", "version": "1"}}, 'supported values: "2", "3"'),
        ({"changes": {"restarts": {"window": {"start": "9 pm", "end": "06:00"}}}}, "restarts.window.start"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_policy_that_makes_no_sense_is_refused_in_plain_words(
    airflow: PlayedAirflow, part: dict[str, Any], told: str
) -> None:
    with pytest.raises(CommandFailed, match=told.replace("(", r"\(")):
        airflow.policy(**part)


def test_a_number_of_bytes_is_a_quantity_and_what_is_left_out_is_filled_in(airflow: PlayedAirflow) -> None:
    airflow.policy(mode="Recommend", scheduler=bounds(536870912, "2Gi"))
    spec = airflow.get("tuningpolicy", "airflow")["spec"]
    assert spec["metrics"] == {
        "source": "default",
        "matchLabels": {},
        "airflowMatchLabels": {},
        "staleAfterSeconds": 300,
        "windowSeconds": 300,
    }
    assert spec["objectives"] == {"queueLagSeconds": 30, "dagFreshnessSeconds": 60, "daysPerOutOfMemory": 365}
    assert spec["changes"] == {
        "cooldown": {"raiseSeconds": 600, "lowerSeconds": 3600, "concurrencySeconds": 60, "parsingSeconds": 900},
        "maxStep": {"memoryPercent": 50, "concurrencyPercent": 100},
        "restarts": {"allowed": False},
        "releases": True,
    }


def test_every_field_is_explained(chart: ControlPlane) -> None:
    told = chart.kubectl("explain", "tuningpolicy.spec.workers")
    assert "The first entry that matches counts" in " ".join(told.split())

"""Other autoscalers on a real API server: what of them is seen, with which rights, how often, and what comes of it."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.autoscalers import EVERY, Autoscalers
from airflow_tuner.cluster import Cluster
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import free_port

Object = dict[str, Any]

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DEFINITIONS = {
    "verticalpodautoscalers.autoscaling.k8s.io": ("VerticalPodAutoscaler", "v1"),
    "scaledobjects.keda.sh": ("ScaledObject", "v1alpha1"),
}
REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "airflow-worker"}
HORIZONTAL: Object = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "by-memory"},
    "spec": {
        "scaleTargetRef": REFERENCE,
        "maxReplicas": 3,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}},
            }
        ],
    },
}
VERTICAL: Object = {
    "apiVersion": "autoscaling.k8s.io/v1",
    "kind": "VerticalPodAutoscaler",
    "metadata": {"name": "memory-too"},
    "spec": {"targetRef": REFERENCE, "updatePolicy": {"updateMode": "Recreate"}},
}
SCALED: Object = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "queue"},
    "spec": {
        "scaleTargetRef": REFERENCE,
        "triggers": [
            {
                "type": "postgresql",
                "metadata": {
                    "targetQueryValue": "1",
                    "query": "SELECT ceil(COUNT(*)::decimal / 16) FROM task_instance WHERE state='running'",
                },
            }
        ],
    },
}


def definition(name: str, kind: str, version: str) -> Object:
    """The definition of a resource, as loose as can be."""
    plural, _, group = name.partition(".")
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}},
            ],
        },
    }


@pytest.fixture
def defined(control_plane: ControlPlane) -> Iterator[Callable[[], None]]:
    """Defines, when called, what a cluster without them lacks; the end of the test takes it back."""
    made: list[str] = []

    def define() -> None:
        there = control_plane.kubectl("get", "crd", "--output=name")
        for name, (kind, version) in DEFINITIONS.items():
            if f"/{name}" not in there:
                made.append(name)
                control_plane.kubectl("apply", "--filename=-", input=json.dumps(definition(name, kind, version)))
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=20s", "crd", *DEFINITIONS)

    yield define
    if made:
        control_plane.kubectl("delete", "crd", *made)


def test_they_are_read_once_in_five_minutes_whatever_kinds_there_are(
    airflow: PlayedAirflow, defined: Callable[[], None]
) -> None:
    async def play() -> None:
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            known = Autoscalers(cluster)

            async def at(seconds: float) -> tuple[list[Autoscaler], int]:
                before = cluster.calls
                found = await known.of(airflow.namespace, NOW + seconds * SECOND)
                return list(found), cluster.calls - before

            assert await at(0) == ([], 3)
            airflow.apply(HORIZONTAL)
            assert await at(299) == ([], 0)
            target = "Deployment/airflow-worker"
            horizontal = Autoscaler("HorizontalPodAutoscaler", "by-memory", target, by_memory=True)
            assert await at(300) == ([horizontal], 3), "the others are not there, and that is no error"
            defined()
            airflow.apply(VERTICAL)
            airflow.apply(SCALED)
            vertical = Autoscaler("VerticalPodAutoscaler", "memory-too", target, mode="Recreate")
            scaled = Autoscaler("ScaledObject", "queue", target, slots=16)
            everything = [horizontal, vertical, scaled]
            assert await at(600) == (everything, 3)
            assert await at(500) == (everything, 3), "a clock that goes back is no reason to look no more"
            assert await at(501) == (everything, 0)

    asyncio.run(play())


def test_without_the_right_nothing_is_seen_and_the_log_says_so_once(
    airflow: PlayedAirflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    airflow.kubectl("create", "serviceaccount", "nobody")
    kubeconfig = airflow.control_plane.kubeconfig_for_service_account(airflow.namespace, "nobody", tmp_path / "nobody")
    airflow.apply(HORIZONTAL)

    async def play() -> None:
        async with await Cluster.connect(kubeconfig) as cluster:
            known = Autoscalers(cluster)
            for turn in range(3):
                assert await known.of(airflow.namespace, NOW + turn * EVERY) == ()
            assert cluster.calls == 9

    with caplog.at_level(logging.INFO, logger="airflow_tuner"):
        asyncio.run(play())
    told = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(told) == 3, "one line for each kind"
    assert f"namespace {airflow.namespace}: horizontalpodautoscalers cannot be read" in "\n".join(told)


def test_an_api_server_that_does_not_answer_leaves_what_was_known(airflow: PlayedAirflow) -> None:
    airflow.apply(HORIZONTAL)

    async def play() -> None:
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            known = Autoscalers(cluster)
            (found,) = await known.of(airflow.namespace, NOW)
            host, cluster.settings.host = cluster.settings.host, f"https://127.0.0.1:{free_port()}"
            for turn in (1, 2):
                assert await known.of(airflow.namespace, NOW + turn * EVERY) == (found,)
            cluster.settings.host = host
            airflow.kubectl("delete", "hpa", "by-memory")
            assert await known.of(airflow.namespace, NOW + 2 * EVERY + SECOND) == (), "asked again at once"

    asyncio.run(play())


def test_with_the_charts_rights_a_vertical_one_is_left_in_charge(
    airflow: PlayedAirflow, defined: Callable[[], None], request: pytest.FixtureRequest
) -> None:
    defined()
    airflow.apply(HORIZONTAL)
    airflow.apply(VERTICAL)
    airflow.apply(SCALED)
    airflow.deploy("worker", 1, {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}})
    deadline = time.monotonic() + 20
    while not airflow.pods():
        assert time.monotonic() < deadline, "the pod was never made"
        time.sleep(0.1)
    airflow.run_all()
    airflow.policy()
    operator: Operator = request.getfixturevalue("operator")
    airflow.kill(airflow.pods()[0])
    while not any(
        target.get("recommended", {}).get("limit") == "1050Mi" for target in airflow.status().get("targets", [])
    ):
        assert time.monotonic() < deadline + 40, airflow.status()
        time.sleep(0.2)
    status = airflow.status()
    assert not status.get("tuned")
    assert airflow.limits() == {"700Mi"}
    (finding,) = [item for item in status["findings"] if item["reason"] == "AnotherAutoscaler"]
    for name in ("VerticalPodAutoscaler memory-too", "HorizontalPodAutoscaler by-memory", "ScaledObject queue"):
        assert name in finding["message"]
    assert "cannot be read" not in operator.log()

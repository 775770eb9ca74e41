"""QoS classes on a real API server: it refuses a resize that would change one, so none is asked for."""

from collections.abc import Callable
from typing import Any

from cluster.test_no_room import findings, reasons
from cluster.test_operator import condition, eventually, worked
from edges.servers import serving
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import Area
from testbed.prometheus import Prometheus

EQUAL = {"cpu": "100m", "memory": "700Mi"}


def worker(airflow: PlayedAirflow, resources: dict[str, Any]) -> dict[str, Any]:
    """The only worker's pod."""
    airflow.deploy("worker", 1, resources)
    eventually(airflow.pods, "the pod is there")
    airflow.run_all()
    return airflow.pods()[0]


def sizes(airflow: PlayedAirflow) -> tuple[str, str, str]:
    """Request, limit and class of the newest worker."""
    pod = max(airflow.pods(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    resources = pod["spec"]["containers"][0].get("resources") or {}
    request, limit = ((resources.get(kind) or {}).get("memory", "") for kind in ("requests", "limits"))
    return request, limit, pod["status"]["qosClass"]


def replaced(airflow: PlayedAirflow) -> None:
    """The worker's pod has a successor."""
    old = airflow.pods()[0]["metadata"]
    airflow.kubectl("delete", "pod", old["name"], "--grace-period=0", "--force")
    eventually(lambda: [pod for pod in airflow.pods() if pod["metadata"]["uid"] != old["uid"]], "there is a new pod")
    airflow.run_all()


def test_a_guaranteed_pod_stays_so_when_it_is_resized_and_so_does_its_successor(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    pod = worker(airflow, {"requests": EQUAL, "limits": EQUAL})
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(pod)
    eventually(lambda: sizes(airflow) == ("1050Mi", "1050Mi", "Guaranteed"), f"both move\n{operator.log()}")
    replaced(airflow)
    assert sizes(airflow) == ("1050Mi", "1050Mi", "Guaranteed")


def test_where_the_policy_wants_both_equal_a_running_pod_keeps_its_class_and_its_successor_is_guaranteed(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    pod = worker(airflow, {"requests": {**EQUAL, "memory": "512Mi"}, "limits": EQUAL})
    airflow.policy(workers=[{"name": "*", "memory": {"min": "256Mi", "max": "4Gi", "limitEqualsRequest": True}}])
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(pod)
    eventually(lambda: sizes(airflow) == ("1049Mi", "1050Mi", "Burstable"), f"it is resized\n{operator.log()}")
    airflow.run_all()
    eventually(lambda: condition(airflow, "Converged").get("status") == "True", f"that is all\n{operator.log()}")
    assert "ResizeRefused" not in findings(airflow)
    replaced(airflow)
    assert sizes(airflow) == ("1050Mi", "1050Mi", "Guaranteed")


def test_a_pod_without_resources_gets_its_first_at_its_birth_and_not_before(
    area: Area,
    chart: ControlPlane,
    airflow: PlayedAirflow,
    needs: Callable[..., None],
    prometheus_factory: Callable[..., Prometheus],
) -> None:
    needs("prometheus")
    name = worker(airflow, {})["metadata"]["name"]
    container = airflow.pods()[0]["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    labels = f'namespace="{airflow.namespace}",pod="{name}",container="worker",id="/kubepods/{container}"'
    text = {"Content-Type": "text/plain; version=0.0.4"}
    with serving(f"container_memory_working_set_bytes{{{labels}}} {600 * 2**20}\n", headers=text) as exporter:
        target = exporter.url.removeprefix("http://")
        prometheus = prometheus_factory([{"job_name": "cadvisor", "static_configs": [{"targets": [target]}]}])
        eventually(lambda: exporter.asked, "it is scraped")
        with Operator(area, chart, prometheus.url, [airflow.namespace]) as operator:
            airflow.policy()
            eventually(lambda: reasons(airflow) == ["LimitsMissing"], f"it is decided\n{operator.log()}", 60)
            assert sizes(airflow) == ("", "", "BestEffort")
            told = condition(airflow, "RestartNeeded")
            assert told["status"] == "True"
            assert (
                "its first memory limit of 4096 MiB: not restarted, as the policy allows no restarts" in told["message"]
            )
            replaced(airflow)
            assert sizes(airflow) == ("600Mi", "4Gi", "Burstable")
            eventually(lambda: condition(airflow, "RestartNeeded").get("status") == "False", "nothing waits any more")

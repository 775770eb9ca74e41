"""Room on a real API server: what is seen of it, with which rights, how often, and what comes of its absence."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_tuner import inventory
from airflow_tuner.cluster import Cluster, path
from airflow_tuner.model import Workload
from airflow_tuner.room import Node, Room
from airflow_tuner.rooms import EVERY, NODES_EVERY, Rooms
from cluster.test_no_room import MEBIBYTE, fill, node, place_worker, quota
from cluster.test_operator import eventually
from testbed.played_airflow import LABELS, PlayedAirflow
from testbed.processes import free_port
from testbed.virtual_node import VirtualNode

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

__all__ = ["node"]


async def workloads(cluster: Cluster, airflow: PlayedAirflow) -> tuple[Workload, ...]:
    """The workloads of the namespace."""
    deployments = await cluster.list(path("apps/v1", "deployments", airflow.namespace), LABELS)
    pods = await cluster.list(path("v1", "pods", airflow.namespace), LABELS)
    return inventory.workloads([{**item, "kind": "Deployment"} for item in deployments], pods)


def test_a_node_is_seen_with_what_others_request_there(airflow: PlayedAirflow, node: VirtualNode) -> None:
    fill(airflow, "300Mi")
    place_worker(airflow)

    async def play() -> None:
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            rooms, own = Rooms(cluster), await workloads(cluster, airflow)
            seen = await rooms.of(airflow.namespace, own, NOW)
            assert seen.nodes == (Node(node.name, 2000 * MEBIBYTE, 300 * MEBIBYTE),)
            assert (seen.largest or 0) >= 2000 * MEBIBYTE
            before = cluster.calls
            assert await rooms.of(airflow.namespace, own, NOW + EVERY - SECOND) == seen
            assert cluster.calls == before, "nothing is asked again so soon"
            await rooms.of(airflow.namespace, own, NOW + EVERY)
            assert cluster.calls == before + 2, "quotas and limit ranges"
            await rooms.of(airflow.namespace, own, NOW + NODES_EVERY)
            assert cluster.calls == before + 6, "and the nodes, and the pods of one"
            airflow.kubectl("delete", "pod", "fills", "--grace-period=0", "--force")
            later = await rooms.of(airflow.namespace, own, NOW + 2 * NODES_EVERY)
            assert later.nodes == (Node(node.name, 2000 * MEBIBYTE, 0),)

    asyncio.run(play())


def test_after_a_change_a_quota_is_looked_at_anew(airflow: PlayedAirflow) -> None:
    quota(airflow, "2Gi")

    async def play() -> None:
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            rooms = Rooms(cluster)
            (first,) = (await rooms.of(airflow.namespace, (), NOW)).quotas
            assert (first.figure, first.hard, first.used) == ("limits.memory", 2048 * MEBIBYTE, 0)
            airflow.deploy("worker", 1, {"limits": {"memory": "700Mi"}})
            eventually(
                lambda: airflow.get("resourcequota", "memory")["status"]["used"] != {"limits.memory": "0"}, "used"
            )
            assert (await rooms.of(airflow.namespace, (), NOW + SECOND)).quotas == (first,)
            rooms.changed(airflow.namespace)
            (last,) = (await rooms.of(airflow.namespace, (), NOW + SECOND)).quotas
            assert last.used == 700 * MEBIBYTE

    asyncio.run(play())


def test_without_the_rights_nothing_is_known_and_the_log_says_so_once(
    airflow: PlayedAirflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    airflow.kubectl("create", "serviceaccount", "nobody")
    kubeconfig = airflow.control_plane.kubeconfig_for_service_account(airflow.namespace, "nobody", tmp_path / "nobody")

    async def play() -> None:
        async with await Cluster.connect(kubeconfig) as cluster:
            rooms = Rooms(cluster)
            for turn in range(3):
                assert await rooms.of(airflow.namespace, (), NOW + turn * NODES_EVERY) == Room()

    with caplog.at_level(logging.INFO, logger="airflow_tuner"):
        asyncio.run(play())
    told = [record.getMessage() for record in caplog.records if "is not looked at" in record.getMessage()]
    assert len(told) == 3, "one line each"
    assert any("that nodes would tell is not looked at" in line for line in told)


@pytest.mark.usefixtures("node")
def test_nodes_whose_pods_may_not_be_seen_are_not_taken_for_empty(airflow: PlayedAirflow, tmp_path: Path) -> None:
    place_worker(airflow)
    account = f"{airflow.namespace}:some"
    airflow.kubectl("create", "serviceaccount", "some")
    airflow.kubectl("create", "clusterrole", f"{airflow.namespace}-nodes", "--verb=list", "--resource=nodes")
    airflow.kubectl(
        "create",
        "clusterrolebinding",
        f"{airflow.namespace}-nodes",
        f"--clusterrole={airflow.namespace}-nodes",
        f"--serviceaccount={account}",
    )
    kubeconfig = airflow.control_plane.kubeconfig_for_service_account(airflow.namespace, "some", tmp_path / "some")

    async def play() -> None:
        async with (
            await Cluster.connect(airflow.control_plane.kubeconfig) as admin,
            await Cluster.connect(kubeconfig) as cluster,
        ):
            seen = await Rooms(cluster).of(airflow.namespace, await workloads(admin, airflow), NOW)
            assert seen.nodes == ()
            assert (seen.largest or 0) >= 2000 * MEBIBYTE

    try:
        asyncio.run(play())
    finally:
        for kind in ("clusterrole", "clusterrolebinding"):
            airflow.kubectl("delete", kind, f"{airflow.namespace}-nodes")


def test_an_api_server_that_does_not_answer_leaves_what_was_known(airflow: PlayedAirflow) -> None:
    quota(airflow, "2Gi")

    async def play() -> None:
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            rooms = Rooms(cluster)
            known = await rooms.of(airflow.namespace, (), NOW)
            host, cluster.settings.host = cluster.settings.host, f"https://127.0.0.1:{free_port()}"
            assert await rooms.of(airflow.namespace, (), NOW + NODES_EVERY) == known
            cluster.settings.host = host
            airflow.kubectl("delete", "resourcequota", "memory")
            assert (await rooms.of(airflow.namespace, (), NOW + NODES_EVERY)).quotas == (), "asked again at once"

    asyncio.run(play())

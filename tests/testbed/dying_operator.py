"""One turn of the operator that is killed with SIGKILL at a chosen point: `dying_operator KUBECONFIG NAMESPACE POINT`.

The switch sits at our own port to Kubernetes. POINT is `never`, or `before:CALL` or `after:CALL`; CALL is the number
of a call of the turn, or the first one whose method and path end so, e.g. `PUT /status`. Each call is printed as it is
made.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from airflow_tuner.brokers import Brokers
from airflow_tuner.cluster import Cluster, Object
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder


class DyingCluster(Cluster):
    """Kills the process before a call is sent, or after the API server has answered it."""

    point = "never"

    async def _send(
        self, method: str, where: str, query: Mapping[str, str], body: Object | None, kind: str, seconds: float
    ) -> aiohttp.ClientResponse:
        told = f"{method} {where}"
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()
        number = self.calls + 1
        self._die("before", number, told)
        answer = await super()._send(method, where, query, body, kind, seconds)
        self._die("after", number, told)
        return answer

    def _die(self, when: str, number: int, told: str) -> None:
        chosen, _, call = self.point.partition(":")
        method, _, tail = call.partition(" ")
        meant = number == int(call) if call.isdigit() else told.startswith(method) and told.endswith(tail)
        if chosen == when and meant:
            os.kill(os.getpid(), signal.SIGKILL)


async def turn(kubeconfig: Path, namespace: str, point: str) -> None:
    """One turn of the policy `airflow`."""
    async with await DyingCluster.connect(kubeconfig) as cluster:
        cluster.point = point
        recorder, brokers = Recorder(cluster, "dying"), Brokers(cluster)
        await Turn(cluster, recorder, {}, brokers, namespace, "airflow", lambda: datetime.now(UTC)).run()


if __name__ == "__main__":
    asyncio.run(turn(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))

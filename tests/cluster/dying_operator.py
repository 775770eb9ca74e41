"""One turn of the operator that is killed with SIGKILL at a chosen point: `dying_operator.py KUBECONFIG NS POINT`.

The switch sits at our own port to Kubernetes: before the n-th request that writes something, the process kills itself.
"""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_tuner.brokers import Brokers
from airflow_tuner.cluster import STRATEGIC, Cluster
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder


class DyingCluster(Cluster):
    """Kills the process before its n-th write."""

    left = 0

    async def create(self, where: str, body: dict[str, Any]) -> bool:
        """As it says, unless dead."""
        self._count()
        return await super().create(where, body)

    async def patch(self, where: str, body: dict[str, Any], kind: str = STRATEGIC) -> dict[str, Any]:
        """As it says, unless dead."""
        self._count()
        return await super().patch(where, body, kind)

    async def replace(self, where: str, body: dict[str, Any]) -> dict[str, Any]:
        """As it says, unless dead."""
        self._count()
        return await super().replace(where, body)

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def turn(kubeconfig: Path, namespace: str, point: int) -> None:
    """One turn of the policy `airflow`; `point` 0 lives through it."""
    async with await DyingCluster.connect(kubeconfig) as cluster:
        cluster.left = point
        recorder, brokers = Recorder(cluster, "dying"), Brokers(cluster)
        await Turn(cluster, recorder, {}, brokers, namespace, "airflow", lambda: datetime.now(UTC)).run()


if __name__ == "__main__":
    asyncio.run(turn(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))

"""One turn of the operator that is killed with SIGKILL at a chosen point.

`dying_operator KUBECONFIG NAMESPACE POINT [SOURCE]`: the switch sits at our own ports to Kubernetes and to Prometheus
(the one at the address SOURCE, where that is given). POINT is `never`, or `before:CALL` or `after:CALL`; CALL is the
number of a call of the turn, or the first one whose method and path end so, e.g. `PUT /status`. Each call is printed as
it is made.
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
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder
from airflow_tuner.settings import Source
from airflow_tuner.signals import Scope, Series, Signal


class Switch:
    """Tells each call, and kills the process at the chosen one."""

    def __init__(self, point: str) -> None:
        self._when, _, self._call = point.partition(":")
        self._calls = 0

    def before(self, told: str) -> int:
        """A call is to be made; its number."""
        self._calls += 1
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()
        self._die("before", self._calls, told)
        return self._calls

    def after(self, number: int, told: str) -> None:
        """It was answered."""
        self._die("after", number, told)

    def _die(self, when: str, number: int, told: str) -> None:
        method, _, tail = self._call.partition(" ")
        meant = number == int(self._call) if self._call.isdigit() else told.startswith(method) and told.endswith(tail)
        if self._when == when and meant:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingCluster(Cluster):
    """The port to Kubernetes, with the switch."""

    switch: Switch

    async def _send(
        self, method: str, where: str, query: Mapping[str, str], body: Object | None, kind: str, seconds: float
    ) -> aiohttp.ClientResponse:
        told = f"{method} {where}"
        number = self.switch.before(told)
        try:
            return await super()._send(method, where, query, body, kind, seconds)
        finally:
            self.switch.after(number, told)


class DyingSource(Prometheus):
    """The port to Prometheus, with the switch."""

    switch: Switch

    async def ask(self, signal: Signal, scope: Scope, patience: float | None = None) -> tuple[Series, ...]:
        """As the port does."""
        told = f"ASK {signal.name}"
        number = self.switch.before(told)
        try:
            return await super().ask(signal, scope, patience)
        finally:
            self.switch.after(number, told)


async def turn(kubeconfig: Path, namespace: str, point: str, url: str) -> None:
    """One turn of the policy `airflow`."""
    async with await DyingCluster.connect(kubeconfig) as cluster:
        cluster.switch = switch = Switch(point)
        sources = {}
        if url:
            sources["default"] = source = DyingSource("default", Source(url=url))
            source.switch = switch
        recorder, brokers = Recorder(cluster, "dying"), Brokers(cluster)
        await Turn(cluster, recorder, sources, brokers, namespace, "airflow", lambda: datetime.now(UTC)).run()


if __name__ == "__main__":
    asyncio.run(turn(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else ""))

"""Virtual nodes of a real control plane: a fake kubelet whose containers are a model. No root, nothing but Python."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from testbed.controlplane import ControlPlane
from testbed.processes import Area, ProgramFailed, Startable, free_port
from testbed.virtual_api import Api
from testbed.virtual_containers import Containers
from testbed.virtual_habits import Habits
from testbed.virtual_kubelet import Settings, Size, VirtualKubelet
from testbed.virtual_metrics import TYPES, exposition, machine

T = TypeVar("T")
Object = dict[str, Any]

START_SECONDS = 30.0
GIBIBYTE = 2**30
COMPONENTS = frozenset({"scheduler", "dag-processor", "triggerer", "api-server", "webserver", "worker"})
_BLOCKS = iter(range(64, 128))  # of pod addresses, one for each node of this process


class VirtualNode(Startable):
    """The node `name` (or `count` nodes, `name-0` and so on) of a control plane, with one model of containers.

    It runs in a thread of its own; as a context manager it starts and leaves nothing behind. `speed` is how many
    seconds pass for the containers and the kubelet in one of ours. Pods of `namespace` whose label `component` is one
    of `components` are in the model, all others just run. `taints` keep pods away that do not tolerate them.
    """

    def __init__(  # noqa: PLR0913 - each is a fact about a node, and has a usual value
        self,
        area: Area,
        control_plane: ControlPlane,
        containers: Containers,
        *,
        name: str = "virtual",
        count: int = 1,
        memory: int = 32 * GIBIBYTE,
        cores: float = 16,
        pods: int = 110,
        namespace: str = "airflow",
        components: frozenset[str] = COMPONENTS,
        taints: Sequence[Object] = (),
        habits: Habits | None = None,
        speed: float = 1.0,
        step_seconds: float = 0.1,
        housekeeping_seconds: float = 10.0,
    ) -> None:
        self.control_plane = control_plane
        self.containers = containers
        self.name = name
        self.names = (name,) if count == 1 else tuple(f"{name}-{number}" for number in range(count))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.failures: list[BaseException] = []
        """What ended its thread; empty as long as it is well."""
        self._log = area.path / f"virtual-node-{name}.log"
        self._size = Size(memory, cores, pods)
        self._settings = [
            Settings(self._size, habits or Habits(), namespace, components, tuple(taints), next(_BLOCKS))
            for _ in self.names
        ]
        self._speed, self._step_seconds, self._housekeeping = speed, step_seconds, housekeeping_seconds
        self._clock = 0.0
        self._burnt: dict[str, dict[str, float]] = {}  # CPU seconds by node and container, of the dead ones too
        self._seen: dict[str, str] = {}  # what cAdvisor shows, by node
        self._thread = threading.Thread(target=self._thread_main, name=f"virtual-node-{name}", daemon=True)
        self._started: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def start(self) -> Self:
        """Start it; return when the nodes are registered."""
        self._thread.start()
        try:
            self._started.result(START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything in it and take its nodes out of the control plane."""
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if error is None and self.failures:
            raise ProgramFailed(f"the virtual node {self.name} failed") from self.failures[0]

    def ask(self, question: Callable[[], T]) -> T:
        """What `question` returns in the node's thread: there, and only there, may the model be touched."""
        if self._loop is None or not self._thread.is_alive():
            raise ProgramFailed(f"the virtual node {self.name} does not run: {self.failures}")
        answer: Future[T] = Future()

        def in_thread() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(in_thread)
        return answer.result(START_SECONDS)

    def scrape_configs(self, interval: str = "2s") -> list[Mapping[str, Any]]:
        """Return the Prometheus scrape configs of its cAdvisor and of Airflow's exporter."""
        target = f"127.0.0.1:{self.port}"
        cadvisor = [
            {
                "job_name": f"kubelet-cadvisor-{name}",
                "metrics_path": f"/nodes/{name}/metrics/cadvisor",
                "scrape_interval": interval,
                "static_configs": [{"targets": [target], "labels": {"node": name, "instance": name}}],
            }
            for name in self.names
        ]
        airflow = {
            "job_name": f"airflow-{self.name}",
            "scrape_interval": interval,
            "static_configs": [{"targets": [target]}],
        }
        return [*cadvisor, airflow]

    def _tell(self, sentence: str) -> None:
        """Note what went wrong in its log."""
        with self._log.open("a") as log:
            log.write(f"{datetime.now(UTC).isoformat()} {sentence}\n")

    def _thread_main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - told at the end of the block
            self.failures.append(error)
            if not self._started.done():
                self._started.set_exception(error)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with Api(self.control_plane) as api:
            kubelets = [
                VirtualKubelet(name, api, self.containers, settings, lambda: self._clock, self._tell)
                for name, settings in zip(self.names, self._settings, strict=True)
            ]
            server = await self._serve()
            works = (*(each.run() for each in kubelets), self._live(kubelets), self._announce(kubelets), self._end())
            tasks = [asyncio.create_task(work) for work in works]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
                for each in kubelets:
                    await each.leave()
                await server.cleanup()
            self.failures += [end for end in ends if isinstance(end, Exception)]

    async def _announce(self, kubelets: Sequence[VirtualKubelet]) -> None:
        for each in kubelets:
            await each.registered.wait()
        self._started.set_result(None)
        await self._stop.wait()

    async def _end(self) -> None:
        await self._stop.wait()

    async def _live(self, kubelets: Sequence[VirtualKubelet]) -> None:
        """Let time pass: for the model, for the pods, and for cAdvisor, which looks now and then."""
        before, looked = time.monotonic(), -self._housekeeping
        while True:
            now = time.monotonic()
            seconds, before = (now - before) * self._speed, now
            self._clock += seconds
            for kill in self.containers.advance(seconds):
                any(each.killed(kill) for each in kubelets)
            for each in kubelets:
                each.step()
            if now - looked >= self._housekeeping:
                looked = now
                self._look(kubelets)
            await asyncio.sleep(max(0.0, self._step_seconds - (time.monotonic() - now)))

    def _look(self, kubelets: Sequence[VirtualKubelet]) -> None:
        at = time.time()
        for each in kubelets:
            containers = list(each.containers())
            burnt = self._burnt.setdefault(each.name, {})
            burnt.update({one.id: one.cpu_seconds for one in containers})
            own = [sample for one in containers for sample in one.samples()]
            whole = machine(containers, self._size.cores, self._size.memory, sum(burnt.values()))
            self._seen[each.name] = exposition([*own, *whole], TYPES, at)

    async def _serve(self) -> web.AppRunner:
        """Serve what it shows, on a port of the loopback."""
        app = web.Application()
        app.router.add_get("/metrics/cadvisor", self._cadvisor)
        app.router.add_get("/nodes/{name}/metrics/cadvisor", self._cadvisor)
        app.router.add_get("/metrics", self._airflow)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner

    async def _cadvisor(self, request: web.Request) -> web.Response:
        return web.Response(text=self._seen.get(request.match_info.get("name", self.names[0]), ""))

    async def _airflow(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text=exposition(self.containers.samples(), {}))

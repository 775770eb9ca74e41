"""The tuner beside a real Docker engine, with containers that only hold memory."""

import asyncio
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest

from airflow_tuner import api, compose
from airflow_tuner.engine import Engine
from airflow_tuner.errors import Misconfigured
from airflow_tuner.model import Decision, TargetDecision, Values
from airflow_tuner.project import Project
from airflow_tuner.store import Store
from testbed.docker_engine import IMAGE, DockerEngine, mounts
from testbed.docker_recreation import decided
from testbed.docker_tuner import DockerTuner

MI = 2**20
BOUNDS = {"workers": [{"name": "*", "memory": {"min": "64Mi", "max": "512Mi"}}]}
CHILDREN = """
import subprocess, sys, time
while True:
    subprocess.run([sys.executable, "-c", "import time; held = b'1' * ({size} << 20); time.sleep(1)"])
    time.sleep(1)
"""
ITSELF = "import time; time.sleep(6); held = b'1' * ({size} << 20); time.sleep(1000)"
IDLE = "import time; time.sleep(1000)"

Tuner = Callable[..., DockerTuner]


def start(engine: DockerEngine, project: str, service: str, program: str, *options: str) -> str:
    """Start a container as compose would, and return its name."""
    name = f"{project}_{service}_1"
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    words += [word for mount in mounts() for word in ("--volume", mount)]
    if not any(option.startswith("--network") for option in options):
        words += ["--network=host"]
    engine.docker(
        "run", "--detach", "--stop-timeout=1", "--name", name, *words, *options, IMAGE, "python3", "-c", program
    )
    return name


def limit(engine: DockerEngine, name: str) -> int:
    """The limit in force, in MiB."""
    return int(engine.inspect(name)["HostConfig"]["Memory"]) // MI


def test_a_killed_process_raises_the_limit_in_place_and_nothing_outside_of_the_project(
    engine: DockerEngine, project: str, tuner: Tuner
) -> None:
    other = start(engine, f"{project}-other", "airflow-worker", CHILDREN.format(size=130), "--memory=100m")
    name = start(engine, project, "airflow-worker", CHILDREN.format(size=130), "--memory=100m")
    born = engine.inspect(name)["State"]["StartedAt"]
    running = tuner(BOUNDS)
    running.wait_until(lambda: limit(engine, name) > 100, "the limit to rise", 30)
    assert limit(engine, name) == 230
    found = engine.inspect(name)
    assert (found["State"]["StartedAt"], found["RestartCount"]) == (born, 0)
    assert found["HostConfig"]["MemorySwap"] == (230 + 100) * MI, "as much swap beside it as before"
    assert limit(engine, other) == 100
    engine.docker("rm", "--force", other)
    assert [line["reason"] for line in running.events("Tuned")] == ["OutOfMemory"]
    assert "worker/default" in running.command("status", "--state", str(running.state))
    assert "230 MiB / 230 MiB" in running.look("plan")
    assert "OutOfMemory" in running.look("diagnose")
    assert "in force  230 MiB / 230 MiB in 1 pod" in running.look("explain", "worker/default")


def test_a_broker_that_does_not_answer_delays_no_answer_to_a_kill(
    engine: DockerEngine, project: str, tuner: Tuner, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = tmp_path / "broker-url"
        url.write_text(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        running = tuner(BOUNDS, "--broker-url-file", str(url))
        program = CHILDREN.format(size=130)
        name = start(engine, project, "airflow-worker", program, "--memory=100m")
        running.wait_until(lambda: limit(engine, name) > 100, "the limit to rise", 40)
    (tuned,) = running.events("Tuned")
    told = re.search(r"because (\d+) process", tuned["message"])
    assert told is not None
    assert int(told[1]) <= 2, "one is killed every two seconds, and the broker is given nine otherwise"


def test_a_killed_container_is_answered_once_though_the_tuner_was_dead_meanwhile(
    engine: DockerEngine, project: str, tuner: Tuner
) -> None:
    name = start(engine, project, "airflow-scheduler", ITSELF.format(size=120), "--memory=100m", "--restart=always")
    running = tuner({"scheduler": {"memory": {"min": "64Mi", "max": "512Mi"}}})
    running.kill()
    engine.docker("start", name)
    while not engine.inspect(name)["RestartCount"]:
        sleep(0.2)
    running.start()
    running.wait_until(lambda: limit(engine, name) > 100, "the limit to rise", 30)
    assert limit(engine, name) == 230
    assert "the container was killed for memory" in running.events("Tuned")[0]["message"]
    running.stop()
    running.start()
    assert len(running.status()["history"]) == 1, "no kill is answered twice"
    assert limit(engine, name) == 230


def test_a_container_without_a_limit_gets_its_first_one_while_it_runs(
    engine: DockerEngine, project: str, tuner: Tuner
) -> None:
    name = start(engine, project, "airflow-triggerer", IDLE)
    running = tuner({"triggerer": {"memory": {"min": "64Mi", "max": "512Mi"}}})
    running.wait_until(lambda: limit(engine, name) == 512, "the first limit", 30)
    assert [line["reason"] for line in running.events("Tuned")] == ["LimitsMissing"]
    assert engine.inspect(name)["RestartCount"] == 0


def test_a_cpu_limit_is_raised_while_the_container_runs(engine: DockerEngine, project: str, tmp_path: Path) -> None:
    name = start(engine, project, "airflow-scheduler", IDLE, "--memory=100m", "--cpus=0.5")

    async def resize() -> tuple[int, dict[str, str]]:
        async with Engine(engine.address) as there:
            with Store(tmp_path / "state") as store:
                items = await there.containers({compose.PROJECT: project})
                (workload,) = compose.workloads(items, store.known(), "3")
                sizes = api.Sizes(memory="100Mi", cpu="700m")
                target = TargetDecision(workload, "scheduler", Values(), "", tuned=decided(workload, sizes))
                return await Project(there, store).resize(Decision((target,)))

    assert asyncio.run(resize()) == (1, {})
    assert engine.inspect(name)["HostConfig"]["NanoCpus"] == 700_000_000


def test_mode_recommend_changes_nothing(engine: DockerEngine, project: str, tuner: Tuner) -> None:
    name = start(engine, project, "airflow-worker", CHILDREN.format(size=130), "--memory=100m")
    running = tuner({**BOUNDS, "mode": "Recommend"})
    running.wait_until(lambda: running.limit("worker/default") == "230Mi", "the recommendation", 30)
    assert limit(engine, name) == 100
    assert [line["reason"] for line in running.events("Recommended")] == ["OutOfMemory"]


def test_an_engine_that_is_restarted_is_waited_for(engine: DockerEngine, project: str, tuner: Tuner) -> None:
    program = f"import time; time.sleep(10)\n{CHILDREN.format(size=130)}"
    name = start(engine, project, "airflow-worker", program, "--memory=100m", "--restart=always")
    running = tuner(BOUNDS)
    engine.stop()
    running.wait_until(lambda: running.status()["summary"] == "Misconfigured", "it to miss the engine", 20)
    engine.start()
    assert not running.events("Tuned"), "nothing has been killed yet"
    running.wait_until(lambda: limit(engine, name) > 100, "the answer to a kill", 40)
    assert not [line for line in running.log() if "trace" in line]


def test_a_missing_and_a_refused_socket_are_told(engine: DockerEngine) -> None:
    async def greet(address: str) -> None:
        async with Engine(address):
            pass

    with pytest.raises(Misconfigured, match=r"There is no Docker engine at unix:///nowhere.sock: start it"):
        asyncio.run(greet("unix:///nowhere.sock"))
    engine.socket.chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(Misconfigured, match="may not be opened by this user: run as root or as a member"):
            asyncio.run(greet(engine.address))
    finally:
        os.seteuid(0)

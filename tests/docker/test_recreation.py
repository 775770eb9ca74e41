"""A container that is made anew for another environment, on a real Docker engine: nothing of it is lost."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_tuner import compose
from testbed.docker_engine import IMAGE, DockerEngine, mounts
from testbed.docker_recreation import recreated
from testbed.docker_tuner import DockerTuner
from testbed.processes import Area

SERVICE = "airflow-dag-processor"
INTERVAL = "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"
PROGRAM = f"""
import os, pathlib, sys, time
value = os.environ["{INTERVAL}"]
pathlib.Path("/data/ran").open("a").write(value + "\\n")
sys.exit("no number") if not value.isdigit() else time.sleep(1000)
"""


CHILDREN = """
import subprocess, sys, time
while True:
    subprocess.run([sys.executable, "-c", "import time; held = b'1' * (130 << 20); time.sleep(1)"])
    time.sleep(1)
"""


def limit(engine: DockerEngine, project: str) -> int:
    """The limit of the project's only container, in MiB."""
    found = engine.docker("ps", "--quiet", "--filter", f"label={compose.PROJECT}={project}").split()
    return int(engine.inspect(found[0])["HostConfig"]["Memory"]) // 2**20 if found else 0


@pytest.fixture
def container(engine: DockerEngine, project: str) -> Iterator[str]:
    """A dag-processor in two networks, with a volume without a name, a health check and a limit; by its name."""
    name = f"{project}_{SERVICE}_1"
    networks = [f"{project}_inner", f"{project}_outer"]
    for network in networks:
        engine.docker("network", "create", network)
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": SERVICE, "mine": "kept"}
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    words += [word for mount in mounts() for word in ("--volume", mount)]
    words += ["--health-cmd=test -s /data/ran", "--health-interval=1s", "--health-retries=2", "--memory=200m"]
    words += [f"--network={networks[0]}", "--network-alias=parser", f"--env={INTERVAL}=30", "--env=OTHER=kept"]
    words += ["--volume=/data", "--restart=unless-stopped", "--stop-timeout=1", "--ulimit=nofile=4096"]
    engine.docker("create", "--name", name, *words, IMAGE, "python3", "-c", PROGRAM)
    engine.docker("network", "connect", "--alias=second", networks[1], name)
    engine.docker("start", name)
    yield name
    engine.docker("rm", "--force", "--volumes", name, check=False)
    engine.docker("network", "rm", *networks)


def kept(item: dict[str, Any]) -> dict[str, Any]:
    """What must be the same of a container and its successor."""
    config, host, networks = item["Config"], item["HostConfig"], item["NetworkSettings"]["Networks"]
    short = item["Id"][:12]
    return {
        "name": item["Name"],
        "mounts": sorted((one["Destination"], one.get("Name", one["Source"]), one["RW"]) for one in item["Mounts"]),
        "networks": {
            name: sorted(alias for alias in told["Aliases"] if alias != short) for name, told in networks.items()
        },
        "labels": {key: value for key, value in config["Labels"].items() if not key.startswith("airflow-tuner.dev/")},
        "health": config["Healthcheck"],
        "limits": (host["Memory"], host["MemorySwap"], host["Ulimits"]),
        "restart": host["RestartPolicy"],
        "command": (config["Entrypoint"], config["Cmd"], config["StopTimeout"]),
        "environment": sorted(entry for entry in config["Env"] if not entry.startswith(INTERVAL)),
    }


def test_a_successor_has_all_that_the_container_had_and_the_new_value(
    engine: DockerEngine, project: str, container: str, tmp_path: Path
) -> None:
    before = engine.inspect(container)
    assert asyncio.run(recreated(engine, project, tmp_path / "state", "120")) == ""
    after = engine.inspect(container)
    assert before["Id"] != after["Id"]
    assert kept(before) == kept(after)
    assert f"{INTERVAL}=120" in after["Config"]["Env"]
    assert after["State"]["Health"]["Status"] == "healthy"
    assert engine.docker("exec", container, "cat", "/data/ran").split() == ["30", "120"], "the volume is the same"
    assert engine.docker("ps", "--all", "--quiet", "--filter", f"label={compose.PROJECT}={project}").count("\n") == 1
    assert json.loads(after["Config"]["Labels"][compose.ORIGINAL])["environment"] == {INTERVAL: "30"}


def test_a_successor_that_does_not_become_healthy_is_taken_back_and_not_tried_again(
    engine: DockerEngine, project: str, container: str, tmp_path: Path
) -> None:
    before = engine.inspect(container)
    why = asyncio.run(recreated(engine, project, tmp_path / "state", "soon"))
    assert "the container was put back" in why
    after = engine.inspect(container)
    assert (after["Id"], after["State"]["Running"]) == (before["Id"], True)
    assert kept(before) == kept(after)
    assert "was put back" in asyncio.run(recreated(engine, project, tmp_path / "state", "soon")), "it is remembered"
    ran = engine.docker("exec", container, "cat", "/data/ran").split()
    assert (ran[0], ran[1], ran[-1]) == ("30", "soon", "30")


def test_compose_keeps_what_stands_in_the_override_file(
    area: Area, engine: DockerEngine, project: str, tmp_path: Path
) -> None:
    file, override = tmp_path / "docker-compose.yaml", tmp_path / "docker-compose.override.yaml"
    eater = f"import time; time.sleep(3)\n{CHILDREN}"
    service = {
        "image": IMAGE,
        "network_mode": "host",
        "volumes": [*mounts()],
        "mem_limit": "100m",
        "stop_grace_period": "1s",
        "command": ["python3", "-c", eater],
    }
    file.write_text(json.dumps({"version": "2.4", "services": {"airflow-worker": service}}))
    engine.compose(file, project, "up", "--detach")
    options = ("--override-file", str(override))
    spec = {"workers": [{"name": "*", "memory": {"min": "64Mi", "max": "512Mi"}}]}
    with DockerTuner(area, tmp_path, engine.address, project, spec, *options) as tuner:
        tuner.wait_until(lambda: "mem_limit: 241172480" in override.read_text(), "the override file", 40)
        # Without the file compose goes back to its own definition, and the tuner to what it has decided.
        engine.compose(file, project, "up", "--detach", "--force-recreate")
        tuner.wait_until(lambda: limit(engine, project) == 230, "the new container's limit", 20)
    engine.compose(file, project, "--file", str(override), "up", "--detach")
    assert limit(engine, project) == 230, "compose itself has set it"
    with DockerTuner(area, tmp_path, engine.address, project, spec, *options) as tuner:
        assert len(tuner.status()["history"]) == 1, "that is no change of the definition"
        assert tuner.status()["targets"][0]["template"]["limit"] == "100Mi"

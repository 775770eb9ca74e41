"""The testbed itself: real programs start, answer, fail in plain words and leave nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed.cache import cache_folder
from testbed.commands import CommandFailed, run
from testbed.controlplane import ControlPlane
from testbed.helm import helm
from testbed.processes import Area, Program, ProgramFailed, free_port
from testbed.programs import program
from testbed.prometheus import Prometheus, StatsdExporter

TESTS = Path(__file__).parent.parent
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "scheduled"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web:none"}]},
        },
    },
}
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "paper"},
    "status": {
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"},
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "10"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Paper", "lastHeartbeatTime": None}],
    },
}


def eventually(check: Callable[[], bool], timeout: float) -> bool:
    """Whether `check` came to hold within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_the_api_server_is_the_kubernetes_of_the_go_module(control_plane: ControlPlane) -> None:
    version = json.loads(control_plane.kubectl("version", "--output=json"))
    assert version["serverVersion"]["gitVersion"] == "v1.36.3"
    assert version["clientVersion"]["gitVersion"] == "v1.36.3"


def test_a_deployment_makes_a_pod_and_the_scheduler_places_it(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "namespace", "scheduled")
    control_plane.kubectl("apply", "--filename=-", input=json.dumps(DEPLOYMENT))
    control_plane.kubectl("create", "--filename=-", input=json.dumps(NODE))
    try:
        ready = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        control_plane.kubectl("patch", "node", "paper", "--subresource=status", f"--patch={ready}")
        taints = "node.kubernetes.io/not-ready:NoSchedule-"

        def placed() -> bool:
            control_plane.kubectl("taint", "node", "paper", taints, check=False)
            nodes = "--output=jsonpath={.items[*].spec.nodeName}"
            return control_plane.kubectl("get", "pods", "--namespace=scheduled", nodes) == "paper"

        assert eventually(placed, 30)
    finally:
        control_plane.kubectl("delete", "node", "paper")
        control_plane.kubectl("delete", "namespace", "scheduled", "--wait=false")


def test_a_service_account_may_do_what_rbac_gives_it_and_no_more(control_plane: ControlPlane, tmp_path: Path) -> None:
    control_plane.kubectl("create", "serviceaccount", "reader")
    control_plane.kubectl("create", "role", "reader", "--verb=list", "--resource=configmaps")
    control_plane.kubectl("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")
    config = control_plane.kubeconfig_for_service_account("default", "reader", tmp_path / "reader.kubeconfig")
    kubectl: list[str | Path] = [control_plane.binary, "kubectl", f"--kubeconfig={config}"]
    assert "kube-root-ca.crt" in run([*kubectl, "get", "configmaps", "--output=name"])
    with pytest.raises(CommandFailed, match="cannot list resource"):
        run([*kubectl, "get", "secrets"])


def test_the_api_server_comes_back_on_its_port_after_an_outage(area: Area) -> None:
    outage = Area("outage")
    try:
        with ControlPlane(outage, audit=True) as plane:
            plane.kubectl("create", "configmap", "kept")
            plane.stop_api_server()
            with pytest.raises(CommandFailed, match="refused"):
                plane.kubectl("get", "configmaps")
            plane.start_api_server()
            assert "configmap/kept" in plane.kubectl("get", "configmap", "kept", "--output=name")
            assert plane.audit_log is not None
            verbs = {json.loads(line)["verb"] for line in plane.audit_log.read_text().splitlines()}
            assert {"create", "get"} <= verbs
            children = [part.pid for part in plane.programs]
        assert not any(psutil.pid_exists(pid) for pid in children)
    finally:
        outage.clean()
    assert not outage.path.exists()
    assert area.path.exists()


@pytest.mark.parametrize("version", [4, 3])
def test_helm_installs_a_chart(
    version: int, control_plane: ControlPlane, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("helm" if version == 4 else "helm3")
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
    (tmp_path / "templates" / "settings.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\ndata: {by: 'helm'}\n"
    )
    release = f"tiny-{version}"
    assert "STATUS: deployed" in helm(control_plane, "install", release, tmp_path, version=4 if version == 4 else 3)
    assert control_plane.kubectl("get", "configmap", release, "--output=jsonpath={.data.by}") == "helm"


def test_prometheus_scrapes_the_api_server_and_promtool_accepts_its_config(
    control_plane: ControlPlane, prometheus_factory: Callable[..., Prometheus], needs: Callable[..., None]
) -> None:
    needs("promtool")
    prometheus = prometheus_factory([control_plane.scrape_config()])
    assert "SUCCESS" in run([program("promtool"), "check", "config", prometheus.config])
    assert eventually(lambda: bool(prometheus.query('up{job="kube-apiserver"} == 1')), 20)


def test_a_statsd_packet_becomes_a_series(area: Area, tmp_path: Path, needs: Callable[..., None]) -> None:
    needs("statsd_exporter")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("mappings:\n- match: airflow.*.beat\n  name: beat\n  labels: {job: $1}\n")
    with StatsdExporter(area, mapping) as exporter, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"airflow.scheduler.beat:3|c", ("127.0.0.1", exporter.udp_port))
        assert eventually(lambda: 'beat{job="scheduler"} 3' in exporter.metrics(), 10)


def test_a_program_that_ends_at_once_shows_its_last_log_lines(tmp_path: Path) -> None:
    broken = Program("broken", ["sh", "-c", "seq 100; echo no such flag; exit 3"], log=tmp_path / "broken.log").start()
    with pytest.raises(ProgramFailed) as caught:
        broken.wait_until(lambda: False, "it to answer", 30)
    lines = str(caught.value).splitlines()
    assert lines[0] == "broken ended with exit code 3 before it to answer"
    assert lines[-2:] == ["100", "no such flag"]
    assert len(lines) < 25


def test_a_start_on_a_taken_port_fails_at_once_and_says_so(area: Area, needs: Callable[..., None]) -> None:
    needs("prometheus")
    with socket.socket() as taken:
        prometheus = Prometheus(area, [])
        taken.bind(("127.0.0.1", int(prometheus.url.rsplit(":", 1)[1])))
        taken.listen()
        started = time.monotonic()
        with pytest.raises(ProgramFailed, match="address already in use"):
            prometheus.start()
    assert time.monotonic() - started < 10


def test_a_start_that_never_gets_ready_ends_at_its_time_limit(tmp_path: Path) -> None:
    slow = Program("slow", ["sh", "-c", "echo thinking; exec sleep 600"], log=tmp_path / "slow.log").start()
    try:
        started = time.monotonic()
        with pytest.raises(ProgramFailed, match=r"waited 1 s for an answer, in vain(?s:.*)thinking$"):
            slow.wait_until(lambda: False, "an answer", 1)
        assert time.monotonic() - started < 3
    finally:
        slow.stop()


def test_a_program_that_ignores_sigterm_is_killed_with_its_group(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 600 & echo $!; wait; wait"
    stubborn = Program("stubborn", ["sh", "-c", script], log=tmp_path / "stubborn.log").start()
    stubborn.wait_until(lambda: stubborn.log.read_text().strip().isdigit(), "the child's number", 5)
    child = psutil.Process(int(stubborn.log.read_text()))
    stubborn.stop(grace=0.5)
    assert not stubborn.running()
    child.wait(5)


def test_ports_are_never_given_out_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)


KILLED_RUN = """\
import sys, time
from testbed.processes import Area
script = "import os, time; print(os.fork() or os.setsid() or os.getpid(), flush=True); time.sleep(600)"
area = Area("killed")
program = area.program("orphan", [sys.executable, "-c", script]).start()
program.wait_until(lambda: len(program.log.read_text().split()) == 2, "both processes", 10)
print(area.path, flush=True)
time.sleep(600)
"""


def python_path() -> dict[str, str]:
    """The environment in which a Python of its own finds the testbed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}


def test_what_a_killed_run_leaves_is_removed_by_the_next_sweep() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN], stdout=subprocess.PIPE, text=True, env=python_path()
    ) as killed:
        try:
            assert killed.stdout is not None
            folder = Path(killed.stdout.readline().strip())
            orphan = psutil.Process(int((folder / "orphan.log").read_text().split()[0]))
            assert not any(folder.name in sentence for sentence in Area.sweep()), "a living run must be left alone"
        finally:
            killed.send_signal(signal.SIGKILL)
    assert orphan.is_running(), "it has a session of its own, so nothing took it along"
    told = [sentence for sentence in Area.sweep() if folder.name in sentence]
    assert len(told) == 1
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert not folder.exists()
    assert not any(folder.name in sentence for sentence in Area.sweep())


def test_kept_logs_stay_until_they_are_asked_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_TUNER_KEEP", "1")
    kept = Area("kept")
    (kept.path / "data").mkdir()
    echo = kept.program("echo", ["echo", "hello"]).start()
    echo.stop()
    kept.clean()
    assert {entry.name for entry in kept.path.iterdir()} == {"echo.log", "kept"}
    assert Area.sweep() == []
    assert Area.sweep(kept=True) == [f"Removed the kept logs of the run {kept.path.name}."]
    assert not kept.path.exists()


# A run in the background of a shell is born with SIGINT ignored, and its children with it.
INTERRUPTED_TEST = """\
import signal, time

signal.signal(signal.SIGINT, signal.default_int_handler)

def test_that_takes_long(control_plane):
    print("pids", *(part.pid for part in control_plane.programs), flush=True)
    time.sleep(600)
"""


def test_an_interrupted_test_run_leaves_nothing(needs: Callable[..., None], tmp_path: Path) -> None:
    needs("control-plane")
    (tmp_path / "test_long.py").write_text(INTERRUPTED_TEST)
    options = ["-p", "conftest", "-s", f"--rootdir={tmp_path}", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=python_path()
    ) as interrupted:
        try:
            assert interrupted.stdout is not None
            line = next(line for line in interrupted.stdout if "pids" in line)
            children = [int(pid) for pid in line.split("pids")[1].split()]
            interrupted.send_signal(signal.SIGINT)
            interrupted.communicate(timeout=30)
        finally:
            interrupted.kill()
    assert len(children) == 4
    assert not any(psutil.pid_exists(pid) for pid in children)
    assert not list((cache_folder() / "run").glob(f"*-{interrupted.pid}"))


def test_up_survives_its_shell_and_down_stops_it_even_after_a_kill(needs: Callable[..., None], tmp_path: Path) -> None:
    needs("control-plane", "prometheus")
    (tmp_path / "airflow-tuner").mkdir()
    (tmp_path / "airflow-tuner" / "testbed").symlink_to(cache_folder() / "testbed")

    def testbed(command: str) -> str:
        environment = {**python_path(), "XDG_CACHE_HOME": str(tmp_path)}
        return run([sys.executable, "-m", "testbed", command], env=environment, check=False, timeout=150)

    try:
        assert "KUBECONFIG" in testbed("up")
        config = Path(testbed("kubeconfig").strip())
        kubectl: list[str | Path] = [program("control-plane"), "kubectl", f"--kubeconfig={config}"]
        assert "namespace/default" in run([*kubectl, "get", "namespaces", "--output=name"])
        os.kill(int(config.parent.parent.name.removeprefix("up-")), signal.SIGKILL)
        assert testbed("status") == ""
        assert testbed("down").startswith("Removed what the dead run up-")
        assert "runs as process" in testbed("up")
        assert testbed("down") == "The testbed is stopped.\n"
    finally:
        testbed("down")
    assert testbed("down") == "No testbed was running.\n"
    assert [entry.name for entry in (tmp_path / "airflow-tuner" / "run").iterdir()] == ["up.log"]

"""The demo's story on a virtual Airflow of ten workers, where no real node can run.

Real are the API server, the controllers, the scheduler, Helm, Prometheus and the operator. Played by a model are the
kubelet and Airflow itself: its tasks, its memory, its kills. So it shows what the operator does, and proves nothing
about Airflow.
"""

import json
import random
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import yaml

from airflow_tuner.fleet import Deployment, Laws
from testbed import operator_process, stage
from testbed.operator_process import Operator
from testbed.telling import say, section, show, title
from testbed.virtual_airflow import VirtualAirflow, release_values, virtual_airflow

WORKERS, SLOTS = 10, 2
START_SECONDS = 3.0
"""A virtual container works this soon; a real one takes about 20 s."""
WINDOW = 30
"""Seconds over which the operator averages, so that a play of two minutes shows something."""
BIG, SHORT = "load_everything", "short_tasks"
TASKS, TASK_SECONDS = 400, 4.0
FILES, FILE_SECONDS, CORES = 40, 0.3, 0.5


def play(seed: int, why: str, *, keep: bool) -> None:
    """The whole story. `why`: a sentence about why it is not the real one."""
    fleet = fleet_of(seed)
    limit, size = drawn(seed, fleet.laws)
    say(f"airflow-tuner demo, seed {seed} (SEED={seed} make demo plays the same again)")
    say(f"This is VIRTUAL. {why}")
    say(
        "Airflow and the kubelet are played by a model: its containers, tasks and kills take no memory of this machine."
    )
    say("Real are the API server, Helm, Prometheus and the operator.\n")
    say(f"{WORKERS} workers have {limit} MiB each; a task will load {size} MiB at once. That cannot go well.\n")
    with virtual_airflow(fleet, release_values(WORKERS, SLOTS, limit), housekeeping_seconds=3) as airflow:
        plane, url = airflow.control_plane, airflow.prometheus.url
        title("The operator's chart, by Helm, and one policy")
        operator_process.install_chart(plane, url)
        with Operator(airflow.area, plane, url, [airflow.namespace]):
            policy = quick_policy()
            show(yaml.safe_dump(policy, sort_keys=False, default_flow_style=None, width=100))
            airflow.kubectl("apply", "-f", "-", input=json.dumps(policy))
            heal(airflow, size)
            _hurry_and_parse(airflow)
            _look(airflow)
            if keep:
                stage.wait_for_interrupt(f"export KUBECONFIG={plane.kubeconfig}")


def fleet_of(seed: int) -> Deployment:
    """An Airflow whose laws are drawn by the seed, but for how long a container takes to start."""
    laws = replace(Laws.drawn(seed, "3"), start_seconds=START_SECONDS)
    fleet = Deployment(seed, laws=laws, parallelism=1000)
    fleet.files(2, 0.1)
    return fleet


def drawn(seed: int, laws: Laws) -> tuple[int, int]:
    """The workers' first limit and the task's size in MiB: too much for the limit, and not for 1.5 times that."""
    chance = random.Random(seed)  # noqa: S311 - a demo's numbers, not a secret
    limit = chance.randrange(760, 900)
    busy = laws.worker_base + laws.busy_slot + laws.warm_slot
    return limit, int(limit * chance.uniform(1.15, 1.3) - busy)


def quick_policy() -> dict[str, Any]:
    """The policy of the documentation, made quick; a virtual Airflow has no Celery broker."""
    policy: dict[str, Any] = yaml.safe_load(stage.POLICY.read_text())
    policy["spec"] |= stage.quick(datetime.now(UTC))
    policy["spec"]["metrics"] = {"windowSeconds": WINDOW}
    del policy["spec"]["celery"]
    return policy


def heal(airflow: VirtualAirflow, size: int) -> None:
    """The first act: a task that loads too much is killed, and its retry succeeds."""
    title(f"Act 1 (virtual): a run of the DAG {BIG}")
    before = limits(airflow)
    run = airflow.node.ask(
        lambda: airflow.fleet.trigger(BIG, 1, seconds=4.0, mebibytes=size, retries=20, retry_delay=6.0)
    )
    wait = stage.Watch(airflow.wait_until).until
    wait(lambda: bool(airflow.states(run).keys() & {"up_for_retry", "failed"}), "the first try has failed", 60)
    say("  The kernel killed the task's process, not the container: Kubernetes shows no restart and no event.")
    wait(lambda: limits(airflow).isdisjoint(before), f"the tuner has raised the limit of all {WORKERS} workers", 60)
    say(f"         limit before: {', '.join(before)}   limit now: {', '.join(limits(airflow))}, in place")
    wait(lambda: airflow.states(run).get("success") == 1, "the task's retry has succeeded", 60)
    restarts = {pod["status"]["containerStatuses"][0]["restartCount"] for pod in airflow.pods("worker")}
    say(f"  No worker was restarted (restarts: {', '.join(map(str, sorted(restarts)))}).")


def limits(airflow: VirtualAirflow) -> set[str]:
    """The memory limits in force in the workers."""
    states = [pod["status"]["containerStatuses"][0] for pod in airflow.pods("worker")]
    return {state["resources"]["limits"]["memory"] for state in states}


def _hurry_and_parse(airflow: VirtualAirflow) -> None:
    title(f"Act 2 (virtual): {TASKS} tasks of {TASK_SECONDS:.0f} s, and {WORKERS} workers with {SLOTS} slots")
    say(
        f"Act 3 (virtual), at the same time: {FILES} DAG files, each with {FILE_SECONDS} s of CPU in its top-level code"
    )
    old = {pod["metadata"]["name"] for component in ("worker", "dag-processor") for pod in airflow.pods(component)}
    (parser,) = (name for name in old if "dag-processor" in name)
    run = airflow.node.ask(lambda: airflow.fleet.trigger(SHORT, TASKS, seconds=TASK_SECONDS))
    airflow.node.ask(lambda: airflow.fleet.files(FILES, FILE_SECONDS, "slow"))
    wait = stage.Watch(airflow.wait_until).until
    wait(lambda: bool(changes(airflow, "SlotsExhausted")), "the tuner has decided about the workers", 90)
    show(textwrap.fill(changes(airflow, "SlotsExhausted")[0]["message"], 110))
    wait(lambda: bool(changes(airflow, "ParsingOverloaded")), "and about parsing", 90)
    show(textwrap.fill(changes(airflow, "ParsingOverloaded")[0]["message"], 110))
    before = cores(airflow, parser)
    say("  There is no Celery broker here, so slots wait for the next creation of each worker, as parsing does.")
    say("  Inside its window, and one pod at a time, the tuner evicts them:")
    wait(lambda: bool(reborn(airflow, "dag-processor", old)), "the dag-processor is born with its interval", 60)
    (new,) = reborn(airflow, "dag-processor", old)
    show(f"{new}: {variables(airflow, new)}")
    wait(
        lambda: len(reborn(airflow, "worker", old)) > 1,
        "two workers are born with slots and memory that fit each other",
        60,
    )
    first = reborn(airflow, "worker", old)[0]
    show(f"{first}: {variables(airflow, first)}")
    say("  The others are deleted by hand now, as a rollout would do; the API server gives the new ones the same.")
    rest = {pod["metadata"]["name"] for pod in airflow.pods("worker")} - set(reborn(airflow, "worker", old))
    airflow.kubectl("delete", "pod", "--wait=false", *sorted(rest))
    wait(
        lambda: len(reborn(airflow, "worker", old)) == WORKERS and airflow.ready(),
        f"all {WORKERS} workers have them",
        60,
    )
    wait(lambda: airflow.states(run).get("success") == TASKS, f"all {TASKS} tasks have succeeded", 90)
    wait(lambda: 0 < cores(airflow, new) < CORES, "the dag-processor's CPU has fallen", 90)
    say(f"         cores before: {before:.2f}   cores now: {cores(airflow, new):.2f}")


def changes(airflow: VirtualAirflow, reason: str) -> list[dict[str, Any]]:
    """The changes of the history for this reason, newest first."""
    return [item for item in airflow.policy_status().get("history", []) if item["reason"] == reason]


def reborn(airflow: VirtualAirflow, component: str, old: set[str]) -> list[str]:
    """Pods of a component that run and are not among the old ones."""
    names = [pod["metadata"]["name"] for pod in airflow.pods(component) if pod["status"]["phase"] == "Running"]
    return [name for name in names if name not in old]


def variables(airflow: VirtualAirflow, name: str) -> str:
    """What the operator has set in a pod's environment."""
    pod = json.loads(airflow.kubectl("get", "pod", name, "--output=json"))
    entries = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0].get("env", [])}
    return ", ".join(f"{name}={value}" for name, value in entries.items() if name.endswith(("INTERVAL", "AUTOSCALE")))


def cores(airflow: VirtualAirflow, pod: str) -> float:
    """Cores that the dag-processor in a pod takes; 0 when it is not known yet."""
    series = f'container_cpu_usage_seconds_total{{pod="{pod}",container="dag-processor"}}'
    found = airflow.prometheus.query(f"rate({series}[{WINDOW}s]) and count_over_time({series}[{WINDOW}s]) > 8")
    return float(found[0]["value"][1]) if found else 0.0


def _look(airflow: VirtualAirflow) -> None:
    title("$ kubectl get atp      (virtual)")
    show(airflow.kubectl("get", "atp"))
    title("$ kubectl describe atp airflow      (findings and history)")
    described = airflow.kubectl("describe", "atp", "airflow")
    show(section(described, "Findings") + section(described, "History"))
    title("$ kubectl events --for tuningpolicy/airflow")
    show(airflow.kubectl("events", "--for", "tuningpolicy.airflow-tuner.dev/airflow"))

"""The main job on one machine, seen: Airflow under docker compose, a task that does not fit, and the tuner beside it.

`make demo-docker` runs this: a Docker engine of its own (its own socket, data and containerd), real Airflow 3 with
Celery in containers with the service names of the official compose file, and `airflow-tuner run --backend docker`.
"""

import os
import random
import sys
import textwrap

from testbed import stage
from testbed.airflow_environment import CannotInstall
from testbed.commands import CommandFailed
from testbed.demo import DAG, drawn, last_words
from testbed.docker_airflow import DAG_PROCESSOR, PROJECT, WORKER, RealProject, docker_airflow
from testbed.docker_engine import what_is_missing
from testbed.docker_tuner import DockerTuner
from testbed.processes import ProgramFailed
from testbed.telling import say, show, title

MI = 2**20


def main() -> None:
    """Run the demo; exit with a sentence when it cannot."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1, 10_000))
    if missing := what_is_missing():
        sys.exit(f"make demo-docker: {missing}")
    try:
        _play(seed, keep=bool(os.environ.get("KEEP")))
    except (ProgramFailed, CommandFailed, CannotInstall) as error:
        sys.exit(f"make demo-docker: {error}")
    except KeyboardInterrupt:
        sys.exit("make demo-docker: stopped; everything was cleaned up.")


def _play(seed: int, *, keep: bool) -> None:
    limit, size = drawn(seed)
    say(f"airflow-tuner on Docker, seed {seed} (SEED={seed} make demo-docker plays the same again)")
    say(f"The worker's memory limit is {limit} MiB; a task will load {size} MiB at once. That cannot go well.")
    say("Starting a Docker engine of its own, PostgreSQL, Redis, and Airflow by docker-compose: about a minute.")
    services = {"airflow-apiserver": {}, "airflow-scheduler": {}, DAG_PROCESSOR: {}, WORKER: {"mem_limit": f"{limit}m"}}
    with docker_airflow(services) as real:
        engine = real.airflow.engine
        show(engine.docker("ps", "--format=table {{.Names}}\t{{.Status}}"))
        title("airflow-tuner run --backend docker --policy policy.json")
        spec = {"workers": [{"name": "*", "memory": {"min": "512Mi", "max": "4Gi"}}]}
        with DockerTuner(real.area, engine.home, engine.address, PROJECT, spec) as tuner:
            _heal(real, tuner, size)
            title("$ airflow-tuner status")
            show(tuner.command("status", "--state", str(tuner.state)))
            if keep:
                stage.wait_for_interrupt(f"export DOCKER_HOST={engine.address}")


def _heal(real: RealProject, tuner: DockerTuner, size: int) -> None:
    airflow = real.airflow
    airflow.wait_for_dag(DAG)
    before = airflow.container(WORKER)
    title(f"A run of the DAG {DAG}")
    run = airflow.trigger(DAG, {"mebibytes": size, "hold_seconds": 3})
    wait = stage.Watch(airflow.wait_until).until
    wait(
        lambda: any(one.state != "running" and one.end for one in airflow.task_tries(DAG, run)),
        "the first try has failed",
        180,
    )
    say("\n    the task's log, in Airflow:")
    show(last_words(airflow.log(DAG, run, "load", 1)))
    say("  The kernel killed the task's process, not the container: the engine restarts nothing.")
    wait(lambda: bool(tuner.events("Tuned")), "the tuner has raised the worker's limit, in place", 60)
    show(textwrap.fill(tuner.events("Tuned")[0]["message"], 110))
    wait(lambda: airflow.run_state(DAG, run) == "success", "the task's retry has succeeded", 240)
    show("\n".join(f"task {one.task_id}, try {one.try_number}: {one.state}" for one in airflow.task_tries(DAG, run)))
    after = airflow.container(WORKER)
    if (after["Id"], after["State"]["StartedAt"]) != (before["Id"], before["State"]["StartedAt"]):
        raise ProgramFailed("the worker did not live through it")
    sizes = (f"{item['HostConfig']['Memory'] // MI} MiB" for item in (before, after))
    say(f"  Limit {' -> '.join(sizes)}. The worker was not restarted.")


if __name__ == "__main__":
    main()

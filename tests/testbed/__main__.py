"""`python -m testbed`: a control plane and a Prometheus for people, in the background until they are told to stop."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
import psutil

from testbed import node
from testbed.cache import cache_folder
from testbed.commands import CommandFailed
from testbed.controlplane import ControlPlane
from testbed.processes import Area, ProgramFailed
from testbed.programs import RECIPES, BuildFailed, CannotBuild, build, program
from testbed.prometheus import Prometheus

NAME = "up"
UP_SECONDS = 120.0
DOWN_SECONDS = 60.0


@click.group(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Hold the commands together; the module's first line is what people see."""


@main.command()
def up() -> None:
    """Start a control plane and a Prometheus in the background, and say how to use them."""
    for sentence in Area.sweep():
        click.echo(sentence, err=True)
    if _state() is None:
        try:
            build(["control-plane", "prometheus"])
        except (CannotBuild, BuildFailed) as error:
            raise click.ClickException(str(error)) from error
        _start_holder()
    _describe()


@main.command()
def down() -> None:
    """Stop what `up` started, and remove what killed runs left and kept logs."""
    running = Area.living(NAME)
    for pid in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            holder = psutil.Process(pid)
            holder.terminate()
            try:
                holder.wait(DOWN_SECONDS)
            except psutil.TimeoutExpired:
                holder.kill()
                holder.wait(DOWN_SECONDS)
    left = [*Area.sweep(kept=True), *node.sweep()]
    for sentence in ["The testbed is stopped."] * bool(running) + left or ["No testbed was running."]:
        click.echo(sentence)


@main.command()
def status() -> None:
    """Say what runs, and where; exit code 1 when nothing does."""
    _describe()


@main.command()
def kubeconfig() -> None:
    """Print the path of the kubeconfig: export KUBECONFIG=$(python -m testbed kubeconfig)."""
    click.echo(_running()["kubeconfig"])


@main.command("build")
@click.argument("names", nargs=-1, type=click.Choice(list(RECIPES)))
def build_programs(names: Sequence[str]) -> None:
    """Build the named programs, or all of them, unless they are built already, and print their paths."""
    try:
        for name, path in build(names).items():
            click.echo(f"{name}  {path}")
    except (CannotBuild, BuildFailed) as error:
        raise click.ClickException(str(error)) from error


@main.command(hidden=True)
def hold() -> None:
    """Run the programs until SIGTERM: the background process of `up`."""
    signal.signal(signal.SIGTERM, _leave)
    area = Area(NAME)
    try:
        with ControlPlane(area) as plane, Prometheus(area, [plane.scrape_config()]) as prometheus:
            state = {
                "kubeconfig": str(plane.kubeconfig),
                "url": plane.url,
                "prometheus": prometheus.url,
                "programs": {part.name: part.pid for part in (*plane.programs, prometheus.program)},
            }
            fresh = area.path / "state.new"
            fresh.write_text(json.dumps(state))
            fresh.rename(area.path / "state.json")
            while True:
                time.sleep(3600)
    except (ProgramFailed, CommandFailed) as error:
        raise click.ClickException(str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        area.clean()


def _leave(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)


def _start_holder() -> None:
    log = cache_folder() / "run" / f"{NAME}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with log.open("wb") as output:
        holder = subprocess.Popen(
            [sys.executable, "-m", "testbed", "hold"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
    click.echo("Starting the control plane and Prometheus ...", err=True)
    deadline = time.monotonic() + UP_SECONDS
    while _state() is None:
        if holder.poll() is not None:
            raise click.ClickException(f"the testbed did not start:\n{log.read_text(errors='replace')}")
        if time.monotonic() > deadline:
            holder.terminate()
            raise click.ClickException(f"the testbed was not up after {UP_SECONDS:.0f} s; see {log}")
        time.sleep(0.1)


def _describe() -> None:
    state = _running()
    kubectl = f"{program('control-plane')} kubectl"
    click.echo(f"Kubernetes API  {state['url']}")
    click.echo(f"Prometheus      {state['prometheus']}")
    for name, pid in state["programs"].items():
        click.echo(f"  {name}: {f'runs as process {pid}' if psutil.pid_exists(pid) else 'has stopped'}")
    click.echo("To use it:")
    click.echo(f"  export KUBECONFIG={state['kubeconfig']}")
    click.echo(f"  alias kubectl='{kubectl}'")
    click.echo("`down` stops it.")


def _running() -> dict[str, Any]:
    state = _state()
    if state is None:
        raise click.ClickException("no testbed is running; `up` starts one")
    return state


def _state() -> dict[str, Any] | None:
    for folder in Area.living(NAME).values():
        with contextlib.suppress(FileNotFoundError):
            state: dict[str, Any] = json.loads((folder / "state.json").read_text())
            return state
    return None


if __name__ == "__main__":
    main(prog_name="python -m testbed")

"""The options of the commands that look at containers of a Docker engine, or run beside one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_tuner.settings import read_sources, source_at

if TYPE_CHECKING:
    from airflow_tuner.standalone import Place


def added(command: Callable[..., None]) -> Callable[..., None]:
    """The options that only a Docker engine needs."""
    options = (
        click.option(
            "--backend",
            type=click.Choice(["kubernetes", "docker"]),
            default="kubernetes",
            show_default=True,
            help="What Airflow runs on.",
        ),
        click.option(
            "--docker-host",
            envvar="DOCKER_HOST",
            default="unix:///var/run/docker.sock",
            show_default=True,
            help="Docker: the engine's address.",
        ),
        click.option(
            "--state",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Docker: the state file; else ~/.local/state/airflow-tuner/docker.sqlite.",
        ),
        click.option(
            "--broker-url-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Docker: file with the URL of the Celery broker.",
        ),
        click.option(
            "--database-url-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Docker: file with the URL of Airflow's metadata database, for one who may read it.",
        ),
    )
    return in_order(options, command)


def in_order(options: Sequence[Callable[..., Any]], command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options, which its help shows in their order."""
    for option in reversed(options):
        command = option(command)
    return command


def place(  # noqa: PLR0913, PLR0917 - one argument per option
    policy: Path | None,
    sources: Path | None,
    prometheus: str | None,
    docker_host: str,
    state: Path | None,
    broker_url_file: Path | None,
    database_url_file: Path | None,
    override_file: Path | None = None,
) -> "Place":
    """Where everything is, by these options; `UsageError` without a policy."""
    from airflow_tuner import standalone, store

    if policy is None:
        msg = "name the file with the TuningPolicy: --policy FILE of run, --file FILE of the others"
        raise click.UsageError(msg)
    known = read_sources(sources) if sources else {}
    if prometheus:
        known["default"] = source_at(prometheus)
    return standalone.Place(
        policy,
        docker_host,
        state or store.default_file(),
        known,
        broker=broker_url_file,
        database=database_url_file,
        override=override_file,
    )

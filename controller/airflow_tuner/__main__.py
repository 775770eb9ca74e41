"""The command line: `airflow-tuner run`, `diagnose`, `plan`, `explain`, `status`, `replay`, `simulate`, `crd`, ..."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from airflow_tuner import crd, docker_options, reference
from airflow_tuner.budget import PER_HOUR
from airflow_tuner.errors import Misconfigured, TunerError
from airflow_tuner.sentence import counted
from airflow_tuner.settings import Settings, read_apis, read_sources, source_at

if TYPE_CHECKING:
    from airflow_tuner.chronicle import Chronicle
    from airflow_tuner.reconcile import Look

NO_SOURCE = "No metrics source is asked: name one with --prometheus URL (of a port-forward, say) or --sources FILE."

STATED = (
    "What no metric says of a workload, as in worker/default=limit:2Gi,request:1Gi,slots:16; also cpu:1,cpu-limit:2, "
    "queues:a+b, and interval:30,processes:2 of a dag-processor; none where there is no limit or request. May be given "
    "several times."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="airflow-tuner")
def main() -> None:
    """Keep Apache Airflow out of memory trouble, within the bounds of one TuningPolicy."""


@main.command()
@docker_options.added
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Docker: file with the TuningPolicy; read again in each turn.",
)
@click.option("--prometheus", help="Docker: URL of the metrics source `default`.")
@click.option(
    "--override-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Docker: write what was decided to this file, e.g. docker-compose.override.yaml, for the next `up`.",
)
@click.option(
    "--sources",
    type=click.Path(path_type=Path),
    help="File of metrics sources: `sources: {default: {url: http://prometheus:9090}}`.",
)
@click.option("--namespace", "namespaces", multiple=True, help="Namespace to watch; may be given several times.")
@click.option("--all-namespaces", is_flag=True, help="Watch every namespace.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Outside of a cluster: how to reach it.")
@click.option(
    "--lease-namespace", envvar="POD_NAMESPACE", default="default", show_default=True, help="Where the Lease is."
)
@click.option("--identity", envvar="POD_NAME", help="Our name in the Lease; the pod's name in a cluster.")
@click.option("--health-port", type=int, help="Port of /healthz.")
@click.option("--metrics-port", type=int, help="Port of /metrics, its own for Prometheus.")
@click.option(
    "--changes-per-hour",
    type=click.IntRange(min=1),
    default=PER_HOUR,
    show_default=True,
    help="Ordinary changes within an hour, over all policies; answers to kills are not counted.",
)
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def run(  # noqa: PLR0913, PLR0917 - one argument per option
    sources: Path | None,
    namespaces: tuple[str, ...],
    all_namespaces: bool,
    kubeconfig: Path | None,
    lease_namespace: str,
    identity: str | None,
    health_port: int | None,
    metrics_port: int | None,
    changes_per_hour: int,
    log_level: str,
    backend: str,
    policy: Path | None,
    prometheus: str | None,
    **docker: Any,  # noqa: ANN401 - the options of a Docker engine
) -> None:
    """Run the operator until it is told to stop; beside a Docker engine with --backend docker --policy FILE."""
    if backend == "docker":
        from airflow_tuner import standalone

        standalone.log_to_stderr(log_level)
        try:
            place = docker_options.place(policy, sources, prometheus, **docker)
            asyncio.run(_until_stopped(lambda stop: standalone.run(place, stop)))
        except (TunerError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        return
    if sources is None:
        msg = "name a file of metrics sources: --sources FILE"
        raise click.UsageError(msg)
    if bool(namespaces) == all_namespaces:
        msg = "say what to watch: --namespace NAME (as often as needed) or --all-namespaces"
        raise click.UsageError(msg)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        settings = Settings(
            sources=read_sources(sources),
            apis=read_apis(sources),
            namespaces=namespaces,
            kubeconfig=kubeconfig,
            lease_namespace=lease_namespace,
            identity=identity or f"{socket.gethostname()}-{os.getpid()}",
            health_port=health_port,
            metrics_port=metrics_port,
            changes_per_hour=changes_per_hour,
        )
        # Heavy libraries load only in the command that needs them.
        from airflow_tuner import operator

        asyncio.run(_until_stopped(lambda stop: operator.run(settings, stop)))
    except Misconfigured as error:
        raise click.ClickException(str(error)) from error
    except TunerError as error:
        raise click.ClickException(str(error)) from error


async def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `work` until a signal sets its event."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(stop)


def _of_a_policy(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that look at one policy."""
    options = (
        click.option("--policy", "name", help="Name of the TuningPolicy; may be left out where there is only one."),
        click.option(
            "--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A policy that is not applied."
        ),
        click.option("-n", "--namespace", help="Namespace of the policy; else as --file says, else `default`."),
        click.option(
            "--kubeconfig",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="How to reach the cluster; else KUBECONFIG.",
        ),
        click.option("--sources", type=click.Path(path_type=Path), help="File of metrics sources, as for `run`."),
        click.option("--prometheus", help="URL of the metrics source `default`, e.g. of a port-forward."),
        click.option("--no-broker", is_flag=True, help="Do not ask the workers over the Celery broker."),
    )
    return docker_options.in_order(options, docker_options.added(command))


def _looked(  # noqa: PLR0913, PLR0917 - one argument per option
    name: str | None,
    file: Path | None,
    namespace: str | None,
    kubeconfig: Path | None,
    sources: Path | None,
    prometheus: str | None,
    no_broker: bool,
    backend: str,
    **docker: Any,  # noqa: ANN401 - the options of a Docker engine
) -> "Look":
    from airflow_tuner import plan

    try:
        if backend == "docker":
            from airflow_tuner import standalone

            if no_broker:
                docker["broker_url_file"] = None
            return asyncio.run(standalone.look_once(docker_options.place(file, sources, prometheus, **docker)))
        known = read_sources(sources) if sources else {}
        if prometheus:
            known["default"] = source_at(prometheus)
        if not known:
            click.echo(NO_SOURCE, err=True)
        apis = read_apis(sources) if sources else {}
        return asyncio.run(plan.look_once(kubeconfig, namespace, name, file, known, apis, broker=not no_broker))
    except (TunerError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@main.command("plan")
@_of_a_policy
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.option("--helm-values", is_flag=True, help="Print only a values file for the official Airflow chart.")
def plan_command(output: str, helm_values: bool, **where: Any) -> None:  # noqa: ANN401 - the options above
    """Print what one turn would do, without doing it."""
    from airflow_tuner import explain, helm

    told = _looked(**where)
    if helm_values:
        click.echo(helm.values(told.decision, told.seen.line).rstrip() or "# Nothing to change.")
    elif output == "table":
        click.echo(explain.plan(told.spec, told.seen, told.findings, told.decision, told.waiting))
    else:
        document = explain.document(told.status, told.decision, told.waiting)
        text = json.dumps(document, indent=2) if output == "json" else yaml.safe_dump(document, sort_keys=False)
        click.echo(text.rstrip())


@main.command("diagnose")
@_of_a_policy
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def diagnose_command(output: str, **where: Any) -> None:  # noqa: ANN401 - the options above
    """Print what is wrong, worst first, and what that rests on."""
    from airflow_tuner import report

    told = _looked(**where)
    if output == "json":
        click.echo(json.dumps(report.document(told.policy, told.seen, told.findings), indent=2))
    else:
        click.echo(report.text(told.policy, told.seen, told.findings))


@main.command("explain")
@click.argument("target")
@_of_a_policy
def explain_command(target: str, **where: Any) -> None:  # noqa: ANN401 - the options above
    """Print how the numbers of TARGET (e.g. worker/default, dag-processor, task-pods) come to be."""
    from airflow_tuner import explain, task_sizes

    told = _looked(**where)
    try:
        click.echo(explain.page(target, told.spec, told.seen, told.prior, told.decision, told.waiting))
    except KeyError as error:
        names = [item.workload.target for item in told.decision.targets]
        names += [] if told.spec.tasks is None else [task_sizes.TARGET]
        msg = f"The policy has no target {target}; it has: {', '.join(names) or 'none'}."
        raise click.ClickException(msg) from error


@main.command("status")
@click.option("--state", type=click.Path(path_type=Path, dir_okay=False), help="The state file, as for `run`.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status_command(state: Path | None, output: str) -> None:
    """Print what the tuner beside a Docker engine found and did, out of its state file."""
    from airflow_tuner import board, store

    file = state or store.default_file()
    try:
        if not file.exists():
            msg = f"There is no state file {file}: airflow-tuner run --backend docker makes it (--state)."
            raise Misconfigured(msg)
        with store.Store.copied(file) as kept:
            found, about = kept.document("status"), kept.document("policy")
        click.echo(json.dumps(found, indent=2) if output == "json" else board.text(found, about))
    except TunerError as error:
        raise click.ClickException(str(error)) from error


@main.command("replay")
@click.option("--policy", type=click.Path(path_type=Path), help="File with the TuningPolicy.")
@click.option("--from-prometheus", "url", help="URL of a Prometheus whose past is replayed, instead of standard input.")
@click.option("--since", default="14d", show_default=True, help="How far back, e.g. 14d or 36h.")
@click.option("--until", help="Where the past ends, e.g. 2026-11-28T12:00Z; else now.")
@click.option("--step", default="5m", show_default=True, help="Time between two looks, 30s to 1h.")
@click.option("-n", "--namespace", help="Namespace of the Airflow; else as the policy says.")
@click.option("--workload", "stated", multiple=True, help=STATED)
@click.option(
    "--token-file", type=click.Path(exists=True, dir_okay=False), help="File with a bearer token for the Prometheus."
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report to this file.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["summary", "decisions", "observations"]),
    default="summary",
    show_default=True,
    help="What to print of a Prometheus' past.",
)
@click.option("--schema", is_flag=True, help="Print the JSON schemas of a line that goes in and of one that comes out.")
@click.option("--reference", "page", is_flag=True, help="Print the fields of both as a Markdown page.")
def replay_command(
    policy: Path | None,
    url: str | None,
    html: Path | None,
    output: str,
    *,
    schema: bool,
    page: bool,
    **asked: Any,  # noqa: ANN401 - the other options above
) -> None:
    """Decide for observations: JSON lines on standard input, one decision for each on standard output.

    With --from-prometheus: for the past that a Prometheus has kept, with a summary, a report, or the same lines.
    """
    from airflow_tuner import form, policies, replay, transcript

    if schema or page:
        click.echo(form.rendered() if page else f"{json.dumps(transcript.schema(), indent=2)}\n", nl=False)
        return
    if policy is None:
        msg = "name a file with the TuningPolicy: --policy FILE"
        raise click.UsageError(msg)
    try:
        document = policies.read(policy, "default")
        if url is not None:
            asyncio.run(_look_back(document, url, html, output, **asked))
            return
        lines = (line.decode() for line in sys.stdin.buffer)
        for answer in replay.answers(document, lines, lambda told: click.echo(told, err=True)):
            _line(answer)
    except (TunerError, UnicodeDecodeError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # Nobody reads on: not even the interpreter may write at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def _look_back(  # noqa: PLR0913 - one argument per option
    document: dict[str, Any],
    url: str,
    html: Path | None,
    output: str,
    *,
    since: str,
    until: str | None,
    step: str,
    namespace: str | None,
    stated: tuple[str, ...],
    token_file: str | None,
) -> None:
    from airflow_tuner import digest, hindsight, traces, transcript

    _require_place(html)
    if namespace is not None:
        document["metadata"]["namespace"] = namespace
    back = hindsight.Hindsight(
        document,
        url,
        hindsight.times_of(since, step, until, datetime.now(UTC)),
        dict(traces.stated(text) for text in stated),
        lambda told: click.echo(told, err=True),
        token_file,
    )
    async for seen, came in back.turns():
        if output == "decisions":
            _line(transcript.answered(seen, came))
        elif output == "observations":
            _line(transcript.written(seen))
    click.echo(f"Prometheus was asked {counted(back.questions, 'question', 'questions')}.", err=True)
    if output == "summary":
        click.echo(digest.text(back.chronicle))
    _write_page(html, back.chronicle)


def _require_place(html: Path | None) -> None:
    """What takes minutes is not to fail at its end."""
    if html is not None and not (html.parent.is_dir() and os.access(html.parent, os.W_OK)):
        msg = f"--html {html}: {html.parent} is no folder that can be written to."
        raise Misconfigured(msg)


def _write_page(html: Path | None, told: "Chronicle") -> None:
    if html is None:
        return
    from airflow_tuner import page

    html.write_text(page.rendered(told), encoding="utf-8")
    click.echo(f"The report is in {html}.", err=True)


@main.command("simulate")
@click.argument("scenario", required=False)
@click.option("--seed", default=1, show_default=True, help="Another gives other tasks of the same kind.")
@click.option("--days", type=click.IntRange(min=1), help="So many scored days instead of the whole story.")
@click.option("--policy", type=click.Path(path_type=Path), help="File with a TuningPolicy; else one with wide bounds.")
@click.option("--memory", help="Memory of each worker at the beginning, e.g. 2Gi; else what a careful user sets.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report to this file, too.")
def simulate_command(
    scenario: str | None, seed: int, days: int | None, policy: Path | None, memory: str | None, html: Path | None
) -> None:
    """Tell day by day what the tuner does in SCENARIO, a story of an Airflow of 20 workers; without it, list them."""
    from airflow_tuner import policies, quantity, simulate
    from airflow_tuner.fleet.scenarios import SCENARIOS, shortened

    if scenario is None:
        click.echo("\n".join(f"{made.name:14} {made.told}" for made in SCENARIOS.values()))
        return
    if scenario not in SCENARIOS:
        msg = f"there is no scenario {scenario}; there are: {', '.join(SCENARIOS)}"
        raise click.UsageError(msg)
    story = SCENARIOS[scenario] if days is None else shortened(SCENARIOS[scenario], days)
    try:
        document = policies.read(policy, "default") if policy else simulate.parsed(simulate.POLICY)
        size = None if memory is None else quantity.parse(memory) // quantity.MEBIBYTE
        _require_place(html)
        told = simulate.chronicle_of(story, seed, document) if html else None
        click.echo(f"{story.told} {story.workers} workers with {story.slots} slots each.")
        for day in simulate.days(story, seed, document, lambda said: click.echo(said, err=True), size, told):
            click.echo(simulate.told(day, story))
        if told is not None:
            _write_page(html, told)
    except (Misconfigured, ValueError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


@main.command("crd")
@click.option("--check", type=click.Path(path_type=Path), help="Fail if a file of this folder differs.")
@click.option("--write", type=click.Path(path_type=Path, file_okay=False), help="Write one file each to this folder.")
def custom_resource_definitions(check: Path | None, write: Path | None) -> None:
    """Print the custom resource definitions."""
    texts = {f"{plural}.yaml": crd.rendered(plural) for plural in crd.DEFINITIONS}
    for name, text in texts.items():
        if write is not None:
            (write / name).write_text(text)
        elif check is not None:
            _print_or_compare(text, check / name)
    if write is None and check is None:
        click.echo("---\n".join(texts.values()), nl=False)


@main.command("reference")
@click.option("--check", type=click.Path(path_type=Path), help="Fail if this file differs from what is generated.")
def policy_reference(check: Path | None) -> None:
    """Print the fields of TuningPolicy as a Markdown page."""
    _print_or_compare(reference.rendered(), check)


def _print_or_compare(text: str, check: Path | None) -> None:
    if check is None:
        click.echo(text, nl=False)
    elif not check.exists() or check.read_text() != text:
        msg = f"{check} differs from the models in airflow_tuner/api: run `make crd` and commit the result"
        raise click.ClickException(msg)


if __name__ == "__main__":
    main()

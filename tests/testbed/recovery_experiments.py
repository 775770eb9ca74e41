"""What `make prove` measures about an operator that dies in the middle of a turn."""

from collections import Counter
from collections.abc import Callable
from time import monotonic, sleep

from testbed import deaths, operator_process
from testbed.controlplane import ControlPlane
from testbed.operator_process import NAMESPACE, RELEASE
from testbed.played_airflow import PlayedAirflow, played_airflow
from testbed.processes import Area, ProgramFailed
from testbed.programs import build
from testbed.prometheus import Prometheus
from testbed.telling import say

RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "700Mi"}}
TURNS_AFTERWARDS = 3


def all_deaths() -> str:
    """An operator killed with kill -9 before and after each call of the turn that answers an out-of-memory kill."""
    build(("control-plane", "helm", "prometheus"))
    area = Area("deaths")
    try:
        with ControlPlane(area) as plane, Prometheus(area, []) as prometheus:
            operator_process.install_chart(plane, prometheus.url)
            account = plane.kubeconfig_for_service_account(NAMESPACE, RELEASE, area.path / "account.kubeconfig")

            def turn(airflow: PlayedAirflow, point: str) -> tuple[int, tuple[str, ...]]:
                return deaths.turn(airflow, account, point, prometheus.url)

            with played_airflow(plane, "whole") as airflow:
                _kill(airflow, turn)
                calls = turn(airflow, "never")[1]
            points = [f"{when}:{number}" for number in range(1, len(calls) + 1) for when in ("before", "after")]
            ends = [_end(plane, turn, point, calls[int(point.partition(":")[2]) - 1]) for point in points]
    finally:
        area.clean()
    return _page(calls, ends)


Turn = Callable[[PlayedAirflow, str], tuple[int, tuple[str, ...]]]


def _kill(airflow: PlayedAirflow, turn: Turn) -> None:
    """A worker that was seen once, and was then killed for memory; ready for a turn."""
    airflow.deploy("worker", 1, RESOURCES)
    deadline = monotonic() + 20
    while not airflow.pods():
        if monotonic() > deadline:
            raise ProgramFailed("the worker's pod did not come")
        sleep(0.1)
    airflow.run_all()
    airflow.policy()
    turn(airflow, "never")
    airflow.kill(airflow.pods()[0])


def _end(plane: ControlPlane, turn: Turn, point: str, call: str) -> tuple[str, str, str]:
    """(when, call, what was found in the end: `as wanted`, or what differs)."""
    for attempt in range(3):
        with played_airflow(plane, f"death-{point.replace(':', '-')}-{attempt}") as airflow:
            _kill(airflow, turn)
            died, _ = turn(airflow, point)
            for _ in range(TURNS_AFTERWARDS):
                turn(airflow, "never")
            found = deaths.outcome(airflow)
        if died == deaths.KILLED:
            break
    else:
        raise ProgramFailed(f"the operator never came to {point}, {call}")
    how = "as wanted" if found == deaths.WANTED else str(found)
    say(f"{point:12} {call:70} {how}")
    return point.partition(":")[0], call, how


def _page(calls: tuple[str, ...], ends: list[tuple[str, str, str]]) -> str:
    found = Counter(how for _, _, how in ends)
    rows = [f"| {number} | {_short(call)} |" for number, call in enumerate(calls, start=1)]
    wrong = [f"* {when} `{call}`: {how}" for when, call, how in ends if how != "as wanted"]
    return (
        "A worker of 700 MiB was killed for memory. The turn that answers it runs in a process of its own, with the\n"
        "chart's rights; a switch at our ports to Kubernetes and Prometheus kills it with SIGKILL before a call is\n"
        f"sent, or after it was answered. {TURNS_AFTERWARDS} turns of new processes follow. Wanted each time: the\n"
        "limit in the spec is 1050 MiB; one entry in the history of the status and of the checkpoint; one Event, told\n"
        "once. The questions to Prometheus are asked at the same time.\n\n"
        f"{len(ends)} deaths; {', '.join(f'{count} {how}' for how, count in found.most_common())}.\n\n"
        + "\n".join([*wrong, "" * bool(wrong), "| | call |", "|---|---|", *rows])
    )


def _short(call: str) -> str:
    """Without the namespace's name, which says nothing."""
    return call.replace("/namespaces/whole/", "/namespaces/NAMESPACE/")

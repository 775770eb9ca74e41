"""The chart as a folder, and as the objects Helm makes of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.commands import run
from testbed.programs import program

Object = dict[str, Any]
Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def chart() -> Path:
    """Returns the folder of the chart."""
    return Path(__file__).parents[2] / "charts" / "airflow-tuner"


@pytest.fixture(scope="session")
def helm_without_cluster(needs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Call it with arguments (and `values`): Helm's answer, with no cluster and none of the user's folders."""
    needs("helm")
    home = tmp_path_factory.mktemp("helm")
    folders = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}

    def ask(*args: str | Path, values: Mapping[str, Any] | None = None) -> str:
        return run([program("helm"), *args, "--values=-"], input=yaml.safe_dump(values or {}), env=folders)

    return ask


@pytest.fixture(scope="session")
def render(chart: Path, helm_without_cluster: Callable[..., str]) -> Render:
    """Call it with values: the objects of a release `tuner` in the namespace `operators`."""

    def objects(values: Mapping[str, Any] | None = None, kubernetes: str = "v1.36.3") -> list[Object]:
        argv = ["template", "tuner", chart, "--namespace=operators", f"--kube-version={kubernetes}"]
        text = helm_without_cluster(*argv, values=values)
        return [item for item in yaml.safe_load_all(text) if item]

    return objects

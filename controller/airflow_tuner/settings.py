"""What the operator is told at its start: flags, and the file of metrics sources."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from airflow_tuner.budget import PER_HOUR
from airflow_tuner.errors import Misconfigured

FORM = "sources: {default: {url: http://prometheus:9090}}"


class _Server(BaseModel):
    """A server the operator may ask."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
    like: ClassVar[str]
    """Whose address it is, and what such a one looks like."""

    url: str
    timeout_seconds: float = Field(default=10, gt=0, le=60)

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        if not _is_address(url):
            raise ValueError(cls.like)
        return url.rstrip("/")


class Source(_Server):
    """A Prometheus the operator may ask. Whoever writes a policy can choose one by name, and no other address."""

    like = "a metrics source's url must be like http://prometheus.monitoring:9090"
    bearer_token_file: Path | None = None


class Api(_Server):
    """An Airflow's REST API that policies of one namespace may name; no other address."""

    like = "an Airflow's url must be like http://airflow-api-server.airflow:8080"
    namespace: str
    credentials: Path | None = None
    """Folder with the files `username` and `password`; absent: none are sent."""


class _Sources(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sources: dict[str, Source]
    apis: dict[str, Api] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """How one operator process runs."""

    sources: dict[str, Source]
    namespaces: tuple[str, ...]
    """Namespaces that are watched; empty: all."""
    kubeconfig: Path | None
    lease_namespace: str
    identity: str
    """Who we are in the Lease; the pod's name."""
    health_port: int | None
    metrics_port: int | None = None
    """Where it tells Prometheus of itself."""
    changes_per_hour: int = PER_HOUR
    """Ordinary changes that it makes at most, over all policies."""
    apis: dict[str, Api] = field(default_factory=dict)


def source_at(url: str) -> Source:
    """The metrics source at an address of the command line."""
    if not _is_address(url):
        msg = f"--prometheus {url}: it must be like http://127.0.0.1:9090."
        raise Misconfigured(msg)
    return Source(url=url)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0 and not parts.query + parts.fragment


def read_sources(file: Path) -> dict[str, Source]:
    """The metrics sources of a file; `Misconfigured` says what is wrong in it."""
    return _read(file).sources


def read_apis(file: Path) -> dict[str, Api]:
    """The REST APIs of the same file."""
    return _read(file).apis


def read_url(file: Path, whose: str, option: str) -> str:
    """The URL that a file holds, a secret; `Misconfigured` where it cannot be read. `whose`: e.g. `the broker`."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"The file {file} with {whose}'s URL cannot be read ({option}).") from error


def _read(file: Path) -> _Sources:
    try:
        return _Sources.model_validate(yaml.safe_load(file.read_text()))
    except OSError as error:
        msg = f"The file of metrics sources {file} cannot be read: {error.strerror}. Give another one with --sources."
        raise Misconfigured(msg) from error
    except (yaml.YAMLError, ValueError) as error:
        msg = f"Mend the file of metrics sources {file}, of the form `{FORM}`: {_told(error)}."
        raise Misconfigured(msg) from error


def _told(error: Exception) -> str:
    """What is wrong and where, without what stands there: it may be a secret."""
    if isinstance(error, ValidationError):
        parts = (
            (".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors()
        )
        return "; ".join(f"{where or 'the file'}: {what}" for where, what in parts)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"it is not YAML at line {error.problem_mark.line + 1} ({error.problem})"
    return "it is not YAML in UTF-8"

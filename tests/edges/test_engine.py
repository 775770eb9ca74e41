"""The Docker engine's API as it answers: versions, refusals, silence."""

import asyncio
import json

import pytest

from airflow_tuner.engine import Engine, Gone
from airflow_tuner.errors import Misconfigured, Refused, TunerError, Unavailable
from edges.servers import Server, serving

VERSION = json.dumps({"ApiVersion": "1.44", "MinAPIVersion": "1.24"})


def address(server: Server) -> str:
    """The server as an engine."""
    return server.url.replace("http://", "tcp://")


def asked(server: Server, status: int, body: str) -> TunerError:
    """What becomes of an answer to a question."""

    async def ask() -> None:
        async with Engine(address(server)) as engine:
            server.status, server.body = status, body
            await engine.get("/containers/a/json")

    with pytest.raises(TunerError) as error:
        asyncio.run(ask())
    return error.value


def test_the_newest_version_that_both_speak_is_spoken() -> None:
    for told, spoken in (("1.41", "1.41"), ("1.44", "1.44"), ("1.99", "1.51")):
        with serving(json.dumps({"ApiVersion": told, "MinAPIVersion": "1.24"})) as server:

            async def ask(server: Server) -> None:
                async with Engine(address(server)) as engine:
                    await engine.get("/info")

            asyncio.run(ask(server))
            assert server.asked[-1][0] == f"/v{spoken}/info"


@pytest.mark.parametrize("told", [{"ApiVersion": "1.40"}, {"ApiVersion": "1.70", "MinAPIVersion": "1.60"}, {}])
def test_an_engine_of_another_time_is_told(told: dict[str, str]) -> None:
    async def greet(server: Server) -> None:
        async with Engine(address(server)):
            pass

    with serving(json.dumps(told)) as server, pytest.raises(Misconfigured, match=r"does not speak version 1\.41"):
        asyncio.run(greet(server))


def test_a_refusal_is_told_in_the_engines_words() -> None:
    with serving(VERSION) as server:
        error = asked(server, 500, json.dumps({"message": "unable to set memory limit"}))
    assert isinstance(error, Refused)
    assert str(error).endswith("with 500: unable to set memory limit")


def test_a_container_that_is_gone_is_no_other_refusal() -> None:
    with serving(VERSION) as server:
        assert isinstance(asked(server, 404, "{}"), Gone)


@pytest.mark.parametrize("status", [502, 503])
def test_a_proxy_without_an_engine_is_tried_again(status: int) -> None:
    with serving(VERSION) as server:
        assert isinstance(asked(server, status, "<html>"), Unavailable)


def test_an_answer_that_is_no_json_is_none() -> None:
    with serving(VERSION) as server:
        assert isinstance(asked(server, 200, "<html>"), Unavailable)


@pytest.mark.parametrize("text", ["/var/run/docker.sock", "unix://", "ssh://host", "tcp://", ""])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(Misconfigured, match="is no address of a Docker engine"):
        Engine(text)

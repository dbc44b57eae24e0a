"""What a running process says of its parts; an agent's figures are in test_samples."""

import socket

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fabric.cli.page import read_parts
from fabric.config_web import WebConfig
from fabric.model.errors import Malformed, Reason, UnavailableError
from fabric.web.server import serving


def at(port: int) -> WebConfig:
    return WebConfig.model_validate({"listen": f"127.0.0.1:{port}"})


async def test_a_process_that_is_not_ready_says_its_parts() -> None:
    parts = {"ledger": "overloaded: no room", "clock": None}
    async with serving(CollectorRegistry(), lambda: parts) as port:
        assert await read_parts(at(port)) == parts


async def test_where_no_port_is_named_nobody_is_asked() -> None:
    assert await read_parts(at(0)) is None


async def test_nobody_there_is_told_and_so_is_somebody_else() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match="does not answer") as caught:
            await read_parts(at(held.getsockname()[1]))
    assert caught.value.reason is Reason.NOT_READY

    async def another(_request: web.Request) -> web.Response:
        return web.json_response(["nothing", "of", "ours"])

    app = web.Application()
    app.router.add_get("/readyz", another)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with pytest.raises(Malformed, match="no process of the fabric"):
            await read_parts(at(runner.addresses[0][1]))
    finally:
        await runner.cleanup()

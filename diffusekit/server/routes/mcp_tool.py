"""Pictures as a tool that assistants call: the Model Context Protocol at /mcp, over streamable HTTP.

Its one tool, `generate`, takes the fields of `GenerateSettings` and goes through the queue as all work does.
The package `mcp` speaks the protocol, and is imported only here, when it is asked for. Knows no page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...errors import DiffusekitError, UsageError
from ...settings import GenerateSettings
from ...version import __version__
from ..jobs.job import Job

if TYPE_CHECKING:
    from ..jobs.queue import Jobs

log = logging.getLogger(__name__)
PATH = "/mcp"
HEADERS = ["Mcp-Protocol-Version", "Mcp-Session-Id"]  # that assistants in other web pages send
_OWN = {"batch", "device", "dtype"}  # the server's choice
_SAYS = "Make pictures of a prompt; every setting but the prompt may be left out."
Tell = Callable[[Job], Awaitable[None]]


def check_installed() -> None:
    """Raises `UsageError` without the package that speaks the protocol."""
    if find_spec("mcp") is None:
        raise UsageError("mcp needs a package that is not installed", "pip install 'diffusekit[mcp]'")


def add_tool(app: FastAPI, jobs: Jobs) -> None:
    """Put the tool on an application, to live as long as it does."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    manager = StreamableHTTPSessionManager(_server(jobs), stateless=True)
    before = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with before(app) as state, manager.run():
            yield state

    app.router.lifespan_context = lifespan
    # POST alone: without sessions there is nothing to listen for with GET, or to end with DELETE
    app.router.routes.append(Route(PATH, _Endpoint(manager.handle_request), methods=["POST"]))


class _Endpoint:
    """An ASGI application for a route, which would take a function for one of a request."""

    def __init__(self, handle: Callable[[Scope, Receive, Send], Awaitable[None]]):
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handle(scope, receive, send)


def _server(jobs: Jobs) -> Any:
    from mcp import types
    from mcp.server.lowlevel import Server

    server: Any = Server("diffusekit", __version__)

    @server.list_tools()
    async def tools() -> list[types.Tool]:
        schema = await asyncio.to_thread(_schema, jobs)
        hints = types.ToolAnnotations(destructiveHint=False, openWorldHint=False)
        tool = types.Tool(name="generate", description=_SAYS, inputSchema=schema, annotations=hints)
        return [tool]

    @server.call_tool(validate_input=False)  # the settings say what is wrong, in one sentence
    async def call(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        async def tell(job: Job) -> None:
            context = server.request_context
            token = context.meta.progressToken if context.meta else None
            if token is not None and job.steps:
                await context.session.send_progress_notification(
                    token, job.step, job.steps, related_request_id=str(context.request_id)
                )

        def result(said: str, pictures: list[str], *, wrong: bool = False) -> types.CallToolResult:
            shown = [types.ImageContent(type="image", data=data, mimeType="image/png") for data in pictures]
            content = [*shown, types.TextContent(type="text", text=said)]
            return types.CallToolResult(content=content, isError=wrong)

        try:
            if name != "generate":
                raise UsageError(f"there is no tool {name[:60]!r}", "there is generate")
            job = await _made(jobs, arguments, tell)
            return result(_said(job), await asyncio.to_thread(_pictures, jobs, job))
        except DiffusekitError as error:
            return result("; ".join(filter(None, (error.message, error.hint))), [], wrong=True)
        except Exception as error:
            log.exception("a call of the tool failed")
            return result(f"unexpected: {type(error).__name__}; please report it", [], wrong=True)

    return server


async def _made(jobs: Jobs, settings: Mapping[str, Any], tell: Tell) -> Job:
    """The job when it is over; it is cancelled when the assistant goes away first."""
    from .responses import raise_if_failed

    job, ended = await jobs.submit_async("generate", settings, owner="mcp"), False
    try:
        async with contextlib.aclosing(jobs.watch_async(job.id, previews=False)) as events:
            async for event in events:
                if event.is_last:
                    ended = True
                    return raise_if_failed(event)
                await tell(event.job)
        raise AssertionError("events end with the last one")
    finally:
        if not ended:
            jobs.cancel(job.id)


def _said(job: Job) -> str:
    """Which pictures came of a job, and how to have them again."""
    there = ", ".join(f"/outputs/{name}" for name in job.pictures) or "no picture"
    stopped = "" if job.state == "done" else "; it was stopped"
    return f"{there}; seed {job.settings['seed']}, model {job.settings['model']}{stopped}"


def _pictures(jobs: Jobs, job: Job) -> list[str]:
    """The finished pictures as base64 of their PNG files."""
    return [base64.b64encode((jobs.outputs / name).read_bytes()).decode() for name in job.pictures]


def _schema(jobs: Jobs) -> dict[str, Any]:
    """What the tool takes, as JSON schema."""
    fields = GenerateSettings.model_json_schema()["properties"]
    taken = {
        name: {key: value for key, value in field.items() if key not in ("flags", "title")}
        for name, field in fields.items()
        if name not in _OWN
    }
    taken["model"] |= {"enum": list(jobs.models()), "default": jobs.settings.model}
    taken["embedding"]["description"] = "Learned tokens that the prompt uses, by their names."
    return {
        "type": "object",
        "properties": taken,
        "required": ["prompt"],
        "additionalProperties": False,
    }

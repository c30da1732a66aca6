"""Image generation as a tool for assistants: the Model Context Protocol at /mcp, over streamable HTTP.

The only tool, `generate`, takes the fields of `GenerateSettings` and submits a job. The package `mcp` implements the
protocol. It is imported only here, and only with the setting `mcp`.
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
from .requests import spell_fields

if TYPE_CHECKING:
    from ..jobs.queue import Jobs

log = logging.getLogger(__name__)
PATH = "/mcp"
HEADERS = ["Mcp-Protocol-Version", "Mcp-Session-Id"]  # that assistants in other web pages send
_SERVER_SETTINGS = {"batch", "device", "dtype", "attention", "memory"}
_DESCRIPTION = "Generate images from a prompt. All settings except the prompt are optional."


def check_installed() -> None:
    """Raise `UsageError` if the package `mcp` is not installed."""
    if find_spec("mcp") is None:
        raise UsageError("`mcp` needs a package that is not installed", "pip install 'diffusekit[mcp]'")


def add_tool(app: FastAPI, jobs: Jobs) -> None:
    """Add the tool to an application, for as long as the application runs."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    manager = StreamableHTTPSessionManager(_server(jobs), stateless=True)
    before = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with before(app) as state, manager.run():
            yield state

    app.router.lifespan_context = lifespan
    # Only POST: without sessions there is nothing to listen to with GET, or to end with DELETE.
    app.router.routes.append(Route(PATH, _Endpoint(manager.handle_request), methods=["POST"]))


class _Endpoint:
    """An ASGI application as an object, because a route takes a function for a request handler."""

    def __init__(self, handle: Callable[[Scope, Receive, Send], Awaitable[None]]):
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handle(scope, receive, send)


def _server(jobs: Jobs) -> Any:
    from mcp import types
    from mcp.server.lowlevel import Server

    server: Any = Server("diffusekit", __version__)

    @server.list_tools()
    async def list_tools() -> list[types.Tool]:
        schema = await asyncio.to_thread(_input_schema, jobs)
        hints = types.ToolAnnotations(destructiveHint=False, openWorldHint=False)
        return [types.Tool(name="generate", description=_DESCRIPTION, inputSchema=schema, annotations=hints)]

    @server.call_tool(validate_input=False)  # the settings say what is wrong, in one sentence
    async def call_tool(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        images: list[str] = []
        is_error = True
        try:
            if name != "generate":
                raise UsageError(f"unknown tool {name[:60]!r}", "the only tool is generate")
            job = await _generate(jobs, arguments, server.request_context)
            images, text = await asyncio.to_thread(_encode_images, jobs, job), _describe(job, _root_path(server))
            is_error = False
        except DiffusekitError as error:
            text = "; ".join(filter(None, (error.message, error.hint)))
        except Exception as error:
            log.exception("a call of the tool failed")
            text = f"unexpected: {type(error).__name__}; please report it"
        content = [types.ImageContent(type="image", data=data, mimeType="image/png") for data in images]
        return types.CallToolResult(content=[*content, types.TextContent(type="text", text=text)], isError=is_error)

    return server


async def _generate(jobs: Jobs, settings: Mapping[str, Any], context: Any) -> Job:
    """Run a job and report its progress; it is cancelled when the assistant goes away first."""
    from .responses import finish

    token = context.meta.progressToken if context.meta else None

    async def report(job: Job) -> None:
        if token is not None and job.steps:
            await context.session.send_progress_notification(
                token, job.step, job.steps, related_request_id=str(context.request_id)
            )

    return await finish(jobs, await jobs.submit_async("generate", settings, owner="mcp"), report)


def _root_path(server: Any) -> str:
    """The path of this server below a reverse proxy, for the present request."""
    request = server.request_context.request
    return request.scope.get("root_path", "") if request is not None else ""


def _describe(job: Job, root_path: str) -> str:
    """The images of a job, and how to generate them again."""
    paths = ", ".join(f"{root_path}/outputs/{name}" for name in job.pictures) or "no image"
    stopped = "" if job.state == "done" else "; the job was stopped"
    warnings = "".join(f"; warning: {sentence}" for sentence in spell_fields(job.warnings, {}))
    return f"{paths}; seed {job.settings['seed']}, model {job.settings['model']}{stopped}{warnings}"


def _encode_images(jobs: Jobs, job: Job) -> list[str]:
    """The image files of a job in base64."""
    return [base64.b64encode((jobs.outputs / name).read_bytes()).decode() for name in job.pictures]


def _input_schema(jobs: Jobs) -> dict[str, Any]:
    """The settings that the tool takes, as JSON schema."""
    fields = GenerateSettings.model_json_schema()["properties"]
    properties = {
        name: {key: value for key, value in field.items() if key not in ("flags", "title")}
        for name, field in fields.items()
        if name not in _SERVER_SETTINGS
    }
    properties["model"] |= {"enum": list(jobs.models.names()), "default": jobs.models.default_title}
    properties["embedding"]["description"] = "Names of learned tokens that the prompt uses."
    properties["lora"]["description"] = "LoRA files of the server with their strengths, like ink:0.8."
    return {
        "type": "object",
        "properties": properties,
        "required": ["prompt"],
        "additionalProperties": False,
    }

"""The whole server as one ASGI application: routes, error handlers, security middleware.

What is mounted on the application later, as the web page is, is behind the same middleware.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware

from ..settings import ServeSettings
from ..version import __version__
from . import errors
from .jobs.queue import Jobs
from .proxy import ProxyMiddleware, ProxyPolicy
from .routes import a1111, health, mcp_tool, openai_edits, openai_images
from .routes import jobs as job_routes
from .security import SecurityMiddleware, SecurityPolicy
from .storage.gallery import Gallery

ERROR_BODIES: errors.ErrorBodies = {"/sdapi/": a1111.error_body, "/v1/": openai_images.error_body}


def build(settings: ServeSettings, jobs: Jobs, *, upload_paths: tuple[str, ...] = ()) -> FastAPI:
    """Build the application over opened `jobs`.

    `upload_paths` are the beginnings of paths, of what will be mounted, that take other bodies than JSON.
    Raises `UsageError` for settings that would leave the server open.
    """
    policy = SecurityPolicy.from_settings(settings, upload_paths)
    # FastAPI's documentation pages load scripts from other hosts, so only /openapi.json is served.
    # FastAPI would also send traces to other hosts if the environment said so.
    silent: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    app = FastAPI(title="diffusekit", version=__version__, docs_url=None, redoc_url=None, telemetry=silent)
    errors.add_handlers(app, ERROR_BODIES)
    app.include_router(health.router(jobs))
    if not settings.no_api:
        gallery = Gallery(jobs.outputs)
        for api in (openai_images, openai_edits, a1111):
            app.include_router(api.router(jobs))
        app.include_router(job_routes.router(jobs, gallery))
    if settings.mcp:
        mcp_tool.add_tool(app, jobs)
    app.add_middleware(SecurityMiddleware, policy=policy, error_bodies=ERROR_BODIES, check_capacity=jobs.check_capacity)
    if settings.allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origin,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", *mcp_tool.HEADERS],
            expose_headers=[a1111.WARNINGS_HEADER],
        )
    app.add_middleware(ProxyMiddleware, policy=ProxyPolicy.from_settings(settings), error_bodies=ERROR_BODIES)
    return app

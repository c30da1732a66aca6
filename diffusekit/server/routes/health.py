"""Health and metrics: is the server alive, is it ready, and how busy is it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from ..jobs.job import FINAL_STATES
from ..jobs.queue import Jobs


def router(jobs: Jobs) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process responds."""
        return {"status": "ok"}

    @routes.get("/readyz")
    async def ready() -> Response:
        """A model is in memory and jobs are accepted."""
        return JSONResponse({"ready": jobs.is_ready}, 200 if jobs.is_ready else 503)

    @routes.get("/metrics")
    def metrics() -> Response:
        """Queue, images and memory in Prometheus' text format."""
        return PlainTextResponse(_metrics(jobs), media_type="text/plain; version=0.0.4")

    return routes


def _metrics(jobs: Jobs) -> str:
    """Name, kind, description, and values by label."""
    statistics = jobs.statistics
    rows: list[tuple[str, str, str, dict[str, float]]] = [
        ("jobs_queued", "gauge", "Jobs that wait.", {"": jobs.queue_length}),
        ("jobs_running", "gauge", "Jobs that run.", {"": int(jobs.running_job is not None)}),
        (
            "jobs_total",
            "counter",
            "Jobs that ended, by how.",
            {f'{{state="{state}"}}': statistics.jobs[state] for state in FINAL_STATES},
        ),
        ("pictures_total", "counter", "Finished images.", {"": float(statistics.images)}),
        ("work_seconds_total", "counter", "Seconds the worker was busy.", {"": statistics.busy_seconds}),
        ("seconds_per_picture", "gauge", "Mean since the start.", {"": statistics.seconds_per_image}),
        ("memory_bytes", "gauge", "Memory in use, by where.", _memory()),
        ("threads", "gauge", "Threads of the process.", {"": threading.active_count()}),
    ]
    lines: list[str] = []
    for name, kind, description, values in rows:
        full = f"diffusekit_{name}"
        lines += [f"# HELP {full} {description}", f"# TYPE {full} {kind}"]
        lines += [f"{full}{label} {value}" for label, value in values.items()]
    return "\n".join(lines) + "\n"


def _memory() -> dict[str, float]:
    """Resident memory of the process, and what torch has allocated on a CUDA device."""
    import torch

    memory: dict[str, float] = {}
    if (statm := Path("/proc/self/statm")).exists():
        pages = int(statm.read_text().split()[1])
        memory['{where="process"}'] = pages * os.sysconf("SC_PAGE_SIZE")
    elif sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory['{where="process"}'] = peak * (1 if sys.platform == "darwin" else 1024)
    if torch.cuda.is_available():
        memory['{where="cuda"}'] = torch.cuda.memory_allocated()
    return memory

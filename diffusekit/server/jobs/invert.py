"""The invert job: training in a child process, followed through its log.

The child saves a checkpoint and stops when its end of a pipe closes: because the job was cancelled, or because the
server has gone. A job that is started again continues from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from ... import atomic, embeddings
from ...errors import DiffusekitError, UsageError
from ...inversion.run_folder import RunFolder
from ...settings import InvertSettings, ServeSettings, validate
from ..models import ServerModels
from ..storage import uploads
from .context import JobContext

log = logging.getLogger(__name__)
CLIENT_SETTINGS = (
    "name",
    "token",
    "init",
    "start",
    "property",
    "captions",
    "vectors",
    "steps",
    "learning_rate",
    "batch",
    "norm_bound",
    "pull",
    "crops",
    "flip",
    "preview",
    "preview_every",
    "preview_images",
    "preview_size",
    "patience",
    "checkpoint_every",
    "seed",
    "model",
)
SERVER_SETTINGS = ("folder", "device", "dtype", "attention")  # in a checked job, which may be checked again
LIMITS = {"vectors": 16, "batch": 16, "crops": 16}
POLL_INTERVAL = 0.1  # seconds between looks at the log
TIMEOUT = 60.0  # seconds a run has to save its checkpoint
SIGNAL_CODES = (130, 143, -2, -15)  # exit codes of a run that a signal stopped
# A thread sees the end of the pipe and interrupts as Ctrl-C does, so the child never outlives the server.
CHILD_CODE = """
import _thread, os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), _thread.interrupt_main()), daemon=True).start()
from diffusekit.cli.main import main
main()
"""


class TrainingFailed(DiffusekitError):
    """The training process ended without a token."""

    def __init__(self, code: int, message: str, hint: str):
        super().__init__(message, hint)
        self.exit_code = code


def check(values: Mapping[str, Any], server: ServeSettings) -> dict[str, Any]:
    """Check `InvertSettings` against the limits of the server; `pictures` is the id of an uploaded set.

    `resume` continues a stopped run of that name. Device and precision are the server's. Raises `UsageError` that
    begins with the field's name.
    """
    given = {name: value for name, value in values.items() if value is not None and name not in SERVER_SETTINGS}
    resume, pictures = given.pop("resume", False), given.pop("pictures", "")
    if not isinstance(resume, bool):
        raise UsageError("resume must be true or false")
    if refused := next((name for name in InvertSettings.model_fields if name in given.keys() - CLIENT_SETTINGS), None):
        raise UsageError(f"{refused} is the server's choice", "leave it out")
    folder = uploads.find_folder(Path(server.state), pictures if isinstance(pictures, str) else "")
    settings = validate(InvertSettings, {"model": server.model} | given)
    _check_limits(settings, server)
    _check_names(settings, Path(server.embeddings), resume=resume)
    return settings.model_dump(mode="json", include=set(CLIENT_SETTINGS), exclude_none=True) | {
        "device": server.device,
        "dtype": "auto" if server.dtype == "float16" else server.dtype,
        "attention": server.attention,
        "model": ServerModels(server).resolve(settings.model),
        "pictures": pictures,
        "folder": str(folder),
        "resume": resume,
    }


def _check_limits(settings: InvertSettings, server: ServeSettings) -> None:
    for name, limit in {"steps": server.max_training_steps, **LIMITS}.items():
        if (value := getattr(settings, name)) > limit:
            raise UsageError(f"{name} is {value:,}, and this server allows {limit:,}", "ask for less")
    if (settings.preview_size or 0) ** 2 > server.max_pixels:
        raise UsageError(
            f"preview_size is {settings.preview_size:,}, and this server allows {server.max_pixels:,} pixels",
            "ask for less",
        )
    init = settings.init or ""
    if Path(init).name != init or init.endswith(embeddings.ENDINGS):  # files of the server are not for its clients
        raise UsageError(f"init {init[:60]!r} is a path", "give words, or the name of a learned token like <my_cat>")
    if settings.preview and len(settings.preview) > server.max_prompt:
        raise UsageError(f"preview is longer than {server.max_prompt:,} characters", "shorten it")


def _check_names(settings: InvertSettings, folder: Path, *, resume: bool) -> None:
    """Check name and token, and that the name is free or that of a run to resume."""
    name = settings.name or ""
    if error := embeddings.name_error(name):
        raise UsageError(f"name {name[:60]!r} {error}", f"for example {embeddings.safe_name(name or 'my_cat')}")
    if error := embeddings.token_error(settings.token):
        raise UsageError(f"token {settings.token!r} {error}", "for example S* or <my-cat>")
    run = RunFolder(folder, name)
    if run.has_token:
        raise UsageError(f"name {name!r} is taken by a learned token", "choose another name, or remove that token")
    if run.has_progress and not resume:
        raise UsageError(f"name {name!r} is taken by an unfinished run", "resume it, or choose another name")


def run(context: JobContext) -> Generator[None]:
    """Train in a child process and report progress; on shutdown it saves a checkpoint first."""
    values = dict(context.job.settings)
    images, steps = Path(values["folder"]), values["steps"]
    output = context.embeddings.resolve()
    folder = RunFolder(output, values["name"])
    files = images.parent.parent / "learning" / context.job.id
    recipe = atomic.write_atomic(files.with_suffix(".toml"), format_recipe(values, images).encode())
    yield from _wait_for_lock(folder, context)
    with training_process(recipe, output, files.with_suffix(".err")) as child:
        while child.poll() is None:
            _report(context, folder, steps)
            yield
            time.sleep(POLL_INTERVAL)
        yield from wait_for_signal(child.returncode)
    _report(context, folder, steps)
    if child.returncode or not folder.has_token:
        raise _failure(child.returncode, files.with_suffix(".err"))
    recipe.unlink(missing_ok=True)
    files.with_suffix(".err").unlink(missing_ok=True)


def _wait_for_lock(folder: RunFolder, context: JobContext) -> Generator[None]:
    """Wait for the child of an earlier server, which may still be saving."""
    end = time.monotonic() + TIMEOUT
    while folder.is_locked and time.monotonic() < end:
        context.set_note("waiting for another process in this folder")
        yield
        time.sleep(POLL_INTERVAL)


def wait_for_signal(code: int) -> Generator[None]:
    """Wait for our own signal if the whole process group was signalled, so that the job is requeued, not failed."""
    end = time.monotonic() + TIMEOUT
    while code in SIGNAL_CODES and time.monotonic() < end:
        yield
        time.sleep(POLL_INTERVAL)


def _report(context: JobContext, folder: RunFolder, steps: int) -> None:
    log = folder.read_log()
    if not log.entries:
        context.set_note("evaluating the initial words")
    elif not log.step:
        context.set_note("training starts")
    elif log.step != context.job.step or not context.job.steps:
        context.report_progress(log.step, steps)
    context.show_preview(folder.latest_images)


@contextlib.contextmanager
def training_process(recipe: Path, output: Path, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `diffusekit invert` as a child process; at the end ask it to save a checkpoint, and wait for it."""
    arguments = ["invert", str(recipe.resolve()), "--output", str(output), "--resume", "--json", "--quiet"]
    package = Path(__file__).parents[3]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    private = ("DIFFUSEKIT_", "GRADIO_")  # settings and keys of the server alone
    environment = {k: v for k, v in os.environ.items() if not k.startswith(private)}
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD_CODE, *arguments],
            env=environment | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # Ctrl+C in a terminal is for the server, which then requeues the job
        )
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                log.warning("the training process does not stop, so it is killed")
                child.kill()
                child.wait()


def format_recipe(values: Mapping[str, Any], folder: Path) -> str:
    """Settings as TOML; the path of the images is relative to a folder beside theirs."""
    fields = {name: value for name, value in values.items() if name in InvertSettings.model_fields}
    fields["pictures"] = f"../{folder.parent.name}/{folder.name}"
    return "".join(f"{name} = {_toml(value)}\n" for name, value in fields.items())


def _toml(value: Any) -> str:
    """JSON of a plain value, which is TOML too but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _failure(code: int, errors: Path) -> TrainingFailed:
    """The error that a failed process printed."""
    try:
        lines = errors.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for i in reversed(range(len(lines))):
        if lines[i].startswith("error: "):
            hint = lines[i + 1] if i + 1 < len(lines) else ""
            return TrainingFailed(code, lines[i].removeprefix("error: ")[:500], hint.removeprefix("hint: ")[:500])
    if lines:
        log.error("training ended with code %s: %s", code, lines[-1])
    return TrainingFailed(code if code > 0 else 1, f"the training process ended with code {code}", "resume the run")

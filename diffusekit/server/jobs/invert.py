"""The kind of job that learns a token: training in a process of its own, watched through its log.

The process stops by itself, everything saved, when its end of a pipe closes: because somebody cancels, or
because the server is gone. A job that is begun again goes on where the run's checkpoints end. Knows no page.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ... import atomic, embeddings
from ...errors import DiffusekitError, UsageError
from ...inversion import run_story
from ...inversion.run_story import Story
from ...settings import InvertSettings, ServeSettings, validate
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
    "patience",
    "checkpoint_every",
    "seed",
    "model",
)
LIMITS = {"vectors": 16, "batch": 16, "crops": 16}
POLL_INTERVAL = 0.1  # seconds between looks at the log
TIMEOUT = 60.0  # seconds a run has to save itself
SIGNAL_CODES = (130, 143, -2, -15)  # a run that was stopped from outside ends with one of these
# The thread sees the end of the pipe and interrupts as Ctrl-C does; it never outlives the process.
_CODE = """
import _thread, os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), _thread.interrupt_main()), daemon=True).start()
from diffusekit.cli.main import main
main()
"""


class TrainingFailed(DiffusekitError):
    """The process that learns ended without a token; it says why."""

    def __init__(self, code: int, message: str, hint: str):
        super().__init__(message, hint)
        self.exit_code = code


def check(values: Mapping[str, Any], rules: ServeSettings, model_of: Callable[[str], str]) -> dict[str, Any]:
    """`InvertSettings` within what the server allows; `pictures` is the id of an uploaded set.

    `resume` goes on with a run of that name that was stopped; device and precision are the server's.
    `model_of` gives the name for `load` of a
    model that may be asked for. Raises `UsageError` that begins with the field's name.
    """
    given = {name: value for name, value in values.items() if value is not None}
    resume, pictures = given.pop("resume", False), given.pop("pictures", "")
    for name in (
        "folder",
        "device",
        "dtype",
    ):  # the server's, as in the job whose settings these are again
        given.pop(name, None)
    if not isinstance(resume, bool):
        raise UsageError("resume must be true or false")
    own = [name for name in InvertSettings.model_fields if name not in CLIENT_SETTINGS]
    if refused := next((name for name in own if name in given), None):
        raise UsageError(f"{refused} is not for clients to choose", "leave it out")
    folder = uploads.find_folder(Path(rules.state), pictures if isinstance(pictures, str) else "")
    settings = validate(InvertSettings, {"model": rules.model} | given)
    for name, limit in {"steps": rules.max_training_steps, **LIMITS}.items():
        if (wanted := getattr(settings, name)) > limit:
            raise UsageError(f"{name} is {wanted:,}, and this server allows {limit:,}", "ask for less")
    if settings.preview and len(settings.preview) > rules.max_prompt:
        raise UsageError(f"preview is longer than {rules.max_prompt:,} characters", "shorten it")
    if fault := embeddings.name_error(settings.name or ""):
        wanted = embeddings.safe_name(settings.name or "my_cat")
        raise UsageError(f"name {(settings.name or '')[:60]!r} {fault}", f"for example {wanted}")
    if fault := embeddings.token_error(settings.token):
        raise UsageError(f"token {settings.token!r} {fault}", "for example S* or <my-cat>")
    _check_free(Path(rules.embeddings, str(settings.name)), resume=resume)
    plain = settings.model_dump(mode="json", include=set(CLIENT_SETTINGS), exclude_none=True)
    device = {"device": rules.device, "dtype": "auto" if rules.dtype == "float16" else rules.dtype}
    kept = {"model": model_of(settings.model), "pictures": pictures, "folder": str(folder)}
    return plain | device | kept | {"resume": resume}


def _check_free(run: Path, *, resume: bool) -> None:
    taken = Story(run)
    if taken.done:
        raise UsageError(
            f"name {run.name!r} is taken: there is a learned token of that name",
            "choose another name, or remove that token first",
        )
    if taken.begun and not resume:
        raise UsageError(
            f"name {run.name!r} is that of a run which is not finished",
            "resume it, or choose another name",
        )


def run(work: JobContext) -> Generator[None]:
    """Let a process learn, and tell how it goes; when it is put down, it saves itself first."""
    values = dict(work.job.settings)
    folder, steps = Path(values["folder"]), values["steps"]
    output = work.embeddings.resolve()
    told = folder.parent.parent / "learning" / work.job.id
    recipe = atomic.write_atomic(told.with_suffix(".toml"), _recipe(values, folder).encode())
    yield from _wait_for_lock(output / values["name"], work)
    with _training_process(recipe, output, told.with_suffix(".err")) as child:
        while child.poll() is None:
            _report(work, Story(output / values["name"]), steps)
            yield
            time.sleep(POLL_INTERVAL)
        yield from _wait_for_signal(child.returncode)
    _report(work, Story(output / values["name"]), steps)
    if child.returncode or not (output / f"{values['name']}.safetensors").is_file():
        raise _failure(child.returncode, told.with_suffix(".err"))
    recipe.unlink(missing_ok=True)
    told.with_suffix(".err").unlink(missing_ok=True)


def _wait_for_lock(folder: Path, work: JobContext) -> Generator[None]:
    """The process of an earlier server may still be saving."""
    end = time.monotonic() + TIMEOUT
    while (folder / ".lock").exists() and time.monotonic() < end:
        try:
            with FileLock(folder / ".lock", timeout=0):
                return
        except Timeout:
            work.note("waiting for another process in this folder")
            yield
            time.sleep(POLL_INTERVAL)


def _wait_for_signal(code: int) -> Generator[None]:
    """Who ends a whole group of processes ends us too, in a moment: then the run is to go on later."""
    end = time.monotonic() + TIMEOUT
    while code in SIGNAL_CODES and time.monotonic() < end:
        yield
        time.sleep(POLL_INTERVAL)


def _report(work: JobContext, now: Story, steps: int) -> None:
    if not now.entries:
        work.note("looking at what the words to start from draw")
    elif not now.step:
        work.note("training starts")
    elif now.step != work.job.step or not work.job.steps:
        work.report_progress(now.step, steps)
    work.show_preview(lambda: run_story.shown(now))


@contextlib.contextmanager
def _training_process(recipe: Path, output: Path, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`diffusekit invert` in a process; it is asked to save itself, and waited for, at the end."""
    words = [
        "invert",
        str(recipe.resolve()),
        "--output",
        str(output),
        "--resume",
        "--json",
        "--quiet",
    ]
    package = Path(__file__).parents[3]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    hidden = ("DIFFUSEKIT_", "GRADIO_")  # settings and keys that are the server's alone
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    with errors.open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, *words],
            env=environment | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # Ctrl+C in a terminal is for the server, which then puts the job down
        )
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                log.warning("the process that learns does not stop; it is ended")
                child.kill()
                child.wait()


def _recipe(values: Mapping[str, Any], folder: Path) -> str:
    """Settings as TOML; the pictures relative to a folder beside theirs."""
    fields = {name: value for name, value in values.items() if name in InvertSettings.model_fields}
    fields["pictures"] = f"../{folder.parent.name}/{folder.name}"
    return "".join(f"{name} = {_toml(value)}\n" for name, value in fields.items())


def _toml(value: Any) -> str:
    """JSON of a plain value, which TOML reads too but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _failure(code: int, errors: Path) -> TrainingFailed:
    """What a process that failed had to say."""
    try:
        lines = errors.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for i in reversed(range(len(lines))):
        if lines[i].startswith("error: "):
            hint = lines[i + 1] if i + 1 < len(lines) else ""
            return TrainingFailed(code, lines[i].removeprefix("error: ")[:500], hint.removeprefix("hint: ")[:500])
    if lines:
        log.error("learning ended with code %s: %s", code, lines[-1])
    return TrainingFailed(code if code > 0 else 1, f"the process that learns ended with code {code}", "resume it")

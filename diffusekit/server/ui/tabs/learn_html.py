"""HTML of the Learn tab: the uploaded images, the estimated duration, the state and the charts of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from .... import images
from ....charts import Line, line_chart
from ....display import format_duration
from ....embeddings import key_suffix
from ....errors import DiffusekitError
from ....inversion.dataset import FileStatus
from ....inversion.run_folder import RunFolder, RunLog
from ...jobs.job import Job
from ...storage.uploads import UploadedSet
from ..html import render_table, to_data_url

SIDE = 72  # pixels of an image in the table
MINI_STEP = 0.3  # seconds that a step of mini takes on two processor cores, at a batch size of 4
WELCOME = (
    '<div class="empty-run"><strong>Teach the model a new word for a subject or a style.</strong><ol>'
    "<li>Upload three to five images of one subject, in different surroundings.</li>"
    "<li>Give the token a name, and choose the word where training starts.</li>"
    "<li>Press Learn. Follow the validation images, and stop when you like them.</li></ol>"
    "<p>The model itself is not changed. The result is one new token, a file of a few kilobytes.</p></div>"
)


def render_uploads(uploaded: UploadedSet) -> str:
    """The table of the uploaded files, and what was done with each."""
    paths = iter(sorted(uploaded.folder.glob("*.png")))
    rows = "".join(_render_file(status, next(paths) if status.used else None) for status in uploaded.files)
    captions = sum(bool(caption) for caption in uploaded.captions)
    caption = f"{uploaded.count} images" + (f", {captions} with a caption" if captions else "")
    return (
        f'<div class="photos"><table><caption>{caption}</caption>'
        "<thead><tr><th scope=col>Image</th><th scope=col>File</th><th scope=col>Size</th>"
        f"<th scope=col>Status</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _render_file(status: FileStatus, path: Path | None) -> str:
    image = f'<img src="{escape(_thumbnail(path))}" alt="">' if path else ""
    note = status.note or "used" if status.used else f"not used: {status.note}"
    return (
        f"<tr{'' if status.used else ' class=skipped'}><td>{image}</td><td>{escape(status.file)}</td>"
        f"<td>{escape(status.size)}</td><td>{escape(note)}</td></tr>"
    )


def _thumbnail(path: Path) -> str:
    try:
        with images.open_image(path) as opened:
            image = images.crop_square(images.to_rgb(opened), SIDE)
    except (DiffusekitError, OSError):
        image = Image.new("RGB", (SIDE, SIDE), "gray")
    return to_data_url(image)


def estimate_duration(jobs: Sequence[Job], model: str, steps: int, batch: int) -> str:
    """How long training will take, from the last run of the model on this machine."""
    for job in jobs:
        duration = (job.finished or 0) - (job.started or 0)
        if _is_comparable(job, model) and duration > 0:
            each = duration / job.step * batch / job.settings["batch"]
            return f"About {format_duration(each * steps)}, estimated from the last run."
    if model == "mini":
        return f"About {format_duration(MINI_STEP * steps * batch / 4)} on two processor cores."
    return "The duration is known after the first steps."


def _is_comparable(job: Job, model: str) -> bool:
    is_whole = job.kind == "invert" and job.state == "done" and not job.settings.get("resume")
    return is_whole and job.settings.get("model") == model and job.step > 0


def render_estimate(jobs: Sequence[Job], model: str, steps: int, batch: int) -> str:
    return f'<p class="estimate">{escape(estimate_duration(jobs, model, steps, batch))}</p>'


def render_state(run: RunFolder, job: Job | None, ahead: int, seconds_left: float | None = None) -> str:
    """The progress bar and the status line of a run."""
    fraction = _fraction(run, job)
    value = "" if fraction is None else f' value="{fraction:.4f}"'
    is_idle = job is None or job.is_finished
    bar = "" if fraction is None and is_idle else f'<progress max="1"{value} aria-label="progress"></progress>'
    status = escape(_status(run, job, ahead, seconds_left))
    return f'<div class="run-state">{bar}<span role="status">{status}</span></div>'


def _fraction(run: RunFolder, job: Job | None) -> float | None:
    if run.has_token:
        return 1.0
    return job.progress if job is not None and job.state == "running" and job.steps else None


def _status(run: RunFolder, job: Job | None, ahead: int, seconds_left: float | None) -> str:
    if run.has_token:
        best = run.read_log().best.get("step")
        saved = f" The vectors of step {best} scored best and were saved." if best else ""
        return f"Learned. Write <{run.name}> in a prompt.{saved}"
    if job is not None and job.state == "queued":
        return "In the queue" + (f": {ahead} jobs before this one." if ahead > 1 else ".")
    if job is not None and job.state == "running":
        return f"{job.note.capitalize()} …" if job.note else _training_status(job, seconds_left)
    if job is not None and job.failure:
        hint = f" {job.failure.hint.capitalize()}." if job.failure.hint else ""
        return f"Training failed: {job.failure.message}.{hint}"
    if run.has_progress:
        return f"Stopped at step {run.read_log().step}. The checkpoint is saved, so the run can be resumed."
    return "Not started." if job is None else "Stopped before the first step."


def _training_status(job: Job, seconds_left: float | None) -> str:
    left = f" · {format_duration(seconds_left)} left" if seconds_left else ""
    return f"Step {job.step} of at most {job.steps}{left}. Other jobs wait until training is finished."


def render_details(log: RunLog, steps: int) -> str:
    """Charts of the loss and the scores over `steps`, and a table of the vectors."""
    latest, baseline = log.latest, log.baseline
    if not latest:
        return ""
    scores = [
        Line(measure, log.curve(measure), [("of the init words", baseline[measure])] if measure in baseline else [])
        for measure in ("reconstruction", "editability")
    ]
    charts = line_chart("Loss", [Line("loss", log.curve("smoothed"))], subtitle="smoothed", x_max=steps)
    charts += line_chart("Scores", scores, subtitle="similarity by CLIP", x_max=steps)
    rows = {
        "Nearest words": _per_encoder(latest, "nearest"),
        "Distance from the start": _per_encoder(latest, "moved", " norms of the start"),
        "Norm of the vectors": _per_encoder(latest, "norm"),
        "Best step": str(log.best.get("step", "")),
        "Learning rate": _per_encoder(latest, "learning_rate"),
    }
    return f'<div class="charts">{charts}</div>{render_table(rows)}'


def _per_encoder(entry: Mapping[str, object], key: str, unit: str = "") -> str:
    """A measure of the vectors for each text encoder. SDXL has two."""
    values = [_format(entry.get(f"{key}{key_suffix(encoder)}")) for encoder in range(2)]
    text = " | ".join(value for value in values if value)
    return f"{text}{unit}" if text else ""


def _format(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, (int, float)) else ""

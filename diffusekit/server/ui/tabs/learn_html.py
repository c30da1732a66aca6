"""What the Learn tab says, as escaped HTML: the table of pictures, how a run goes, what came of it.

Knows no components.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from .... import images
from ....charts import Line, line_chart
from ....display import format_duration
from ....errors import DiffusekitError
from ....inversion.dataset import FileStatus
from ....inversion.run_folder import RunFolder, RunLog
from ...jobs.job import Job
from ...storage.uploads import UploadedSet
from ..html import render_table, to_data_url

SIDE = 72  # pixels of a picture in the table
ALONE = 0.3  # seconds a step of mini takes on two processor cores
WELCOME = (
    '<div class="empty-run"><strong>Teach the model a thing of yours.</strong><ol>'
    "<li>Drop three to five pictures of one thing, in different places.</li>"
    "<li>Give it a name, and say in a word what it is.</li>"
    "<li>Press Learn. Watch the previews come closer, and stop when you like them.</li></ol>"
    "<p>Nothing of the model is changed: what is learned is one new word, a file of a few kilobytes.</p></div>"
)


def render_uploads(found: UploadedSet) -> str:
    """The table of a set: each file, and what became of it."""
    shown = iter(sorted(found.folder.glob("*.png")))
    rows = "".join(_row(row, next(shown) if row.used else None) for row in found.files)
    lines = sum(bool(caption) for caption in found.captions)
    told = f"{found.count} pictures" + (f", {lines} with a caption" if lines else "")
    return (
        f'<div class="photos"><table><caption>{told}</caption>'
        "<thead><tr><th scope=col>Picture</th><th scope=col>File</th><th scope=col>Size</th>"
        f"<th scope=col>What was done</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(row: FileStatus, path: Path | None) -> str:
    image = f'<img src="{escape(_small(path))}" alt="">' if path else ""
    note = row.note or ("used as it is" if row.used else "")
    note = note if row.used else f"not used: {note}"
    return (
        f"<tr{'' if row.used else ' class=skipped'}><td>{image}</td><td>{escape(row.file)}</td>"
        f"<td>{escape(row.size)}</td><td>{escape(note)}</td></tr>"
    )


def _small(path: Path) -> str:
    try:
        with images.open_image(path) as opened:
            picture = images.crop_square(images.to_rgb(opened), SIDE)
    except (DiffusekitError, OSError):
        picture = Image.new("RGB", (SIDE, SIDE), "gray")
    return to_data_url(picture)


def estimate_duration(jobs: Sequence[Job], model: str, steps: int, batch: int) -> str:
    """How long learning will take, by what it took before on this machine."""
    for job in jobs:
        took = (job.finished or 0) - (job.started or 0)
        told = job.settings
        if (
            job.kind == "invert"
            and job.state == "done"
            and told.get("model") == model
            and not told.get("resume")
            and job.step
            and took > 0
        ):
            each = took / job.step * batch / told["batch"]
            return f"About {format_duration(each * steps)}, as the last one took here."
    if model == "mini":
        return f"About {format_duration(ALONE * steps * batch / 4)} on two processor cores."
    return "How long it takes is known after the first steps."


def render_estimate(jobs: Sequence[Job], model: str, steps: int, batch: int) -> str:
    """`estimate` as it stands on the page."""
    return f'<p class="estimate">{escape(estimate_duration(jobs, model, steps, batch))}</p>'


def render_state(run: RunFolder, job: Job | None, ahead: int, left: float | None = None) -> str:
    """Where a run is: the bar and a line of words."""
    share, words = None, "This run is not going on."
    if run.has_token:
        share, words = 1.0, _done(run)
    elif job is not None and job.state == "queued":
        words = "Waits for its turn" + (f": {ahead} before it." if ahead > 1 else ".")
    elif job is not None and job.state == "running":
        share = job.progress if job.steps else None
        words = f"{job.note.capitalize()} …" if job.note else _going(job, left)
    elif job is not None and job.failure:
        words = f"It failed: {job.failure.message}."
        words += f" {job.failure.hint.capitalize()}." if job.failure.hint else ""
    elif run.has_progress:
        words = f"Stopped at step {run.read_log().step}. Everything is saved; it can be resumed."
    elif job is not None:
        words = "Stopped before anything was learned."
    value = "" if share is None else f' value="{share:.4f}"'
    idle = job is None or job.is_finished
    bar = "" if share is None and idle else f'<progress max="1"{value} aria-label="progress"></progress>'
    return f'<div class="run-state">{bar}<span role="status">{escape(words)}</span></div>'


def _going(job: Job, left: float | None) -> str:
    more = f" · {format_duration(left)} left" if left else ""
    return f"Step {job.step} of at most {job.steps}{more}. Other work waits until it is done."


def _done(run: RunFolder) -> str:
    best = run.read_log().best.get("step")
    kept = f" The vectors of step {best} were the best, and kept." if best else ""
    return f"Learned. Write <{run.name}> in a prompt.{kept}"


def render_details(log: RunLog, steps: int) -> str:
    """Charts of the loss and the scores, and what is known of the vectors."""
    latest, baseline = log.latest, log.baseline
    if not latest:
        return ""
    scores = [
        Line(measure, log.curve(measure), [("of the init words", baseline[measure])] if measure in baseline else [])
        for measure in ("reconstruction", "editability")
    ]
    charts = line_chart("Loss", [Line("loss", log.curve("smoothed"))], subtitle="smoothed", x_max=steps)
    charts += line_chart("Scores", scores, subtitle="similarity by CLIP", x_max=steps)
    near = latest.get("nearest")
    rows = {
        "Nearest words": ", ".join(map(str, near)) if isinstance(near, list) else "",
        "Distance from the start": _number(latest.get("moved"), " norms of the start"),
        "Norm of the vectors": _number(latest.get("norm"), ""),
        "Best step": str(log.best.get("step", "")),
        "Learning rate": _number(latest.get("learning_rate"), ""),
    }
    return f'<div class="charts">{charts}</div>{render_table(rows)}'


def _number(value: object, unit: str) -> str:
    return f"{value:.3g}{unit}" if isinstance(value, (int, float)) else ""

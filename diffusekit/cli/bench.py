"""`diffusekit bench`: benchmarks against diffusers, and of our own options, in the same process."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from ..display import format_size
from .progress import quiet_libraries

app = typer.Typer(help="Benchmark against diffusers in the same process.", no_args_is_help=True)

Model = Annotated[str, typer.Option("--model", help="mini, a folder, or a Hugging Face id.")]
Device = Annotated[str, typer.Option("--device", help="Device: auto, cpu, cuda, cuda:1, mps or xpu.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Precision: auto, float32, float16 or bfloat16.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("invert")
def invert_command(
    model: Model = "mini",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Batch size.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=4, help="Timed steps of each.")] = 40,
    clip_table: Annotated[
        bool, typer.Option("--clip-table", help="Use random weights and a token table as large as CLIP's.")
    ] = False,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="Precision: float32 or bfloat16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Time textual inversion against diffusers' algorithm."""
    with quiet_libraries():
        from .. import bench

        timings = bench.invert(model, batch=batch, steps=steps, clip_table=clip_table, device=device, dtype=dtype)
    if as_json:
        print(json.dumps({**vars(timings), "ratio": round(timings.ratio, 3)}))
        return
    sides = (
        ("diffusekit", timings.ours, timings.our_memory),
        ("diffusers (our rewrite)", timings.reference, timings.reference_memory),
    )
    rows = [(name, f"{1 / s:.2f}", f"{s * 1000:.1f}", format_size(memory)) for name, s, memory in sides]
    _print_table(("", "steps/s", "ms/step", "trained memory"), rows)
    print("trained memory: the trained table with its gradient and optimizer state")
    print(f"ratio {timings.ratio:.2f}, median of {timings.steps} steps each, batch {batch}")


@app.command("visualise")
def visualise_command(
    model: Model = "mini",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps.")] = 20,
    images: Annotated[int, typer.Option("--images", "--pictures", min=4, help="Timed images of each.")] = 12,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Time generation plain, recorded, and with attention maps."""
    with quiet_libraries():
        from .. import bench

        timings = bench.visualise(model, steps=steps, pictures=images, device=device, dtype=dtype)
    if as_json:
        print(json.dumps(vars(timings)))
        return
    sides = (("plain", timings.plain), ("recorded", timings.recorded), ("with attention maps", timings.attended))
    rows = [(name, f"{seconds:.3f}", f"{seconds / timings.plain - 1:.1%}") for name, seconds in sides]
    _print_table(("", "s/image", "extra time"), rows)
    print(f"median of {timings.pictures} images each, {steps} steps")


@app.command("fast")
def fast_command(
    model: Annotated[str, typer.Option("--model", help="mini, or a folder with a few-step LoRA.")] = "mini",
    images: Annotated[int, typer.Option("--images", "--pictures", min=8, help="Timed images of each.")] = 12,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Time generation with default settings and with --fast."""
    with quiet_libraries():
        from .. import bench

        timings = bench.fast(model, pictures=images, device=device, dtype=dtype)
    if as_json:
        print(json.dumps({**vars(timings), "ratio": round(timings.ratio, 3)}))
        return
    rows = [("20 steps with guidance", f"{timings.plain:.3f}"), ("--fast", f"{timings.fast:.3f}")]
    _print_table(("", "s/image"), rows)
    print(f"ratio {timings.ratio:.2f}, median of {timings.pictures} images each, decoding included")


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their titles: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    for first, *others in (titles, *rows):
        cells = (f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))
        print("  ".join((f"{first:<{widths[0]}}", *cells)))

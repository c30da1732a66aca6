"""`diffusekit bench`: how fast, beside diffusers' own algorithms in the same run."""

import json
from typing import Annotated

import typer

from ..display import format_size
from .progress import quiet_libraries

app = typer.Typer(help="How fast, beside diffusers, in one run.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command("invert")
def invert_command(
    model: Annotated[str, typer.Option("--model", help="mini, a folder, or a hub id.")] = "mini",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures per step.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=4, help="Timed steps of each.")] = 40,
    clip_table: Annotated[
        bool, typer.Option("--clip-table", help="Random weights, and a token table of CLIP's size.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="float32 or bfloat16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Textual inversion, steps per second, beside the algorithm of diffusers' example script."""
    with quiet_libraries():
        from .. import bench

        found = bench.invert(model, batch=batch, steps=steps, clip_table=clip_table, device=device, dtype=dtype)
    if as_json:
        print(json.dumps({**vars(found), "ratio": round(found.ratio, 3)}))
        return
    print(f"{'':<28}{'steps/s':>9}{'ms/step':>9}  trained, with gradient and optimizer")
    rows = (
        ("diffusekit", found.ours, found.our_memory),
        (
            "diffusers' script, anew",
            found.reference,
            found.reference_memory,
        ),
    )
    for name, seconds, memory in rows:
        print(f"{name:<28}{1 / seconds:>9.2f}{seconds * 1000:>9.1f}  {format_size(memory)}")
    print(f"ratio {found.ratio:.2f}, median of {found.steps} steps each, batch {batch}")


@app.command("visualise")
def visualise_command(
    model: Annotated[str, typer.Option("--model", help="mini, a folder, or a hub id.")] = "mini",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps.")] = 20,
    pictures: Annotated[int, typer.Option("--pictures", min=4, help="Timed pictures of each.")] = 12,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What watching costs: pictures plain, recorded, and with every word's map taken."""
    with quiet_libraries():
        from .. import bench

        found = bench.visualise(model, steps=steps, pictures=pictures, device=device, dtype=dtype)
    if as_json:
        print(json.dumps(vars(found)))
        return
    print(f"{'':<28}{'s/picture':>10}{'more':>8}")
    rows = ("plain", found.plain), ("recorded", found.recorded), ("with attention", found.attended)
    for name, seconds in rows:
        print(f"{name:<28}{seconds:>10.3f}{seconds / found.plain - 1:>8.1%}")
    print(f"median of {found.pictures} pictures each, {steps} steps")


@app.command("fast")
def fast_command(
    model: Annotated[str, typer.Option("--model", help="mini, or a folder with weights for few steps.")] = "mini",
    pictures: Annotated[int, typer.Option("--pictures", min=8, help="Timed pictures of each.")] = 12,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What --fast saves: pictures at default settings, and by few steps without guidance."""
    with quiet_libraries():
        from .. import bench

        found = bench.fast(model, pictures=pictures, device=device, dtype=dtype)
    if as_json:
        print(json.dumps({**vars(found), "ratio": round(found.ratio, 3)}))
        return
    print(f"{'':<28}{'s/picture':>10}")
    print(f"{'20 guided steps':<28}{found.plain:>10.3f}")
    print(f"{'--fast':<28}{found.fast:>10.3f}")
    print(f"ratio {found.ratio:.2f}, median of {found.pictures} pictures each, decode included")

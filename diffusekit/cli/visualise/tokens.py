"""`diffusekit visualise tokens`: how a model reads a text."""

from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...display import printable
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FigureOptions

_SETTINGS = {"model", "device", "dtype", "embedding"}

Arithmetic = Annotated[
    list[str] | None,
    typer.Option(
        "--arithmetic",
        metavar="SUM",
        help='Words to add and subtract: "Paris - France + England". Can be given several times.',
    ),
]
Count = Annotated[int, typer.Option("--count", min=1, max=100, help="Number of nearest words to show.")]


@with_group(FigureOptions, "options")
@with_settings(GenerateSettings, *(set(GenerateSettings.model_fields) - _SETTINGS))
def command(
    settings: dict[str, Any],
    options: FigureOptions,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to read.")],
    arithmetic: Arithmetic = None,
    count: Count = 3,
) -> None:
    """Show how a model reads a text.

    Shows tokens, ids, nearest words, and what was cut off.
    Prints a table. With --output, .png, .jpg and .svg show a drawing, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"prompt": prompt})
    with quiet_libraries():
        from ...visualise.figure import STILLS
        from ...visualise.tokens import analyze, render

        options.check(*STILLS, ".svg")
        numbers = analyze(
            prompt,
            arithmetic=arithmetic or (),
            count=count,
            model=resolved.model,
            embedding=resolved.embedding,
            device=resolved.device,
            dtype=resolved.dtype,
        )
        if options.output is None and not options.as_json:
            _print_table(numbers)
        else:
            options.write(render(numbers), "tokens")


def _print_table(numbers: dict[str, Any]) -> None:
    """Print tokens, ids and nearest words, then the number of used positions and what was cut off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for name, right in (("position", True), ("token", False), ("id", True), ("nearest", False)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for piece in numbers["pieces"]:
        number = f"row {piece['row']}" if piece["id"] is None else str(piece["id"])
        nearest = Text(printable(_nearest(piece)), style="dim")
        table.add_row(str(piece["place"]), Text(printable(piece["piece"])), number, nearest)
    padding = numbers["padding"]
    if padding["count"]:
        table.add_row("…", f"padding, {padding['count']} times", str(padding["id"]), "")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{numbers['used']} of {numbers['positions'] - 2} positions are used")
    if numbers["cut"]:
        console.print(Text(f"cut off: {printable(numbers['cut'])}"))
    for one in numbers["arithmetic"]:
        console.print(Text(printable(f"{one['expression']} ≈ {_nearest(one)}")))


def _nearest(entry: dict[str, Any]) -> str:
    return ", ".join(f"{word} {cosine:.2f}" for word, cosine in entry["nearest"])

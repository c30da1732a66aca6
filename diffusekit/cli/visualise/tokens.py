"""`diffusekit visualise tokens`: how a text is read."""

from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...display import printable
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import STILL, FigureOptions

_TAKEN = {"model", "device", "dtype", "embedding"}

Arithmetic = Annotated[
    list[str] | None,
    typer.Option(
        "--arithmetic",
        metavar="SUM",
        help='Words added and subtracted: "Paris - France + England". May be given several times.',
    ),
]
Count = Annotated[int, typer.Option("--count", min=1, max=100, help="Nearest words to show.")]


@with_group(FigureOptions, "manner")
@with_settings(GenerateSettings, *(set(GenerateSettings.model_fields) - _TAKEN))
def command(
    settings: dict[str, Any],
    manner: FigureOptions,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to read.")],
    arithmetic: Arithmetic = None,
    count: Count = 3,
) -> None:
    """How a text is read: its pieces and their ids, what was cut, and which words lie near them.

    Prints a table; with --output a .png, .jpg or .svg is a drawing, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"prompt": prompt})
    manner.check(*STILL, ".svg")
    with quiet_libraries():
        from ...visualise.tokens import tokens

        exhibit = tokens(
            prompt,
            arithmetic=arithmetic or (),
            count=count,
            model=resolved.model,
            embedding=resolved.embedding,
            device=resolved.device,
            dtype=resolved.dtype,
        )
        if manner.output is None and not manner.as_json:
            _table(exhibit.numbers)
        else:
            manner.write(exhibit, "tokens")


def _table(numbers: Any) -> None:
    """Pieces, ids and nearest words as a table on stdout, then what fits and what does not."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for name, right in (("place", True), ("piece", False), ("id", True), ("nearest", False)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for piece in numbers["pieces"]:
        number = f"row {piece['row']}" if piece["id"] is None else str(piece["id"])
        near = ", ".join(f"{word} {cosine:.2f}" for word, cosine in piece["nearest"])
        table.add_row(str(piece["place"]), Text(printable(piece["piece"])), number, Text(printable(near), style="dim"))
    padding = numbers["padding"]
    if padding["count"]:
        table.add_row("…", f"padding, {padding['count']} times", str(padding["id"]), "")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{numbers['used']} of {numbers['positions'] - 2} places are used")
    if numbers["cut"]:
        console.print(Text(f"cut, never seen: {printable(numbers['cut'])}"))
    for found in numbers["arithmetic"]:
        near = ", ".join(f"{word} {cosine:.2f}" for word, cosine in found["nearest"])
        console.print(Text(printable(f"{found['expression']} ≈ {near}")))

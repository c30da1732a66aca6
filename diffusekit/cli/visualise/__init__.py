"""`diffusekit visualise` (also `visualize`): see how a picture comes out of noise."""

import typer

from . import attention, compare, denoise, noise, page, sampler, tokens

app = typer.Typer(help="See how a picture comes out of noise.", no_args_is_help=True)
app.command("noise")(noise.command)
app.command("denoise")(denoise.command)
app.command("attention")(attention.command)
app.command("compare")(compare.command)
app.command("tokens")(tokens.command)
app.command("sampler")(sampler.command)
app.command("page")(page.command)

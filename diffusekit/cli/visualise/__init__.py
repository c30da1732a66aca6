"""`diffusekit visualise` (also `visualize`): see how a diffusion model turns noise into an image."""

import typer

from . import attention, compare, denoise, lesson, noise, samplers, tokens

app = typer.Typer(help="See how a diffusion model turns noise into an image.", no_args_is_help=True)
app.command("noise")(noise.command)
app.command("denoise")(denoise.command)
app.command("attention")(attention.command)
app.command("compare")(compare.command)
app.command("tokens")(tokens.command)
app.command("samplers")(samplers.command)
app.command("lesson")(lesson.command)
app.command("sampler", hidden=True)(samplers.command)  # the names up to 0.4
app.command("page", hidden=True)(lesson.command)

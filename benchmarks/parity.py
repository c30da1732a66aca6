"""The tables of docs/parity.md: `python -m benchmarks.parity`.

Every kind of model, task and sampler, beside the pipeline of diffusers. Runs on the CPU and takes some minutes. The
document is written anew. Fails if a difference is not below the limit.
"""

import logging
import tempfile
from pathlib import Path

from diffusekit import SAMPLERS, models
from tests.helpers import ROOT, parity
from tests.helpers.random_models import RandomModels

KINDS = ("sd1", "sd2", "sd2-zsnr", "lcm", "sd-turbo", "sdxl", "sdxl-turbo")
TITLES = {"text": "Images from text", "image": "Images from an image"}
DOCUMENT = ROOT / "docs" / "parity.md"
INTRODUCTION = """# Equal to diffusers

The same prompt, seed and settings through `diffusekit.stream` and through the pipeline of diffusers. Each cell is the
largest difference of a number in the final latents, whose standard deviation is 1 or more. `python -m
benchmarks.parity` writes this page, and `tests/test_parity.py` asserts that each difference is below {limit:g}.

**Setup.** CPU, float32, {steps} steps, guidance 5, seed {seed}, prompt "{prompt}", negative prompt "{negative}".
`mini` is the embedded model. The other models are small, with random weights. Their block types, names of tensors,
configurations and vocabulary are those of the real ones:

- `sd1`: Stable Diffusion 1.x
- `sd2`: Stable Diffusion 2.x with v-prediction; `sd2-zsnr`: the same with zero terminal SNR and trailing timesteps
- `lcm`: a latent consistency model, with the guidance scale as an input
- `sd-turbo`, `sdxl-turbo`: trailing timesteps
- `sdxl`: Stable Diffusion XL, with two text encoders
"""
CAUSES = """
## Where differences come from

- **Zero** is equality to the bit. Text, noise, guidance and schedulers are the same arithmetic in the same order.
- **Start images.** diffusers draws latents at random from the distribution that the VAE gives. diffusekit takes its
  mean, so that the same seed gives the same image. For this table diffusers gets the latents of diffusekit.
- **`mini`** has latents of 6 channels, and diffusers' pipeline takes latents of 4 as a start image. So `mini` is only
  in the first table.
- **`lcm`** has the one sampler that its pipeline in diffusers takes. That pipeline spreads all steps over the rest of
  the noise schedule when it starts from an image. diffusekit takes the last steps, as with all other models, so the
  second table compares it with `StableDiffusionImg2ImgPipeline`.
- **An empty negative prompt** is that of `negative_prompt=None` in diffusers: zeros for Stable Diffusion XL.
- **Numbers of steps** that diffusers cannot set are mended here ([samplers.md](samplers.md)), so there is nothing to
  compare them with.
- **Half precision.** diffusekit keeps latents in float32 between the steps, and diffusers rounds them to the
  precision of the U-Net. So latents in half precision are not equal.
- **Learned tokens in Stable Diffusion XL.** The configurations of its text encoders give a wrong end token. Then
  transformers reads the pooled state where the largest token id stands. In diffusers that is the learned token, whose
  ids are new. diffusekit reads it at the end of the prompt, as in training. With the right end token in the
  configuration, the latents are equal. A test does that.
"""


def measure(kinds: dict[str, Path], task: str) -> dict[str, dict[str, float]]:
    """Return the differences by kind of model and sampler."""
    found: dict[str, dict[str, float]] = {}
    for kind, folder in kinds.items():
        pair = parity.load_pair(folder)
        found[kind] = {name: parity.difference(pair, name, task=task) for name in pair.samplers(task)}
        print(f"{task}, {kind}: at most {max(found[kind].values()):.2g}", flush=True)
    return found


def write_table(found: dict[str, dict[str, float]]) -> str:
    rows = [f"| sampler | {' | '.join(found)} |", f"|---|{'--:|' * len(found)}"]
    for name in SAMPLERS:
        cells = [f"{each[name]:.2g}" if name in each else "" for each in found.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    logging.getLogger("diffusekit").setLevel(logging.ERROR)  # four steps spoil images, which nobody sees here
    settings = {"limit": parity.LIMIT, "steps": parity.STEPS, "seed": parity.SEED}
    parts = [INTRODUCTION.format(**settings, prompt=parity.PROMPT, negative=parity.NEGATIVE)]
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        random_models = RandomModels(Path(temporary))
        for task, title in TITLES.items():
            kinds = {"mini": models.MINI} if task == "text" else {}
            found = measure(kinds | {kind: random_models[kind] for kind in KINDS}, task)
            worst = max(worst, *(value for each in found.values() for value in each.values()))
            how = "" if task == "text" else f"A strength of {parity.STRENGTH:g}.\n\n"
            parts.append(f"\n## {title}\n\n{how}{write_table(found)}\n")
    DOCUMENT.write_text("".join([*parts, CAUSES]))
    if not worst < parity.LIMIT:
        raise SystemExit(f"the largest difference is {worst:.2g}, expected less than {parity.LIMIT:g}")


if __name__ == "__main__":
    main()

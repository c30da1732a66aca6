"""An image with a record, as if it had been generated."""

from PIL import Image

from diffusekit import metadata
from diffusekit.device import choose
from diffusekit.settings import GenerateSettings


def save_image(path, prompt="a red cat", *, color="red", side=8, **settings):
    """Save an image of one color; returns its path."""
    values = {
        "steps": 20,
        "sampler": "dpm++_2m",
        "seed": 7,
        "width": side,
        "height": side,
        "guidance_scale": 3.0,
    } | settings
    record = metadata.Record.create(GenerateSettings(prompt=prompt, **values), "r1", choose("cpu", "float32"))
    return metadata.save(Image.new("RGB", (side, side), color), path, record)

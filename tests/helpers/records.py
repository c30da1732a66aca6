"""A complete record of an image that was never made."""

from diffusekit.metadata import Record
from diffusekit.settings import GenerateSettings


def record(**values) -> Record:
    complete = {
        "prompt": "a cat",
        "steps": 20,
        "sampler": "dpm++_2m",
        "seed": 7,
        "guidance_scale": 3.0,
        "width": 16,
        "height": 8,
    } | values
    return Record(
        settings=GenerateSettings(**complete),
        device="cpu",
        dtype="float32",
        versions={"diffusekit": "0.1.0"},
    )

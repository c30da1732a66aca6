"""A1111's infotext: what is written, and how other programs' text is read."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusekit import metadata
from diffusekit.schedule import SAMPLERS
from tests.helpers.records import record

PICTURE = Image.new("RGB", (16, 8), (10, 200, 30))
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)

# What A1111's grammar itself cannot say: it trims lines, and a line that starts the negative part.
plain = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=100).map(str.strip)
lines = st.lists(plain.filter(lambda t: not t.startswith("Negative prompt:")), max_size=3).map("\n".join).map(str.strip)


@relaxed
@given(
    prompt=lines,
    negative=lines,
    seed=st.integers(0, 2**63 - 1),
    sampler=st.sampled_from(list(SAMPLERS)),
    model=st.sampled_from(["mini", "a/b", "a: b, c", 'x "y"']),
)
def test_infotext_is_parsed_back(prompt, negative, seed, sampler, model):
    made = record(prompt=prompt, negative_prompt=negative, seed=seed, sampler=sampler, model=model)
    found = metadata.parse_infotext(metadata.format_infotext(made))
    assert found["Prompt"] == prompt and found["Negative prompt"] == negative
    assert found["Seed"] == str(seed) and found["Size"] == "16x8" and found["Model"] == model
    own = metadata.settings_from_infotext(found)
    assert (own.prompt, own.seed, own.sampler) == (prompt, seed, sampler)


def test_infotext_is_what_a1111_and_comfyui_look_for():
    text = metadata.format_infotext(record(prompt="a cat", negative_prompt=""))
    assert "\nNegative prompt: \nSteps: 20, Sampler: DPM++ 2M, CFG scale: 3.0, Seed: 7, Size: 16x8" in text
    last = text.strip().split("\n")[-1]
    theirs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(theirs) >= 3 and theirs[0] == ("Steps", "20")


def test_the_infotext_tells_a1111_that_brackets_were_plain_text():
    """`Emphasis: None` is A1111's key and its name for reading (x:1.3) as literal characters."""
    for prompt in ("a (red:1.3) cat", "a [red] cat"):
        assert ", Emphasis: None," in metadata.format_infotext(record(prompt=prompt))
    assert ", Emphasis: None," in metadata.format_infotext(record(negative_prompt="((bad))"))
    assert "Emphasis" not in metadata.format_infotext(record(prompt="a red cat"))


def test_an_image_of_a1111(tmp_path):
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text(
        "parameters",
        "portrait of a (cat:1.2),\nfluffy\nNegative prompt: blurry, text\nSteps: 28, Sampler: DPM++ 2M Karras, "
        'CFG scale: 6.5, Seed: 965400086, Size: 512x768, Model hash: 45dee52b12, Model: "a: b", Version: v1.10.1',
    )
    PICTURE.save(tmp_path / "theirs.png", pnginfo=info)
    found = metadata.read(tmp_path / "theirs.png")
    assert found.record is None and not found.label
    own = found.settings
    assert own is not None
    assert own.prompt == "portrait of a (cat:1.2),\nfluffy" and own.negative_prompt == "blurry, text"
    assert (own.steps, own.sampler, own.guidance_scale) == (28, "dpm++_2m_karras", 6.5)
    assert (own.seed, own.width, own.height) == (965400086, 512, 768)

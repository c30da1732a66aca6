"""What a picture says of itself survives the file, and reads the same elsewhere."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusekit import atomic, metadata
from diffusekit.errors import DiskError, FileRefused, UsageError
from diffusekit.metadata import Record
from diffusekit.schedule import SAMPLERS
from diffusekit.settings import GenerateSettings

PICTURE = Image.new("RGB", (16, 8), (10, 200, 30))
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
awkward = st.sampled_from(
    [
        "a cat, sitting: \"quoted\", 'and' \\ more",
        "first line\nsecond line\n\nfourth",
        "Steps: 20, Sampler: Euler, Seed: 5",
        "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5",
        "Negative prompt: not really",
        "🐈 猫 é ñ",
        "diffusekit: {}",
        "a\nNegative prompt: b\nNegative prompt: c",
        "",
    ]
)
prompts = words | awkward


def record(**values) -> Record:
    complete = {
        "prompt": "a cat",
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


@relaxed
@given(
    prompt=prompts,
    negative=prompts,
    seed=st.integers(0, 2**63 - 1),
    steps=st.integers(1, 1000),
    guidance=st.floats(0, 100),
    sampler=st.sampled_from(list(SAMPLERS)),
    ending=st.sampled_from([".png", ".jpg", ".webp"]),
)
def test_the_record_comes_back_whole(tmp_path, prompt, negative, seed, steps, guidance, sampler, ending):
    made = record(
        prompt=prompt, negative_prompt=negative, seed=seed, steps=steps, guidance_scale=guidance, sampler=sampler
    )
    found = metadata.read(metadata.save(PICTURE, tmp_path / f"x{ending}", made, overwrite=True))
    assert found.record == made and found.label


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
def test_infotext_comes_back(prompt, negative, seed, sampler, model):
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


def test_a_picture_of_a1111(tmp_path):
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


def test_the_label_is_the_last_to_go(tmp_path):
    for ending in (".png", ".jpg", ".webp"):
        bare = metadata.read(metadata.save(PICTURE, tmp_path / f"bare{ending}", None))
        assert bare.record is None and bare.parameters == {} and bare.label
        none = metadata.read(metadata.save(PICTURE, tmp_path / f"none{ending}", None, label=False))
        assert none.record is None and not none.label


def test_xmp_is_where_others_look(tmp_path):
    data = metadata.save(PICTURE, tmp_path / "x.png", record()).read_bytes()
    assert b"XML:com.adobe.xmp" in data and metadata.LABEL.encode() in data
    assert Image.open(metadata.save(PICTURE, tmp_path / "x.webp", record())).info["xmp"].startswith(b"<?xpacket")


def test_nothing_is_written_over(tmp_path):
    path = metadata.save(PICTURE, tmp_path / "x.png", record())
    before = path.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        metadata.save(PICTURE, path, record(seed=9))
    assert path.read_bytes() == before
    assert metadata.read(metadata.save(PICTURE, path, record(seed=9), overwrite=True)).record == record(seed=9)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = metadata.save(PICTURE, tmp_path / "x.png", record())
    before = path.read_bytes()

    def fail(site):
        if site == "half written":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "crash_point", fail)
    with pytest.raises(DiskError, match="No space left") as error:
        metadata.save(PICTURE, path, record(), overwrite=True)
    assert error.value.exit_code == 7
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_an_image_too_large_for_its_format(tmp_path):
    wide = Image.new("1", (70_000, 1))
    for name in ("x.jpg", "x.webp"):
        with pytest.raises(UsageError, match="cannot be stored as"):
            metadata.save(wide.convert("RGB"), tmp_path / name, None)
    assert list(tmp_path.iterdir()) == []


def test_an_ending_that_no_image_has(tmp_path):
    with pytest.raises(UsageError, match="does not end like an image"):
        metadata.save(PICTURE, tmp_path / "x.txt", record())


@pytest.mark.parametrize("text", ["w" * 900_000, "[" * 10_000, '{"settings": 3}', "<script>alert(1)</script>", "a: b"])
def test_hostile_text_is_inert_and_quick(tmp_path, text):
    import time

    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key in ("parameters", "diffusekit"):
        info.add_text(key, text)
    PICTURE.save(tmp_path / "x.png", pnginfo=info)
    started = time.perf_counter()
    found = metadata.read(tmp_path / "x.png")
    assert found.record is None and time.perf_counter() - started < 0.5


def test_inflating_text_is_refused(tmp_path):
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "x" * 64_000_000, zip=True)
    PICTURE.save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(FileRefused):
        metadata.read(tmp_path / "x.png")

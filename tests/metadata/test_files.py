"""Image files keep their metadata, and other programs can read it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusekit import atomic, metadata
from diffusekit.errors import DiskError, FileRefused, UsageError
from diffusekit.schedule import SAMPLERS
from tests.helpers.records import record

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
def test_the_record_is_read_back(tmp_path, prompt, negative, seed, steps, guidance, sampler, ending):
    made = record(
        prompt=prompt, negative_prompt=negative, seed=seed, steps=steps, guidance_scale=guidance, sampler=sampler
    )
    found = metadata.read(metadata.save(PICTURE, tmp_path / f"x{ending}", made, overwrite=True))
    assert found.record == made and found.label


def test_the_label_stays_without_a_record(tmp_path):
    for ending in (".png", ".jpg", ".webp"):
        bare = metadata.read(metadata.save(PICTURE, tmp_path / f"bare{ending}", None))
        assert bare.record is None and bare.parameters == {} and bare.label
        none = metadata.read(metadata.save(PICTURE, tmp_path / f"none{ending}", None, label=False))
        assert none.record is None and not none.label


def test_xmp_is_where_others_look(tmp_path):
    data = metadata.save(PICTURE, tmp_path / "x.png", record()).read_bytes()
    assert b"XML:com.adobe.xmp" in data and metadata.LABEL.encode() in data
    assert Image.open(metadata.save(PICTURE, tmp_path / "x.webp", record())).info["xmp"].startswith(b"<?xpacket")


def test_an_existing_file_is_kept(tmp_path):
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


@pytest.mark.parametrize(
    "values,shortened",
    [
        ({"prompt": "a very long prompt " * 900}, ()),
        ({"prompt": "猫" * 20_000, "negative_prompt": "犬" * 9000}, ()),
        ({"prompt": "a" * 20_000, "negative_prompt": "b" * 20_000}, ("prompt", "negative_prompt")),
        ({"prompt": "🐈" * 20_000}, ("prompt",)),
        ({"prompt": '"' * 20_000}, ("prompt",)),
    ],
)
def test_a_prompt_too_long_for_jpeg_is_shortened_and_the_image_is_kept(tmp_path, caplog, values, shortened):
    made = record(**values)
    for ending in (".jpg", ".jpeg", ".webp", ".png"):
        caplog.clear()
        found = metadata.read(metadata.save(PICTURE, tmp_path / f"x{ending}", made)).record
        assert found is not None and found.settings.seed == 7
        whole = ending in (".webp", ".png")
        assert found.shortened == (() if whole else shortened)
        assert (found.settings == made.settings) == (whole or not shortened)
        assert bool(caplog.messages) != whole
    if shortened:
        cut = metadata.read(tmp_path / "x.jpg").record
        assert cut is not None and made.settings.prompt.startswith(cut.settings.prompt.removesuffix("…"))
        assert cut.settings.prompt.endswith("…") and len(cut.settings.prompt) > 4000


def test_a_record_too_long_for_jpeg_without_its_prompts_is_left_out(tmp_path, caplog):
    long = record().model_copy(update={"axes": {"Prompt": ("x" * 50_000,)}})
    found = metadata.read(metadata.save(PICTURE, tmp_path / "x.jpg", long))
    assert found.record is None and found.label
    assert caplog.messages == [
        "the settings are too long for a JPEG file, so they are not in it; PNG and WebP keep them"
    ]


def test_a_shortened_prompt_is_not_drawn_again_without_a_new_one(tmp_path, capsys):
    from diffusekit.cli.main import run

    metadata.save(PICTURE, tmp_path / "x.jpg", record(prompt="🐈" * 20_000))
    assert run(["again", "x.jpg"]) == 3
    assert "x.jpg has only the beginning of --prompt" in capsys.readouterr().err
    capsys.readouterr()
    assert run(["again", "x.jpg", "--prompt", "a cat", "-o", "no.tiff"]) == 2
    assert "does not end like an image" in capsys.readouterr().err

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

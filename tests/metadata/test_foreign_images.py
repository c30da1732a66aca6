"""Images of other programs, one row for each form that they write, with the right value of every field."""

import json
import time

import pytest
from PIL import Image, PngImagePlugin, features

from diffusekit import metadata
from tests.helpers.foreign_images import PICTURE, comfy, exif_bytes, ksampler, node, png, with_chunk, with_comment
from tests.helpers.records import record

LINE = "Steps: 25, Sampler: Euler a, CFG scale: 6.5, Seed: 99, Size: 128x192, Model: foo, Version: v1.10.1"
TEXT = f"a red cat\nNegative prompt: blurry\n{LINE}"
EXPECTED = ("a red cat", "blurry", 25, 6.5, "euler_a", 99, 128, 192)
GLYPHS = f"猫がいる庭, emoji 🐈\nNegative prompt: 悪い\n{LINE}"


def settings_of(path):
    own = metadata.read(path).settings
    assert own is not None
    return own


def fields(found):
    own = found.settings
    return (
        own.prompt,
        own.negative_prompt,
        own.steps,
        own.guidance_scale,
        own.sampler,
        own.seed,
        own.width,
        own.height,
    )


def encoded(text):
    """A comment in all encodings that programs write."""
    be, le, utf8 = text.encode("utf-16-be"), text.encode("utf-16-le"), text.encode()
    return {
        "big-endian": b"UNICODE\0" + be,
        "little-endian": b"UNICODE\0" + le,
        "marked big-endian": b"UNICODE\0\xfe\xff" + be,
        "marked little-endian": b"UNICODE\0\xff\xfe" + le,
        "lower case": b"Unicode\0" + le,
        "UTF-8 behind UNICODE": b"UNICODE\0" + utf8,
        "marked UTF-8": b"UNICODE\0\xef\xbb\xbf" + utf8,
        "ASCII": b"ASCII\0\0\0" + utf8,
        "UTF-16 behind ASCII": b"ASCII\0\0\0" + le,
        "undefined": bytes(8) + utf8,
        "undefined UTF-16": bytes(8) + be,
        "JIS": b"JIS\0\0\0\0\0" + utf8,
        "no prefix": utf8,
        "no prefix, marked": b"\xef\xbb\xbf" + utf8,
        "no prefix, UTF-16": b"\xff\xfe" + le,
        "no prefix, no mark": le,
        "zeros behind": b"UNICODE\0" + le + bytes(5),
        "a zero behind": b"UNICODE\0" + be + b"\0",
        "ASCII with zeros": b"ASCII\0\0\0" + utf8 + bytes(3),
        "last zero cut off": b"UNICODE\0" + le[:-1],
    }


@pytest.mark.parametrize("name", encoded(""))
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("ending", [".jpg", ".webp", ".png"])
def test_a_comment_in_any_encoding(tmp_path, name, order, ending):
    for first in (False, True):
        found = metadata.read(with_comment(tmp_path / f"x{ending}", encoded(TEXT)[name], order=order, first=first))
        assert fields(found) == EXPECTED and not found.missing
        assert found.text == TEXT
        found = metadata.read(with_comment(tmp_path / f"y{ending}", encoded(GLYPHS)[name], order=order, first=first))
        assert fields(found) == ("猫がいる庭, emoji 🐈", "悪い", *EXPECTED[2:])


@pytest.mark.parametrize("encoding", ["iso2022_jp", "cp932", "euc_jp"])
def test_a_comment_in_japanese_encodings(tmp_path, encoding):
    text = f"猫がいる庭\nNegative prompt: 悪い\n{LINE}"
    found = metadata.read(with_comment(tmp_path / "x.jpg", b"JIS\0\0\0\0\0" + text.encode(encoding)))
    assert fields(found) == ("猫がいる庭", "悪い", *EXPECTED[2:])


@pytest.mark.parametrize("text", ["猫がいる", "ねこ", "кот на траве", "고양이", "قط أحمر", "你好世界", "é à ü", "🐈🐈"])
def test_a_prompt_without_latin_letters_in_both_orders(tmp_path, text):
    for encoding in ("utf-16-be", "utf-16-le"):
        found = metadata.read(with_comment(tmp_path / "x.jpg", b"UNICODE\0" + text.encode(encoding)))
        assert found.parameters["Prompt"] == text


def test_latin1_in_a_comment_and_utf8_in_a_text_chunk(tmp_path):
    text = f"un été rouge\nNegative prompt: flou\n{LINE}"
    found = metadata.read(with_comment(tmp_path / "x.jpg", b"ASCII\0\0\0" + text.encode("latin-1")))
    assert fields(found)[0] == "un été rouge"
    for encoding in ("latin-1", "utf-8"):
        found = metadata.read(with_chunk(tmp_path / "x.png", "parameters", text.encode(encoding)))
        assert fields(found)[0] == "un été rouge"
    found = metadata.read(with_chunk(tmp_path / "x.png", "parameters", GLYPHS.encode()))
    assert fields(found) == ("猫がいる庭, emoji 🐈", "悪い", *EXPECTED[2:])


def test_other_places_of_a_text(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = TEXT
    Image.new("RGB", (8, 8)).save(tmp_path / "description.jpg", exif=exif)
    exif = Image.Exif()
    exif[0x9C9C] = (TEXT + "\0").encode("utf-16-le")
    Image.new("RGB", (8, 8)).save(tmp_path / "windows.jpg", exif=exif)
    Image.new("RGB", (8, 8)).save(tmp_path / "comment.jpg", comment=TEXT.encode())
    Image.new("P", (8, 8)).save(tmp_path / "comment.gif", comment=TEXT.encode())
    escaped = TEXT.replace("\n", "&#10;")
    xmp = f'<x><exif:UserComment><rdf:Alt><rdf:li xml:lang="x">{escaped}</rdf:li></rdf:Alt></exif:UserComment></x>'
    Image.new("RGB", (8, 8)).save(tmp_path / "xmp.webp", xmp=xmp.encode())
    png(tmp_path / "xmp.png", **{"XML:com.adobe.xmp": xmp})
    for path in tmp_path.iterdir():
        assert fields(metadata.read(path)) == EXPECTED, path.name


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow cannot write AVIF")
def test_avif(tmp_path):
    assert fields(metadata.read(with_comment(tmp_path / "x.avif", encoded(TEXT)["big-endian"]))) == EXPECTED


@pytest.mark.parametrize("letter", ["㐀", "乎", "一", "ㄠ", "é", "Ā"])
def test_our_own_record_is_read_whatever_the_prompt_is(tmp_path, letter):
    made = record(prompt=letter * 5000)
    for ending in (".jpg", ".webp"):
        assert metadata.read(metadata.save(PICTURE, tmp_path / f"x{ending}", made, overwrite=True)).record == made


def test_damaged_exif_does_not_hide_the_other_texts(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT)
    for exif in (
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM",
        b"\0" * 40,
        exif_bytes("big", {0x8769: (4, b"abcd")}),
    ):
        PICTURE.save(tmp_path / "x.png", pnginfo=info, exif=exif)
        assert fields(metadata.read(tmp_path / "x.png")) == EXPECTED


# --- infotext --------------------------------------------------------------------------------------------------------

CIVITAI = (
    '[{"type":"checkpoint","modelVersionId":104185,"modelName":"Model, Steps: 4, Size: 1x1","modelVersionName":"v1.0"},'
    '{"type":"lora","weight":0.8,"modelVersionId":77}]'
)
NUMBERS = "Steps: 25, Sampler: Euler a, CFG scale: 6.5, Seed: 99, Size: 128x192"
INFOTEXTS = {
    "as A1111 writes it": (TEXT, EXPECTED),
    "no negative prompt": (f"a red cat\n{LINE}", ("a red cat", "", *EXPECTED[2:])),
    "no prompt": (f"Negative prompt: blurry\n{LINE}", ("", "blurry", *EXPECTED[2:])),
    "settings alone": (LINE, ("", "", *EXPECTED[2:])),
    "CRLF": (TEXT.replace("\n", "\r\n"), EXPECTED),
    "CR": (TEXT.replace("\n", "\r"), EXPECTED),
    "one line": (TEXT.replace("\n", " "), EXPECTED),
    "one line without negative": (f"a red cat {LINE}", ("a red cat", "", *EXPECTED[2:])),
    "one line, comma before": (f"a red cat, {LINE}", ("a red cat,", "", *EXPECTED[2:])),
    "negative on the prompt's line": (f"a red cat Negative prompt: blurry\n{LINE}", EXPECTED),
    "one line with steps in the prompt": (
        f"a cat at Steps: 3, Size: 1, sitting Negative prompt: blurry {LINE}",
        ("a cat at Steps: 3, Size: 1, sitting", "blurry", *EXPECTED[2:]),
    ),
    "line break in a value": (
        f"a red cat\nNegative prompt: blurry\n{NUMBERS}, Wildcard prompt: __animal__,\nin a __place__, "
        "Version: v1.10.1",
        EXPECTED,
    ),
    "line break, and settings behind it": (
        "a red cat\nNegative prompt: blurry\nSteps: 25, Sampler: Euler a, Wildcard prompt: a,\nb, c\nCFG scale: 6.5, "
        "Seed: 99, Size: 128x192",
        EXPECTED,
    ),
    "one setting a line": (TEXT.replace(", ", "\n"), EXPECTED),
    "quoted value with line breaks": (
        f'a red cat\nNegative prompt: blurry\n{NUMBERS}, Hires prompt: "x,\nSteps: 3, Seed: 1, \\"y\\"", '
        "Hires steps: 9",
        EXPECTED,
    ),
    "lines behind": (f"{TEXT}\nTemplate: a {{red|blue}} cat, x\nNegative Template: blurry", EXPECTED),
    "text behind": (f"{TEXT}\nmade with love\nand care", EXPECTED),
    "prompt like settings": (
        f"lighting: soft, mood: dark, lens: 50mm\nNegative prompt: blurry\n{LINE}",
        ("lighting: soft, mood: dark, lens: 50mm", "blurry", *EXPECTED[2:]),
    ),
    "steps in the prompts": (
        f"a stair\nSteps: 20, Sampler: DDIM, Seed: 4\nNegative prompt: Steps: 3, Size: 4x4\nx\n{LINE}",
        ("a stair\nSteps: 20, Sampler: DDIM, Seed: 4", "Steps: 3, Size: 4x4\nx", *EXPECTED[2:]),
    ),
    "another order": (
        "a red cat\nNegative prompt: blurry\nSampler: Euler a, Seed: 99, Steps: 25, Size: 128x192, CFG scale: 6.5",
        EXPECTED,
    ),
    "Civitai": (
        f"a red cat\nNegative prompt: blurry\nSteps: 25, CFG scale: 6.5, Sampler: Euler a, Seed: 99, process: txt2img, "
        f"Size: 128x192, draft: false, width: 832, Created Date: 2025-03-09T0849:25.5083Z, clipSkip: 2, "
        f"Civitai resources: {CIVITAI}, Civitai metadata: {{}}",
        EXPECTED,
    ),
    "Civitai on one line": (f"a red cat Negative prompt: blurry {NUMBERS}, Civitai resources: {CIVITAI}", EXPECTED),
    "JSON first": (
        f"a red cat\nNegative prompt: blurry\nSteps: 25, Civitai resources: {CIVITAI}, Sampler: Euler a, "
        "CFG scale: 6.5, Seed: 99, Size: 128x192",
        EXPECTED,
    ),
    "hires and hashes": (
        f"a red cat\nNegative prompt: blurry\n{NUMBERS}, Denoising strength: 0.5, "
        'Hires prompt: "a cat, \\nwith \\"hat\\"", Hires upscale: 2, Hires steps: 10, '
        'Lora hashes: "add_detail: 7c6bad76eb54, more: 123", TI hashes: "Easy: c74b"',
        EXPECTED,
    ),
    "Forge": (
        "a red cat\nNegative prompt: blurry\nSteps: 25, Sampler: Euler a, Schedule type: Automatic, CFG scale: 6.5, "
        "Distilled CFG Scale: 3.5, Seed: 99, Size: 128x192, Model hash: ab, Model: flux1-dev, Version: f2.0.1v1.10.1, "
        "Diffusion in Low Bits: Automatic (fp16 LoRA), Module 1: ae, Tiling",
        EXPECTED,
    ),
    "SD.Next": (
        "a red cat\nNegative prompt: blurry\nSteps: 25, Size: 128x192, Sampler: Euler a, Seed: 99, CFG scale: 6.5, "
        "App: SD.Next, Version: 5ad91a1, Pipeline: StableDiffusionPipeline, Operations: txt2img",
        EXPECTED,
    ),
    "Fooocus in A1111's scheme": (
        "a red cat\nNegative prompt: blurry\nSteps: 25, Sampler: Euler a, Seed: 99, Size: 128x192, CFG scale: 6.5, "
        'Sharpness: 2, ADM Guidance: "(1.5, 0.8, 0.3)", Model: juggernaut, Performance: Speed, Scheduler: normal, '
        "Version: Fooocus v2.5.5",
        EXPECTED,
    ),
    "Civitai without Size": (
        "a red cat\nNegative prompt: blurry\nSteps: 25, Sampler: Euler a, CFG scale: 6.5, Seed: 99, width: 128, "
        "height: 192",
        EXPECTED,
    ),
    "spaces in the size": (
        f"a red cat\nNegative prompt: blurry\n{LINE}".replace(", Size: 128x192", ", Size: 128 x 192"),
        EXPECTED,
    ),
    "extra networks": (
        f"a red cat <lora:add: 1:0.8>\nNegative prompt: blurry\n{LINE}",
        ("a red cat <lora:add: 1:0.8>", *EXPECTED[1:]),
    ),
    "the sampler's old name": (
        TEXT.replace("Euler a", "DPM++ 2M Karras"),
        (*EXPECTED[:4], "dpm++_2m_karras", *EXPECTED[5:]),
    ),
    "schedule of its own": (
        TEXT.replace("Euler a", "DPM++ 2M, Schedule type: Karras"),
        (*EXPECTED[:4], "dpm++_2m_karras", *EXPECTED[5:]),
    ),
}


@pytest.mark.parametrize("name", INFOTEXTS)
def test_infotext_of_every_form(tmp_path, name):
    text, expected = INFOTEXTS[name]
    for path in (png(tmp_path / "x.png", parameters=text), with_comment(tmp_path / "x.jpg", text.encode())):
        found = metadata.read(path)
        assert fields(found) == expected and not found.missing
        assert found.text == text


@pytest.mark.parametrize(
    "prompt",
    [
        "portrait, lighting: soft, mood: dark, lens: 50mm",
        "Steps: up the hill, Sampler: of wines, Seed: of doubt",
        "a cat\nSteps: 20 of them, and a dog: 1, bird: 2",
        "first: 1, second: 2, third: 3",
    ],
)
def test_a_prompt_alone_stays_a_prompt(tmp_path, prompt):
    found = metadata.read(png(tmp_path / "x.png", parameters=prompt))
    assert found.parameters == {"Prompt": prompt, "Negative prompt": ""} and found.settings is None


def test_what_a_value_says_is_kept(tmp_path):
    found = metadata.read(png(tmp_path / "x.png", parameters=INFOTEXTS["line break in a value"][0])).parameters
    assert found["Wildcard prompt"] == "__animal__,\nin a __place__" and found["Version"] == "v1.10.1"
    found = metadata.read(png(tmp_path / "x.png", parameters=INFOTEXTS["Civitai"][0])).parameters
    assert json.loads(found["Civitai resources"])[0]["modelName"] == "Model, Steps: 4, Size: 1x1"
    found = metadata.read(png(tmp_path / "x.png", parameters=INFOTEXTS["hires and hashes"][0])).parameters
    assert found["Hires prompt"] == 'a cat, \nwith "hat"' and found["Hires steps"] == "10"


@pytest.mark.parametrize(
    "change,setting,said",
    [
        ("Seed: -1", "seed", "'-1'"),
        (f"Seed: {2**70}", "seed", str(2**70)),
        ("Seed: abc", "seed", "'abc'"),
        ("CFG scale: -2", "guidance_scale", "'-2'"),
        ("CFG scale: 7000", "guidance_scale", "'7000'"),
        ("Size: 4x192", "width", "'4'"),
        ("Size: 99999x192", "width", "'99999'"),
        ("Size: big", "width", "'big'"),
        ("Sampler: DPM++ SDE Karras", "sampler", "DPM++ SDE Karras"),
        ("Sampler: Restart", "sampler", "Restart"),
        ("Sampler: Euler, Schedule type: Karras", "sampler", "karras"),
        ("Steps: 0", "steps", "'0'"),
        ("Steps: 5000", "steps", "'5000'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_and_the_others_restored(tmp_path, change, setting, said):
    key = change.partition(":")[0]
    line = ", ".join(change if pair.startswith(f"{key}:") else pair for pair in NUMBERS.split(", "))
    found = metadata.read(png(tmp_path / "x.png", parameters=f"a red cat\nNegative prompt: blurry\n{line}"))
    assert set(found.missing) - {"height"} == {setting} and said in found.missing[setting]
    names = ("prompt", "negative_prompt", "steps", "guidance_scale", "sampler", "seed", "width", "height")
    assert found.settings is not None
    for name, value in zip(names, EXPECTED, strict=True):
        if name != setting and not (setting == "width" and name == "height"):
            assert getattr(found.settings, name) == value


@pytest.mark.parametrize("key", ["Steps", "Sampler", "CFG scale", "Seed", "Size"])
def test_a_value_that_is_not_there_is_missing(tmp_path, key):
    line = ", ".join(pair for pair in NUMBERS.split(", ") if not pair.startswith(f"{key}:"))
    found = metadata.read(png(tmp_path / "x.png", parameters=f"a red cat\n{line}"))
    setting = {"CFG scale": "guidance_scale", "Size": "width"}.get(key, key.lower())
    assert set(found.missing) - {"height"} == {setting} and found.settings is not None


HOSTILE = [
    "Steps: 1\n" * 100_000,
    "Steps: 1, " * 90_000,
    "Steps: 1, Sampler: " * 50_000,
    'ab: "' * 190_000,
    "ab: [" * 190_000,
    "ab: " + "[" * 900_000,
    'ab: {"' * 150_000,
    'ab: "\\' * 150_000,
    '"' * 900_000,
    "ab:" * 300_000,
    "w " * 450_000 + ":",
    " " * 900_000 + "Steps: 1, Sampler: x",
    "\n" * 900_000 + "x",
    "Steps:" + " " * 900_000,
    "Negative prompt: " * 50_000,
    "Steps: 20, Seed: 1, ab: 2" + ", x" * 290_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_hostile_infotext_takes_linear_time(text):
    started = time.process_time()
    metadata.parse_infotext(text)
    assert time.process_time() - started < 2


# --- ComfyUI ---------------------------------------------------------------------------------------------------------

COMFY = ("a red cat", "blurry", 20, 8.0, "euler", 5, 512, 640)


def text_node(kind, **inputs):
    """The graph whose prompt comes from a node."""
    return comfy(n6=node("CLIPTextEncode", text=["20", 0], clip=["4", 1]), n20=node(kind, **inputs))


def seeded(kind, **inputs):
    return comfy(n3=ksampler(seed=["21", 0]), n21=node(kind, **inputs))


def custom(kind="SamplerCustomAdvanced", guider=None, **changes):
    nodes = {
        "n3": node(kind, noise=["25", 0], guider=["22", 0], sampler=["16", 0], sigmas=["17", 0], latent_image=["5", 0]),
        "n25": node("RandomNoise", noise_seed=5),
        "n22": guider or node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=8.0),
        "n16": node("KSamplerSelect", sampler_name="euler"),
        "n17": node("BasicScheduler", scheduler="normal", steps=20, denoise=1.0, model=["4", 0]),
    }
    return comfy(**nodes | changes)


def between(kind, *, slots=(0, 1), **inputs):
    """The graph with a node between the prompts and the sampler."""
    return comfy(n3=ksampler(positive=["30", slots[0]], negative=["30", slots[1]]), n30=node(kind, **inputs))


BOTH = {"positive": ["6", 0], "negative": ["7", 0]}
GRAPHS = {
    "plain": comfy(),
    "linked text": text_node("PrimitiveString", value="a red cat"),
    "multiline text": text_node("PrimitiveStringMultiline", value="a red cat"),
    "text of an extension": text_node("CR Text", text="a red cat"),
    "literal": text_node("String Literal", string="a red cat"),
    "text through a reroute": comfy(
        n6=node("CLIPTextEncode", text=["20", 0], clip=["4", 1]),
        n20=node("Reroute", **{"": ["20:1", 0]}),
        **{"20:1": node("Text Multiline", text="a red cat")},
    ),
    "text that is shown": comfy(
        n6=node("CLIPTextEncode", text=["20", 0], clip=["4", 1]),
        n20=node("ShowText|pysssh", text=["21", 0], text_0="a red cat"),
        n21=node("PrimitiveString", value="a red cat"),
    ),
    "StringConcatenate": text_node("StringConcatenate", string_a="a red", string_b="cat", delimiter=" "),
    "linked parts": comfy(
        n6=node("CLIPTextEncode", text=["20", 0], clip=["4", 1]),
        n20=node("Text Concatenate", delimiter=" ", clean_whitespace="true", text_a=["21", 0], text_b="cat "),
        n21=node("PrimitiveString", value=" a red "),
    ),
    "CR Text Concatenate": text_node("CR Text Concatenate", text1="a red", text2="cat", separator=" "),
    "old Text Concatenate": text_node("Text Concatenate", text_a="a red ", text_b="cat", linebreak_addition="false"),
    "separator by its word": text_node("Text Concatenate (JPS)", delimiter="space", text1="a red", text2="cat"),
    "CR Combine Prompt": text_node("CR Combine Prompt", part1="a red", part2="cat", separator=" "),
    "JoinStrings": text_node("JoinStrings", string1="a red", string2="cat", delimiter=" "),
    "tidy StringFunction": text_node(
        "StringFunction|pysssh", action="append", tidy_tags="yes", text_a=" a red  cat ", text_b="", text_c=""
    ),
    "StringFunction": text_node(
        "StringFunction|pysssh", action="append", tidy_tags="no", text_a="a red", text_b=" cat"
    ),
    "StringReplace": text_node("StringReplace", string="a blue cat", find="blue", replace="red"),
    "StringTrim": text_node("StringTrim", string="  a red cat ", mode="Both"),
    "CaseConverter": text_node("CaseConverter", string="A RED CAT", mode="lowercase"),
    "switch": text_node("CR Text Input Switch", Input=2, text1="a dog", text2="a red cat"),
    "boolean switch": text_node("ComfySwitchNode", switch=False, on_true="a dog", on_false="a red cat"),
    "populated wildcards": text_node(
        "ImpactWildcardProcessor", wildcard_text="a {red|blue} cat", populated_text="a red cat", mode="populate", seed=1
    ),
    "rgthree seed": seeded("Seed (rgthree)", seed=5),
    "primitive seed": seeded("PrimitiveInt", value=5),
    "easy seed": seeded("easy seed", seed=5),
    "seed through a reroute": comfy(
        n3=ksampler(seed=["21", 0]), n21=node("Reroute", **{"": ["22", 0]}), n22=node("PrimitiveInt", value=5)
    ),
    "linked numbers": comfy(
        n3=ksampler(steps=["21", 0], cfg=["22", 0], sampler_name=["23", 2], scheduler=["23", 3]),
        n21=node("PrimitiveInt", value=20),
        n22=node("FloatConstant", value=8.0),
        n23=node("KSampler Config (rgthree)", steps_total=9, cfg=3, sampler_name="euler", scheduler="normal"),
    ),
    "linked size": comfy(
        n5=node("EmptyLatentImage", width=["21", 0], height=["22", 0], batch_size=1),
        n21=node("PrimitiveInt", value=512),
        n22=node("INTConstant", value=640),
    ),
    "SD 3 latents": comfy(n5=node("EmptySD3LatentImage", width=512, height=640, batch_size=1)),
    "latents by name": comfy(
        n5=node("SDXL Empty Latent Image (rgthree)", dimensions="512 x 640  (portrait)", batch_size=1)
    ),
    "KSamplerAdvanced": comfy(
        n3=node(
            "KSamplerAdvanced",
            add_noise="enable",
            noise_seed=5,
            steps=20,
            cfg=8.0,
            sampler_name="euler",
            scheduler="normal",
            start_at_step=0,
            end_at_step=10000,
            return_with_leftover_noise="disable",
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        )
    ),
    "SamplerCustom": comfy(
        n3=node(
            "SamplerCustom",
            add_noise=True,
            noise_seed=5,
            cfg=8.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            sampler=["16", 0],
            sigmas=["17", 0],
            latent_image=["5", 0],
        ),
        n16=node("KSamplerSelect", sampler_name="euler"),
        n17=node("BasicScheduler", scheduler="normal", steps=20, denoise=1.0, model=["4", 0]),
    ),
    "SamplerCustomAdvanced": custom(),
    "linked noise": custom(n25=node("RandomNoise", noise_seed=["26", 0]), n26=node("PrimitiveInt", value=5)),
    "split sigmas": custom(
        n17=node("SplitSigmas", sigmas=["18", 0], step=10),
        n18=node("BasicScheduler", scheduler="normal", steps=20, denoise=1.0, model=["4", 0]),
    ),
    "ControlNet": between("ControlNetApplyAdvanced", control_net=["31", 0], image=["32", 0], strength=1, **BOTH),
    "inpainting": between("InpaintModelConditioning", vae=["4", 2], pixels=["32", 0], mask=["32", 1], **BOTH),
    "old ControlNet": comfy(
        n3=ksampler(positive=["30", 0]),
        n30=node("ControlNetApply", conditioning=["6", 0], control_net=["31", 0], image=["32", 0], strength=1),
    ),
    "chained conditioning": comfy(
        n3=ksampler(positive=["30", 0]),
        n30=node("ConditioningSetTimestepRange", conditioning=["31", 0], start=0, end=1),
        n31=node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
    ),
    "rerouted conditioning": comfy(n3=ksampler(positive=["30", 0]), n30=node("Reroute", **{"": ["6", 0]})),
    "SDXL": comfy(n6=node("CLIPTextEncodeSDXL", text_g="a red cat", text_l="a red cat", width=1024, clip=["4", 1])),
    "pipe": comfy(
        n3=node(
            "ImpactKSamplerBasicPipe",
            basic_pipe=["30", 0],
            seed=5,
            steps=20,
            cfg=8.0,
            sampler_name="euler",
            scheduler="normal",
            latent_image=["5", 0],
            denoise=1.0,
        ),
        n30=node("ToBasicPipe", model=["4", 0], clip=["4", 1], vae=["4", 2], **BOTH),
    ),
    "efficient loader": comfy(
        n3=ksampler(model=["30", 0], positive=["30", 1], negative=["30", 2], latent_image=["30", 3]),
        n30=node(
            "Efficient Loader",
            ckpt_name="x.safetensors",
            positive="a red cat",
            negative="blurry",
            empty_latent_width=512,
            empty_latent_height=640,
        ),
    ),
    "refined": comfy(
        n8=node("VAEDecode", samples=["11", 0], vae=["4", 2]),
        n11=ksampler(seed=1, steps=9, cfg=4, denoise=0.5, latent_image=["12", 0]),
        n12=node("LatentUpscale", samples=["3", 0], width=1024, height=1280),
    ),
    "refined as an image": comfy(
        n9=node("SaveImage", images=["12", 0]),
        n12=node(
            "FaceDetailer",
            image=["8", 0],
            model=["4", 0],
            seed=9,
            steps=5,
            cfg=2,
            sampler_name="ddim",
            scheduler="simple",
            positive=["6", 0],
            negative=["7", 0],
        ),
    ),
    "a sampler that is not saved": comfy(
        n13=ksampler(seed=77, steps=3, positive=["14", 0]),
        n14=node("CLIPTextEncode", text="a dog", clip=["4", 1]),
        n15=node("VAEDecode", samples=["13", 0], vae=["4", 2]),
        n1=node("PreviewImage", images=["15", 0]),
    ),
    "both saved": comfy(n1=node("SaveImage", images=["8", 0])),
    "subgraph": {
        ("57:" + number if number != "9" else number): {
            "class_type": found["class_type"],
            "inputs": {
                name: ["57:" + value[0], value[1]] if isinstance(value, list) else value
                for name, value in found["inputs"].items()
            },
        }
        for number, found in comfy().items()
    },
    "as it was sent": {"client_id": "x", "prompt": comfy()},
    "both prompts in a stack": between("CR Apply Multi-ControlNet", base_positive=["6", 0], base_negative=["7", 0]),
    "switched conditioning": comfy(
        n3=ksampler(positive=["30", 0]),
        n30=node("ComfySwitchNode", switch=True, on_true=["6", 0], on_false=["7", 0]),
    ),
    "another seed node": seeded("Seed Generator", seed=5),
    "latents saved beside": comfy(
        n13=ksampler(seed=77), n15=node("SaveLatent", samples=["13", 0], filename_prefix="latents")
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_comfyui_graph(tmp_path, name):
    found = metadata.read(png(tmp_path / "x.png", prompt=GRAPHS[name]))
    assert fields(found) == COMFY and not found.missing
    assert found.parameters["Program"] == "ComfyUI"


def workflow(graph):
    """The editor's form of a graph: values without names, and a list of links."""
    links, nodes = [], []
    for number, found in graph.items():
        rows, values = [], []
        for name in found["inputs"]:
            value = found["inputs"][name]
            if isinstance(value, list):
                links.append([len(links) + 1, int(value[0]), value[1], int(number), len(rows), "*"])
                rows.append({"name": name, "type": "*", "link": len(links)})
            else:
                values.append(value)
                values += ["randomize"] if "seed" in name else []
        mode = found.get("mode", 0)
        nodes.append(
            {"id": int(number), "type": found["class_type"], "inputs": rows, "widgets_values": values, "mode": mode}
        )
    return {"nodes": nodes, "links": links, "version": 0.4}


def test_comfyui_with_the_workflow_alone(tmp_path):
    graph = comfy(
        n3=ksampler(positive=["30", 0]),
        n30=node("ConditioningSetTimestepRange", conditioning=["6", 0], start=0, end=1) | {"mode": 4},
        n31=ksampler(seed=7) | {"mode": 2},
        n32=node("SaveImage", filename_prefix="x", images=["31", 0]) | {"mode": 2},
    )
    found = metadata.read(png(tmp_path / "x.png", workflow=workflow(graph)))
    assert fields(found) == COMFY and not found.missing
    found = metadata.read(png(tmp_path / "x.png", workflow=workflow(custom())))
    assert fields(found) == COMFY and not found.missing
    graph = text_node("Unknown Node", one="a cat", two="a dog")
    found = metadata.read(png(tmp_path / "x.png", workflow=workflow(graph)))
    assert set(found.missing) == {"prompt"} and "node 20 of class Unknown Node" in found.missing["prompt"]


@pytest.mark.parametrize(
    "broken",
    [
        {"nodes": 3, "links": []},
        {"nodes": [3, {"id": [1], "type": {}}], "links": [[1], [[1], 2, 3, 4, 5], 7]},
        {"nodes": [{"id": 1, "type": "KSampler", "inputs": {"a": 1}, "widgets_values": 4}], "links": []},
        {"nodes": [{"id": 1, "type": "KSampler", "inputs": [{"name": "x", "link": [1]}, 4]}], "links": []},
        {"nodes": [{"id": 1, "type": "X", "inputs": [{"widget": 1}], "widgets_values": [{"a": 1}]}], "links": []},
    ],
)
def test_a_broken_workflow_is_inert(tmp_path, broken):
    found = metadata.read(png(tmp_path / "x.png", workflow=broken))
    assert found.settings is None or found.settings.prompt == ""


def test_comfyui_in_webp_and_with_nan(tmp_path):
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(comfy())
    exif[0x010F] = "workflow:" + json.dumps({"nodes": []})
    Image.new("RGB", (8, 8)).save(tmp_path / "x.webp", exif=exif)
    assert fields(metadata.read(tmp_path / "x.webp")) == COMFY
    said = json.dumps(comfy(n40=node("X", is_changed=[float("nan")])))
    for comment in (json.dumps({"prompt": comfy(), "workflow": {}}), json.dumps({"prompt": json.dumps(comfy())})):
        assert fields(metadata.read(with_comment(tmp_path / "x.jpg", comment.encode()))) == COMFY
    assert "NaN" in said and fields(metadata.read(png(tmp_path / "x.png", prompt=said))) == COMFY


@pytest.mark.parametrize(
    "graph,prompt",
    [
        (
            comfy(
                n3=ksampler(positive=["30", 0]),
                n30=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["31", 0]),
                n31=node("CLIPTextEncode", text="on grass", clip=["4", 1]),
            ),
            "a red cat, on grass",
        ),
        (
            comfy(
                n3=ksampler(positive=["30", 0]),
                n30=node("ConditioningConcat", conditioning_to=["6", 0], conditioning_from=["31", 0]),
                n31=node("CLIPTextEncode", text="on grass", clip=["4", 1]),
            ),
            "a red cat, on grass",
        ),
        (comfy(n6=node("CLIPTextEncodeFlux", clip_l="a cat", t5xxl="a red cat", guidance=3.5)), "a cat, a red cat"),
    ],
)
def test_several_texts_of_one_prompt_are_joined(tmp_path, graph, prompt):
    assert settings_of(png(tmp_path / "x.png", prompt=graph)).prompt == prompt


def test_no_negative_prompt_in_comfyui(tmp_path):
    for graph in (
        custom(guider=node("BasicGuider", model=["4", 0], conditioning=["6", 0])),
        comfy(n7=node("ConditioningZeroOut", conditioning=["6", 0])),
    ):
        found = metadata.read(png(tmp_path / "x.png", prompt=graph))
        assert fields(found)[:2] == ("a red cat", "") and not found.missing
    graph = custom(guider=node("BasicGuider", model=["4", 0], conditioning=["6", 0]))
    assert settings_of(png(tmp_path / "x.png", prompt=graph)).guidance_scale == 1


UNKNOWN = {
    "a language model": (
        text_node("OllamaGenerate", prompt="describe a cat", model="llama3"),
        "prompt",
        "node 20 of class",
    ),
    "wildcards": (text_node("DPRandomGenerator", text="a {red|blue} cat", seed=7), "prompt", "DPRandomGenerator"),
    "the second text of a node": (
        comfy(n6=node("CLIPTextEncode", text=["20", 1], clip=["4", 1]), n20=node("Texts", text="a dog")),
        "prompt",
        "node 20",
    ),
    "a file": (text_node("Load Text File", file_path="prompts.txt"), "prompt", "Load Text File"),
    "a tagger": (text_node("WD14Tagger|pysssh", image=["32", 0], threshold=0.35), "prompt", "WD14Tagger"),
    "a node that is not there": (
        comfy(n6=node("CLIPTextEncode", text=["99", 0], clip=["4", 1])),
        "prompt",
        "node 99",
    ),
    "a part of a text": (
        comfy(
            n6=node("CLIPTextEncode", text=["20", 0], clip=["4", 1]),
            n20=node("StringConcatenate", string_a="a cat", string_b=["21", 0], delimiter=""),
            n21=node("Random Line", text="x\ny", seed=1),
        ),
        "prompt",
        "node 21 of class Random Line",
    ),
    "a circle": (comfy(n6=node("Reroute", **{"": ["6", 0]})), "prompt", "graph"),
    "wildcards in the negative prompt": (
        comfy(n7=node("CLIPTextEncode", text=["20", 0], clip=["4", 1]), n20=node("Wildcards", text="x", seed=1)),
        "negative_prompt",
        "Wildcards",
    ),
    "a random seed": (seeded("Random Number", number_type="integer", minimum=0, maximum=9, seed=3), "seed", "node 21"),
    "a computed seed": (seeded("MathExpression|pysssh", expression="a+1", a=4), "seed", "MathExpression"),
    "a large seed": (comfy(n3=ksampler(seed=2**70)), "seed", str(2**70)),
    "a negative seed": (seeded("Seed (rgthree)", seed=-1), "seed", "-1"),
    "an unknown sampler": (comfy(n3=ksampler(sampler_name="res_2s")), "sampler", "res_2s"),
    "another schedule": (comfy(n3=ksampler(scheduler="karras")), "sampler", "karras"),
    "a sampler by its class": (custom(n16=node("SamplerDPMPP_SDE", eta=1.0, s_noise=1.0)), "sampler", "dpmpp_sde"),
    "linked steps": (comfy(n3=ksampler(steps=["40", 0]), n40=node("Foo", bar=1)), "steps", "node 40 of class Foo"),
    "an image as the start": (
        comfy(n5=node("VAEEncode", pixels=["41", 0], vae=["4", 2]), n41=node("LoadImage", image="x.png")),
        "width",
        "VAEEncode",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_comfyui_computes_is_unknown_and_the_node_is_named(tmp_path, name):
    graph, setting, said = UNKNOWN[name]
    found = metadata.read(png(tmp_path / "x.png", prompt=graph))
    assert set(found.missing) - {"height"} == {setting} and said in found.missing[setting]
    names = ("prompt", "negative_prompt", "steps", "guidance_scale", "sampler", "seed", "width", "height")
    known = [(n, v) for n, v in zip(names, COMFY, strict=True) if n not in found.missing and n != "sampler"]
    assert [(n, getattr(found.settings, n)) for n, _ in known] == known


def test_images_of_two_samplers_saved_by_one_graph(tmp_path):
    graph = comfy(
        n13=ksampler(seed=77, positive=["14", 0]),
        n14=node("CLIPTextEncode", text="a dog", clip=["4", 1]),
        n15=node("VAEDecode", samples=["13", 0], vae=["4", 2]),
        n1=node("SaveImage", images=["15", 0]),
    )
    found = metadata.read(png(tmp_path / "x.png", prompt=graph))
    assert set(found.missing) == {"prompt", "seed"} and "several saved images" in found.missing["prompt"]
    assert fields(found)[1:3] == ("blurry", 20)


def test_a_text_that_doubles_at_every_node_is_quick(tmp_path):
    graph = comfy(n6=node("CLIPTextEncode", text=["a0", 0], clip=["4", 1]), a60=node("PrimitiveString", value="word"))
    graph |= {
        f"a{i}": node("StringConcatenate", string_a=[f"a{i + 1}", 0], string_b=[f"a{i + 1}", 0], delimiter="")
        for i in range(60)
    }
    graph |= {
        f"c{i}": node("ConditioningCombine", conditioning_1=[f"c{i + 1}", 0], conditioning_2=[f"c{i + 1}", 0])
        for i in range(60)
    }
    graph |= {"c60": graph["7"], "3": ksampler(negative=["c0", 0])}
    started = time.process_time()
    found = metadata.read(png(tmp_path / "x.png", prompt=graph))
    assert time.process_time() - started < 1
    assert "longer" in found.missing["prompt"] and fields(found)[1] == "blurry"


# --- the others ------------------------------------------------------------------------------------------------------

SWARM = {
    "prompt": "a red cat",
    "negativeprompt": "blurry",
    "model": "foo",
    "images": 8,
    "seed": 99,
    "steps": 25,
    "cfgscale": 6.5,
    "aspectratio": "Custom",
    "width": 128,
    "height": 192,
    "sampler": "euler_ancestral",
    "scheduler": "normal",
}
FOOOCUS = {
    "prompt": "a red cat",
    "negative_prompt": "blurry",
    "styles": "['Fooocus V2']",
    "performance": "Speed",
    "steps": 25,
    "resolution": "(128, 192)",
    "guidance_scale": 6.5,
    "sharpness": 2.0,
    "base_model": "juggernaut",
    "clip_skip": 2,
    "sampler": "euler_ancestral",
    "scheduler": "normal",
    "seed": "99",
    "version": "Fooocus v2.5.5",
    "metadata_scheme": "fooocus",
}
INVOKE = {
    "app_version": "5.4.3",
    "positive_prompt": "a red cat",
    "negative_prompt": "blurry",
    "width": 128,
    "height": 192,
    "seed": 99,
    "cfg_scale": 6.5,
    "steps": 25,
    "scheduler": "euler_a",
    "model": {"key": "9f", "hash": "blake3:6a", "name": "foo", "base": "sdxl"},
}
INVOKE_2 = {
    "model_weights": "foo",
    "app_id": "invoke-ai/InvokeAI",
    "image": {
        "prompt": [{"prompt": "a red cat [blurry]", "weight": 1}],
        "steps": 25,
        "cfg_scale": 6.5,
        "height": 192,
        "width": 128,
        "seed": 99,
        "type": "txt2img",
        "sampler": "k_euler_a",
    },
}
NOVEL = {
    "prompt": "a red cat",
    "uc": "blurry",
    "steps": 25,
    "width": 128,
    "height": 192,
    "scale": 6.5,
    "seed": 99,
    "sampler": "k_euler_ancestral",
    "noise_schedule": "native",
}
NOVEL_4 = {key: value for key, value in NOVEL.items() if key not in ("prompt", "uc")} | {
    "v4_prompt": {"caption": {"base_caption": "a red cat", "char_captions": []}},
    "v4_negative_prompt": {"caption": {"base_caption": "blurry", "char_captions": []}},
}
DRAW_THINGS = {
    "c": "a red cat",
    "uc": "blurry",
    "model": "foo.ckpt",
    "sampler": "Euler a",
    "scale": 6.5,
    "seed": 99,
    "size": "128x192",
    "steps": 25,
    "strength": 1,
}
EASY = {
    "prompt": "a red cat",
    "negative_prompt": "blurry",
    "seed": 99,
    "num_inference_steps": 25,
    "guidance_scale": 6.5,
    "width": 128,
    "height": 192,
    "sampler_name": "euler_a",
    "use_stable_diffusion_model": "foo",
}
NOVEL_TEXTS = {"Software": "NovelAI", "Source": "Stable Diffusion F1022D28", "Description": "a red cat"}
PROGRAMS = {
    "SwarmUI": ("SwarmUI", {"parameters": {"sui_image_params": SWARM, "sui_extra_data": {"date": "2024-07-05"}}}),
    "Fooocus": ("Fooocus", {"parameters": FOOOCUS, "fooocus_scheme": "fooocus"}),
    "Fooocus with lists": ("Fooocus", {"parameters": FOOOCUS | {"resolution": [128, 192], "styles": ["a"]}}),
    "Fooocus of old": (
        "Fooocus",
        {"parameters": {key.replace("_", " ").title(): value for key, value in FOOOCUS.items()}},
    ),
    "InvokeAI 5": ("InvokeAI", {"invokeai_metadata": INVOKE}),
    "InvokeAI 3": ("InvokeAI", {"invokeai_metadata": INVOKE | {"model": {"model_name": "foo", "base_model": "sd-1"}}}),
    "InvokeAI 2": ("InvokeAI", {"sd_metadata": INVOKE_2}),
    "InvokeAI 2 with a text": (
        "InvokeAI",
        {"sd_metadata": INVOKE_2 | {"image": INVOKE_2["image"] | {"prompt": "a red cat [blurry]"}}},
    ),
    "InvokeAI 1": ("InvokeAI", {"Dream": '"a red cat [blurry]" -s25 -b1 -W128 -H192 -C6.5 -Ak_euler_a -S99'}),
    "InvokeAI 1 with a quoted flag": (
        "InvokeAI",
        {"Dream": '"a red cat [blurry]" -s25 -W128 -H192 -C6.5 -Ak_euler_a -S99 -o "out put"'},
    ),
    "InvokeAI 1 with spaces": (
        "InvokeAI",
        {"Dream": '"a red cat [blurry]" -s 25 -S 99 -W 128 -H 192 -C 6.5 -A k_euler_a'},
    ),
    "InvokeAI 1 without quotes": (
        "InvokeAI",
        {"Dream": "a red cat [blurry] -s25 -W128 -H192 -C6.5 -Ak_euler_a -S99"},
    ),
    "InvokeAI 1 in words": (
        "InvokeAI",
        {
            "Dream": '"a red cat [blurry]" --steps 25 --seed=99 --width 128 --height 192 --cfg_scale 6.5 '
            "--sampler k_euler_a"
        },
    ),
    "NovelAI": ("NovelAI", {"Comment": NOVEL, **NOVEL_TEXTS}),
    "NovelAI 4": ("NovelAI", {"Comment": NOVEL_4, **NOVEL_TEXTS}),
    "Draw Things": ("Draw Things", {"parameters": DRAW_THINGS}),
    "Easy Diffusion": ("Easy Diffusion", {key: str(value) for key, value in EASY.items()}),
    "Easy Diffusion in JSON": ("Easy Diffusion", {"parameters": EASY}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(tmp_path, name):
    program, texts = PROGRAMS[name]
    found = metadata.read(png(tmp_path / "x.png", **texts))
    assert fields(found) == EXPECTED and not found.missing
    assert found.parameters["Program"] == program
    if list(texts) == ["parameters"]:
        for path in (tmp_path / "x.jpg", tmp_path / "x.webp"):
            for first in (True, False):
                comment = json.dumps(texts["parameters"]).encode()
                assert fields(metadata.read(with_comment(path, comment, first=first))) == EXPECTED


def test_the_name_of_the_model(tmp_path):
    for name in ("SwarmUI", "InvokeAI 5", "InvokeAI 3", "InvokeAI 2", "Easy Diffusion"):
        assert metadata.read(png(tmp_path / "x.png", **PROGRAMS[name][1])).parameters["Model"] == "foo"


def test_draw_things_in_xmp(tmp_path):
    said = json.dumps(DRAW_THINGS).replace('"', "&quot;")
    xmp = f"<x:xmpmeta><exif:UserComment><rdf:Alt><rdf:li>{said}</rdf:li></rdf:Alt></exif:UserComment></x:xmpmeta>"
    assert fields(metadata.read(png(tmp_path / "x.png", **{"XML:com.adobe.xmp": xmp}))) == EXPECTED


@pytest.mark.parametrize(
    "name", ["SwarmUI", "Fooocus", "InvokeAI 5", "NovelAI", "Draw Things", "Easy Diffusion in JSON"]
)
def test_fields_that_are_missing_or_odd_are_named(tmp_path, name):
    _, texts = PROGRAMS[name]
    said = json.dumps(texts).replace("99", "[1]").replace("euler", "restart")
    said = said.replace('"Euler', '"Restart')
    found = metadata.read(png(tmp_path / "x.png", **json.loads(said)))
    assert {"seed", "sampler"} == set(found.missing) and "estart" in found.missing["sampler"]


def test_half_a_character_in_json(tmp_path):
    graph = json.dumps(comfy(n6=node("CLIPTextEncode", text="a \ud800 cat")))
    for texts in ({"prompt": graph}, {"parameters": f'a cat\n{LINE}, Hires prompt: "a \\ud800 cat"'}):
        found = metadata.read(png(tmp_path / "x.png", **texts))
        assert "a \ufffd cat" in found.parameters.values() and "\ufffd" in found.model_dump_json()


def test_json_of_nobody_is_not_a_prompt(tmp_path):
    found = metadata.read(png(tmp_path / "x.png", parameters={"hello": "world", "steps": 3}))
    assert found.parameters == {} and found.settings is None

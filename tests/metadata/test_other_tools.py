"""Pictures of other programs give their settings back, as far as they mean the same here."""

import json
import time

import pytest
from PIL import Image, PngImagePlugin

from diffusekit import metadata
from diffusekit.cli.main import run


def png(path, **texts):
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        said = text if isinstance(text, str) else json.dumps(text)
        info.add_itxt(key.replace("_metadata", "-metadata") if key == "sd_metadata" else key, said)
    Image.new("RGB", (16, 8)).save(path, pnginfo=info)
    return path


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


# As ComfyUI saves it: a first pass with a LoRA, and a second one over its latents.
GRAPH = {
    "3": node(
        "KSampler",
        seed=156680208700286,
        steps=24,
        cfg=8,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=1,
        model=["10", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", ckpt_name="dreamshaper_8.safetensors"),
    "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
    "6": node("CLIPTextEncode", text="a red cat, (sitting:1.2)", clip=["10", 1]),
    "7": node("CLIPTextEncode", text="blurry", clip=["10", 1]),
    "8": node("VAEDecode", samples=["11", 0], vae=["4", 2]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    "10": node(
        "LoraLoader", lora_name="x.safetensors", strength_model=1, strength_clip=1, model=["4", 0], clip=["4", 1]
    ),
    "11": node(
        "KSampler",
        seed=1,
        steps=9,
        cfg=4,
        sampler_name="euler",
        scheduler="simple",
        denoise=0.5,
        model=["10", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["3", 0],
    ),
}
WORKFLOW = {"nodes": [], "links": [[1, 4, 0, 10, 0, "MODEL"]], "version": 0.4}
INVOKE = {
    "positive_prompt": "a red cat",
    "negative_prompt": None,
    "width": 640,
    "height": 512,
    "seed": 965400086,
    "rand_device": "cpu",
    "cfg_scale": 6.5,
    "cfg_rescale_multiplier": 0,
    "steps": 28,
    "scheduler": "dpmpp_2m_k",
    "clip_skip": 0,
    "model": {"key": "0a1b", "hash": "blake3:1", "name": "Dreamshaper 8", "base": "sd-1"},
    "loras": [],
    "app_version": "5.6.0",
}
NOVEL = {
    "steps": 28,
    "height": 832,
    "width": 1216,
    "scale": 5.0,
    "seed": 3402031,
    "noise_schedule": "karras",
    "sampler": "k_euler_ancestral",
    "uc": "lowres",
    "prompt": "a red cat",
}
FOOOCUS = {
    "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689",
    "guidance_scale": 4,
    "metadata_scheme": "fooocus",
    "negative_prompt": "",
    "performance": "Speed",
    "prompt": "a red cat",
    "resolution": "(896, 1152)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "8567",
    "sharpness": 2,
    "steps": 30,
    "version": "Fooocus v2.5.5",
}


def test_comfyui(tmp_path):
    for texts in ({"prompt": GRAPH, "workflow": WORKFLOW}, {"prompt": GRAPH}):
        found = metadata.read(png(tmp_path / "x.png", **texts))
        own = found.settings
        assert own is not None and found.record is None
        assert (own.prompt, own.negative_prompt) == ("a red cat, (sitting:1.2)", "blurry")
        assert (own.steps, own.guidance_scale, own.seed) == (24, 8, 156680208700286)
        assert (own.sampler, own.width, own.height) == ("dpm++_2m_karras", 512, 768)
        assert own.model == "mini" and found.parameters["Model"] == "dreamshaper_8.safetensors"
        assert found.parameters["Program"] == "ComfyUI"


def test_comfyui_with_unknown_values(tmp_path):
    sampler = GRAPH["3"]["inputs"] | {
        "seed": ["12", 0],
        "steps": 0,
        "cfg": "high",
        "sampler_name": "res_2s",
    }
    graph = GRAPH | {
        "3": node("KSampler", **sampler),
        "5": node("EmptyLatentImage", width=512, height=3),
    }
    own = metadata.read(png(tmp_path / "x.png", prompt=graph)).settings
    assert own is not None and own.prompt == "a red cat, (sitting:1.2)"
    assert (own.seed, own.steps, own.guidance_scale, own.width) == (None, None, None, None)
    assert own.sampler is None


def test_invokeai(tmp_path):
    own = metadata.read(png(tmp_path / "x.png", invokeai_metadata=INVOKE)).settings
    assert own is not None
    assert (own.prompt, own.negative_prompt, own.seed) == ("a red cat", "", 965400086)
    assert (own.steps, own.guidance_scale, own.sampler) == (28, 6.5, "dpm++_2m_karras")
    assert (own.width, own.height) == (640, 512)


def test_old_invokeai(tmp_path):
    dream = '"a red cat [blurry]" -s 50 -S 42 -W 512 -H 384 -C 7.5 -A k_lms'
    own = metadata.read(png(tmp_path / "x.png", Dream=dream)).settings
    assert own is not None and (own.prompt, own.negative_prompt) == ("a red cat", "blurry")
    assert (own.steps, own.seed, own.width, own.sampler) == (50, 42, 512, "lms")


def test_novelai(tmp_path):
    texts = {
        "Software": "NovelAI",
        "Source": "Stable Diffusion F1022D28",
        "Description": "a red cat",
    }
    own = metadata.read(png(tmp_path / "x.png", Comment=NOVEL, **texts)).settings
    assert own is not None
    assert (own.prompt, own.negative_prompt, own.seed) == ("a red cat", "lowres", 3402031)
    assert (own.steps, own.guidance_scale, own.sampler) == (28, 5, "euler_a")
    assert (own.width, own.height) == (1216, 832)


def test_fooocus(tmp_path):
    own = metadata.read(png(tmp_path / "x.png", parameters=FOOOCUS, fooocus_scheme="fooocus")).settings
    assert own is not None
    assert (own.prompt, own.seed, own.steps, own.sampler) == ("a red cat", 8567, 30, "dpm++_2m_sde")
    assert (own.width, own.height, own.guidance_scale) == (896, 1152, 4)


def test_what_a1111_wrote_comes_first(tmp_path):
    said = "{a|b} cat\nNegative prompt: \nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 64x64"
    own = metadata.read(png(tmp_path / "x.png", parameters=said, prompt=GRAPH)).settings
    assert own is not None and (own.prompt, own.steps, own.sampler) == ("{a|b} cat", 7, "euler")


def test_info_prints_it(tmp_path, capsys):
    assert run(["info", str(png(tmp_path / "x.png", prompt=GRAPH))]) == 0
    said = capsys.readouterr().out
    assert "a red cat, (sitting:1.2)" in said and "ComfyUI" in said and "512x768" in said


def chained(count):
    """A graph whose conditioning is a chain with a prompt beside each link."""
    graph = {"s": node("K", sampler_name="euler", steps=5, cfg=3, positive=["0", 0], model=["0", 0])}
    for i in range(count):
        graph[str(i)] = node("ConditioningCombine", a=[str(i + 1), 0], b=[f"t{i}", 0])
        graph[f"t{i}"] = node("CLIPTextEncode", text=f"word {i}")
    return graph


def woven(count, samplers):
    """Every node is linked to every other, and all of them are walked from every sampler."""
    names = [str(i) for i in range(count)]
    graph = {name: node("Mix", **{f"i{other}": [other, 0] for other in names}) for name in names}
    sampler = node(
        "K",
        sampler_name="euler",
        steps=5,
        cfg=3,
        positive=["0", 0],
        negative=["0", 0],
        model=["0", 0],
    )
    return graph | {f"s{i}": sampler for i in range(samplers)}


@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": "[" * 100_000},
        {"prompt": '{"1": ' * 20_000},
        {"prompt": {"1": 5, "2": {"inputs": []}}},
        {"prompt": [GRAPH]},
        {"prompt": "a red cat"},
        {"prompt": chained(249)},
        {"prompt": chained(20_000)},
        {"prompt": woven(44, 400)},
        {"prompt": {str(i): node("WanVideoSampler", model=[str(i + 1), 0]) for i in range(400)}},
        {"prompt": {"1": GRAPH["3"] | {"inputs": GRAPH["3"]["inputs"] | {"positive": [["x"], 0]}}}},
        {"prompt": GRAPH | {"6": node("CLIPTextEncode", text={"a": 1}), "7": node("x", text=7)}},
        {"invokeai_metadata": "{" * 50_000},
        {"invokeai_metadata": "1" * 900_000},
        {"invokeai_metadata": INVOKE | {"model": "x", "scheduler": ["a"], "positive_prompt": [1]}},
        {"invokeai_metadata": {"scheduler": {"a": 1}, "steps": True, "seed": 1e400, "width": "x" * 50_000}},
        {"Dream": '"a"' + " " * 400_000 + "x"},
        {"sd_metadata": {"image": {"prompt": 3, "sampler": None}}},
        {"Software": "NovelAI", "Comment": [1], "Description": "a", "Source": "b"},
        {"Software": "NovelAI", "Comment": NOVEL, "Description": "a", "Source": " " * 300_000},
        {"parameters": FOOOCUS | {"prompt": None, "resolution": 7, "steps": [1], "seed": {"a": 1}}},
        {"parameters": {}},
        {"Comment": "Created with GIMP"},
    ],
    ids=lambda texts: next(iter(texts)),
)
def test_hostile_texts_are_inert_and_quick(tmp_path, texts):
    path = png(tmp_path / "x.png", **texts)
    started = time.process_time()
    found = metadata.read(path)
    own = found.settings
    assert time.process_time() - started < 3 and found.record is None
    if own is not None:
        assert isinstance(own.prompt, str) and 1 <= (own.steps or 1) <= 1000

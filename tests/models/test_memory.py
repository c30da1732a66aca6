"""The memory plan: which form of a model fits, decided from headers, and equal results in every form."""

import dataclasses

import pytest
import torch
from diffusers import UNet2DConditionModel

import diffusekit
from diffusekit import latents, models
from diffusekit.cli.main import run
from diffusekit.device import Placement
from diffusekit.errors import OutOfMemory, UsageError
from diffusekit.models import model_cache
from diffusekit.models.memory import Footprint, make_plan, measure, needed_as_usual
from diffusekit.models.offload import apply_plan
from diffusekit.pipeline import Generation
from diffusekit.settings import GenerateSettings, ServeSettings, validate

GB = 10**9
XL = Footprint(
    {"text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "unet": 2_567_463_684, "vae": 83_653_863},
    largest=63_242_240,
    unet={
        "block_out_channels": [320, 640, 1280],
        "sample_size": 128,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "attention_head_dim": [5, 10, 20],
    },
    vae={"block_out_channels": [128, 256, 512, 512], "force_upcast": True},
    attention="sdpa",
)


def plan_on(device: str, dtype: torch.dtype, free: float, *, footprint=XL, forced: bool = False, is_free: bool = True):
    place = Placement(torch.device(device), dtype, "", is_free)
    return make_plan("xl", footprint, place, int(free * GB), int(free * GB) if forced else None)


def draw(model: models.Model, **settings) -> torch.Tensor:
    """The last latents of two steps."""
    run = diffusekit.stream("a cat", model=model, steps=2, seed=3, **settings)
    return [step.x_next for step in run][-1]


@pytest.mark.parametrize(
    ("free", "offload", "tile"),
    [
        (24, "none", 0),
        (12, "none", 0),
        (10, "model", 0),
        (7, "model", 0),
        (4.5, "sequential", 0),
        (3, "sequential", 512),
    ],
)
def test_sdxl_on_gpus_of_all_sizes(free, offload, tile):
    plan = plan_on("cuda", torch.float16, free)
    assert (plan.offload, plan.tile, plan.dtype) == (offload, tile, torch.float16)
    assert plan.needed <= plan.limit <= free * GB and str(plan).count("\n") == 0
    assert plan.placement.device.type == "cuda"
    assert plan.placement_to_build.device.type == ("cpu" if offload != "none" else "cuda")


@pytest.mark.parametrize(
    ("free", "tile", "dtype"),
    [(20, 0, torch.float32), (18, 512, torch.float32), (12, 0, torch.bfloat16), (9, 512, torch.bfloat16)],
)
def test_sdxl_on_a_cpu_uses_tiles_then_bfloat16(free, tile, dtype):
    plan = plan_on("cpu", torch.float32, free)
    assert (plan.offload, plan.tile, plan.dtype) == ("none", tile, dtype)
    assert ("because float32 does not fit" in str(plan)) == (dtype == torch.bfloat16)


def test_a_precision_that_was_asked_for_stays():
    with pytest.raises(OutOfMemory, match="the model xl needs at least 15 GB on cpu, and `memory` allows 12 GB"):
        plan_on("cpu", torch.float32, 12, forced=True, is_free=False)
    with pytest.raises(OutOfMemory, match="GB are free"):
        plan_on("cpu", torch.float32, 1)


def test_attention_that_is_written_out_needs_more():
    written = dataclasses.replace(XL, attention="math")
    extra = written.denoise(1024, 1024, 1, torch.float16) - XL.denoise(1024, 1024, 1, torch.float16)
    assert extra == 2 * 2 * 10 * 4096**2 * 2  # scores and probabilities, of two rows and ten heads, in two bytes
    assert written.decode(2048, 2048, 1, torch.float16) > XL.decode(2048, 2048, 1, torch.float16)
    assert plan_on("cuda", torch.float16, 7, footprint=written).offload == "sequential"


def test_batches_and_sizes_follow_the_limit():
    plan = plan_on("cuda", torch.float16, 11, forced=True)
    assert plan.fitting_batch(1024, 1024, 8) < 8 and plan.fitting_batch(512, 512, 4) == 4
    assert plan.choose_decode(1024, 1024, 1) == (False, 0)
    assert plan.choose_decode(1024, 1024, 4) == (True, 0)
    assert plan.choose_decode(4096, 4096, 1) == (False, 512)
    with pytest.raises(OutOfMemory, match="an image of 8192x8192 needs about"):
        plan.fitting_batch(8192, 8192, 1)


@pytest.mark.slow
def test_weights_are_counted_exactly_from_headers(random_models):
    for kind in ("sd1", "sdxl"):
        model = models.load(str(random_models[kind]), "cpu")
        assert model.plan is not None
        for name, network in (("unet", model.unet), ("vae", model.vae), ("text_encoder", model.text_encoders[0])):
            real = sum(p.numel() for p in network.parameters())
            assert model.plan.footprint.weights[name] == real, (kind, name)
        assert dict(models.list_loaded())[kind] >= model.plan.resident


def test_what_does_not_fit_is_refused_before_weights_are_read(random_models, capsys, monkeypatch):
    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
    arguments = ["generate", "a cat", "--model", str(random_models["sd1"]), "--memory", "1MB", "--device", "cpu"]
    assert run(arguments) == 6
    error = capsys.readouterr().err
    assert "the model sd1 needs at least" in error and "--memory allows 1.0 MB" in error and "hint: " in error


@pytest.mark.slow
def test_the_plan_is_said_in_one_line(random_models, capsys):
    folder = str(random_models["sd1"])
    usual = models.plan_memory(folder, "cpu").needed
    for megabytes, says in (
        (usual // 10**6 + 1, "in float32; all networks stay"),
        (usual // 10**6 - 1, "in bfloat16,"),
    ):
        arguments = ["generate", "a cat", "--model", folder, "--memory", f"{megabytes}MB", "--steps", "1", "--quiet"]
        assert run([*arguments, "--device", "cpu", "-o", f"{megabytes}/"]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert len([line for line in lines if "memory plan of sd1" in line and says in line]) == 1, lines


@pytest.mark.parametrize("text", ["4", "four GB", "-1GB", "0GB", "1e9GB", "4 XB"])
def test_a_size_without_a_unit_is_refused(text):
    for settings in (GenerateSettings, ServeSettings):
        with pytest.raises(UsageError, match=r"should be (a size with its unit|more than 0)"):
            validate(settings, {"memory": text})


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("kind", ["sd1"])
def test_offloaded_networks_make_equal_latents_and_images(random_models, kind, offload):
    """On a CPU as the device: the hooks move networks and layers in the same way, only to the same place."""
    folder = str(random_models[kind])
    usual, other = models.load(folder, "cpu"), models.load(folder, "cpu", memory=f"{len(offload)}GB")
    assert usual is not other
    expected = draw(usual, guidance_scale=4)
    apply_plan(dataclasses.replace(other.plan, offload=offload), other)
    if offload == "sequential":
        assert other.unet.conv_in.weight.device.type == "meta"
    assert torch.equal(draw(other, guidance_scale=4), expected)
    assert torch.equal(latents.decode(other, expected), latents.decode(usual, expected))
    pixels = torch.zeros(1, 3, 64, 64)
    assert torch.equal(latents.encode(other, pixels), latents.encode(usual, pixels))


@pytest.mark.slow
def test_one_network_at_a_time_is_on_the_device(random_models, monkeypatch):
    """The moves to a device that this machine has not are recorded instead of done."""
    model = models.load(str(random_models["sd1"]), "cpu", memory="2GB")
    names = {model.unet: "unet", model.vae: "vae", model.text_encoders[0]: "text"}
    there: set[str] = set()
    moves: list[str] = []

    def move(network, device):
        target = str(device)
        (there.add if target == "cuda" else there.discard)(names[network])
        moves.append(f"{names[network]} to {target}")
        assert len(there) <= 1
        return network

    for network in names:
        monkeypatch.setattr(network, "to", lambda device, network=network: move(network, device), raising=False)
    from diffusekit.models import offload

    monkeypatch.setattr(offload, "send_to_device", lambda values, _device: values)
    place = dataclasses.replace(model.placement, device=torch.device("cuda"))
    apply_plan(dataclasses.replace(model.plan, offload="model", placement=place), model)
    diffusekit.generate("a cat", model=model, steps=2, seed=0, guidance_scale=4)
    entered = [move.removesuffix(" to cuda") for move in moves if move.endswith("cuda")]
    assert entered == ["text", "unet", "vae"], moves


@pytest.mark.slow
def test_tiles_leave_latents_equal_and_change_images_little(mini):
    """Group norms see one tile instead of the image, so that tiles are close and not equal."""
    x = draw(mini, width=256, height=256)
    whole = latents.decode(mini, x)
    small = dataclasses.replace(mini, plan=dataclasses.replace(mini.plan, limit=mini.plan.resident + 150_000_000))
    assert small.plan.choose_decode(256, 256, 1) == (False, 0)
    tight = dataclasses.replace(mini.plan, limit=0)
    assert tight.choose_decode(512, 512, 2) == (True, 256)
    tiled = latents.decode(mini, x, tiled=True)
    assert (tiled - whole).abs().mean() < 0.1
    two = mini.plan.resident + mini.plan.footprint.decode(256, 256, 2, torch.float32)
    one_by_one = dataclasses.replace(mini, plan=dataclasses.replace(mini.plan, limit=two))
    assert one_by_one.plan.choose_decode(256, 256, 3) == (True, 0)
    assert torch.equal(latents.decode(one_by_one, torch.cat([x, x, x]))[1:2], whole)
    assert torch.equal(draw(small, width=256, height=256), x)


@pytest.mark.slow
def test_a_smaller_batch_is_said_and_draws_the_same(mini):
    plan = dataclasses.replace(mini.plan, limit=mini.plan.needed)
    model = dataclasses.replace(mini, plan=plan)
    settings = GenerateSettings(prompt="a cat", images=3, batch=3, steps=2, seed=5, width=256, height=256)
    generation = Generation(settings, ["a cat"], model=model)
    steps = [step.x_next for step in generation]
    assert any("batches of 1, not 3" in warning for warning in generation.warnings), generation.warnings
    usual = [step.x_next for step in Generation(settings, ["a cat"], model=mini)]
    assert torch.allclose(torch.cat(steps[1::2]), usual[1], atol=1e-4)


@pytest.mark.slow
def test_models_stay_in_memory_as_long_as_there_is_room(random_models, monkeypatch):
    """A switch between two models loads each once. Without room, the one that was not used longest is dropped."""
    reads = []
    read = UNet2DConditionModel.from_pretrained
    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", lambda *a, **k: (reads.append(a), read(*a, **k))[1])
    one, two, three = (str(random_models[kind]) for kind in ("sd1", "sd2", "lcm"))
    free = [20 * GB]
    monkeypatch.setattr(model_cache, "free_memory", lambda _: free[0])
    first, second = models.load(one, "cpu"), models.load(two, "cpu")
    count = len(reads)
    for _ in range(3):
        assert models.load(one, "cpu") is first and models.load(two, "cpu") is second
    assert len(reads) == count
    models.load(one, "cpu")  # now the other one was not used for longer
    need = needed_as_usual(first.plan.footprint, first.placement)
    weights = sum(size for _, size in models.list_loaded())

    def free_after_drops(_device):
        return need - 1 + weights - sum(size for _, size in models.list_loaded())

    monkeypatch.setattr(model_cache, "free_memory", free_after_drops)
    models.load(three, "cpu")
    monkeypatch.setattr(model_cache, "free_memory", lambda _: 20 * GB)
    names = [name for name, _ in models.list_loaded()]
    assert names[-1] == "lcm" and "sd1" in names
    count = len(reads)
    assert models.load(one, "cpu") is first and len(reads) == count


@pytest.mark.slow
def test_the_text_side_is_kept_for_several_models(random_models):
    one, two = models.load_text(str(random_models["sd1"])), models.load_text(str(random_models["sdxl"]))
    assert models.load_text(str(random_models["sd1"])) is one
    assert models.load_text(str(random_models["sdxl"])) is two and len(two.text_encoders) == 2


@pytest.mark.slow
def test_a_model_whose_files_changed_is_read_again(random_models, tmp_path):
    folder = random_models.copy("sd1", tmp_path / "copy")
    first = models.load(str(folder), "cpu")
    assert models.load(str(folder), "cpu") is first
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert models.load(str(folder), "cpu") is not first


def test_measuring_reads_one_file_checkpoints_too(tmp_path, random_models):
    from types import SimpleNamespace

    from safetensors.torch import save_file

    save_file(
        {
            "model.diffusion_model.a": torch.zeros(5, 2),
            "first_stage_model.b": torch.zeros(3),
            "cond_stage_model.transformer.c": torch.zeros(7),
            "model_ema.a": torch.zeros(99),
        },
        tmp_path / "x.safetensors",
    )
    configs = {"unet": {"block_out_channels": [8]}, "vae": {"block_out_channels": [8]}}
    family = SimpleNamespace(networks=("text_encoder", "unet", "vae"))
    files = SimpleNamespace(path=tmp_path / "x.safetensors", family=family, configs=configs)
    found = measure(files, "sdpa", half=False)
    assert found.weights == {"text_encoder": 7, "unet": 10, "vae": 3} and found.largest == 10

"""What the APIs accept: null fields, usual names, any size, base64 as people send it. What they name: the rest."""

import base64
import io
import json
import urllib.parse
from pathlib import Path

import pytest
from PIL import Image

from diffusekit.errors import FileRefused, UsageError
from diffusekit.pipeline import generate
from diffusekit.schedule import SAMPLERS
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.models import ServerModels
from diffusekit.server.routes.a1111_fields import NEUTRAL, NEUTRAL_OPTIONS, Txt2ImgRequest, read_request
from diffusekit.server.routes.openai_images import ImagesRequest
from diffusekit.server.routes.requests import decode_base64, find_sampler, fit_size
from diffusekit.settings import ServeSettings
from tests.helpers.server import QUICK, client_of, opened

A1111, OPENAI = "/sdapi/v1/txt2img", "/v1/images/generations"
SMALL = {"prompt": "a cat", "steps": 1, "width": 64, "height": 64, "seed": 7}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("requests")
    with opened(outputs=f"{folder}/o", state=f"{folder}/s", embeddings=f"{folder}/e") as jobs:
        yield jobs


@pytest.fixture
def client(jobs):
    return client_of(jobs)


def a1111(client, **body) -> dict:
    """The info of A1111's response, with the size of its image."""
    got = client.post(A1111, json=SMALL | body)
    assert got.status_code == 200, got.text
    info = json.loads(got.json()["info"])
    assert json.loads(got.headers.get("x-diffusekit-warnings", "[]")) == info["warnings"]
    image = Image.open(io.BytesIO(base64.b64decode(got.json()["images"][0])))
    assert image.size == (info["width"], info["height"])
    return info


def openai(client, **body) -> dict:
    got = client.post(OPENAI, json={"prompt": "a cat", "steps": 1, "size": "64x64"} | body)
    assert got.status_code == 200, got.text
    return got.json()


def warnings_of(body: dict) -> list[str]:
    """The warnings about a request to A1111's API, without generating its image."""
    jobs = Jobs(ServeSettings())
    return read_request(Txt2ImgRequest.model_validate({"width": 128, "height": 128} | body), jobs)[1]


# --- null and random ---------------------------------------------------------------------------


def test_null_means_the_default_in_every_field(client):
    everything = dict.fromkeys({*Txt2ImgRequest.model_fields, *NEUTRAL})
    info = a1111(client, **everything | {"steps": 1})
    assert info["width"] == 128 and info["sampler_name"] == "DPM++ 2M" and info["warnings"] == []
    nothing = dict.fromkeys({*ImagesRequest.model_fields, "num_inference_steps", "quality", "style", "user"})
    got = openai(client, **nothing | {"prompt": "a cat", "num_inference_steps": 1, "steps": None})
    assert got["size"] == "128x128" and got["output_format"] == "png" and len(got["data"]) == 1
    assert got["model"] == "mini" and got["warnings"] == []
    job = client.post("/api/jobs", json={"kind": None, "settings": {**QUICK, "prompt": "x", "sampler": None}})
    assert job.status_code == 202 and job.json()["settings"]["sampler"] is None
    assert client.post(OPENAI, json={"prompt": None}).status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize("seed", [-1, None])
def test_a_seed_of_minus_one_is_random(client, jobs, seed):
    assert a1111(client, seed=seed)["seed"] != a1111(client, seed=seed)["seed"] >= 0
    first, second = openai(client, seed=seed), openai(client, seed=seed)
    assert first["data"][0]["b64_json"] != second["data"][0]["b64_json"]


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "scheduler", "own"),
    [
        ("Euler a", "automatic", "euler_a"),
        ("euler a", "Automatic", "euler_a"),
        ("EULER A", None, "euler_a"),
        ("k_euler_a", None, "euler_a"),
        ("k_euler_ancestral", None, "euler_a"),
        ("sample_euler_ancestral", None, "euler_a"),
        ("euler_ancestral", "", "euler_a"),
        ("EulerAncestralDiscreteScheduler", None, "euler_a"),
        ("k_euler", None, "euler"),
        ("EulerDiscrete", None, "euler"),
        ("DPM++ 2M", "Karras", "dpm++_2m_karras"),
        ("DPM++ 2M", None, "dpm++_2m"),
        ("DPM++ 2M Karras", None, "dpm++_2m_karras"),
        ("dpmpp_2m", "karras", "dpm++_2m_karras"),
        ("dpmpp_2m_k", None, "dpm++_2m_karras"),
        ("k_dpmpp_2m_ka", None, "dpm++_2m_karras"),
        ("dpm++2m", None, "dpm++_2m"),
        ("DPMSolverMultistepScheduler", None, "dpm++_2m"),
        ("dpm++_2m_karras", "karras", "dpm++_2m_karras"),
        ("dpm++_2m_sde", None, "dpm++_2m_sde"),
        ("dpmpp_2m_sde_gpu", None, "dpm++_2m_sde"),
        ("uni_pc", None, "unipc"),
        ("PLMS", None, "pndm"),
        ("PNDM", None, "pndm"),
        ("  heun ", None, "heun"),
        (None, "Karras", "dpm++_2m_karras"),
        (None, None, None),
        ("", "", None),
    ],
)
def test_samplers_have_the_names_of_all_programs(label, scheduler, own):
    assert find_sampler(label, scheduler) == (own, [])


def test_every_sampler_is_found_by_all_its_own_names():
    for own, sampler in SAMPLERS.items():
        label = f"{sampler.label} {sampler.schedule_type}".strip()
        for name in (own, label, label.upper(), *(f"{alias} {sampler.schedule_type}" for alias in sampler.aliases)):
            assert find_sampler(name) == (own, []), name


@pytest.mark.parametrize(
    ("label", "scheduler", "own"),
    [
        ("Euler", "Karras", "euler"),
        ("k_lms_ka", None, "lms"),
        ("LMS Karras", None, "lms"),
        ("DPM++ 2M SDE Karras", None, "dpm++_2m_sde"),
        ("DPM++ 2M", "exponential", "dpm++_2m"),
        ("DPM++ 2M Exponential", "Automatic", "dpm++_2m"),
        ("dpm++_2m_karras", "SGM Uniform", "dpm++_2m_karras"),
        (None, "beta", None),
    ],
)
def test_a_schedule_that_the_sampler_does_not_have_is_named(label, scheduler, own):
    found, (warning,) = find_sampler(label, scheduler)
    assert found == own and "has no effect with the sampler" in warning


@pytest.mark.parametrize("name", ["string", "Best", "k_", "DPM++ SDE Karras", "Karras", "<script>"])
def test_an_unknown_sampler_is_refused_with_the_list(client, name):
    with pytest.raises(UsageError, match="is not known") as refused:
        find_sampler(name)
    assert "Euler a" in refused.value.hint
    got = client.post(A1111, json=SMALL | {"sampler_name": name})
    assert got.status_code == 422 and got.json()["field"] == "sampler_name" and "DPM++ 2M SDE" in got.json()["detail"]
    assert client.post(OPENAI, json={"prompt": "x", "sampler": name}).status_code == 422


def test_samplers_of_both_apis(client):
    assert a1111(client, sampler_index="k_euler_a")["sampler_name"] == "Euler a"
    info = a1111(client, sampler_name="Euler", scheduler="Karras")
    assert info["sampler_name"] == "Euler" and "'Karras' has no effect" in info["warnings"][0]
    assert openai(client, sampler="k_euler")["warnings"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "is_named"),
    [
        (None, False),
        ("", False),
        ("mini", False),
        ("gpt-image-1", True),
        ("gpt-image-1-mini", True),
        ("gpt-image-1.5", True),
        ("chatgpt-image-latest", True),
        ("dall-e-3", True),
        ("DALL-E-2", True),
        ("openai/dall-e-3", True),
    ],
)
def test_models_of_openai_are_answered_with_the_servers_own(client, name, is_named):
    got = openai(client, model=name)
    assert got["model"] == "mini" and any("mini was used" in text for text in got["warnings"]) is is_named


@pytest.mark.parametrize("name", ["sd-v9", "stabilityai/sdxl-turbo", "../mini", "my-dall-e-3", "gpt-4o"])
def test_other_models_are_not_found(client, name):
    got = client.post(OPENAI, json={"prompt": "x", "model": name})
    assert got.status_code == 404 and got.json()["error"]["code"] == "model_not_found"


# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "fitted"),
    [
        ((990, 316), (992, 320)),
        ((50, 50), (64, 64)),
        ((8, 8), (32, 32)),
        ((512, 512), (512, 512)),
        ((1792, 1024), (1792, 1024)),
        ((1920, 1080), (1920, 1088)),
        ((0, -5), (0, -5)),  # the settings refuse these
        ((9000, 7), (9000, 7)),
    ],
)
def test_sizes_become_what_the_model_takes(asked, fitted):
    size, warnings = fit_size(ServerModels(ServeSettings()), "mini", *asked)
    assert tuple(size.values()) == fitted
    assert any("became" in text for text in warnings) is (asked != fitted)


def test_a_size_far_above_the_models_own_is_named():
    models = ServerModels(ServeSettings())
    assert fit_size(models, "mini", 256, 256) == ({"width": 256, "height": 256}, [])
    (warning,) = fit_size(models, "mini", 1024, 1024)[1]
    assert "1024x1024 is far above the model's native 128x128" in warning
    assert fit_size(models, "mini", None, None) == ({}, [])
    assert fit_size(models, "not/there", 50, 50) == ({"width": 50, "height": 50}, [])


def test_the_reply_has_the_size_of_the_image(client):
    info = a1111(client, width=99, height=50)
    assert (info["width"], info["height"]) == (96, 64) and "99x50 became 96x64" in info["warnings"][0]
    got = openai(client, size="99 × 50")
    image = Image.open(io.BytesIO(base64.b64decode(got["data"][0]["b64_json"])))
    assert got["size"] == "96x64" and image.size == (96, 64) and "became" in got["warnings"][0]
    got = openai(client, size="99x50", response_format="url")
    assert got["size"] == "96x64" and Image.open(io.BytesIO(client.get(got["data"][0]["url"]).content)).size == (96, 64)
    for auto in ("auto", "", "AUTO", None):
        assert openai(client, size=auto)["size"] == "128x128"
    for bad in ("big", "64", "64x", "x64", "64x64x64", "-64x64", "²x8", "1e3x64", "64.5x64"):
        got = client.post(OPENAI, json={"prompt": "x", "size": bad})
        assert got.status_code == 422 and got.json()["error"]["param"] == "size", bad


# --- fields without effect ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("enable_hr", True),
        ("restore_faces", True),
        ("tiling", True),
        ("styles", ["anime"]),
        ("subseed", 5),
        ("subseed_strength", 0.5),
        ("seed_resize_from_w", 512),
        ("refiner_checkpoint", "sd_xl_refiner"),
        ("eta", 0.5),
        ("s_churn", 1.0),
        ("s_tmax", 2.0),
        ("s_tmin", 0.1),
        ("s_noise", 0.9),
        ("s_noise", 0),
        ("clip_skip", 2),
        ("do_not_save_samples", True),
        ("override_settings_restore_afterwards", False),
        ("infotext", "a cat\nSteps: 5"),
        ("script_name", "X/Y/Z plot"),
        ("alwayson_scripts", {"ADetailer": {"args": [True]}}),
        ("init_images", ["…"]),
        ("frobnicate", 1),
        ("cfg_scales", 7),
    ],
)
def test_a_field_without_effect_is_named(field, value):
    (warning,) = warnings_of({field: value})
    assert warning.startswith(field)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("CLIP_stop_at_last_layers", 2),
        ("outdir_samples", "/tmp"),
        ("samples_format", "jpg"),
        ("eta_noise_seed_delta", 31337),
    ],
)
def test_an_option_without_effect_is_named(option, value):
    (warning,) = warnings_of({"override_settings": {option: value}})
    assert warning.startswith(f"override_settings.{option}")


def test_an_option_that_is_posted_without_effect_is_named_in_a_header(client):
    options = client.get("/sdapi/v1/options").json()
    got = client.post(
        "/sdapi/v1/options", json=options | {"samples_format": "jpg", "CLIP_stop_at_last_layers": 1, "foo": 1}
    )
    assert got.status_code == 200 and got.json() is None
    assert len(json.loads(got.headers["x-diffusekit-warnings"])) == 2
    assert "x-diffusekit-warnings" not in client.post("/sdapi/v1/options", json=options).headers


def test_eta_is_named_only_where_it_would_change_the_image():
    assert not warnings_of({"sampler_name": "Euler a", "eta": 1.0}) and not warnings_of({"eta": 0})
    assert not warnings_of({"sampler_name": "DDIM"}) and not warnings_of({"sampler_name": "DDIM", "eta": 0})
    assert warnings_of({"sampler_name": "DDIM", "eta": 1.0}) and warnings_of({"sampler_name": "Euler a", "eta": 0})


def test_a_second_sampler_is_named():
    assert not warnings_of({"sampler_name": "Euler a", "sampler_index": "Euler"})
    assert "sampler_index" in warnings_of({"sampler_name": "Euler a", "sampler_index": "DDIM"})[0]


def test_what_usual_clients_send_is_not_named():
    silly_tavern = {
        "sampler_name": "Euler a",
        "scheduler": "Automatic",
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 2,
        "hr_additional_modules": [],
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
    }
    webuiapi = {
        "hr_prompt": "",
        "styles": [],
        "subseed": -1,
        "subseed_strength": 0.0,
        "seed_resize_from_h": 0,
        "tiling": False,
        "eta": 1.0,
        "s_churn": 0,
        "s_tmax": 0,
        "s_noise": 1,
        "script_name": None,
        "script_args": [],
        "alwayson_scripts": {},
        "firstphase_width": 0,
    }
    assert warnings_of(silly_tavern) == warnings_of(webuiapi) == []


def test_a_misspelled_field_gets_a_suggestion_and_many_unknown_fields_few_sentences():
    assert "did you mean negative_prompt?" in warnings_of({"negativ_prompt": "x"})[0]
    assert len(warnings_of({f"x{i}" * 40: i for i in range(500)})) <= 20
    assert set(NEUTRAL).isdisjoint(Txt2ImgRequest.model_fields) and "sd_model_checkpoint" not in NEUTRAL_OPTIONS


def test_prompts_of_a1111_have_its_syntax(client):
    got = client.post(A1111, json=SMALL | {"prompt": "a (red:1.5) cat", "steps": 2, "sampler_name": "Euler"}).json()
    expected = generate("a (red:1.5) cat", prompt_syntax="a1111", sampler="euler", device="cpu", **QUICK)[0]
    image = Image.open(io.BytesIO(base64.b64decode(got["images"][0])))
    assert image.tobytes() == expected.image.tobytes() and json.loads(got["info"])["warnings"] == []


def test_warnings_are_in_the_response_of_a1111(client):
    info = a1111(client, enable_hr=True, prompt="a cat", negative_prompt="a dog", cfg_scale=1)
    assert info["warnings"][0] == "enable_hr has no effect on this server"
    assert any("negative_prompt has no effect" in text and "cfg_scale 1" in text for text in info["warnings"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quality", "hd"),
        ("style", "natural"),
        ("background", "transparent"),
        ("moderation", "low"),
        ("output_compression", 50),
        ("partial_images", 2),
        ("cfg_scale", 7),
        ("width", 64),
    ],
)
def test_a_field_without_effect_is_named_by_openais_api(client, field, value):
    (warning,) = openai(client, **{field: value})["warnings"]
    assert warning.startswith(field)


def test_neutral_fields_of_openai_are_not_named(client):
    got = openai(client, quality="standard", style="vivid", background="auto", moderation="auto", user="ann")
    assert got["warnings"] == []
    got = openai(client, response_format="url", output_format="webp")
    assert got["output_format"] == "png" and got["warnings"][0].startswith("output_format")


def test_the_end_of_a_stream_names_model_and_warnings(client):
    asked = {"prompt": "a cat", "steps": 1, "size": "64x64", "stream": True, "quality": "hd", "model": "gpt-image-1"}
    last = json.loads(client.post(OPENAI, json=asked).text.strip().rpartition("data: ")[2])
    assert last["model"] == "mini" and len(last["warnings"]) == 2


def test_warnings_of_jobs_are_in_the_job_and_its_events(client, jobs):
    asked = {**QUICK, "prompt": "x", "negative_prompt": "y", "guidance_scale": 1, "dtype": "bfloat16"}
    job = client.post("/api/jobs", json={"settings": asked}).json()
    assert job["warnings"] == ["dtype has no effect: this server uses auto"]
    events = client.get(f"/api/jobs/{job['id']}/events").text
    last = json.loads(events.strip().rpartition("data: ")[2])
    assert any("negative_prompt" in text for text in last["warnings"]) and len(last["warnings"]) == 2
    assert jobs.store.get(job["id"]).warnings == tuple(last["warnings"])
    assert client.post("/api/jobs", json={"settings": {}, "prompt": "x"}).status_code == 422


@pytest.mark.slow
def test_the_examples_of_the_schema_are_valid_requests(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for path, name, required in ((A1111, "Txt2ImgRequest", set()), (OPENAI, "ImagesRequest", {"prompt"})):
        fields = schemas[name]["properties"]
        body = {}
        for field, about in fields.items():
            assert "examples" in about or about.get("default") is not None, (name, field)
            body[field] = about["examples"][0] if "examples" in about else about["default"]
        assert set(schemas[name].get("required", ())) == required
        got = client.post(path, json=body | {"stream": False, "steps": 1})
        assert got.status_code == 200, got.text


# --- base64 ------------------------------------------------------------------------------------


def spellings(data: bytes) -> dict[str, str]:
    text, lines = base64.b64encode(data).decode(), base64.encodebytes(data).decode()
    safe = base64.urlsafe_b64encode(data).decode()
    return {
        "plain": text,
        "line breaks": lines,
        "CRLF": lines.replace("\n", "\r\n"),
        "spaces and tabs": f" \t{text[:9]} {text[9:]}\n",
        "no padding": text.rstrip("="),
        "url-safe": safe,
        "url-safe, no padding": safe.rstrip("="),
        "data URL": f"data:image/png;base64,{text}",
        "data URL in capitals": f"DATA:image/png;BASE64,{text}",
        "data URL without a type": f"data:;base64,{text}",
        "data URL with parameters and line breaks": f"data:image/png;name=x.png;base64,\n{lines}",
        "data URL, percent-encoded": f"data:image/png;base64,{urllib.parse.quote(text, safe='')}",
    }


@pytest.mark.parametrize("length", [1, 2, 3, 100, 101, 102, 5000])
def test_base64_is_read_however_clients_write_it(length):
    data = bytes((i * 89 + 251) % 256 for i in range(length))
    for kind, text in spellings(data).items():
        assert decode_base64(text) == data, kind


@pytest.mark.parametrize(
    "bad",
    ["", " ", "!!!", "a", "abcde", "data:,", "data:image/png,abcd", "data:image/png;base64,", "häßlich", "C:\\x.png"],
)
def test_what_is_not_base64_is_refused_in_one_sentence(client, bad):
    with pytest.raises(FileRefused, match="base64"):
        decode_base64(bad)
    got = client.post("/sdapi/v1/png-info", json={"image": bad})
    assert got.status_code == 415 and "base64" in got.json()["detail"]


def test_png_info_takes_every_spelling(client, tmp_path):
    path = Path(tmp_path, "x.png")
    Image.new("RGB", (16, 16), "red").save(path)
    for kind, text in spellings(path.read_bytes()).items():
        assert client.post("/sdapi/v1/png-info", json={"image": text}).status_code == 200, kind

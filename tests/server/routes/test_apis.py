"""Requests, responses and errors of the three APIs."""

import base64
import io
import json
import shutil
import threading
from pathlib import Path

import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.pipeline import Generation, generate
from diffusekit.server.jobs import generate as generate_job
from diffusekit.server.jobs import kinds
from diffusekit.server.jobs.context import JobContext
from diffusekit.settings import ServeSettings
from tests.helpers import ROOT, foreign_images
from tests.helpers.server import QUICK, client_of, opened, paced, ticking, until

SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 7}


@pytest.fixture
def jobs():
    with opened(queue=2) as jobs:
        yield jobs


@pytest.fixture
def client(jobs):
    return client_of(jobs)


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def events(text: str) -> list[tuple[str, dict]]:
    blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
    return [(a.removeprefix("event: "), json.loads(b.removeprefix("data: "))) for a, b in blocks]


# --- A1111 -------------------------------------------------------------------------------------


def test_txt2img(client):
    asked = {
        "prompt": "a red cat",
        "batch_size": 1,
        "n_iter": 2,
        **SMALL,
        "cfg_scale": 3,
        "sampler_name": "Euler a",
        "restore_faces": True,
        "alwayson_scripts": {},
        "enable_hr": False,
    }
    got = client.post("/sdapi/v1/txt2img", json=asked).json()
    info = json.loads(got["info"])
    assert info["all_seeds"] == [7, 8] and info["sampler_name"] == "Euler a" and info["width"] == 64
    assert info["infotexts"][0].startswith("a red cat\nNegative prompt:") and info["cfg_scale"] == 3
    expected = generate("a red cat", images=2, batch=1, sampler="euler_a", device="cpu", **QUICK)
    for text, picture in zip(got["images"], expected, strict=True):
        assert decoded(text).tobytes() == picture.image.tobytes()
        assert "parameters" in decoded(text).info
    assert got["parameters"]["prompt"] == "a red cat"
    got = client.post("/sdapi/v1/txt2img", json=asked | {"send_images": False}).json()
    assert got["images"] == []


def test_lists_and_options(client):
    get = {
        name: client.get(f"/sdapi/v1/{name}").json()
        for name in (
            "options",
            "sd-models",
            "samplers",
            "schedulers",
            "upscalers",
            "latent-upscale-modes",
            "sd-vae",
            "embeddings",
            "progress",
        )
    }
    assert get["options"]["sd_model_checkpoint"] == "mini" == get["sd-models"][0]["title"]
    assert {"name": "Euler a", "aliases": ["euler_a"], "options": {}} in get["samplers"]
    assert [s["name"] for s in get["schedulers"]] == ["automatic", "karras", "sgm uniform"]
    assert get["embeddings"] == {"loaded": {}, "skipped": {}}
    assert get["progress"]["progress"] == 0 and get["progress"]["state"]["job_count"] == 0
    assert client.post("/sdapi/v1/options", json=get["options"]).json() is None
    assert client.post("/sdapi/v1/refresh-embeddings").status_code == 200


def test_learned_tokens_are_listed_and_bad_files_skipped(client):
    Path("embeddings").mkdir()
    for path in (ROOT / "embeddings").glob("*.safetensors"):
        shutil.copy(path, "embeddings")
    Path("embeddings/bad.safetensors").write_bytes(b"no")
    found = client.get("/sdapi/v1/embeddings").json()
    assert list(found["skipped"]) == ["bad"] and len(found["loaded"]) >= 1
    assert all(about["vectors"] >= 1 for about in found["loaded"].values())
    name = next(iter(found["loaded"]))
    made = generate_job.check({"embedding": [name]}, ServeSettings())
    assert made["embedding"] == [name]


def test_png_info(client):
    image = generate("a red cat", device="cpu", **QUICK)[0]
    image.save("x.png")
    sent = base64.b64encode(Path("x.png").read_bytes()).decode()
    for text in (sent, f"data:image/png;base64,{sent}"):
        got = client.post("/sdapi/v1/png-info", json={"image": text}).json()
        assert got["info"] == metadata.format_infotext(image.record)
        assert got["parameters"]["Seed"] == "7"
    for bad in ("!!!", base64.b64encode(b"<svg onload=alert(1)>").decode(), "", "data:,"):
        refused = client.post("/sdapi/v1/png-info", json={"image": bad})
        assert refused.status_code == 415 and "/tmp" not in refused.text, bad
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "PNG")
    sent = base64.b64encode(plain.getvalue()).decode()
    assert client.post("/sdapi/v1/png-info", json={"image": sent}).json()["info"] == ""


def test_png_info_gives_the_stored_text_as_it_is(client, tmp_path):
    text = (
        'a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 128x128, Hires prompt: "a cat, \\nwith a hat", '
        'TI hashes: "EasyNegative: c74b4e810b03"'
    )
    path = foreign_images.png(tmp_path / "x.png", parameters=text, other="more")
    sent = base64.b64encode(path.read_bytes()).decode()
    got = client.post("/sdapi/v1/png-info", json={"image": sent}).json()
    assert got["info"] == text and got["items"] == {"other": "more"}
    assert got["parameters"]["Hires prompt"] == "a cat, \nwith a hat" and got["parameters"]["Seed"] == "1"
    assert metadata.parse_infotext(got["info"]) == got["parameters"]
    path = foreign_images.with_comment(tmp_path / "x.jpg", b"UNICODE\0" + text.encode("utf-16-le"), order="little")
    sent = base64.b64encode(path.read_bytes()).decode()
    assert client.post("/sdapi/v1/png-info", json={"image": sent}).json()["info"] == text


def test_progress_interrupt_and_skip(jobs, client, monkeypatch):
    ticks = ticking(monkeypatch)
    # only jobs that make pictures are interrupted
    monkeypatch.setitem(kinds.JOB_TYPES, "generate", kinds.JOB_TYPES["tick"])
    monkeypatch.setattr("diffusekit.server.jobs.events.REQUEST_DURATION", 3600.0)
    job = jobs.submit("generate", {"steps": 4})
    until(lambda: jobs.running_job)
    client.get("/sdapi/v1/progress")
    ticks.go(2)
    until(lambda: jobs.get(job.id).step == 2 and jobs.request_preview())
    got = client.get("/sdapi/v1/progress").json()
    assert got["progress"] == 0.5 and got["state"]["sampling_step"] == 2 and got["eta_relative"] >= 0
    assert decoded(got["current_image"]).size == (8, 8)
    assert client.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    assert client.post("/sdapi/v1/skip").json() == {}
    assert client.post("/sdapi/v1/interrupt").json() == {}
    ticks.go()
    until(lambda: jobs.running_job is None)
    assert jobs.get(job.id).state == "cancelled"
    assert client.post("/sdapi/v1/interrupt").json() == {}


def test_interrupting_returns_the_finished_images(client, monkeypatch):
    kept = JobContext.add_image

    def finished(work, path):
        kept(work, path)
        client.post("/sdapi/v1/interrupt")

    monkeypatch.setattr(JobContext, "add_image", finished)
    asked = {"prompt": "a cat", **SMALL, "steps": 20, "n_iter": 4}
    got = client.post("/sdapi/v1/txt2img", json=asked)
    assert got.status_code == 200 and len(got.json()["images"]) == 1


# --- OpenAI --------------------------------------------------------------------------------------


def test_generations(client):
    asked = {"prompt": "a red cat", "n": 2, "size": "64x64", "steps": 2, "seed": 7, "quality": "hd"}
    got = client.post("/v1/images/generations", json=asked).json()
    assert got["size"] == "64x64" and got["output_format"] == "png" and got["created"] > 0
    expected = generate("a red cat", images=2, device="cpu", **QUICK)
    for item, picture in zip(got["data"], expected, strict=True):
        assert decoded(item["b64_json"]).tobytes() == picture.image.tobytes()
    other = client.post("/v1/images/generations", json=asked | {"num_inference_steps": 3, "n": 1})
    record = metadata.Record.model_validate_json(decoded(other.json()["data"][0]["b64_json"]).info["diffusekit"])
    assert record.settings.steps == 3


@pytest.mark.parametrize(("kind", "name"), [("webp", "WEBP"), ("jpeg", "JPEG")])
def test_other_formats_contain_the_record(client, kind, name, tmp_path):
    asked = {"prompt": "a cat", "size": "64x64", "steps": 1, "output_format": kind}
    item = client.post("/v1/images/generations", json=asked).json()["data"][0]
    assert decoded(item["b64_json"]).format == name
    path = tmp_path / f"x.{kind}"
    path.write_bytes(base64.b64decode(item["b64_json"]))
    found = metadata.read(path)
    assert found.record and found.record.settings.prompt == "a cat" and found.label


def test_images_by_url(client):
    asked = {"prompt": "a cat", "size": "64x64", "steps": 1, "response_format": "url"}
    item = client.post("/v1/images/generations", json=asked).json()["data"][0]
    assert item["url"].startswith("http://127.0.0.1:7860/outputs/")
    assert client.get(item["url"]).headers["content-type"] == "image/png"


@pytest.mark.slow
def test_partial_images_come_before_the_image(client):
    asked = {
        "prompt": "a cat",
        "size": "64x64",
        "steps": 12,
        "seed": 7,
        "stream": True,
        "partial_images": 2,
    }
    with paced():
        got = client.post("/v1/images/generations", json=asked)
    assert got.headers["content-type"].startswith("text/event-stream")
    *partial, (kind, last) = events(got.text)
    assert kind == last["type"] == "image_generation.completed" and last["usage"]["total_tokens"] == 0
    assert [e["partial_image_index"] for _, e in partial] == [0, 1]
    assert all(decoded(e["b64_json"]).size == (64, 64) for _, e in partial)
    expected = generate("a cat", device="cpu", **QUICK | {"steps": 12})[0]
    assert decoded(last["b64_json"]).tobytes() == expected.image.tobytes()


def test_a_failed_stream_ends_with_an_error_event(client, monkeypatch):
    monkeypatch.setattr(Generation, "__iter__", lambda self: 1 / 0)
    asked = {"prompt": "a cat", "size": "64x64", "steps": 1, "stream": True}
    ((kind, said),) = events(client.post("/v1/images/generations", json=asked).text)
    assert kind == "error" and "unexpected: ZeroDivisionError" in said["error"]["message"]


def test_models(client):
    got = client.get("/v1/models").json()
    assert got["object"] == "list" and got["data"][0]["id"] == "mini"
    assert client.get("/v1/models/mini").json()["id"] == "mini"
    assert client.get("/v1/models/a/b").status_code == 404


# --- our own ---------------------------------------------------------------------------------------


def test_jobs_over_http(jobs, client, monkeypatch):
    got = client.post("/api/jobs", json={"settings": {"prompts": ["a cat", "a dog"], **QUICK}})
    assert got.status_code == 202 and got.headers["location"] == f"/api/jobs/{got.json()['id']}"
    seen = events(client.get(f"{got.headers['location']}/events").text)
    assert seen[-1][0] == "done" and len(seen[-1][1]["pictures"]) == 2
    picture = client.get("/outputs/" + seen[-1][1]["pictures"][0])
    assert Image.open(io.BytesIO(picture.content)).size == (64, 64)
    assert client.get("/api/jobs").json()[0]["state"] == "done"
    assert client.delete(got.headers["location"]).status_code == 409
    ticks = ticking(monkeypatch)
    job = client.post("/api/jobs", json={"kind": "tick", "settings": {}}).json()
    until(lambda: jobs.running_job)
    client.delete(f"/api/jobs/{job['id']}")
    ticks.go()
    until(lambda: jobs.get(job["id"]).is_finished)
    assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "cancelled"


def test_previews_in_the_events(client, jobs, monkeypatch):
    ticks = ticking(monkeypatch)
    job = jobs.submit("tick", {"steps": 3})

    def begin() -> None:
        channel = jobs.channel(job.id)
        until(lambda: channel.subscribers)
        ticks.go(1)
        until(lambda: channel.preview and channel.is_delivered)
        ticks.go(2)

    threading.Thread(target=begin).start()
    seen = events(client.get(f"/api/jobs/{job.id}/events").text)
    shown = [said for kind, said in seen if kind == "preview"]
    assert shown and decoded(shown[0]["preview_webp"][0]).format == "WEBP"


def test_the_events_of_a_job_that_is_requeued_end_with_kept(client, jobs, monkeypatch):
    """Clients know the event by this name since 0.4.0."""
    ticks = ticking(monkeypatch)
    jobs.submit("tick", {})
    channel = jobs.channel(jobs.submit("tick", {}).id)

    def close() -> None:
        until(lambda: channel.subscribers)
        channel.close()  # as `Jobs.close` does

    threading.Thread(target=close).start()
    assert events(client.get(f"/api/jobs/{channel.job.id}/events").text)[-1][0] == "kept"
    ticks.go(10)


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "asked", "status", "field"),
    [
        ("/sdapi/v1/txt2img", {"cfg_scale": 1000}, 422, "cfg_scale"),
        ("/sdapi/v1/txt2img", {"cfg_scale": "warm"}, 422, "cfg_scale"),
        ("/sdapi/v1/txt2img", {"sampler_name": "Best"}, 422, "sampler_name"),
        ("/sdapi/v1/txt2img", {"batch_size": 0}, 422, "batch_size"),
        ("/sdapi/v1/txt2img", {"batch_size": 5, "n_iter": 5}, 422, "batch_size"),
        ("/sdapi/v1/txt2img", {"steps": 10**9}, 422, "steps"),
        ("/sdapi/v1/txt2img", {"width": 0}, 422, "width"),
        ("/sdapi/v1/txt2img", {"n_iter": 0}, 422, "n_iter"),
        ("/sdapi/v1/txt2img", {"batch_size": -1, "n_iter": -1}, 422, "batch_size"),
        ("/sdapi/v1/txt2img", {"seed": -2}, 422, "seed"),
        ("/sdapi/v1/txt2img", {"seed": 10**30}, 422, "seed"),
        ("/sdapi/v1/txt2img", {"prompt": "x" * 5000}, 422, "prompt"),
        ("/sdapi/v1/txt2img", {"override_settings": {"sd_model_checkpoint": "x"}}, 422, "override_settings"),
        ("/v1/images/generations", {"prompt": "x", "size": "big"}, 422, "size"),
        ("/v1/images/generations", {"prompt": "x", "size": "9000x9000"}, 422, "size"),
        ("/v1/images/generations", {"prompt": "x", "n": 0}, 422, "n"),
        ("/v1/images/generations", {"prompt": "x", "steps": 0}, 422, "num_inference_steps"),
        ("/v1/images/generations", {"prompt": "x", "model": "sd-v9"}, 404, "model"),
        ("/v1/images/generations", {"prompt": "x", "output_format": "svg"}, 422, "output_format"),
        ("/v1/images/generations", {}, 422, "prompt"),
        ("/api/jobs", {"settings": {"stepz": 5}}, 422, ""),
        ("/api/jobs", {"settings": {"guidance_scale": -1}}, 422, "guidance_scale"),
        ("/api/jobs", {"kind": "dance", "settings": {}}, 422, "kind"),
        ("/api/jobs", {}, 422, "settings"),
    ],
)
def test_errors_name_the_field_as_the_client_wrote_it(client, path, asked, status, field):
    got = client.post(path, json=asked)
    assert got.status_code == status, got.text
    said = got.json()
    if path.startswith("/sdapi"):
        assert isinstance(said["detail"], str) and said["field"] == field
    elif path.startswith("/v1"):
        assert said["error"]["message"] and said["error"]["param"] == (field or None)
    else:
        assert said["error"]["message"] and said["error"]["field"] == field


def test_a_full_queue_is_429_and_a_stopping_server_503(jobs, client, monkeypatch):
    ticks = ticking(monkeypatch)
    for _ in range(3):
        jobs.submit("tick", {"steps": 1})
        until(lambda: jobs.running_job)
    posts = [
        ("/sdapi/v1/txt2img", {"prompt": "x"}),
        ("/v1/images/generations", {"prompt": "x"}),
        ("/api/jobs", {"settings": {}}),
    ]
    for path, asked in posts:
        got = client.post(path, json=asked)
        assert got.status_code == 429 and int(got.headers["retry-after"]) >= 1
    jobs.stop_accepting()
    for path, asked in posts:
        got = client.post(path, json=asked)
        assert got.status_code == 503 and int(got.headers["retry-after"]) >= 1
    assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
    ticks.go(3)


def test_unknown_jobs_and_unexpected_errors(client, jobs, monkeypatch):
    assert client.get("/api/jobs/none").status_code == 404
    assert client.get("/api/jobs/none/events").status_code == 404
    monkeypatch.setattr(jobs, "list", lambda limit: 1 / 0)
    got = client_of(jobs, raise_server_exceptions=False).get("/api/jobs")
    assert got.status_code == 500 and got.json()["error"]["code"] == 1


def test_metrics(jobs, client):
    list(jobs.watch(jobs.submit("generate", {"prompt": "x", **QUICK}).id))
    until(lambda: jobs.statistics.busy_seconds)
    text = client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["diffusekit_pictures_total"]) == 1
    assert float(values['diffusekit_jobs_total{state="done"}']) == 1
    assert float(values["diffusekit_seconds_per_picture"]) > 0
    assert float(values['diffusekit_memory_bytes{where="process"}']) > 1e7

"""Start images and masks that clients send: A1111's img2img, OpenAI's edits and variations, and jobs."""

import base64
import io
import json
import os
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diffusekit import generate, images, metadata
from diffusekit.mask import Mask
from diffusekit.server.storage import sources
from diffusekit.start_image import StartImage
from tests.helpers.server import client_of, listening, opened

QUICK = {"steps": 2, "seed": 7}


@pytest.fixture
def jobs():
    with opened() as jobs:
        yield jobs


@pytest.fixture
def client(jobs):
    return client_of(jobs)


@pytest.fixture(scope="module")
def photo():
    """An image of colors that no model draws."""
    ramp = Image.linear_gradient("L").rotate(90).resize((96, 64))
    return Image.merge("RGB", (ramp, Image.new("L", ramp.size, 90), Image.eval(ramp, lambda value: 255 - value)))


@pytest.fixture(scope="module")
def mask(photo):
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).rectangle((32, 16, 71, 47), fill=255)
    return mask


@pytest.fixture(scope="module")
def holes(photo, mask):
    """The photo, transparent where the mask is white."""
    image = photo.convert("RGBA")
    image.putalpha(Image.eval(mask, lambda value: 255 - value))
    return image


def base64_of(image):
    return base64.b64encode(images.encode(image, "PNG")).decode()


def decoded(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def kept_and_painted(image, photo, mask):
    """Whether what the mask keeps is the photo's, and how much of the rest is."""
    same = (np.asarray(image) == np.asarray(photo)).all(2)
    return bool(same[np.asarray(mask) == 0].all()), same[np.asarray(mask) > 0].mean()


# --- A1111 -------------------------------------------------------------------------------------


def test_img2img_starts_from_the_image(client, photo):
    asked = {"prompt": "a cat", "init_images": [base64_of(photo)], "denoising_strength": 0.5, "cfg_scale": 3, **QUICK}
    got = client.post("/sdapi/v1/img2img", json=asked | {"sampler_name": "Euler"}).json()
    expected = generate("a cat", image=photo, strength=0.5, guidance_scale=3, sampler="euler", **QUICK)[0]
    assert decoded(got["images"][0]).tobytes() == expected.image.tobytes()
    assert got["parameters"]["init_images"] is None and json.loads(got["info"])["warnings"] == []


@pytest.mark.parametrize("more", [{"inpaint_full_res": False}, {"inpaint_full_res": True, "width": 64, "height": 64}])
def test_img2img_paints_where_the_mask_is_white(client, photo, mask, more):
    asked = {"prompt": "a cat", "init_images": [base64_of(photo)], "mask": base64_of(mask), "mask_blur": 0}
    got = client.post("/sdapi/v1/img2img", json=asked | QUICK | more)
    image = decoded(got.json()["images"][0])
    assert image.size == photo.size
    is_kept, painted = kept_and_painted(image, photo, mask)
    assert is_kept and painted < 0.2
    inverted = client.post("/sdapi/v1/img2img", json=asked | QUICK | more | {"inpainting_mask_invert": 1})
    same = (np.asarray(decoded(inverted.json()["images"][0])) == np.asarray(photo)).all(2)
    assert same[np.asarray(mask) > 0].all() and not same.all()


def test_img2img_records_what_a1111_calls_it(jobs, client, photo, mask):
    asked = {
        "init_images": [f"data:image/png;base64,{base64_of(photo)}"],
        "mask": base64_of(mask),
        "mask_blur": 3,
        "inpainting_fill": 2,
        "inpaint_full_res_padding": 8,
        "denoising_strength": 0.5,
    }
    info = json.loads(client.post("/sdapi/v1/img2img", json=asked | QUICK).json()["info"])
    [job] = jobs.list(1)
    record = metadata.read(jobs.outputs / job.pictures[0]).record
    assert record.start_image == StartImage.open(photo).sha256 and record.mask == Mask.open(mask).sha256
    used = record.settings
    assert (used.mask_blur, used.mask_content, used.mask_padding, used.strength) == (3, "noise", 8, 0.5)
    assert "Mask blur: 3, Inpaint area: Only masked, Masked area padding: 8" in info["infotexts"][0]
    assert "state" not in json.dumps(job.to_json()["settings"]) and info["warnings"] == []


@pytest.mark.parametrize(("mode", "corner"), [(0, "kept"), (1, "cut"), (2, "kept")])
def test_resize_modes(client, photo, mode, corner):
    asked = {"init_images": [base64_of(photo)], "resize_mode": mode, "width": 64, "height": 96, **QUICK}
    white = Image.new("L", photo.size)
    white.paste(255, (40, 24, 56, 40))
    got = client.post("/sdapi/v1/img2img", json=asked | {"mask": base64_of(white), "inpaint_full_res": False})
    image = decoded(got.json()["images"][0])
    assert image.size == (64, 96)
    top = np.asarray(photo)[0, 0].astype(int) - np.asarray(image)[0, 0]
    assert (np.abs(top).max() < 12) == (corner == "kept")


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"init_images": []}, 422, "init_images has no image"),
        ({}, 422, "init_images"),
        ({"init_images": ["hello!"]}, 415, "init_images: the image is not in base64"),
        ({"init_images": [base64.b64encode(b"hello").decode()]}, 415, "not an image"),
        ({"denoising_strength": 0}, 422, "denoising_strength"),
        ({"mask": base64_of(Image.new("L", (10, 90), 255))}, 422, "the mask is 10x90, and the image 96x64"),
        ({"mask": base64_of(Image.new("L", (96, 64)))}, 422, "paints nothing"),
    ],
)
def test_img2img_refuses(client, photo, body, status, sentence):
    good = {"init_images": [base64_of(photo)]} if body else {}
    got = client.post("/sdapi/v1/img2img", json=good | body | QUICK)
    assert (got.status_code, sentence in json.dumps(got.json())) == (status, True), got.text


# --- OpenAI ------------------------------------------------------------------------------------


def png(image):
    return ("image.png", images.encode(image, "PNG"), "image/png")


def test_an_edit_paints_what_is_transparent(client, photo, mask, holes):
    for files in ({"image": png(holes)}, {"image": png(photo), "mask": png(holes)}):
        got = client.post("/v1/images/edits", data={"prompt": "a cat", **QUICK}, files=files)
        is_kept, painted = kept_and_painted(decoded(got.json()["data"][0]["b64_json"]), photo, mask)
        assert is_kept and painted < 0.2
        assert got.json()["warnings"] == [] and got.json()["size"] == "96x64"


def test_a_variation_needs_no_prompt(jobs, client, photo):
    got = client.post("/v1/images/variations", data={"size": "64x64", **QUICK}, files={"image": png(photo)})
    assert decoded(got.json()["data"][0]["b64_json"]).size == (64, 64)
    assert jobs.list(1)[0].settings["prompts"] == [""]
    assert metadata.read(jobs.outputs / jobs.list(1)[0].pictures[0]).record.settings.strength == 0.6


def test_edits_are_refused_with_the_field(client, photo):
    def post(path="edits", files=None, **data):
        sent = {"image": png(photo)} if files is None else files
        got = client.post(f"/v1/images/{path}", data={"prompt": "a cat"} | data, files=sent)
        return got.status_code, json.dumps(got.json())

    status, said = post(files={"mask": png(photo)})
    assert status == 422 and "image is missing" in said
    status, said = post(files={"image": png(photo), "mask": png(photo)})
    assert status == 422 and "mask has no transparent pixels" in said
    status, said = post(files={"image": ("a.png", b"hello", "image/png")})
    assert status == 415 and "image: " in said
    assert post(n="many")[0] == post(size="big")[0] == post("variations", files={"mask": png(photo)})[0] == 422
    got = client.post("/v1/images/edits", json={"prompt": "a cat"})
    assert got.status_code == 422 and "not a form" in got.text


# --- jobs, and what is stored --------------------------------------------------------------------


def test_a_job_takes_an_image_and_a_mask(jobs, client, photo, mask):
    body = {"settings": {"prompt": "a cat", **QUICK}, "image": base64_of(photo), "mask": base64_of(mask)}
    made = client.post("/api/jobs", json=body).json()
    *_, last = jobs.watch(made["id"])
    with Image.open(jobs.outputs / last.job.pictures[0]) as image:
        assert kept_and_painted(image, photo, mask)[0]
    refused = client.post("/api/jobs", json=body | {"image": None})
    assert refused.status_code == 422 and "there is none" in refused.text
    for id in ("../../etc/passwd", "0" * 64):
        refused = client.post("/api/jobs", json={"settings": {"start_image": id}})
        assert refused.status_code == 422 and "start_image is not an image that was sent" in refused.text


def test_stored_images_are_shared_and_deleted_after_a_week(rules, photo):
    first = sources.store(rules, StartImage.open(photo))
    assert first == sources.store(rules, StartImage.open(photo.copy()))
    path = sources.find(rules.state, "start_image", first)
    os.utime(path, (time.time() - sources.MAX_AGE - 60,) * 2)
    sources.store(rules, StartImage.open(Image.new("RGB", (8, 8))))
    assert not path.exists() and len(list(path.parent.iterdir())) == 1


# --- real clients ------------------------------------------------------------------------------


@pytest.mark.slow
def test_webuiapi_paints(photo, mask):
    import webuiapi

    with opened() as jobs, listening(jobs) as url:
        api = webuiapi.WebUIApi(host="127.0.0.1", port=int(url.rpartition(":")[2]), sampler="Euler a")
        size = {"width": 96, "height": 64}
        result = api.img2img(images=[photo], prompt="a red cat", denoising_strength=0.6, **size, **QUICK)
        expected = generate("a red cat", image=photo, strength=0.6, sampler="euler_a", guidance_scale=7.0, **QUICK)[0]
        assert result.image.tobytes() == expected.image.tobytes() and result.info["warnings"] == []
        painted = api.img2img(
            images=[photo],
            mask_image=mask,
            mask_blur=0,
            inpaint_full_res=False,
            inpainting_fill=1,
            prompt="a red cat",
            **size,
            **QUICK,
        )
        assert kept_and_painted(painted.image, photo, mask)[0]
        only = api.img2img(images=[photo], mask_image=mask, inpaint_full_res_padding=8, prompt="a cat", **size, **QUICK)
        assert only.image.size == photo.size and only.info["warnings"] == []


@pytest.mark.slow
def test_openai_edits_and_varies(tmp_path, photo, mask, holes):
    import openai

    photo.save(tmp_path / "photo.png")
    holes.save(tmp_path / "mask.png")
    with opened() as jobs, listening(jobs) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        with (tmp_path / "photo.png").open("rb") as image, (tmp_path / "mask.png").open("rb") as transparent:
            made = client.images.edit(image=image, mask=transparent, prompt="a red cat", extra_body=QUICK)
        assert kept_and_painted(decoded(made.data[0].b64_json), photo, mask)[0]
        many = [(tmp_path / "photo.png").read_bytes(), (tmp_path / "mask.png").read_bytes()]
        stream = client.images.edit(
            image=many, prompt="a red cat", stream=True, partial_images=1, extra_body=QUICK | {"steps": 12}
        )
        kinds = [event.type for event in stream]
        assert kinds[-1] == "image_edit.completed" and set(kinds[:-1]) <= {"image_edit.partial_image"}
        with (tmp_path / "photo.png").open("rb") as image:
            varied = client.images.create_variation(image=image, n=2, size="256x256", extra_body=QUICK)
        assert [decoded(each.b64_json).size for each in varied.data] == [(256, 256)] * 2

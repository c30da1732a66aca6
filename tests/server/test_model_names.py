"""Models, VAE files and titles of a server whose user has a folder of A1111."""

from pathlib import Path

import pytest

from diffusekit import file_hashes
from diffusekit.errors import UsageError
from diffusekit.server.models import ServerModels
from diffusekit.server.ui.tabs.generate_handlers import GenerateHandlers
from diffusekit.settings import ServeSettings
from tests.helpers.model_tree import CHECKPOINT, write_a1111, write_header
from tests.helpers.server import client_of, opened


@pytest.fixture(autouse=True)
def tree(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    root = write_a1111(tmp_path / "webui")
    monkeypatch.setenv("DIFFUSEKIT_MODELS", str(root))
    return root / "models" / "Stable-diffusion"


def test_files_are_named_by_stem_and_found_by_their_titles(tree):
    found = ServerModels(ServeSettings())
    assert found.names() == {"mini": "mini", "dreamy": "dreamy", "crisp": "crisp"}
    sha256 = file_hashes.sha256_of(tree / "dreamy.safetensors")
    for title in ("dreamy", "dreamy.safetensors", f"dreamy.safetensors [{sha256[:10]}]", sha256[:10]):
        assert Path(found.resolve(title)).stem == "dreamy"
    for name in ("dreamy [0123456789]", str(tree / "dreamy.safetensors"), "../webui", "sdxl", "a/b"):
        with pytest.raises(UsageError, match="is not one this server has") as error:
            found.resolve(name)
        assert name.startswith("/") or str(tree) not in error.value.message


def test_an_ambiguous_name_is_refused_without_paths(tree):
    write_header(tree / "old" / "crisp.safetensors", CHECKPOINT)
    found = ServerModels(ServeSettings())
    with pytest.raises(UsageError, match="several models") as error:
        found.resolve("crisp")
    assert str(tree) not in error.value.message and not any(name.startswith("/") for name in found.names())
    assert found.resolve("old/crisp.safetensors") == "old/crisp.safetensors"


def test_the_lists_are_those_of_a1111(tree):
    sha256 = file_hashes.sha256_of(tree / "SDXL" / "crisp.safetensors")
    with opened() as jobs, client_of(jobs) as client:
        rows = {row["model_name"]: row for row in client.get("/sdapi/v1/sd-models").json()}
        assert rows["crisp"]["title"] == f"SDXL/crisp.safetensors [{sha256[:10]}]"
        assert (rows["crisp"]["sha256"], rows["crisp"]["hash"]) == (sha256, sha256[:10])
        assert (rows["dreamy"]["title"], rows["mini"]["title"]) == ("dreamy.safetensors", "mini")
        names = [row["model_name"] for row in client.get("/sdapi/v1/sd-vae").json()]
        assert names == ["dreamy.vae.safetensors", "sharp.safetensors"]
        assert client.post("/sdapi/v1/refresh-checkpoints").status_code == 200
        assert client.get("/v1/models").json()["data"][1]["id"] == "dreamy"


def test_a_vae_is_chosen_for_one_request_or_for_all(tree):
    body = {"prompt": "x", "override_settings": {"sd_vae": "nonsense.pt"}}
    with opened() as jobs, client_of(jobs) as client:
        refused = client.post("/sdapi/v1/txt2img", json=body)
        assert refused.status_code == 422 and "sharp.safetensors" in str(refused.json())
        assert client.post("/sdapi/v1/options", json={"sd_vae": "sharp.safetensors"}).status_code == 200
        assert client.get("/sdapi/v1/options").json()["sd_vae"] == "sharp" == jobs.models.vae
        assert client.post("/sdapi/v1/options", json={"sd_vae": "../x"}).status_code == 422
        assert client.post("/sdapi/v1/options", json={"sd_vae": "Automatic"}).status_code == 200
        assert jobs.models.vae is None
        own = {"prompt": "x", "vae": "sharp"}
        job = client.post("/api/jobs", json={"settings": own}).json()
        jobs.cancel(job["id"])
        assert jobs.list(1)[0].settings["vae"] == "sharp"
        assert client.post("/api/jobs", json={"settings": {"prompt": "x", "vae": "/etc/passwd"}}).status_code == 422


def test_the_page_offers_models_that_came_later(tree):
    with opened() as jobs:
        handlers = object.__new__(GenerateHandlers)
        handlers.jobs = jobs
        write_header(tree / "later.safetensors", CHECKPOINT)
        update = handlers.on_refresh_models("dreamy")
        assert "later" in update["choices"] and update["value"] == "dreamy"
        (tree / "dreamy.safetensors").unlink()
        assert handlers.on_refresh_models("dreamy")["value"] == "mini"

"""The models of a server: what requests may name, and the default that every part of the server shares."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusekit import clip_score, hub, models
from diffusekit.errors import UsageError
from diffusekit.server.errors import ModelNotFound
from diffusekit.server.models import ServerModels
from diffusekit.server.storage.gallery import Gallery
from diffusekit.server.storage.similarity import ImageSearch
from diffusekit.settings import ServeSettings
from tests.helpers.server import client_of, opened


@pytest.fixture(autouse=True)
def two_models(monkeypatch, families):
    """A server that has three models; the last one cannot be loaded."""
    shutil.copytree(families["sd1"], "other")
    shutil.copytree(families["sd1"], "damaged")
    Path("damaged", "unet", "config.json").write_text("{")
    monkeypatch.setattr(hub, "installed", lambda: {name: Path(name) for name in ("mini", "other", "damaged")})


def test_requests_name_installed_models_only():
    found = ServerModels(ServeSettings())
    assert found.names() == {name: name for name in ("mini", "other", "damaged")} and found.resolve("other") == "other"
    for name in ("../mini", "/etc", "someone/else", None, 5):
        with pytest.raises(UsageError, match="is not one this server has"):
            found.resolve(name)
    with pytest.raises(ModelNotFound):
        found.resolve("dall-e-3", ModelNotFound)


def test_a_model_in_a_folder_is_named_by_its_folder(tmp_path):
    found = ServerModels(ServeSettings(model=str(tmp_path)))
    assert found.names()[tmp_path.name] == str(tmp_path) and found.default_title == tmp_path.name


def test_a_new_default_is_the_model_of_every_api():
    with opened() as jobs, client_of(jobs) as client:
        assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "other"}).status_code == 200
        assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "other"
        jobs.cancel(client.post("/api/jobs", json={"settings": {"prompt": "x"}}).json()["id"])
        assert jobs.list(1)[0].settings["model"] == "other"
        refused = client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "nonsense"})
        assert refused.status_code == 422 and jobs.models.default == "other"


@pytest.mark.parametrize("name", ["nonsense", "damaged", "/etc", 7])
def test_a_model_that_cannot_be_loaded_does_not_become_the_default(name):
    with opened() as jobs, client_of(jobs) as client:
        refused = client.post("/sdapi/v1/options", json={"sd_model_checkpoint": name})
        assert refused.status_code == 422 and refused.json()["field"] == "sd_model_checkpoint"
        assert name != "damaged" or "config.json is not valid JSON" in refused.json()["detail"]
        assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "mini"
        body = {"prompt": "x", "override_settings": {"sd_model_checkpoint": "nonsense"}}
        assert client.post("/sdapi/v1/txt2img", json=body).json()["field"] == "override_settings"


def test_the_image_search_uses_the_new_default(monkeypatch, tmp_path):
    """The embeddings of one model's CLIP are not compared with those of another's."""
    Path("outputs").mkdir()
    Image.new("RGB", (8, 8)).save("outputs/a.png")
    entries = Gallery(Path("outputs")).search()

    def load_scorer(model, clip):
        ones = torch.ones(1, 2 if model == "mini" else 3)
        return clip_score.ClipScorer(model, 8, lambda pixels: ones, lambda texts: ones)

    monkeypatch.setattr(models, "load_text", lambda name: name)
    monkeypatch.setattr(clip_score, "load_scorer", load_scorer)
    found = ServerModels(ServeSettings())
    found.is_loaded = True
    search = ImageSearch(found, Path("outputs"), tmp_path / "embeddings.safetensors")
    assert list(search.index(entries)) == [(0, 1)] and list(search.index(entries)) == []
    found.default = "other"
    assert list(search.index(entries)) == [(0, 1)] and len(search.rank(entries, "a phrase")) == 1

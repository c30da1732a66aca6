"""LoRA files on a server: listed, named in prompts and settings, restored, and never by path."""

import json

import pytest

from diffusekit import lora, models
from diffusekit.errors import UsageError
from diffusekit.server.jobs import generate
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.ui.tabs import restore
from diffusekit.server.ui.tabs.generate_form import FIELDS
from diffusekit.settings import ServeSettings
from tests.helpers.generated_image import save_image
from tests.helpers.lora_files import write_lora
from tests.helpers.server import QUICK, client_of, opened


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "ink.safetensors"
    return write_lora(path, models.MINI, "kohya", metadata={"ss_x": "1"})


@pytest.fixture
def loras(tmp_path, file):
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras/ink.safetensors").write_bytes(file.read_bytes())
    (tmp_path / "loras/broken.safetensors").write_bytes(b"nothing")
    return tmp_path / "loras"


def test_a1111s_clients_list_files_and_name_them_in_prompts(loras, tmp_path):
    with opened(state=str(tmp_path / "state")) as jobs:
        client = client_of(jobs)
        assert client.get("/sdapi/v1/loras").json() == [
            {"name": "ink", "alias": "ink", "path": "ink.safetensors", "metadata": {"ss_x": "1"}}
        ]
        assert client.post("/sdapi/v1/refresh-loras").json() == {}
        answer = client.post("/sdapi/v1/txt2img", json={"prompt": "a cat <lora:ink:0.8>", **QUICK}).json()
        (text,) = json.loads(answer["info"])["infotexts"]
        assert f'Lora hashes: "ink: {lora.hash_lora(loras / "ink.safetensors")[:12]}"' in text
        assert text.startswith("a cat <lora:ink:0.8>\n")
        refused = client.post("/sdapi/v1/txt2img", json={"prompt": "a cat <lora:pen:0.8>", **QUICK})
        assert refused.status_code == 422 and refused.json()["field"] == "prompt"
        assert "the LoRA 'pen', which is not on this server; there are: broken, ink" in refused.json()["detail"]
        images = {"prompt": "a cat", "size": "64x64", "steps": 2, "lora": ["ink:0.5"]}
        assert client.post("/v1/images/generations", json=images).status_code == 200


@pytest.mark.parametrize("field", ["lora", "prompt"])
def test_requests_do_not_name_paths(loras, file, field, rules):
    for path in (file, "loras/ink", "./loras/ink.safetensors"):
        asked = {"lora": [f"{path}:1"]} if field == "lora" else {"prompt": f"a <lora:{path}:1>"}
        with pytest.raises(UsageError) as error:
            generate.check({"prompt": "a", "prompt_syntax": "a1111"} | asked, rules)
        assert error.value.message.startswith(f"{field} asks for the LoRA") and error.value.hint.endswith("ink")


def test_the_page_restores_the_files_that_are_there(loras, tmp_path):
    jobs = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state")))
    path = save_image(tmp_path / "x.png", lora=("ink:0.5", "gone:1"))
    fields = {name: name for name in FIELDS}
    assert restore.form_updates(jobs, path, "all", fields)["lora"]["value"] == ["ink:0.5"]
    assert restore.describe_gaps(jobs, path, "all") == "the LoRA gone is not on this server"

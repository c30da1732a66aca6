"""What the page knows of a model without loading it."""

import shutil

import pytest

from diffusekit.errors import UsageError
from diffusekit.server.ui import prompt_info
from diffusekit.server.ui.tabs import generate_form
from tests.helpers import ROOT


def test_the_counter_tells_what_the_model_does_not_see():
    short = prompt_info.count_tokens("mini", "a red cat")
    assert (short.used, short.limit, short.truncated) == (3, 75, "")
    long = prompt_info.count_tokens("mini", "a red cat " * 30 + "castle")
    assert long.used == 75 and long.truncated.endswith("castle")


def test_the_counter_knows_learned_tokens(tmp_path):
    (tmp_path / "embeddings").mkdir()
    for name in ("my_robot", "my_snail"):
        shutil.copy(ROOT / "embeddings" / f"{name}.safetensors", tmp_path / "embeddings")
    assert generate_form.learned_names(tmp_path / "embeddings") == ["my_robot", "my_snail"]
    assert prompt_info.count_tokens("mini", "a picture of <my_robot>").learned == ("my_robot",)
    assert prompt_info.count_tokens("mini", "a picture of S*", ("my_snail",)).learned == ("my_snail",)
    with pytest.raises(UsageError, match="token of"):
        prompt_info.count_tokens("mini", "a picture of S*")


def test_the_page_knows_the_size_and_guidance_of_a_model(mini):
    info = prompt_info.describe_model("mini")
    assert info.native_size == mini.native_size and info.guidance_scale == mini.guidance_scale

"""A folder with one damaged or missing file is refused in one true sentence, and never ends in "unexpected"."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest

from diffusekit import models
from diffusekit.cli.main import run
from diffusekit.errors import ModelError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
DAMAGES = {
    "removed": lambda data: None,
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: b"\0" * len(data),
    "noise": lambda data: b"\xff\xd8\x00" * 500,
    "pointer": lambda data: LFS,
    "page": lambda data: b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "mark": lambda data: b"\xef\xbb\xbf" + data,
    "object": lambda data: b"{}",
    "list": lambda data: b"[1, 2]",
    "null": lambda data: b"null",
    "class": lambda data: b'{"_class_name": "Wrong", "model_type": "wrong"}',
}


@pytest.fixture
def copy(families, tmp_path) -> Path:
    return Path(shutil.copytree(families["sd1"], tmp_path / "copy"))


def generate(folder) -> tuple[int, str]:
    """Exit code and stderr of one step with a model."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()):
        code = run(["generate", "a cat", "--steps", "1", "--device", "cpu", "--model", str(folder), "-o", "out/"])
    return code, stderr.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_of_any_file_is_unexpected(families, copy, damage):
    """Every file in turn. What remains loadable generates an image; what does not is refused with code 8."""
    for file in sorted(path for path in copy.rglob("*") if path.is_file()):
        data = file.read_bytes()
        damaged = DAMAGES[damage](data)
        file.unlink() if damaged is None else file.write_bytes(damaged)
        models.load(str(families["sd2"]), "cpu")  # so that nothing is in memory
        code, stderr = generate(copy)
        what = f"{damage} {file.relative_to(copy)}: {stderr}"
        assert code in (0, 8), what
        lines = stderr.splitlines()
        assert not code or (len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ")), what
        assert code or not lines, what
        file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("empty", "is empty"),
        ("half", "is cut off"),
        ("zeros", "holds only zero bytes"),
        ("noise", "is not a safetensors file"),
        ("pointer", "is a pointer of Git LFS"),
        ("page", "is a web page"),
        ("removed", "holds no .safetensors weights"),
    ],
)
@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
def test_damaged_weights_are_named(copy, part, damage, says):
    file = copy / f"{part}.safetensors"
    damaged = DAMAGES[damage](file.read_bytes())
    file.unlink() if damaged is None else file.write_bytes(damaged)
    with pytest.raises(ModelError, match=says) as error:
        models.load(str(copy), "cpu")
    assert part.split("/")[0] in error.value.message and error.value.hint


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("tokenizer/tokenizer.json", "{}", "holds no vocabulary"),
        ("tokenizer/tokenizer_config.json", "{}", "does not say how prompts are padded"),
        ("tokenizer/tokenizer_config.json", None, "does not exist"),
        ("vae/config.json", "{}", "weights of the vae of copy do not fit its config.json"),
        ("unet/config.json", '{"in_channels": "four"}', "unusable in_channels: 'four'"),
        ("scheduler/scheduler_config.json", "{}", "no noise schedule"),
        ("model_index.json", None, "has parts of a model"),
        ("model_index.json", "\ufeff{}", "byte order mark"),
    ],
)
def test_damaged_configurations_are_named(copy, file, content, says):
    """Without its configuration a scheduler or a tokenizer would be another one, and the image wrong."""
    (copy / file).unlink() if content is None else (copy / file).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=says):
        models.load(str(copy), "cpu")


def test_weights_of_another_network_are_refused(copy, families):
    """diffusers would fill the missing tensors with random numbers and only print a line."""
    from safetensors.torch import load_file, save_file

    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if "mid_block" not in name}, file)
    with pytest.raises(
        ModelError, match=r"do not fit its config.json: .* tensors are missing, the first is 'mid_block"
    ):
        models.load(str(copy), "cpu")

"""Every layout that other programs write is read, and every kind that is exported is read back."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken
from diffusekit.embeddings.formats import header, layouts, png
from diffusekit.errors import DiskError, FileRefused, UsageError
from tests.helpers import foreign_files
from tests.helpers.foreign_files import rows, tensors


def token(count=2, width=(256,), **facts) -> LearnedToken:
    vectors = tuple(rows(count, w, seed=i) for i, w in enumerate(width))
    return LearnedToken("my_cat", "S*", vectors, facts)


SINGLE = {
    "diffusers": ("<cat-toy>", "<cat-toy>"),
    "kohya": ("emb_params", "my_file"),
    "onetrainer": ("emp_params", "my_file"),
}


@pytest.mark.parametrize("kind", SINGLE)
def test_one_text_encoder(tmp_path, kind):
    key, word = SINGLE[kind]
    found = embeddings.read(tensors(tmp_path / "my_file.safetensors", {key: rows()}))
    assert (found.name, found.token, found.count, found.width) == ("my_file", word, 2, (768,))
    assert torch.equal(found.vectors[0], rows()) and len(found.sha256) == 64
    assert found.spellings == tuple(dict.fromkeys((word, "<my_file>", "my_file")))


def test_a_flat_vector_is_one_vector(tmp_path):
    path = tensors(tmp_path / "x.safetensors", {"<toy>": rows()[0].contiguous()})
    assert torch.equal(embeddings.read(path).vectors[0], rows()[:1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    found = embeddings.read(tensors(tmp_path / "x.safetensors", {"emb_params": rows().to(dtype)}))
    assert found.vectors[0].dtype == torch.float32
    assert torch.equal(found.vectors[0], rows().to(dtype).float())


def test_onetrainers_output_vectors_are_left(tmp_path):
    both = {"emp_params": rows(), "emp_params_out": rows(seed=1)}
    assert torch.equal(embeddings.read(tensors(tmp_path / "x.safetensors", both)).vectors[0], rows())
    pair = {"clip_l": rows(), "clip_g": rows(2, 1280), "clip_l_out": rows(), "clip_g_out": rows()}
    assert embeddings.read(tensors(tmp_path / "y.safetensors", pair)).width == (768, 1280)


@pytest.mark.parametrize("keys", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_two_text_encoders_in_their_order(tmp_path, keys):
    both = {keys[1]: rows(3, 1280, seed=1), keys[0]: rows(3)}
    found = embeddings.read(tensors(tmp_path / "x.safetensors", both))
    assert found.width == (768, 1280) and found.token == "x"
    assert torch.equal(found.vectors[1], both[keys[1]])


def test_the_pair_of_files_that_diffusers_writes_for_sdxl(tmp_path):
    path = tensors(tmp_path / "learned_embeds.safetensors", {"<toy>": rows()})
    alone = embeddings.read(path)
    tensors(tmp_path / "learned_embeds_2.safetensors", {"<toy>": rows(2, 1280)})
    found = embeddings.read(path)
    assert (found.name, found.token, found.width) == ("toy", "<toy>", (768, 1280))
    assert found.sha256 != alone.sha256
    tensors(tmp_path / "learned_embeds_2.safetensors", {"<other>": rows(2, 1280)})
    with pytest.raises(FileRefused, match="not halves of one token"):
        embeddings.read(path)


def test_metadata_are_facts_and_may_name_the_token(tmp_path):
    told = {"token": "S*", "format": "pt", "base_model": "mini", "scores": '{"a": 1}'}
    found = embeddings.read(tensors(tmp_path / "x.safetensors", {"emb_params": rows()}, told))
    assert found.token == "S*" and found.metadata == {"base_model": "mini", "scores": '{"a": 1}'}


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_a_picture_with_text(tmp_path, kind):
    path = foreign_files.png_with_text(tmp_path / "p.png", foreign_files.a1111_json(rows()), kind=kind)
    found = embeddings.read(path)
    assert (found.name, found.token, found.metadata) == ("p", "bad-hands", {"steps": "500"})
    assert torch.allclose(found.vectors[0], rows(), atol=0, rtol=0)


@pytest.mark.parametrize("frame", [0, 9])
def test_a_picture_with_pixels(tmp_path, frame):
    text = foreign_files.a1111_json(rows(3), name="My Style")
    found = embeddings.read(foreign_files.png_with_pixels(tmp_path / "p.png", text, frame=frame))
    assert found.token == "My_Style" and torch.equal(found.vectors[0], rows(3))


def test_a1111s_random_sequence():
    value, wanted = 0, []
    for _ in range(1000):
        value = (1664525 * value + 1013904223) % 2**32
        wanted.append(value % 255)
    assert png.random_sequence(1000).tolist() == wanted
    assert png.random_sequence(1).tolist() == wanted[:1] and png.random_sequence(0).size == 0


def test_dictionaries_of_pickles():
    """What the child process makes of them; opening is tested in test_pickles."""
    a1111 = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": rows()},
        "name": "bad",
        "step": 9,
    }
    assert layouts.flatten(a1111)[1] == {"steps": "9", "token": "bad"}
    paper = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": rows()}}
    assert layouts.flatten(paper)[1] == {}
    assert layouts.flatten({"string_to_param": {"<toy>": rows()}})[1] == {"token": "<toy>"}
    assert list(layouts.flatten({"<toy>": rows()})[0]) == ["<toy>"]
    comfy = layouts.flatten([{"a": rows()[0]}, {"b": rows()}])[0]["emb_params"]
    assert comfy.shape == (3, 768)
    for bad, says in (
        ({"string_to_param": {"*": rows(), "+": rows()}}, "has 2 tokens"),
        ({"string_to_param": {}}, "has 0 tokens"),
        ({"state_dict": {"a": rows()}}, "expected a tensor"),
        ([{"a": rows(1, 768)}, {"b": rows(1, 1024)}], "expected one width"),
        (7, "holds a 'int'"),
        ({"x": torch.zeros(1).expand(10**7)}, "holds a tensor of shape"),
        ({"x": torch.ones(2, 2).to_sparse()}, "strange kind"),
    ):
        with pytest.raises(FileRefused, match=says):
            layouts.flatten(bad)


# --- what we write -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [(256,), (768, 1280)])
def test_save_and_read(tmp_path, width):
    facts = {"base_model": "mini", "init": "cat", "scores": json.dumps({"dino": 0.5}), "note": "é*"}
    given = token(3, width, **facts)
    path = embeddings.save(given, tmp_path / "deep" / "my_cat.safetensors")
    found = embeddings.read(path)
    assert (found.name, found.token, found.metadata, found.path) == ("my_cat", "S*", facts, path)
    assert all(torch.equal(a, b) for a, b in zip(found.vectors, given.vectors, strict=True))
    assert [p.name for p in path.parent.iterdir()] == ["my_cat.safetensors"]
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == (["S*"] if len(width) == 1 else ["clip_g", "clip_l"])
        told = file.metadata()
    assert (told["token"], told["vectors"]) == ("S*", "3")
    assert told["width"] == ("256" if len(width) == 1 else "768+1280")


def test_equal_tokens_give_equal_bytes_in_every_process(tmp_path):
    code = (
        "import torch; from diffusekit import embeddings as e;"
        "facts = {k: k * 2 for k in ('seed', 'init', 'steps', 'base_model', 'scores')};"
        "e.save(e.LearnedToken('x', 'S*', (torch.arange(12.).reshape(3, 4),), facts), 'x.safetensors')"
    )
    facts = {k: k * 2 for k in ("scores", "base_model", "steps", "init", "seed")}
    same = LearnedToken("x", "S*", (torch.arange(12.0).reshape(3, 4),), facts)
    here = embeddings.save(same, tmp_path / "here.safetensors").read_bytes()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.safetensors").read_bytes() == here


def test_nothing_is_written_over_unasked(tmp_path):
    path = embeddings.save(token(), tmp_path / "a.safetensors")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        embeddings.save(token(5), path)
    assert path.read_bytes() == before
    assert embeddings.read(embeddings.save(token(5), path, overwrite=True)).count == 5


def test_bad_tokens_and_bad_names_are_not_written(tmp_path):
    broken = LearnedToken("x", "S*", (torch.full((1, 256), float("nan")),))
    with pytest.raises(FileRefused, match="256 values that are NaN"):
        embeddings.save(broken, tmp_path / "x.safetensors")
    for name, says in (("x.pt", "does not end in"), ("CON.safetensors", "reserved")):
        with pytest.raises(UsageError, match=says):
            embeddings.save(token(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_leaves_everything_as_it_was(tmp_path, monkeypatch, call, existed):
    import errno
    import os
    from pathlib import Path

    path = tmp_path / "a.safetensors"
    before = embeddings.save(token(), path).read_bytes() if existed else b""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
        with pytest.raises(DiskError, match="No space left") as caught:
            embeddings.save(token(5), path, overwrite=True)
        assert caught.value.exit_code == 7
        with pytest.raises(DiskError):
            embeddings.export_token(token(5, (768, 1280)), tmp_path / "out", "diffusers")
    assert (path.read_bytes() if existed else b"") == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == ([path] if existed else [])


def test_a_second_file_that_cannot_be_written_takes_the_first_along(tmp_path):
    (tmp_path / "learned_embeds_2.safetensors").mkdir()
    with pytest.raises(DiskError):
        embeddings.export_token(token(2, (768, 1280)), tmp_path, "diffusers", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["learned_embeds_2.safetensors"]
    (tmp_path / "learned_embeds.safetensors").write_bytes(b"old")
    with pytest.raises(DiskError):
        embeddings.export_token(token(2, (768, 1280)), tmp_path, "diffusers", overwrite=True)
    assert (tmp_path / "learned_embeds.safetensors").read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["diffusers", "kohya", "invokeai"])
@pytest.mark.parametrize("width", [(256,), (768, 1280)])
def test_exports_are_read_back(tmp_path, kind, width):
    given = token(2, width, init="cat")
    paths = embeddings.export_token(given, tmp_path, kind)
    found = embeddings.read(paths[0])
    assert (found.token, found.metadata, found.width) == ("S*", {"init": "cat"}, width)
    assert all(torch.equal(a, b) for a, b in zip(found.vectors, given.vectors, strict=True))
    keys = [sorted(load_file(p)) for p in paths]
    if kind == "diffusers":
        assert keys == [["S*"]] * len(width) and paths[0].name == "learned_embeds.safetensors"
    else:
        assert keys == [["emb_params"] if len(width) == 1 else ["clip_g", "clip_l"]]
    with pytest.raises(UsageError, match="already exists"):
        embeddings.export_token(given, tmp_path, kind)


def test_a1111s_file(tmp_path):
    given = token(2, (768,), steps="500", base_model="v1-5")
    (path,) = embeddings.export_token(given, tmp_path / "x.pt", "a1111")
    found = torch.load(path, weights_only=True)
    assert torch.equal(found["string_to_param"]["*"], given.vectors[0])
    assert found["string_to_token"] == {"*": 265} and found["name"] == "S*"
    assert (found["step"], found["sd_checkpoint_name"]) == (500, "v1-5")
    (pair,) = embeddings.export_token(token(2, (768, 1280)), tmp_path / "y.pt", "a1111")
    assert list(torch.load(pair, weights_only=True)) == ["clip_l", "clip_g"]


def test_export_says_what_it_cannot_do(tmp_path):
    with pytest.raises(UsageError, match="unknown export format 'comfy'"):
        embeddings.export_token(token(), tmp_path, "comfy")
    with pytest.raises(UsageError, match=r"does not end in \.pt"):
        embeddings.export_token(token(), tmp_path / "x.safetensors", "a1111")


@pytest.mark.parametrize("native", [True, False])
def test_diffusers_itself_loads_it(tmp_path, mini, native):
    from diffusers import StableDiffusionPipeline

    given = LearnedToken("toy", "<toy>", (rows(3, 256) * 400,), {"init": "cat"})
    if native:
        path = embeddings.save(given, tmp_path / "toy.safetensors")
    else:
        (path,) = embeddings.export_token(given, tmp_path, "diffusers")
    pipeline = StableDiffusionPipeline.from_pretrained(
        mini.folder, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    pipeline.load_textual_inversion(str(path))
    ids = pipeline.tokenizer.convert_tokens_to_ids(["<toy>", "<toy>_1", "<toy>_2"])
    table = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids], given.vectors[0])


def test_headers_we_build_are_what_the_library_reads(tmp_path):
    built = header.build({"é": ((2,), b"\0" * 8), "b": ((1, 1), b"\0\0\x80?")}, {"b": "1", "a": "2"})
    (tmp_path / "x").write_bytes(built)
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata() == {"a": "2", "b": "1"} and file.get_tensor("b").item() == 1.0
    assert header.length(built, len(built)) % 8 == 0


def test_start_vectors_are_kept_as_text():
    vectors = (rows(2, 768), rows(2, 1280, seed=1))
    again = embeddings.decode_vectors(embeddings.encode_vectors(vectors), vectors)
    assert all(torch.equal(a, b) for a, b in zip(vectors, again, strict=True))
    for bad in ("", "word", embeddings.encode_vectors(vectors[:1]), embeddings.encode_vectors((rows(1) * torch.nan,))):
        with pytest.raises(FileRefused):
            embeddings.decode_vectors(bad, vectors if "," in bad else (rows(1), rows(1)))
    with pytest.raises(FileRefused, match="NaN or infinite"):
        embeddings.decode_vectors(embeddings.encode_vectors((rows(1) * torch.nan,)), (rows(1),))

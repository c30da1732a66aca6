"""Every layout that other programs write is read, and every kind that is exported is read back."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken
from diffusekit.embeddings.formats import header, layouts, png
from diffusekit.errors import DiskError, FileRefused, UsageError
from tests.helpers import foreign_files
from tests.helpers.foreign_files import rows, tensors, token

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


def test_onetrainers_output_vectors_are_ignored(tmp_path):
    both = {"emp_params": rows(), "emp_params_out": rows(seed=1)}
    assert torch.equal(embeddings.read(tensors(tmp_path / "x.safetensors", both)).vectors[0], rows())
    pair = {"clip_l": rows(), "clip_g": rows(2, 1280), "clip_l_out": rows(), "clip_g_out": rows()}
    assert embeddings.read(tensors(tmp_path / "y.safetensors", pair)).width == (768, 1280)


@pytest.mark.parametrize("keys", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_two_text_encoders_are_read_in_order(tmp_path, keys):
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


def test_metadata_can_name_the_token(tmp_path):
    told = {"token": "S*", "format": "pt", "base_model": "mini", "scores": '{"a": 1}'}
    found = embeddings.read(tensors(tmp_path / "x.safetensors", {"emb_params": rows()}, told))
    assert found.token == "S*" and found.metadata == {"base_model": "mini", "scores": '{"a": 1}'}


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_an_image_with_a_text_chunk(tmp_path, kind):
    path = foreign_files.png_with_text(tmp_path / "p.png", foreign_files.a1111_json(rows()), kind=kind)
    found = embeddings.read(path)
    assert (found.name, found.token, found.metadata) == ("p", "bad-hands", {"steps": "500"})
    assert torch.allclose(found.vectors[0], rows(), atol=0, rtol=0)


@pytest.mark.parametrize("frame", [0, 9])
def test_an_image_with_data_in_its_pixels(tmp_path, frame):
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
        (7, "has a 'int'"),
        ({"x": torch.zeros(1).expand(10**7)}, "has a tensor of shape"),
        ({"x": torch.ones(2, 2).to_sparse()}, "sparse, quantized"),
    ):
        with pytest.raises(FileRefused, match=says):
            layouts.flatten(bad)


# --- what we write -------------------------------------------------------------------------------


def test_when_the_second_file_fails_the_first_is_restored(tmp_path):
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


def test_the_exported_a1111_file(tmp_path):
    given = token(2, (768,), steps="500", base_model="v1-5")
    (path,) = embeddings.export_token(given, tmp_path / "x.pt", "a1111")
    found = torch.load(path, weights_only=True)
    assert torch.equal(found["string_to_param"]["*"], given.vectors[0])
    assert found["string_to_token"] == {"*": 265} and found["name"] == "S*"
    assert (found["step"], found["sd_checkpoint_name"]) == (500, "v1-5")
    (pair,) = embeddings.export_token(token(2, (768, 1280)), tmp_path / "y.pt", "a1111")
    assert list(torch.load(pair, weights_only=True)) == ["clip_l", "clip_g"]


def test_impossible_exports_are_refused(tmp_path):
    with pytest.raises(UsageError, match="unknown export format 'comfy'"):
        embeddings.export_token(token(), tmp_path, "comfy")
    with pytest.raises(UsageError, match=r"does not end in \.pt"):
        embeddings.export_token(token(), tmp_path / "x.safetensors", "a1111")


@pytest.mark.parametrize("native", [True, False])
def test_diffusers_loads_the_files(tmp_path, mini, native):
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


def test_the_library_reads_our_headers(tmp_path):
    built = header.build({"é": ((2,), b"\0" * 8), "b": ((1, 1), b"\0\0\x80?")}, {"b": "1", "a": "2"})
    (tmp_path / "x").write_bytes(built)
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata() == {"a": "2", "b": "1"} and file.get_tensor("b").item() == 1.0
    assert header.length(built, len(built)) % 8 == 0

"""Files that are not one learned token, or are hostile, are refused with a message that says why."""

import json
import os
import pickle
import struct
import time

import pytest
import torch
from safetensors.torch import save

from diffusekit import embeddings
from diffusekit.errors import FileRefused
from tests.helpers import foreign_files
from tests.helpers.foreign_files import raw, rows


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = save({"S*": rows()})
BROKEN = {
    "empty": (b"", "too short"),
    "7 bytes": (b"1234567", "too short"),
    "endless header": (b"\xff" * 8 + b"{}", "has a header of 18,446,744,073,709,551,615"),
    "header beyond the file": (struct.pack("<Q", 50) + b"{}  ", "in a file of 12"),
    "large header": (struct.pack("<Q", 3_000_000) + b" " * 3_000_000, "at most 2,097,152"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "not UTF-8"),
    "{ only": (raw(b"{ "), "not JSON"),
    "deep": (raw(b'{"a":' * 100_000 + b"}" * 100_000), "not JSON"),
    "leading space": (raw(b" {}"), "does not start with '{'"),
    "list": (raw(b"[]"), "does not start with '{'"),
    "repeated key": (raw(b'{"a":1,"a":2}'), "two entries 'a'"),
    "overlap": (raw({str(i): entry([4], 0, 16) for i in range(10)}, bytes(16)), "overlap"),
    "hole": (raw({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)), "with a gap"),
    "overflow": (raw({"a": entry([2, 2**64 - 2], 0, 8)}, bytes(8)), "expected far more"),
    "wrong size": (raw({"a": entry([4], 0, 8)}, bytes(8)), "expected 16"),
    "negative": (raw({"a": entry([-1], 0, 4)}, bytes(4)), "an invalid entry for the tensor 'a'"),
    "not a number": (raw({"a": entry([True], 0, 4)}, bytes(4)), "an invalid entry"),
    "no shape": (raw({"a": {"dtype": "F32"}}), "an invalid entry"),
    "no object": (raw({"a": 7}), "an invalid entry"),
    "unknown dtype": (raw({"a": entry([1], 0, 4, "C64")}, bytes(4)), "dtype 'C64'"),
    "many keys": (raw({str(i): entry([0], 0, 0) for i in range(20_000)}), "20,000 tensors"),
    "metadata": (raw({"__metadata__": {"a": 1}}), "metadata that is not text"),
    "metadata list": (raw({"__metadata__": ["a"]}), "metadata that is not text"),
    "large metadata": (save({"a": rows()}, {"a": "x" * 10**7}), "at most 2,097,152"),
    "trailing bytes": (GOOD + b"x", "1 bytes more than its header says"),
    "zip behind": (GOOD + foreign_files.good_zip(), "bytes more than its header says"),
    "cut": (GOOD[:-1], "1 bytes fewer"),
    "17 MiB": (bytes(17 * 2**20), "has 18 MB, expected at most 17 MB"),
}

MEANING = {
    "NaN": ({"S*": rows() * torch.nan}, "1,536 values that are NaN or infinite"),
    "infinite": ({"S*": torch.tensor([[1.0, torch.inf]])}, "1 values that are NaN or infinite"),
    "minus infinite": ({"S*": torch.tensor([[1.0, -torch.inf]])}, "NaN or infinite"),
    "1e30": ({"S*": torch.full((1, 768), 1e30)}, r"values up to 1.0e\+30, expected at most 65,504"),
    "zeros": ({"S*": torch.zeros(1, 768)}, "only zeros"),
    "int64": ({"S*": torch.ones(1, 768, dtype=torch.int64)}, "dtype int64, expected float32"),
    "bool": ({"S*": torch.ones(1, 768, dtype=torch.bool)}, "dtype bool"),
    "float8": ({"S*": rows().to(torch.float8_e4m3fn)}, "dtype float8_e4m3fn"),
    "rank 0": ({"S*": torch.tensor(1.0)}, r"shape \[\], expected \[vectors, width\]"),
    "rank 3": ({"S*": torch.ones(1, 2, 3)}, r"shape \[1, 2, 3\]"),
    "no vectors": ({"S*": torch.ones(0, 768)}, "0 vectors, expected 1 to 75"),
    "76 vectors": ({"S*": torch.ones(76, 8)}, "76 vectors, expected 1 to 75"),
    "20000 vectors": ({"S*": torch.ones(20_000, 8)}, "20,000 vectors"),
    "width 0": ({"S*": torch.ones(2, 0)}, "width 0"),
    "two tokens": ({"a": rows(), "b": rows(seed=1)}, r"2 tensors \('a', 'b'\), expected one token"),
    "no token": ({}, "has no token"),
    "half of SDXL": ({"clip_l": rows()}, "clip_l but not clip_g"),
    "unequal halves": ({"clip_l": rows(2), "clip_g": rows(3, 1280)}, "2 vectors .* and 3 for"),
    "XTI": ({f"{p}{i:02}": rows(seed=i) for p in ("IN", "OUT") for i in (1, 2)}, "extended inversion"),
    "LoRA": ({"lora_unet_a.alpha": torch.ones(1), "b": rows()}, "is a LoRA"),
    "empty name": ({"": rows()}, "token '' is empty"),
    "white space": ({"my cat": rows()}, "'my cat' has white space"),
    "invisible": ({"a\u202eb": rows()}, "invisible characters"),
    "punctuation": ({",": rows()}, "only punctuation"),
    "long name": ({"x" * 300: rows()}, "300 characters"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_safetensors(tmp_path, kind):
    data, says = BROKEN[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    refused(path, says)


@pytest.mark.parametrize("kind", MEANING)
def test_valid_safetensors_that_are_not_a_token(tmp_path, kind):
    found, says = MEANING[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({k: v.contiguous() for k, v in found.items()}))
    refused(path, says)


def refused(path, says):
    started = time.monotonic()
    with pytest.raises(FileRefused, match=says) as caught:
        embeddings.read(path)
    assert time.monotonic() - started < 2
    assert str(path) in caught.value.message and caught.value.hint
    assert "\n" not in caught.value.message and caught.value.message.isprintable()


def test_the_messages_differ():
    sentences = [says for _, says in BROKEN.values()]
    assert len(set(sentences)) >= 18


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".pth", ".pkl", ".safetensors", ""])
def test_every_pickle_is_refused_and_none_is_opened(tmp_path, suffix):
    canary, tried = tmp_path / "canary", 0
    path = tmp_path / f"evil{suffix}"
    for payload in foreign_files.payloads(canary).values():
        for data in foreign_files.evil_bytes(payload).values():
            path.write_bytes(data)
            with pytest.raises(FileRefused):
                embeddings.read(path)
            tried += 1
    assert tried >= 100 and not canary.exists()


def test_a_pickle_is_sent_to_import(tmp_path):
    for name in ("a.pt", "a.safetensors", "a"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(FileRefused, match="is a pickle") as caught:
            embeddings.read(path)
        assert caught.value.hint == f"diffusekit embeddings import {path}"


def test_images_without_a_valid_embedding(tmp_path):
    from PIL import Image

    good = foreign_files.png_with_text(tmp_path / "g.png", foreign_files.a1111_json(rows())).read_bytes()
    bomb = foreign_files.png_with_pixels(tmp_path / "b.png", "[" + " " * 20_000_000 + "]").read_bytes()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "plain.png")
    foreign_files.png_with_text(tmp_path / "deep.png", "[" * 100_000)
    foreign_files.png_with_text(tmp_path / "json.png", "{}")
    foreign_files.png_with_text(tmp_path / "nan.png", foreign_files.a1111_json(rows() * torch.nan))
    foreign_files.png_with_text(tmp_path / "zip.png", " " * 20_000_000, kind="zTXt")
    for data, says in (
        (good + foreign_files.good_zip(), "followed by .* bytes of other data"),
        (good[:200], "damaged PNG"),
        (good.replace(b"sd-ti", b"sd-tj"), "damaged PNG"),
        (bomb, "inflates beyond 13 MB"),
        ((tmp_path / "plain.png").read_bytes(), "without an embedding"),
        ((tmp_path / "deep.png").read_bytes(), "damaged"),
        ((tmp_path / "json.png").read_bytes(), "has no token"),
        ((tmp_path / "nan.png").read_bytes(), "NaN"),
        ((tmp_path / "zip.png").read_bytes(), "inflates beyond 13 MB"),
    ):
        path = tmp_path / "x.png"
        path.write_bytes(data)
        refused(path, says)


def test_paths_that_are_not_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name, says in (
        ("pipe", "not a regular file"),
        ("folder", "cannot open|not a regular"),
        ("nothing", "cannot open"),
        ("n" * 300, "cannot open"),
        ("n\0ul", "cannot open"),
    ):
        with pytest.raises(FileRefused, match=says):
            embeddings.read(tmp_path / f"{name}.safetensors")


def test_a_damaged_file_does_not_fall_back_to_a_pickle(tmp_path):
    (tmp_path / "learned_embeds.safetensors").write_bytes(GOOD[:-1])
    (tmp_path / "learned_embeds.bin").write_bytes(foreign_files.good_zip())
    refused(tmp_path / "learned_embeds.safetensors", "fewer")


def test_messages_show_untrusted_text_safely(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw(json.dumps({"\x1b[2J\n" + "y" * 500: 7}).encode()))
    with pytest.raises(FileRefused) as caught:
        embeddings.read(path)
    assert "\x1b" not in caught.value.message and "\n" not in caught.value.message
    assert len(caught.value.message) < 250 + len(str(path))

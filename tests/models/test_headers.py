"""The header of a safetensors file and every JSON file are checked before their content is used."""

import json
import struct
import time

import pytest
import torch
from safetensors.torch import save_file

from diffusekit.errors import ModelError
from diffusekit.model_files import read_header, read_json
from tests.helpers.foreign_files import raw

GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = bytes(range(16))
HEADERS = {
    "empty": (b"", "is empty"),
    "seven bytes": (b"\1\2\3\4\5\6\7", "is not a safetensors file"),
    "length 2^64 - 1": (b"\xff" * 8 + b"{}", "is not a safetensors file"),
    "longer than the file": (struct.pack("<Q", 100) + b"{}", "is cut off after 10 bytes, within its header"),
    "too long": (struct.pack("<Q", 17_000_000) + b"{" + bytes(17_000_000), "has a header of 17 MB, expected at most"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "can't decode byte 0xff"),
    "one brace": (raw(b"{  "), "damaged header"),
    "a space in front": (raw(b" " + json.dumps({"a": GOOD}).encode(), DATA), "is not a safetensors file"),
    "deep": (raw(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "damaged header"),
    "many lists": (raw(b'{"a":[' + b"[]," * 600_000 + b"[]]}"), "600,003 objects and lists"),
    "two entries of one name": (
        raw(b'{"a": %s, "a": %s}' % ((json.dumps(GOOD).encode(),) * 2), DATA),
        "two entries are named 'a'",
    ),
    "metadata that is no text": (raw({"__metadata__": {"a": 1}, "a": GOOD}, DATA), "its metadata is not text"),
    "not a tensor": (raw({"a": [1]}, DATA), "the entry of 'a' is not that of a tensor"),
    "more than a tensor": (raw({"a": GOOD | {"code": "x"}}, DATA), "the entry of 'a' is not that of a tensor"),
    "unknown type": (raw({"a": GOOD | {"dtype": "EVIL"}}, DATA), "the unknown type 'EVIL'"),
    "a list as type": (raw({"a": GOOD | {"dtype": ["F32"]}}, DATA), "the unknown type"),
    "negative": (raw({"a": GOOD | {"data_offsets": [-16, 0]}}, DATA), "is not a whole number"),
    "huge side": (raw({"a": GOOD | {"shape": [2, 2**64 - 2]}}, DATA), "is not a whole number below 2^63"),
    "overflow": (raw({"a": GOOD | {"shape": [2**62, 2**62]}}, DATA), "has 16 bytes"),
    "wrong size": (raw({"a": GOOD | {"dtype": "F16"}}, DATA), "of shape '[2, 2]' has 16 bytes"),
    "many sides": (raw({"a": GOOD | {"shape": [1] * 50 + [4]}}, DATA), "an unusable shape"),
    "overlap": (
        raw(dict.fromkeys("abcdefghij", GOOD), DATA),
        "the tensor 'b' overlaps another one",
    ),
    "a gap": (
        raw({"a": GOOD, "b": GOOD | {"data_offsets": [20, 36]}}, DATA * 2 + b"1234"),
        "the tensor 'b' begins after a gap",
    ),
    "a gap in front": (raw({"a": GOOD | {"data_offsets": [4, 20]}}, b"1234" + DATA), "the tensor 'a' begins after"),
    "cut": (raw({"a": GOOD}, DATA[:-1]), "is cut off"),
    "a zip behind": (raw({"a": GOOD}, DATA + b"PK\3\4"), "has 4 bytes after its last tensor"),
    "60,000 tensors": (
        raw({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(60_000)}),
        "60,000 tensors, expected at most 50,000",
    ),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_hostile_header_is_refused_in_less_than_a_second(tmp_path, kind):
    data, says = HEADERS[kind]
    (tmp_path / "x.safetensors").write_bytes(data)
    started = time.process_time()
    with pytest.raises(ModelError) as error:
        read_header(tmp_path / "x.safetensors")
    assert time.process_time() - started < 1
    assert says in error.value.message and error.value.hint and len(error.value.message) < 400


def test_whatever_the_library_writes_is_accepted(tmp_path):
    types = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn]
    tensors = {str(kind): torch.zeros(3, 2).to(kind) for kind in types} | {"none": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "x.safetensors", {"trained on": "cats"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"trained on": "cats"}
    assert header.tensors["torch.float16"] == ("F16", (3, 2)) and header.tensors["none"] == ("F32", (0, 4))
    save_file({}, tmp_path / "empty.safetensors")
    assert not read_header(tmp_path / "empty.safetensors").tensors


def test_a_changed_file_is_read_again(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    assert list(read_header(tmp_path / "x.safetensors").tensors) == ["a"]
    save_file({"b": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert list(read_header(tmp_path / "x.safetensors").tensors) == ["b"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a":' * 40 + b"1" + b"}" * 40, "has more than 32 levels"),
        (b"[" * 500_000, "is not valid JSON"),
        (b'{"a": [' + b"[]," * 600_000 + b"[]]}", "600,003 objects and lists"),
        (b'{"a": "' + b"x" * 9_000_000 + b'"}', "is larger than 8.4 MB"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b'{"a": [' + b"1," * 4_000_000 + b"1]}", ""),
    ],
    ids=["deep", "too deep to parse", "many lists", "large", "a long number", "many numbers"],
)
def test_hostile_json_costs_less_than_a_second(tmp_path, data, says):
    (tmp_path / "x.json").write_bytes(data)
    started = time.process_time()
    if says:
        with pytest.raises(ModelError) as error:
            read_json(tmp_path / "x.json")
        assert says in error.value.message
    else:
        read_json(tmp_path / "x.json")
    assert time.process_time() - started < 1

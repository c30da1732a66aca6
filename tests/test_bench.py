"""The bench compares like with like, and says a ratio."""

import json

import pytest
import torch

from diffusekit import bench
from diffusekit.cli.main import run


@pytest.mark.slow
@pytest.mark.alone
def test_inversion_is_faster_than_the_reference_algorithm(capsys):
    """With a token table of CLIP's size, about five times; on mini, 1.2 to 1.5 times (docs/inversion.md)."""
    assert run(["bench", "invert", "--clip-table", "--steps", "8", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ratio"] == pytest.approx(printed["reference"] / printed["ours"], rel=1e-3)
    assert printed["ratio"] > 2
    assert printed["our_memory"] < 20_000 < printed["reference_memory"]


def test_the_reference_learns_its_row_and_restores_the_others(mini, tmp_path):
    """The reference is textual inversion as diffusers does it."""
    reference = bench.ReferenceInversion(mini, bench.write_images(tmp_path, mini.native_size), 2)
    table, original, others = reference.table, reference.original, reference.others
    before = table.detach().clone()
    assert isinstance(reference.step(0), float)
    assert torch.equal(table[others], original[others]) and int((~others).sum()) == 1
    assert not torch.equal(table[~others], before[~others])


def test_turns_are_taken_a_b_b_a():
    order = []
    bench.time_in_turns([lambda n: order.append(("a", n)), lambda n: order.append(("b", n))], 8)
    assert "".join(who for who, _ in order) == "aaabbb" + "aabb" + "bbaa" + "aabb" + "bbaa"


@pytest.mark.slow
@pytest.mark.alone
def test_recording_costs_little():
    """Recording under a tenth of sampling, attention under three fifths; a busy machine may need three tries."""
    for _ in range(3):
        found = bench.visualise(pictures=8)
        if found.recorded < 1.1 * found.plain and found.attended < 1.6 * found.plain:
            return
    raise AssertionError(f"plain {found.plain}, recorded {found.recorded}, attended {found.attended}")


@pytest.mark.slow
@pytest.mark.alone
def test_few_steps_without_guidance_save_most_of_the_time(capsys):
    """A tenth of the network's work, and the same decoding."""
    assert run(["bench", "fast", "--pictures", "8", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ratio"] == pytest.approx(printed["plain"] / printed["fast"], rel=1e-3)
    assert printed["ratio"] > 2

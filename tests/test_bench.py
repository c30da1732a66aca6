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
    told = json.loads(capsys.readouterr().out)
    assert told["ratio"] == pytest.approx(told["reference"] / told["ours"], rel=1e-3)
    assert told["ratio"] > 2
    assert told["our_memory"] < 20_000 < told["reference_memory"]


def test_the_reference_learns_its_row_and_restores_the_others(mini, tmp_path):
    """What it is compared with really is textual inversion."""
    paths = bench._pictures(tmp_path, mini.native_size)
    step, _ = bench._reference(mini, paths, 2)
    cells = dict(zip(step.__code__.co_freevars, (c.cell_contents for c in step.__closure__), strict=True))
    table, original, others = cells["table"], cells["original"], cells["others"]
    before = table.detach().clone()
    assert isinstance(step(0), float)
    assert torch.equal(table[others], original[others]) and int((~others).sum()) == 1
    assert not torch.equal(table[~others], before[~others])


def test_turns_are_taken_a_b_b_a():
    order = []
    bench._in_turns([lambda n: order.append(("a", n)), lambda n: order.append(("b", n))], 8)
    assert "".join(who for who, _ in order) == "aaabbb" + "aabb" + "bbaa" + "aabb" + "bbaa"


@pytest.mark.slow
@pytest.mark.alone
def test_watching_costs_little():
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
    told = json.loads(capsys.readouterr().out)
    assert told["ratio"] == pytest.approx(told["plain"] / told["fast"], rel=1e-3)
    assert told["ratio"] > 2

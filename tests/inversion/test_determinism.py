"""The same run gives the same token bit for bit with all threads, and the process's switches stay as they were."""

import logging
import os
from pathlib import Path

import pytest
import torch

from diffusekit import text
from diffusekit.inversion import optimizer
from diffusekit.inversion.trainer import Inversion
from tests.helpers.inversions import learn, quick


def switches() -> list[object]:
    cudnn = torch.backends.cudnn
    return [
        torch.get_deterministic_debug_mode(),
        getattr(torch.utils.deterministic, "fill_uninitialized_memory"),  # noqa: B009
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    ]


@pytest.mark.slow
def test_three_runs_give_the_same_token(mini, tmp_path):
    """Enough positions that PyTorch computes with several threads: 4 captions of 77 with 128 numbers each."""
    settings = quick(tmp_path, "mini", steps=4, batch=4, preview_every=0, preview_images=1)
    tokens = {learn(settings, tmp_path / str(i)).sha256 for i in range(3)}
    assert len(tokens) == 1


def test_the_gradient_of_a_vector_is_added_up_in_one_order(mini):
    """As an index it was added up by all threads at once: about four in ten of these gradients differed."""
    torch.manual_seed(0)
    encoder = mini.text_encoders[0]
    table = encoder.get_input_embeddings()
    index = torch.full((8, 77), -1)
    index[torch.arange(8), torch.tensor([5, 8, 6, 7, 20, 30, 40, 50])] = 0
    ids, upstream = torch.ones(8, 77, dtype=torch.long), torch.randn(8, 77, table.weight.shape[1])
    gradients = set()
    for _ in range(300):
        vectors = torch.ones(1, table.weight.shape[1], requires_grad=True)
        with text.injected_vectors(encoder, index, vectors):
            table(ids).backward(upstream)
        assert vectors.grad is not None
        gradients.add(vectors.grad.numpy().tobytes())
    assert len(gradients) == 1


@pytest.mark.slow
@pytest.mark.parametrize("before", ["default", "warn", "error"])
def test_between_steps_and_at_the_end_the_switches_are_the_callers(families, tmp_path, before, monkeypatch):
    inside = []
    real = optimizer.loss

    def observed(*given):
        inside.append(torch.are_deterministic_algorithms_enabled())
        return real(*given)

    monkeypatch.setattr(optimizer, "loss", observed)
    torch.set_deterministic_debug_mode(before)
    try:
        expected = switches()
        run = Inversion(quick(tmp_path, families["sd1"], steps=2, preview_every=1, preview_images=1), tmp_path / "out")
        assert switches() == expected
        for _ in run:
            assert switches() == expected
        run.close()
        assert switches() == expected and inside == [True, True]
    finally:
        torch.set_deterministic_debug_mode("default")


def test_after_an_error_and_when_turned_off_the_switches_are_the_callers(families, tmp_path, monkeypatch):
    expected = switches()
    seen = []

    def fail(*_):
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(optimizer, "loss", fail)
    for deterministic in (True, False):
        settings = quick(tmp_path, families["sd1"], deterministic=deterministic, preview_images=1)
        run = Inversion(settings, tmp_path / str(deterministic))
        with pytest.raises(RuntimeError, match="shapes differ"):
            list(run)
        run.close()
        assert switches() == expected
    assert seen == [True, False]


def test_an_operation_without_a_deterministic_algorithm_is_told_and_the_run_goes_on(
    families, tmp_path, monkeypatch, caplog
):
    real = optimizer.loss

    def with_put(*given):
        torch.zeros(3).put_(torch.tensor([1]), torch.ones(1), accumulate=False)  # it has none, even on a CPU
        return real(*given)

    monkeypatch.setattr(optimizer, "loss", with_put)
    settings = quick(tmp_path, families["sd1"], steps=3, preview_every=0, preview_images=1)
    with caplog.at_level(logging.WARNING):
        learn(settings, tmp_path / "out")
    told = [record.getMessage() for record in caplog.records if "bit-exactly" in record.getMessage()]
    assert len(told) == 1 and "put_" in told[0]
    assert "no deterministic algorithm" in page(tmp_path / "out")


def page(output: Path) -> str:
    return (output / "three/index.html").read_text()


def test_the_report_says_where_the_same_run_gives_the_same_token(families, tmp_path):
    settings = quick(tmp_path, families["sd1"], steps=1, preview_every=0, preview_images=1)
    learn(settings, tmp_path / "exact")
    assert f"with the same kind of processor, {torch.get_num_threads()} threads and PyTorch" in page(tmp_path / "exact")
    learn(settings.model_copy(update={"deterministic": False}), tmp_path / "off")
    assert "Deterministic algorithms were turned off" in page(tmp_path / "off")

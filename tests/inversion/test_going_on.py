"""A finished run is trained further, a learned token is a start, and a run that is stopped does not wait."""

import hashlib
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusekit import embeddings
from diffusekit.cli.main import run as run_command
from diffusekit.embeddings import LearnedToken
from diffusekit.errors import Diverged, FileRefused, UsageError
from diffusekit.inversion import evaluation, selection
from diffusekit.inversion.run_folder import RunFolder
from diffusekit.inversion.trainer import Inversion
from diffusekit.settings import InvertSettings, validate
from tests.helpers.inversions import learn, pictures, quick


def sha(output: Path) -> str:
    return hashlib.sha256((output / "three.safetensors").read_bytes()).hexdigest()


def log_of(output: Path) -> str:
    return (output / "three/log.jsonl").read_text()


# --- a finished run --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "first", "more"),
    [({}, 3, 6), ({"preview_every": None}, 3, 6), ({"preview_every": 4}, 8, 11), ({"preview_every": 0}, 5, 10)],
)
def test_a_finished_run_goes_on_as_if_it_had_been_longer(families, tmp_path, changes, first, more):
    settings = quick(tmp_path, families["sd1"], steps=more, **changes)
    learn(settings, tmp_path / "long")
    learn(settings.model_copy(update={"steps": first}), tmp_path / "out")
    before = sha(tmp_path / "out")
    learn(settings, tmp_path / "out", resume=True)
    assert sha(tmp_path / "out") == sha(tmp_path / "long") != before
    assert log_of(tmp_path / "out") == log_of(tmp_path / "long")
    steps = [[step for step, _ in RunFolder(tmp_path / o, "three").validation_images()] for o in ("out", "long")]
    assert steps[0] == steps[1]


@pytest.mark.slow
def test_with_scores_the_best_step_is_that_of_the_longer_run(mini, tmp_path):
    """The validation at the end of the short run does not count for the longer one."""
    settings = quick(tmp_path, "mini", steps=8, preview_every=6, preview_images=1, vectors=1, learning_rate=0.3)
    learn(settings, tmp_path / "long")
    learn(settings.model_copy(update={"steps": 5}), tmp_path / "out")
    learn(settings, tmp_path / "out", resume=True)
    assert sha(tmp_path / "out") == sha(tmp_path / "long")
    assert log_of(tmp_path / "out") == log_of(tmp_path / "long")


@pytest.mark.slow
def test_it_may_be_interrupted_while_it_goes_on(families, tmp_path):
    settings = quick(tmp_path, families["sd1"], steps=12)
    learn(settings, tmp_path / "long")
    learn(settings.model_copy(update={"steps": 4}), tmp_path / "out")
    token = sha(tmp_path / "out")
    run = Inversion(settings, tmp_path / "out", resume=True)
    for progress in run:
        if progress.step == 7:
            run.save_checkpoint()
            break
    run.close()
    assert sha(tmp_path / "out") == token
    learn(settings, tmp_path / "out", resume=True)
    assert sha(tmp_path / "out") == sha(tmp_path / "long")


@pytest.mark.parametrize("steps", [2, 3])
def test_a_finished_run_needs_more_steps_to_go_on(families, tmp_path, steps):
    settings = quick(tmp_path, families["sd1"], steps=3)
    learn(settings, tmp_path / "out")
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="was trained for 3 steps") as caught:
        Inversion(settings.model_copy(update={"steps": steps}), tmp_path / "out", resume=True)
    assert "more than 3" in caught.value.hint
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files
    with pytest.raises(UsageError, match="already exists") as caught:
        Inversion(settings, tmp_path / "out")
    assert "`resume` with more `steps`" in caught.value.hint


@pytest.mark.slow
def test_a_run_that_stopped_early_goes_on_and_says_what_differs(mini, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(selection, "is_better", lambda new, old, baseline: not old)
    monkeypatch.setattr(selection, "MIN_GAIN", math.inf)
    settings = quick(tmp_path, "mini", steps=12, preview_every=2, preview_images=1, patience=1, vectors=1)
    run = Inversion(settings, tmp_path / "out")
    assert max(progress.step for progress in run) == 4
    run.close()
    run = Inversion(settings, tmp_path / "out", resume=True)
    assert [progress.step for progress in run] == [5, 6]  # one validation without a better score
    run.close()
    assert "had stopped early at step 4" in caplog.text and "`patience` counted anew" in caplog.text


def test_nothing_to_resume_is_told_and_a_new_run_starts(families, tmp_path, caplog):
    learn(quick(tmp_path, families["sd1"], steps=1), tmp_path / "out", resume=True)
    assert "nothing to resume" in caplog.text and "a new one starts" in caplog.text
    assert (tmp_path / "out/three.safetensors").exists()


def test_the_command_line_goes_on_too(families, tmp_path, capsys):
    pictures(tmp_path / "three")
    words = ["invert", "three", "--model", str(families["sd1"]), "--init", "cat", "--batch", "1", "-q"]
    assert run_command([*words, "--steps", "3"]) == 0
    assert run_command([*words, "--steps", "6", "--resume"]) == 0
    assert embeddings.read(tmp_path / "embeddings/three.safetensors").metadata["steps"] == "6"
    capsys.readouterr()
    assert run_command([*words, "--steps", "6", "--resume"]) == 2
    assert "set --steps to more than 6" in capsys.readouterr().err


# --- a learned token as the start ------------------------------------------------------------


@pytest.fixture
def learned(families, tmp_path) -> LearnedToken:
    """A token of two vectors, named my_disc."""
    return learn(quick(tmp_path, families["sd1"], name="my_disc", steps=2), tmp_path / "out")


@pytest.mark.parametrize("form", ["my_disc", "<my_disc>", "{folder}/my_disc.safetensors"])
def test_a_learned_token_is_a_start_by_name_or_path(families, tmp_path, learned, form, caplog):
    settings = quick(tmp_path, families["sd1"], init=form.format(folder=tmp_path / "out"), steps=1)
    run = Inversion(settings, tmp_path / "out")
    assert torch.allclose(run.optimizer.placeholders[0].start, learned.vectors[0], rtol=1e-6)
    baseline = next(iter(run)).evaluation
    run.close()
    assert run.settings.init == "<my_disc>" and "does not know" not in caplog.text
    words = Inversion(settings.model_copy(update={"init": "cat"}), tmp_path / "words")
    other = next(iter(words)).evaluation
    words.close()
    assert baseline is not None and other is not None
    assert baseline.images[0].tobytes() != other.images[0].tobytes()


def test_a_run_from_a_token_is_resumed_and_notices_another_token(families, tmp_path, learned):
    settings = quick(tmp_path, families["sd1"], init="my_disc", steps=6)
    run = Inversion(settings, tmp_path / "out")
    for progress in run:
        if progress.step == 3:
            run.save_checkpoint()
            break
    run.close()
    path = str(tmp_path / "out/my_disc.safetensors")
    token = learn(settings.model_copy(update={"init": path}), tmp_path / "out", resume=True)
    assert token.metadata["init"] == "<my_disc>"
    longer = settings.model_copy(update={"steps": 8})
    learn(quick(tmp_path, families["sd1"], name="my_disc", steps=1, seed=4), tmp_path / "out", overwrite=True)
    with pytest.raises(UsageError, match="init sha256 was"):
        Inversion(longer, tmp_path / "out", resume=True)


def test_a_word_of_the_model_is_the_word(families, tmp_path, learned):
    learn(quick(tmp_path, families["sd1"], name="cat", steps=1), tmp_path / "out")
    word, token = (
        Inversion(quick(tmp_path, families["sd1"], name=f"run{i}", init=init), tmp_path / "out")
        for i, init in enumerate(("cat", "<cat>"))
    )
    for run in (word, token):
        run.close()
    assert word.settings.init == "cat" and token.settings.init == "<cat>"
    assert not torch.equal(word.optimizer.placeholders[0].start, token.optimizer.placeholders[0].start)


@pytest.mark.parametrize(
    ("changes", "error", "message", "hint"),
    [
        ({"vectors": 1}, UsageError, "has 2 vectors, and `vectors` is 1", "set `vectors` to 2"),
        ({"start": "output"}, UsageError, "is a learned token", "leave out `start`"),
        ({"init": "<my_dish>"}, UsageError, "no learned token '<my_dish>'", "did you mean my_disc?"),
        ({"init": "nowhere.safetensors"}, UsageError, r"no learned token 'nowhere\.safetensors'", ""),
    ],
)
def test_a_token_that_cannot_be_the_start_is_refused(families, tmp_path, learned, changes, error, message, hint):
    with pytest.raises(error, match=message) as caught:
        Inversion(quick(tmp_path, families["sd1"], **({"init": "my_disc"} | changes)), tmp_path / "out")
    assert hint in caught.value.hint


def test_a_token_of_another_model_is_refused(families, tmp_path, learned):
    with pytest.raises(FileRefused, match="width"):
        Inversion(quick(tmp_path, families["sd2"], init="my_disc"), tmp_path / "out")
    other = LearnedToken("alien", "S*", learned.vectors, learned.metadata | {"base_hash": "0" * 16, "base_model": "b"})
    embeddings.save(other, tmp_path / "out/alien.safetensors")
    with pytest.raises(FileRefused, match="was learned for 'b'"):
        Inversion(quick(tmp_path, families["sd1"], init="alien"), tmp_path / "out")


# --- words that the model does not know ------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "named"),
    [
        ("猫", ["'猫'", "parts of characters"]),
        ("🐈", ["'🐈'", "parts of characters"]),
        ("zzzqx", ["'zzzqx'", "'z'"]),
        ("a red zzzqx", ["'zzzqx'"]),
    ],
)
def test_init_words_that_the_model_does_not_know_are_told(families, tmp_path, caplog, init, named):
    Inversion(quick(tmp_path, families["sd1"], init=init), tmp_path / "out").close()
    told = [record.getMessage() for record in caplog.records if "does not know the init word" in record.getMessage()]
    assert len(told) == 1 and all(part in told[0] for part in named)


@pytest.mark.parametrize("init", ["cat", "a red cat", "Cat"])
def test_init_words_that_it_knows_are_not(families, tmp_path, caplog, init):
    with caplog.at_level(logging.WARNING):
        Inversion(quick(tmp_path, families["sd1"], init=init), tmp_path / "out").close()
    assert "does not know" not in caplog.text


# --- stopping --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("at", "saved"), [(1, 0), (4, 0), (5, 4), (8, 4), (11, 8)])
def test_stopped_within_a_validation_it_ends_at_once_and_resumes_bit_exactly(families, tmp_path, at, saved):
    """Validations of the init words, step 4 and step 8, each of two batches of four images and two steps."""
    settings = quick(tmp_path, families["sd1"], steps=8, preview_every=4, preview_images=4, checkpoint_every=50)
    learn(settings, tmp_path / "whole")
    run = Inversion(settings, tmp_path / "out")
    calls = []

    def count(_module: Any, _inputs: Any, _output: Any) -> None:
        calls.append(torch.is_grad_enabled())
        if calls.count(False) == at:
            run.stop()

    hook = run.model.unet.register_forward_hook(count)
    steps = [progress.step for progress in run]
    hook.remove()
    assert calls.count(False) == at and not calls[-1]  # no evaluation of the U-Net after that one
    assert steps[-1] == saved and run.result is None
    run.save_checkpoint()
    run.close()
    learn(settings, tmp_path / "out", resume=True)
    assert sha(tmp_path / "out") == sha(tmp_path / "whole") and log_of(tmp_path / "out") == log_of(tmp_path / "whole")


def test_large_validation_images_are_drawn_one_by_one(families, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_PIXELS", 32 * 32)
    settings = quick(tmp_path, families["sd1"], steps=1, preview_every=0, preview_images=2, preview_size=32)
    run = Inversion(settings, tmp_path / "out")
    sizes = set()
    hook = run.model.unet.register_forward_hook(lambda _module, args, _output: sizes.add(len(args[0])))
    next(iter(run))
    hook.remove()
    run.close()
    assert sizes == {2}  # with the prompt and without


# --- numbers that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize(("rate", "bound"), [(1e20, 0.0), (1e37, 1e38), (1e38, 0.0), (1e38, 1.0), (1e308, 0.0)])
def test_any_absurd_rate_is_a_run_that_diverged(families, tmp_path, rate, bound):
    settings = quick(tmp_path, families["sd1"], learning_rate=rate, norm_bound=bound, preview_images=1, pull=0.0)
    with pytest.raises(Diverged) as caught:
        learn(settings, tmp_path / "out")
    assert caught.value.exit_code == 5 and "usual `learning_rate`" in caught.value.hint


@pytest.mark.parametrize("bound", [1e-320, 1e-45, 1e-9])
def test_a_norm_bound_that_makes_zeros_is_refused(bound):
    with pytest.raises(UsageError, match=r"`norm_bound` should be 0 or at least 0\.001"):
        validate(InvertSettings, {"norm_bound": bound})

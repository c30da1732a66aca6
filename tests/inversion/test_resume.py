"""An interrupted run ends bit-exactly like one that was not. A run that was changed is refused."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffusekit import atomic
from diffusekit.errors import DiffusekitError, DiskError, FileRefused, UsageError
from diffusekit.inversion import checkpoint
from diffusekit.inversion.selection import Selection
from diffusekit.inversion.trainer import Inversion
from diffusekit.settings import InvertSettings
from tests.helpers import ROOT
from tests.helpers.inversions import learn, pictures, quick


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stop_after(run: Inversion, step: int) -> None:
    for progress in run:
        if progress.step == step:
            run.save_checkpoint()
            break
    run.close()


@pytest.fixture(scope="module")
def interrupted(families, tmp_path_factory) -> Path:
    """The folder of a run with the settings of `quick`, stopped after five steps. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("interrupted")
    stop_after(Inversion(quick(folder, families["sd1"]), folder / "out"), 5)
    return folder / "out"


@pytest.fixture
def cut(interrupted, tmp_path) -> Path:
    """A copy of the interrupted run."""
    return shutil.copytree(interrupted, tmp_path / "cut")


@pytest.mark.slow
def test_killed_at_random_moments_and_at_every_site_it_ends_the_same(families, tmp_path):
    """With all threads. `python -m tests.helpers.crash` kills at 50 moments, and uses the embedded model."""
    pictures(tmp_path / "three")
    command = [sys.executable, "-m", "tests.helpers.crash", "--kills", "3", "--counts", "2"]
    command += ["--model", str(families["sd1"]), "--pictures", str(tmp_path / "three")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["random"]) == 3 and len(result["sites"]) == 6 and result["chained"] > 1
    assert {result["again"], result["chain"], *result["random"], *result["sites"].values()} == {result["expected"]}


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5, 6, 11])
def test_stopped_at_any_step_it_continues_bit_exactly(families, whole, tmp_path, step):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "cut"), step)
    learn(settings, tmp_path / "cut", resume=True)
    assert sha(tmp_path / "cut/three.safetensors") == sha(whole / "three.safetensors")
    logs = [(output / "three/log.jsonl").read_text() for output in (whole, tmp_path / "cut")]
    assert logs[0] == logs[1]


def test_a_run_keeps_its_validation_interval(whole, cut, tmp_path, families):
    """Runs of 0.5.0 had the number of the default in their checkpoints, and not None."""
    settings = quick(tmp_path, families["sd1"], preview_every=None)
    learn(settings, cut, resume=True)
    assert sha(cut / "three.safetensors") == sha(whole / "three.safetensors")


@pytest.mark.slow
def test_losing_the_optimizer_would_be_noticed(families, whole, cut, tmp_path):
    """The negative control of the tests above: without the moments the result differs."""
    saved = checkpoint.latest(cut / "three/checkpoints")
    assert saved is not None
    (state,) = saved.optimizer.encoders
    assert state.first_moment.abs().max() > 0
    zeros = torch.zeros_like(state.vectors)
    state = dataclasses.replace(state, first_moment=zeros, second_moment=zeros)
    forgetful = dataclasses.replace(saved.optimizer, encoders=(state,))
    checkpoint.write(cut / "three/checkpoints", dataclasses.replace(saved, optimizer=forgetful))
    learn(quick(tmp_path, families["sd1"]), cut, resume=True)
    assert sha(cut / "three.safetensors") != sha(whole / "three.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 10, 500, -1])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(families, whole, cut, tmp_path, caplog, length):
    settings = quick(tmp_path, families["sd1"], checkpoint_every=2)
    stop_after(Inversion(settings, cut, resume=True), 7)
    newest = sorted((cut / "three/checkpoints").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:length])
    learn(settings, cut, resume=True)
    assert newest.with_suffix(".damaged").exists()
    assert "damaged" in caplog.text
    assert sha(cut / "three.safetensors") == sha(whole / "three.safetensors")


def test_a_checkpoint_of_version_0_4_is_read(tmp_path):
    """Its fields had these names, and the checksum covers them."""
    names = ("rows", "start", "first_moment", "second_moment", "best")
    tensors = {name: torch.full((2, 3), float(i)) for i, name in enumerate(names)}
    scores = {"reconstruction": 0.5, "editability": 0.4}
    progress = {
        "smoothed": 0.25,
        "baseline": scores,
        "best": scores,
        "best_step": 6,
        "peak": 0.4,
        "stale": 1,
        "pieces": 2,
    }
    metadata = {"step": 7, "identity": {"seed": 0}, "told": progress}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for tensor in tensors.values():
        digest.update(tensor.numpy().tobytes())
    path = tmp_path / "000007.safetensors"
    save_file(tensors, path, {"diffusekit": json.dumps(metadata | {"sum": digest.hexdigest()})})
    saved = checkpoint.read(path)
    training, optimizer = saved.training, saved.optimizer
    assert saved.identity == {"seed": 0} and training.step == 7 and training.smoothed_loss == 0.25
    assert training.selection == Selection(scores, scores, best_step=6, peak=0.4, stale=1) and optimizer.chunks == 2
    (state,), best = optimizer.encoders, training.best_vectors
    values = (state.vectors, state.start, state.first_moment, state.second_moment, *best)
    assert [float(value.mean()) for value in values] == [0, 1, 2, 3, 4]
    copy = checkpoint.write(tmp_path / "copy", saved)
    assert copy.read_bytes() == path.read_bytes()


def test_a_flipped_bit_is_found(cut):
    path = next((cut / "three/checkpoints").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileRefused, match="checksum"):
        checkpoint.read(path)


def test_when_no_checkpoint_can_be_read_it_says_how_to_start_again(families, cut, tmp_path):
    for path in (cut / "three/checkpoints").glob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(FileRefused, match="no checkpoint") as caught:
        Inversion(quick(tmp_path, families["sd1"]), cut, resume=True)
    assert "`overwrite`" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "named"),
    [({"learning_rate": 0.5}, "learning rate was"), ({"seed": 9}, "seed was 0 and is 9"), ({"batch": 3}, "batch was")],
)
def test_changed_settings_are_refused_by_name(families, cut, tmp_path, change, named):
    with pytest.raises(UsageError, match=named):
        Inversion(quick(tmp_path, families["sd1"], **change), cut, resume=True)


def test_changed_images_and_another_model_are_refused(families, cut, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    other = settings.model_copy(update={"model": str(families["sd2"])})
    with pytest.raises(UsageError, match="model weights was"):
        Inversion(other, cut, resume=True)
    pictures(tmp_path / "three", shade=30)
    with pytest.raises(UsageError, match="pictures was"):
        Inversion(settings, cut, resume=True)


def test_more_steps_may_be_asked_for(families, cut, tmp_path):
    longer = Inversion(quick(tmp_path, families["sd1"], steps=15), cut, resume=True)
    assert [progress.step for progress in longer] == list(range(6, 16))
    longer.close()


@pytest.mark.slow
def test_earlier_work_is_not_overwritten(families, cut, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    with pytest.raises(UsageError, match="unfinished run"):
        Inversion(settings, cut)
    learn(settings, cut, resume=True)
    before = sha(cut / "three.safetensors")
    with pytest.raises(UsageError, match="already exists"):
        Inversion(settings, cut)
    assert sha(cut / "three.safetensors") == before
    learn(settings, cut, overwrite=True)
    assert sha(cut / "three.safetensors") == before


@pytest.mark.slow
def test_the_old_token_stays_until_the_new_one_is_learned(families, tmp_path, monkeypatch):
    settings, output = quick(tmp_path, families["sd1"], steps=2, preview_every=0), tmp_path / "out"
    learn(settings, output)
    files = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    for faulty in ({"token": "cat"}, {"preview": "a cat"}, {"init": " "}, {"model": "nowhere"}):
        with pytest.raises(DiffusekitError):
            Inversion(settings.model_copy(update=faulty), output, overwrite=True)
    assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == files

    def full(_site: str) -> None:
        raise OSError(28, "No space left on device")

    token = output / "three.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "crash_point", full)
        with pytest.raises(DiskError):
            learn(settings, output, overwrite=True)
    assert token.read_bytes() == files[token]
    new = settings.model_copy(update={"seed": 5})
    stop_after(Inversion(new, output, overwrite=True), 1)
    assert token.read_bytes() == files[token]
    with pytest.raises(UsageError, match="unfinished run"):
        Inversion(new, output)
    learn(new, output, resume=True)
    learn(new, tmp_path / "whole")
    assert sha(token) == sha(tmp_path / "whole/three.safetensors")
    with pytest.raises(UsageError, match="is finished: it was trained for 2 steps") as caught:
        Inversion(new, output, resume=True)
    assert "set `steps` to more than 2" in caught.value.hint


def test_resume_and_overwrite_exclude_each_other(families, cut, tmp_path):
    with pytest.raises(UsageError, match="exclude each other"):
        Inversion(quick(tmp_path, families["sd1"]), cut, resume=True, overwrite=True)
    assert checkpoint.latest(cut / "three/checkpoints") is not None


@pytest.mark.parametrize("inside", ["", "previews"])
def test_a_run_is_not_kept_among_its_images(families, tmp_path, inside):
    folder = pictures(tmp_path / "three")
    (folder / inside).mkdir(exist_ok=True)
    files = sorted(folder.rglob("*"))
    settings = quick(tmp_path, families["sd1"], pictures=str(folder / inside), name="three")
    with pytest.raises(UsageError, match="holds the training images") as caught:
        Inversion(settings, tmp_path, overwrite=True)
    assert caught.value.exit_code == 2 and sorted(folder.rglob("*")) == files


def test_what_cannot_be_used_leaves_no_folder(families, tmp_path):
    with pytest.raises(UsageError):
        Inversion(quick(tmp_path, families["sd1"], token="cat"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_may_be_gone_already(cut, monkeypatch):
    """Of several processes that find it, one renames it."""
    folder, real = cut / "three/checkpoints", checkpoint.read
    newest = folder / "000006.safetensors"
    newest.write_bytes(b"")

    def late(path: Path) -> checkpoint.Checkpoint:
        if path == newest:
            path.replace(path.with_suffix(".damaged"))
        return real(path)

    monkeypatch.setattr(checkpoint, "read", late)
    saved = checkpoint.latest(folder)
    assert saved is not None and saved.training.step == 5


def test_two_processes_do_not_share_a_run(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    first = Inversion(settings, tmp_path / "out")
    with pytest.raises(UsageError, match="another process"):
        Inversion(settings, tmp_path / "out", resume=True)
    first.close()


@pytest.mark.slow
@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_full_disk_leaves_older_files_untouched(families, whole, tmp_path, monkeypatch, write):
    settings = quick(tmp_path, families["sd1"], checkpoint_every=2)
    left = [write]
    before = {}

    def full(site: str) -> None:
        if site == "half written":
            left[0] -= 1
            if left[0] == 0:
                out = tmp_path / "out"
                before.update({p: p.read_bytes() for p in out.rglob("*.safetensors")})
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "crash_point", full)
    with pytest.raises(DiskError, match="No space left"):
        learn(settings, tmp_path / "out")
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.safetensors")} == before
    assert not list((tmp_path / "out").rglob("*.new"))
    monkeypatch.undo()
    learn(settings, tmp_path / "out", resume=True)
    assert sha(tmp_path / "out/three.safetensors") == sha(whole / "three.safetensors")


def test_the_identity_holds_every_setting_that_decides_the_result(families, tmp_path):
    """A new field of the settings is in the identity, or is named here as free."""
    run = Inversion(quick(tmp_path, families["sd1"]), tmp_path / "out")
    run.close()
    free = {"name", "steps", "trackers", "patience", "checkpoint_every", "deterministic"}
    assert set(run.identity()) >= set(InvertSettings.model_fields) - free

"""A run that is interrupted ends like one that is not, to the bit; and one that was changed is refused."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusekit import atomic
from diffusekit.errors import DiffusekitError, DiskError, FileRefused, UsageError
from diffusekit.inversion import checkpoint
from diffusekit.inversion.run_folder import RunFolder
from diffusekit.inversion.trainer import Inversion
from diffusekit.settings import InvertSettings
from tests.helpers import ROOT
from tests.helpers.inversions import learn, pictures, quick


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stop_after(run: Inversion, step: int) -> None:
    for moment in run:
        if moment.step == step:
            run.save_checkpoint()
            break
    run.close()


@pytest.mark.slow
def test_killed_at_50_random_moments_and_at_every_site_it_ends_the_same(families, tmp_path):
    pictures(tmp_path / "three")
    command = [
        sys.executable,
        str(ROOT / "tests" / "helpers" / "crash.py"),
        str(families["sd1"]),
        str(tmp_path / "three"),
        str(tmp_path / "runs"),
        "50",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["random"]) == 50
    assert set(told["random"]) == {told["expected"]}
    assert set(told["sites"].values()) == {told["expected"]}
    assert told["chain"] == told["expected"]


@pytest.mark.parametrize("step", [1, 5, 6, 11])
def test_stopped_at_any_step_it_goes_on_bit_by_bit(families, tmp_path, step):
    settings = quick(tmp_path, families["sd1"])
    learn(settings, tmp_path / "whole")
    stop_after(Inversion(settings, tmp_path / "cut"), step)
    learn(settings, tmp_path / "cut", resume=True)
    assert sha(tmp_path / "cut/three.safetensors") == sha(tmp_path / "whole/three.safetensors")
    logs = [(tmp_path / which / "three/log.jsonl").read_text() for which in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_losing_the_optimizer_would_be_noticed(families, tmp_path):
    """The negative control of the tests above: without the moments the result differs."""
    settings = quick(tmp_path, families["sd1"])
    learn(settings, tmp_path / "whole")
    run = Inversion(settings, tmp_path / "cut")
    stop_after(run, 5)
    state = checkpoint.latest(tmp_path / "cut/three/checkpoints")
    assert state is not None and state.first_moment.abs().max() > 0
    zeros = torch.zeros_like(state.vectors)
    checkpoint.write(
        tmp_path / "cut/three/checkpoints",
        dataclasses.replace(state, first_moment=zeros, second_moment=zeros),
    )
    learn(settings, tmp_path / "cut", resume=True)
    assert sha(tmp_path / "cut/three.safetensors") != sha(tmp_path / "whole/three.safetensors")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(families, tmp_path, caplog):
    settings = quick(tmp_path, families["sd1"], checkpoint_every=2)
    learn(settings, tmp_path / "whole")
    for length in (0, 10, 500, -1):
        output = tmp_path / f"cut{length}"
        stop_after(Inversion(settings, output), 7)
        newest = sorted((output / "three/checkpoints").glob("*.safetensors"))[-1]
        newest.write_bytes(newest.read_bytes()[:length])
        learn(settings, output, resume=True)
        assert newest.with_suffix(".damaged").exists()
        assert "damaged" in caplog.text
        assert sha(output / "three.safetensors") == sha(tmp_path / "whole/three.safetensors")


def test_a_flipped_bit_is_found(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "cut"), 5)
    path = next((tmp_path / "cut/three/checkpoints").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileRefused, match="checksum"):
        checkpoint.read(path)


def test_when_no_checkpoint_can_be_read_it_says_how_to_start_again(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "cut"), 5)
    for path in (tmp_path / "cut/three/checkpoints").glob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(FileRefused, match="no checkpoint") as caught:
        Inversion(settings, tmp_path / "cut", resume=True)
    assert "--overwrite" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "named"),
    [({"learning_rate": 0.5}, "learning rate was"), ({"seed": 9}, "seed was 0 and is 9"), ({"batch": 3}, "batch was")],
)
def test_changed_settings_are_refused_by_name(families, tmp_path, change, named):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "cut"), 5)
    with pytest.raises(UsageError, match=named):
        Inversion(settings.model_copy(update=change), tmp_path / "cut", resume=True)


def test_changed_pictures_and_another_model_are_refused(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "cut"), 5)
    other = settings.model_copy(update={"model": str(families["sd2"])})
    with pytest.raises(UsageError, match="model was"):
        Inversion(other, tmp_path / "cut", resume=True)
    pictures(tmp_path / "three", shade=30)
    with pytest.raises(UsageError, match="pictures was"):
        Inversion(settings, tmp_path / "cut", resume=True)


def test_more_steps_may_be_asked_for(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "cut"), 5)
    longer = Inversion(settings.model_copy(update={"steps": 15}), tmp_path / "cut", resume=True)
    assert [moment.step for moment in longer] == list(range(6, 16))
    longer.close()


def test_earlier_work_is_not_run_over(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "out"), 5)
    with pytest.raises(UsageError, match="unfinished run"):
        Inversion(settings, tmp_path / "out")
    learn(settings, tmp_path / "out", resume=True)
    before = sha(tmp_path / "out/three.safetensors")
    with pytest.raises(UsageError, match="already exists"):
        Inversion(settings, tmp_path / "out")
    assert sha(tmp_path / "out/three.safetensors") == before
    learn(settings, tmp_path / "out", overwrite=True)
    assert sha(tmp_path / "out/three.safetensors") == before


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
    with pytest.raises(UsageError, match="already exists"):  # it is finished
        Inversion(new, output, resume=True)


def test_resume_and_overwrite_exclude_each_other(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    stop_after(Inversion(settings, tmp_path / "out"), 1)
    with pytest.raises(UsageError, match="both given"):
        Inversion(settings, tmp_path / "out", resume=True, overwrite=True)
    assert checkpoint.latest(tmp_path / "out/three/checkpoints") is not None


@pytest.mark.parametrize("inside", ["", "previews"])
def test_a_run_is_not_kept_among_its_pictures(families, tmp_path, inside):
    folder = pictures(tmp_path / "three")
    (folder / inside).mkdir(exist_ok=True)
    files = sorted(folder.rglob("*"))
    settings = quick(tmp_path, families["sd1"], pictures=str(folder / inside), name="three")
    with pytest.raises(UsageError, match="where the pictures are") as caught:
        Inversion(settings, tmp_path, overwrite=True)
    assert caught.value.exit_code == 2 and sorted(folder.rglob("*")) == files


def test_what_cannot_be_used_leaves_no_folder(families, tmp_path):
    with pytest.raises(UsageError):
        Inversion(quick(tmp_path, families["sd1"], token="cat"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_log_cut_inside_a_letter_loses_one_line(tmp_path):
    run = RunFolder(tmp_path, "three")
    run.begin(tmp_path / "pictures", resume=False, overwrite=False)
    run.append_log({"step": 1})
    run.append_log({"step": 2, "nearest": ["é"]})
    log = run.folder / "log.jsonl"
    data = log.read_bytes()
    log.write_bytes(data[: data.index("é".encode()) + 1])
    assert run.notes() == [{"step": 1}]
    run.rewind(5)
    assert log.read_text() == '{"step": 1}\n'
    run.close()


def test_a_damaged_checkpoint_may_be_gone_already(families, tmp_path, monkeypatch):
    """Of several processes that find it, one sets it aside."""
    stop_after(Inversion(quick(tmp_path, families["sd1"]), tmp_path / "cut"), 6)
    folder, real = tmp_path / "cut/three/checkpoints", checkpoint.read
    newest = folder / "000006.safetensors"
    newest.write_bytes(b"")

    def late(path: Path) -> checkpoint.Checkpoint:
        if path == newest:
            path.replace(path.with_suffix(".damaged"))
        return real(path)

    monkeypatch.setattr(checkpoint, "read", late)
    state = checkpoint.latest(folder)
    assert state is not None and state.step == 5


def test_two_processes_do_not_share_a_run(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    first = Inversion(settings, tmp_path / "out")
    with pytest.raises(UsageError, match="another process"):
        Inversion(settings, tmp_path / "out", resume=True)
    first.close()


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_full_disk_leaves_older_files_untouched(families, tmp_path, monkeypatch, write):
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
    learn(settings, tmp_path / "whole")
    assert sha(tmp_path / "out/three.safetensors") == sha(tmp_path / "whole/three.safetensors")


def test_the_identity_holds_every_setting_that_decides_the_result(families, tmp_path):
    """A new field of the settings is in the identity, or is named here as free."""
    run = Inversion(quick(tmp_path, families["sd1"]), tmp_path / "out")
    run.close()
    free = {"name", "steps", "trackers", "patience", "checkpoint_every"}
    assert set(run._identity()) >= set(InvertSettings.model_fields) - free

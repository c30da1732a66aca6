"""`diffusekit invert`: learn, stop, resume, use two processes, and what is printed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffusekit import embeddings
from diffusekit.cli import invert
from diffusekit.cli.main import StopSignal, run
from diffusekit.inversion.progress import TrainingProgress, VectorMeasures
from diffusekit.settings import InvertSettings
from tests.helpers.inversions import pictures

SMALL = "--init cat --steps 12 --batch 2 --preview-every 0 --checkpoint-every 5 --device cpu --clip none"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "diffusekit", *words]


@pytest.mark.slow
def test_a_token_is_learned_from_a_folder_and_used_in_prompts(families, tmp_path, capsys):
    pictures(tmp_path / "my_cat")
    model = ["--model", str(families["sd1"])]
    learn = ["invert", "my_cat", *model, "--batch", "2"]
    assert run([*learn, "--steps", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == "embeddings/my_cat.safetensors" and Path(result["page"]).exists()
    assert [row["used"] for row in result["pictures"]] == [True] * 3
    for prompt in ("App icon of S*", "App icon of <my_cat>", "App icon of my_cat"):
        words = ["generate", prompt, *model, "--steps", "4", "--seed", "1", "--json"]
        assert run([*words, *(["--embedding", "my_cat"] if "S*" in prompt else [])]) == 0
        capsys.readouterr()
    images = sorted(Path("outputs").rglob("*.png"))
    assert len(images) == 3
    assert run(["info", str(images[0])]) == 0
    printed = capsys.readouterr().out
    assert "my_cat " + embeddings.load_token("my_cat").sha256[:12] in printed
    assert run(["again", str(images[0]), "-o", "again.png"]) == 0
    assert capsys.readouterr().err == ""
    assert run([*learn, "--steps", "4", "--seed", "5", "--overwrite", "-q"]) == 0
    assert run(["again", str(images[0]), "-o", "other.png"]) == 0
    assert "trained again" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recipe_names_its_images_or_takes_a_folder(families, tmp_path, capsys):
    pictures(tmp_path / "photos")
    Path("recipes").mkdir()
    Path("recipes/mine.toml").write_text(
        f'pictures = "../photos"\nmodel = "{families["sd1"]}"\nsteps = 2\nbatch = 1\ninit = "cat"\ntoken = "<p>"\n'
    )
    assert run(["invert", "recipes/mine.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["token"] == "<p>"
    assert run(["invert", "photos", "--recipe", "recipes/mine.toml", "--name", "two", "--vectors", "2", "-q"]) == 0
    assert embeddings.load_token("two").count == 2
    Path("training").mkdir()
    Path("training/wrong.toml").write_text("vektors = 2")
    assert run(["invert", "photos", "--recipe", "wrong"]) == 2
    assert "did you mean 'vectors'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["empty"], 4, "no image that can be used"),
        (["nowhere"], 2, "nowhere"),
        (["mixed", "--strict"], 4, "notes.md"),
        (["mixed", "--token", "two words"], 2, "white space"),
        (["mixed", "--vectors", "99"], 2, "vectors"),
        (["mixed", "--tracker", "excel"], 2, "excel"),
        (["mixed", "--learning-rate", "1e30", "--norm-bound", "0"], 5, "learning rate"),
        (["mixed", "--learning-rate", "1e-12", "--steps", "11", "--preview-every", "0"], 5, "not moved"),
    ],
)
def test_an_error_is_one_message_a_hint_and_an_exit_code(families, tmp_path, capsys, words, code, message):
    (tmp_path / "empty").mkdir()
    pictures(tmp_path / "mixed")
    (tmp_path / "mixed" / "notes.md").write_text("hello")
    words = ["invert", *words, "--model", str(families["sd1"]), "--init", "cat", "--batch", "1"]
    assert run(words) == code
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(error) == 2 and message in error[0]
    assert not Path("embeddings/mixed.safetensors").exists()


@pytest.mark.parametrize(
    ("processes", "device", "first"),
    [
        (1, "cpu", "diffusekit invert three"),
        (2, "cpu", "accelerate launch --cpu --num_processes 2 -m diffusekit invert three"),
        (4, "cuda", "accelerate launch --num_processes 4 -m diffusekit invert three"),
    ],
)
@pytest.mark.parametrize("is_main", [True, False])
def test_only_the_main_process_prints_how_to_resume(capsys, monkeypatch, processes, device, first, is_main):
    monkeypatch.setattr(sys, "argv", ["diffusekit", "invert", "three", "--overwrite"])
    run = RunOfOneStep(processes, is_main, InvertSettings(device=device))
    with pytest.raises(StopSignal), invert.catch_stop_signals(run.stop, announce=is_main) as signals:
        signal.raise_signal(signal.SIGINT)
        invert.train(run, signals, show=False)
    printed = capsys.readouterr().err
    assert run.saved and run.is_stopped
    stopping = "stopping after this step; press Ctrl-C again to stop at once"
    resume = f"saved at step 7; resume with:\n  {first} --resume"
    assert printed == (f"{stopping}\n{resume}\n" if is_main else "")


class RunOfOneStep:
    """The part of an inversion that `train` uses, with one step."""

    step, learning_rates, saved, is_stopped, result = 7, (0.1,), False, False, None

    def __init__(self, process_count: int, is_main: bool, settings: InvertSettings):
        self.process_count, self.is_main, self.settings = process_count, is_main, settings

    def __iter__(self):
        yield TrainingProgress(7, 0.5, 0.5, (VectorMeasures(1.0, 0.1, ("cat",)),))

    def stop(self) -> None:
        self.is_stopped = True

    def save_checkpoint(self) -> None:
        self.saved = True


@pytest.mark.slow
@pytest.mark.parametrize(("output", "name"), [("embeddings", "three"), ("else where", "my_three")])
def test_the_printed_example_runs(families, tmp_path, capsys, output, name):
    pictures(tmp_path / "three")
    words = ["invert", "three", "--name", name, "-o", output, "--model", str(families["sd1"])]
    words += ["--init", "cat", "--steps", "1", "--batch", "1", "--preview-every", "0"]
    assert run([*words, "--device", "cpu", "--clip", ""]) == 0
    printed = capsys.readouterr().err
    line = next(line for line in printed.splitlines() if line.startswith("use it:"))
    example = shlex.split(line.removeprefix("use it:"))[1:]
    assert ("three keeps its usual meaning" in printed) == (name == "three")
    assert run([*example, "--steps", "1", "--device", "cpu"]) == 0


STEPS_UNTIL_A_SIGNAL = ["--steps", "300"]


@pytest.fixture(scope="module")
def uninterrupted(families, tmp_path_factory) -> str:
    """The hash of the token of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    pictures(folder / "three")
    words = ["invert", "three", "--model", str(families["sd1"]), *SMALL.split(), *STEPS_UNTIL_A_SIGNAL, "-q"]
    done = subprocess.run(command(*words), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return embeddings.read(folder / "embeddings/three.safetensors").sha256


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_prints_how_to_resume(families, uninterrupted, tmp_path, number, code):
    pictures(tmp_path / "three")
    words = ["invert", "three", "--model", str(families["sd1"]), *SMALL.split(), *STEPS_UNTIL_A_SIGNAL]
    running = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "embeddings/three/log.jsonl"
    for _ in range(2400):
        if log.exists() and log.read_text().count("\n") > 1:
            break
        time.sleep(0.05)
    asked = time.monotonic()
    running.send_signal(number)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == code, errors
    assert time.monotonic() - asked < 10
    assert not output and not (tmp_path / "embeddings/three.safetensors").exists()
    again = next(line for line in errors.splitlines() if line.strip().startswith("diffusekit invert"))
    done = subprocess.run(command(*shlex.split(again)[1:]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert embeddings.read(tmp_path / "embeddings/three.safetensors").sha256 == uninterrupted


@pytest.mark.slow
def test_two_processes_learn_the_same_token_as_one(families, tmp_path):
    pictures(tmp_path / "three")
    words = ["-m", "diffusekit", "invert", "three", "--model", str(families["sd1"]), *SMALL.split(), "-q"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    one = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert one.returncode == 0, one.stderr
    options = "--cpu --num_processes 2 --num_machines 1 --mixed_precision no --main_process_port 29611"
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options.split()]
    two = subprocess.run([*launch, *words, "-o", "two"], capture_output=True, text=True, env=environment, timeout=300)
    assert two.returncode == 0, two.stderr[-2000:]
    assert two.stdout.splitlines() == ["two/three.safetensors"]  # only the main process prints
    first, second = (embeddings.read(tmp_path / f / "three.safetensors") for f in ("embeddings", "two"))
    assert torch.allclose(first.vectors[0], second.vectors[0], rtol=1e-4, atol=1e-6)
    assert not torch.equal(first.vectors[0], torch.zeros_like(first.vectors[0]))

"""The tables and images of docs/inversion.md: `python -m benchmarks.inversion six|ablation|grid`.

six: six held-out things, learned with the defaults. ablation: the effect of each default. grid: the seven prompts of
the first figure of the paper, and five easier ones, with one learned token.
"""

import argparse
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image, ImageDraw

import diffusekit
from diffusekit import embeddings, models
from diffusekit.embeddings import LearnedToken
from diffusekit.inversion.evaluation import Evaluator
from diffusekit.inversion.optimizer import RATE
from diffusekit.inversion.trainer import Inversion
from diffusekit.settings import InvertSettings
from training.mini.photos import write_photos

ROOT = Path(__file__).parents[1]

SUBJECTS = {
    "owl": "bird",
    "turtle": "fish",
    "guitar": "teapot",
    "robot": "rocket",
    "snail": "apple",
    "crown": "castle",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "captions: templates": {"captions": "templates"},
    "captions: both": {"captions": "both"},
    "init: a general word (thing)": {"init": "thing"},
    "start: text encoder's output": {"start": "output"},
    "start: output, pull 0.01": {"start": "output", "pull": 0.01},
    "pull 0.01": {"pull": 0.01},
    "norm bound 2": {"norm_bound": 2.0},
    "norm bound 0 (none)": {"norm_bound": 0.0},
    "2 vectors": {"vectors": 2},
    "4 vectors": {"vectors": 4},
    "rate x 0.1": {"rate": 0.1},
    "rate x 0.3": {"rate": 0.3},
    "rate x 2": {"rate": 2.0},
}
FIGURE = (
    "Painting of two S* fishing on a boat",
    "App icon of S*",
    "Elmo sitting in the same pose as S*",
    "Crochet S*",
    "Banksy art of S*",
    "A S* themed lunchbox",
    "A S* backpack",
)
EASIER = (
    "a picture of S*",
    "S* in the snow",
    "an oil painting of S* on the beach",
    "a pink S* in a room",
    "two S* on the grass",
)


@dataclass(frozen=True)
class Trial:
    """One learned token, with scores on seeds that training did not use."""

    token: LearnedToken
    seconds: float
    steps: int
    init_reconstruction: float  # of the init word
    reconstruction: float
    photo_similarity: float
    editability: float
    editability_kept: float  # as a share of the init word's editability

    @property
    def best_step(self) -> int:
        return int(self.token.metadata["steps"])

    @property
    def gain(self) -> float:
        """Reconstruction from 0, that of the init word, to 1, that of the photos among each other."""
        return (self.reconstruction - self.init_reconstruction) / (self.photo_similarity - self.init_reconstruction)

    @property
    def norm(self) -> float:
        return float(self.token.vectors[0].norm(dim=1).mean())


def learn(subject: str, folder: Path, **changes: Any) -> Trial:
    """Learn the token of a held-out subject. `changes` are settings that differ from the defaults."""
    photos = folder / subject
    write_photos(subject, photos)
    values = {"pictures": str(photos), "init": SUBJECTS[subject], "device": "cpu"} | changes
    factor = values.pop("rate", None)
    if factor:
        vocabulary = embeddings.Vocabulary(models.load("mini", "cpu"))
        values["learning_rate"] = factor * RATE * vocabulary.typical_norm / 256**0.5
    started = time.perf_counter()
    run = Inversion(InvertSettings(**values), folder / "out", overwrite=True)
    for _ in run:
        pass
    run.close()
    seconds, token = time.perf_counter() - started, run.result
    before, after = [], []
    for seed in (1000, 2000):
        settings = run.settings.model_copy(update={"seed": seed})
        evaluator = Evaluator(run.model, settings, [p.image for p in run.dataset.photos], run.evaluator.prompt)
        before.append(evaluator.evaluate(SUBJECTS[subject]))
        after.append(evaluator.evaluate(token.token, [token]))
    editability = mean(each.editability for each in after)
    return Trial(
        token=token,
        seconds=seconds,
        steps=run.step,
        init_reconstruction=mean(each.reconstruction for each in before),
        reconstruction=mean(each.reconstruction for each in after),
        photo_similarity=run.evaluator.photo_similarity,
        editability=editability,
        editability_kept=editability / mean(each.editability for each in before),
    )


def line(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def six(folder: Path, captions: str) -> None:
    """Learn all six held-out subjects with the defaults."""
    scores = ("init word", "learned", "photos", "gain", "editability", "kept")
    line("subject", "from", "seconds", "steps (best)", *scores)
    line("---", "---", *["--:"] * 8)
    trials = []
    for subject, init in SUBJECTS.items():
        trial = learn(subject, folder, captions=captions)
        trials.append(trial)
        line(
            subject,
            init,
            f"{trial.seconds:.0f}",
            f"{trial.steps} ({trial.best_step})",
            f"{trial.init_reconstruction:.3f}",
            f"{trial.reconstruction:.3f}",
            f"{trial.photo_similarity:.3f}",
            f"{trial.gain:.0%}",
            f"{trial.editability:.3f}",
            f"{trial.editability_kept:.0%}",
        )
    for name, pick, slowest in (("mean", mean, mean), ("worst", min, max)):
        seconds = slowest(trial.seconds for trial in trials)
        gain, kept = pick(trial.gain for trial in trials), pick(trial.editability_kept for trial in trials)
        line(name, "", f"{seconds:.0f}", "", "", "", "", f"{gain:.0%}", "", f"{kept:.0%}")


def ablation(folder: Path, steps: int, subjects: list[str]) -> None:
    """Change one setting at a time. Mean and worst of the subjects."""
    line(f"{steps} steps, {', '.join(subjects)}", "gain", "worst", "kept", "worst", "best step", "norm", "seconds")
    line("---", *["--:"] * 7)
    for name, changes in VARIANTS.items():
        trials = [learn(subject, folder, steps=steps, patience=0, **changes) for subject in subjects]
        gains, kept = [trial.gain for trial in trials], [trial.editability_kept for trial in trials]
        line(
            name,
            f"{mean(gains):.0%}",
            f"{min(gains):.0%}",
            f"{mean(kept):.0%}",
            f"{min(kept):.0%}",
            f"{mean(trial.best_step for trial in trials):.0f}",
            f"{mean(trial.norm for trial in trials):.2f}",
            f"{mean(trial.seconds for trial in trials):.0f}",
        )


def grid(name: str, output: Path) -> None:
    """Generate images of one token: a row for each prompt, four seeds."""
    prompts, side, left = [*EASIER, *FIGURE], 128, 250
    sheet = Image.new("RGB", (left + 4 * side, len(prompts) * side), "white")
    pen = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        results = diffusekit.generate(prompt, embedding=[name], seed=1, images=4)
        pen.text((6, row * side + 56), prompt, fill="black", font_size=13)
        for column, result in enumerate(results):
            sheet.paste(result.image, (left + column * side, row * side))
    sheet.save(output, quality=88)


def main() -> None:
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inversion", description=__doc__)
    parser.add_argument("what", choices=("six", "ablation", "grid"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--subjects", nargs="+", default=["owl", "turtle", "crown"])
    parser.add_argument("--captions", default="auto", help="templates: ignore the captions")
    parser.add_argument("--token", default=str(ROOT / "embeddings" / "my_turtle.safetensors"))
    options = parser.parse_args()
    if options.what == "grid":
        grid(options.token, ROOT / "docs" / "images" / "inversion.jpg")
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "six":
            six(Path(folder), options.captions)
        else:
            ablation(Path(folder), options.steps, options.subjects)


if __name__ == "__main__":
    main()

"""The tables and images of docs/inversion.md: `python -m benchmarks.inversion six|ablation|grid`.

six: six held-out things, learned with the defaults. ablation: the effect of each default. grid: the seven prompts of
the first figure of the paper, and five easier ones, with one learned token.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path
from statistics import mean

from PIL import Image, ImageDraw

import diffusekit
from diffusekit import embeddings, models
from diffusekit.inversion.evaluation import Evaluator
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
VARIANTS: dict[str, dict] = {
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


def learn(subject: str, folder: Path, **changes) -> dict:
    """Learn one token and return its scores on seeds that training did not use."""
    photos = folder / subject
    write_photos(subject, photos)
    values = {"pictures": str(photos), "init": SUBJECTS[subject], "device": "cpu"} | changes
    factor = values.pop("rate", None)
    if factor:
        from diffusekit.inversion.optimizer import RATE

        vocabulary = embeddings.Vocabulary(models.load("mini", "cpu"))
        values["learning_rate"] = factor * RATE * vocabulary.typical_norm / 256**0.5
    started = time.perf_counter()
    run = Inversion(InvertSettings(**values), folder / "out", overwrite=True)
    for _ in run:
        pass
    run.close()
    seconds, token = time.perf_counter() - started, run.result
    init_scores, token_scores = [], []
    for seed in (1000, 2000):
        evaluator = Evaluator(
            run.model,
            run.settings.model_copy(update={"seed": seed}),
            [p.image for p in run.dataset.photos],
            run.evaluator.prompt,
        )
        init_scores.append(evaluator.evaluate(SUBJECTS[subject]))
        token_scores.append(evaluator.evaluate(token.token, [token]))
    before, after = (
        {score: mean(getattr(each, score) for each in group) for score in ("reconstruction", "editability")}
        for group in (init_scores, token_scores)
    )
    pairwise = run.evaluator.photo_similarity
    return {
        "token": token,
        "seconds": seconds,
        "steps": run.step,
        "best": int(token.metadata["steps"]),
        "init": before["reconstruction"],
        "learned": after["reconstruction"],
        "pairwise": pairwise,
        "way": (after["reconstruction"] - before["reconstruction"]) / (pairwise - before["reconstruction"]),
        "editability": after["editability"],
        "kept": after["editability"] / before["editability"],
    }


def line(*cells) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def six(folder: Path, captions: str) -> None:
    line(
        "subject",
        "from",
        "seconds",
        "steps (best)",
        "init word",
        "learned",
        "photos",
        "way",
        "editability",
        "kept",
    )
    line("---", "---", *["--:"] * 8)
    rows = []
    for subject, init in SUBJECTS.items():
        row = learn(subject, folder, captions=captions)
        rows.append(row)
        likeness = [f"{row[key]:.3f}" for key in ("init", "learned", "pairwise")]
        line(
            subject,
            init,
            f"{row['seconds']:.0f}",
            f"{row['steps']} ({row['best']})",
            *likeness,
            f"{row['way']:.0%}",
            f"{row['editability']:.3f}",
            f"{row['kept']:.0%}",
        )
    for name, pick, slow in (("mean", mean, mean), ("worst", min, max)):
        way, kept = (f"{pick(row[key] for row in rows):.0%}" for key in ("way", "kept"))
        line(name, "", f"{slow(row['seconds'] for row in rows):.0f}", "", "", "", "", way, "", kept)


def ablation(folder: Path, steps: int, subjects: list[str]) -> None:
    line(
        f"{steps} steps, {', '.join(subjects)}",
        "way",
        "worst",
        "kept",
        "worst",
        "best step",
        "norm",
        "seconds",
    )
    line("---", *["--:"] * 7)
    for name, changes in VARIANTS.items():
        rows = [learn(s, folder, steps=steps, patience=0, **changes) for s in subjects]
        ways, kept = ([row[key] for row in rows] for key in ("way", "kept"))
        norm = mean(float(row["token"].vectors[0].norm(dim=1).mean()) for row in rows)
        line(
            name,
            f"{mean(ways):.0%}",
            f"{min(ways):.0%}",
            f"{mean(kept):.0%}",
            f"{min(kept):.0%}",
            f"{mean(row['best'] for row in rows):.0f}",
            f"{norm:.2f}",
            f"{mean(row['seconds'] for row in rows):.0f}",
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("six", "ablation", "grid"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--subjects", nargs="+", default=["owl", "turtle", "crown"])
    parser.add_argument("--captions", default="auto", help="templates: ignore the captions")
    parser.add_argument("--token", default=str(ROOT / "embeddings" / "my_turtle.safetensors"))
    options = parser.parse_args()
    if options.what == "grid":
        grid(options.token, ROOT / "docs" / "pictures" / "inversion.jpg")
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "six":
            six(Path(folder), options.captions)
        else:
            ablation(Path(folder), options.steps, options.subjects)


if __name__ == "__main__":
    main()

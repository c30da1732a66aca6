"""Grade `mini`: `python -m training.mini grade` asks for pictures, looks at them, and prints one table.

The prompts name held-out combinations only; a recognizer answers (recognizer.py), and how well it reads
pictures drawn by rules stands beside. What fails is laid out in `build/grade`: look at it first.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from PIL import Image

import diffusekit
from diffusekit import clip_score, latents, models

from ..world.scenes import FIRST_PART, WHOLE_WORLD, Domain, draw
from . import detector
from .detector import Detector, detect, images_to_tensor
from .prompts import QUESTIONS, Prompt, Question, make_prompts
from .report import (
    SOURCES,
    Answers,
    DomainGrade,
    count_confusions,
    describe_confusions,
    render_notes,
    render_table,
    save_report,
)

DOMAINS = {"whole": WHOLE_WORLD, "first": FIRST_PART}


@dataclass(frozen=True)
class GradePlan:
    """How much is asked and looked at, and where what is found goes."""

    prompts: int
    checks: int  # more rendered pictures of each question, for the recognizer's own grade
    seeds: int  # pictures of one prompt, for diversity
    settings: dict
    work: Path
    model: str = "mini"


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {message}", file=sys.stderr, flush=True)


def generate_images(asked: Sequence[Sequence[Prompt]], plan: GradePlan) -> list[list[Image.Image]]:
    """A picture for every prompt. The k-th prompt of every list is drawn with seed k, first seeds only."""
    made: list[list[Image.Image]] = [[] for _ in asked]
    started = time.monotonic()
    for seed in range(plan.prompts):
        texts = [prompts[seed].text for prompts in asked]
        found = diffusekit.generate(texts, model=plan.model, seed=seed, batch=8, **plan.settings)
        for pictures, each in zip(made, found, strict=True):
            pictures.append(each.image)
        spent = (time.monotonic() - started) / (seed + 1) / len(asked)
        if (seed + 1) % 10 == 0:
            log(f"pictures: {(seed + 1) * len(asked)}, {spent:.2f} s each")
    return made


class Grader:
    """The judges, and what they say."""

    def __init__(self, plan: GradePlan, net: Detector):
        self.plan, self.net = plan, net
        self.model = models.load(plan.model, "cpu")
        judge = clip_score.load_scorer(self.model)
        assert judge is not None, "the model brings no CLIP towers"
        self.judge = judge

    def reconstruct(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures through the VAE and back."""
        some = pictures.split(25)
        return torch.cat([latents.decode(self.model, latents.encode(self.model, p)) for p in some])

    def answer(self, question: Question, prompts: Sequence[Prompt], pictures: torch.Tensor) -> Answers:
        seen = detect(self.net, pictures)
        right = [question.is_correct(p.scene, s) for p, s in zip(prompts, seen, strict=True)]
        said = self.judge.embed_texts([p.text for p in prompts])
        likeness = (self.judge.embed_images(pictures) * said).sum(1)
        return Answers(right, seen, detector.features(self.net, pictures), likeness)

    def grade_domain(self, part: Domain, found: DomainGrade) -> None:
        """Look at mini's pictures of a part, at drawn ones of the same scenes, and at more drawn ones."""
        reference, errors = [], []
        for question in QUESTIONS:
            prompts = found.prompts[question.name]
            drawn = images_to_tensor([draw(p.scene, p.index) for p in prompts])
            rebuilt = self.reconstruct(drawn)
            errors.append(((rebuilt - drawn) / 2).square().mean((1, 2, 3)))
            shown = (images_to_tensor(found.images[question.name]), drawn, rebuilt)
            looks = {
                kind: self.answer(question, prompts, pictures) for kind, pictures in zip(SOURCES, shown, strict=True)
            }
            more = make_prompts(question, part, self.plan.checks, seed=2)
            others = images_to_tensor([draw(p.scene, p.index) for p in more])
            again = detect(self.net, others)
            right = [question.is_correct(p.scene, s) for p, s in zip(more, again, strict=True)]
            right += looks["drawn"].correct
            found.answers[question.name] = looks
            found.detector_accuracy[question.name] = sum(right) / len(right)
            reference.append(detector.features(self.net, others))
            share = found.share(question.name)
            log(f"{question.name}: {share:.0%}, rendered {found.detector_accuracy[question.name]:.1%}")
        found.reference = torch.cat(reference)
        found.psnr = float((-10 * torch.cat(errors).log10()).mean())

    def diversity(self, prompts: Sequence[Prompt]) -> tuple[float, float]:
        """Mean distance (one minus cosine, in mini's CLIP) of pictures of one prompt: mini's and drawn."""
        plan, apart = self.plan, []
        made = diffusekit.generate(
            [p.text for p in prompts],
            model=plan.model,
            seed=1000,
            images=plan.seeds,
            batch=8,
            **plan.settings,
        )
        for i, prompt in enumerate(prompts):
            own = [each.image for each in made[i * plan.seeds : (i + 1) * plan.seeds]]
            drawn = [draw(prompt.scene, prompt.index + k) for k in range(plan.seeds)]
            apart.append(
                [
                    1 - clip_score.mean_pairwise_similarity(self.judge.embed_images(images_to_tensor(p)))
                    for p in (own, drawn)
                ]
            )
        own, drawn = (sum(column) / len(column) for column in zip(*apart, strict=True))
        return own, drawn

    def seconds(self, times: int = 5) -> float:
        """Of one picture alone, decode included."""
        spent, plan = [], self.plan
        fast = plan.settings.get("fast", False)
        for seed in range(times):
            started = time.perf_counter()
            diffusekit.generate("a red house in the snow", model=plan.model, seed=seed, fast=fast)
            spent.append(time.perf_counter() - started)
        return median(spent)

    def megabytes(self) -> float:
        return sum(p.stat().st_size for p in self.model.folder.rglob("*") if p.is_file()) / 1e6


def run(plan: GradePlan, net: Detector) -> str:
    """Everything: ask, draw, look, measure; returns the table and its notes."""
    found = {}
    for key, part in DOMAINS.items():
        asked = {q.name: make_prompts(q, part, plan.prompts) for q in QUESTIONS}
        found[key] = DomainGrade(asked, {})
    lists = [prompts for part in found.values() for prompts in part.prompts.values()]
    made = iter(generate_images(lists, plan))
    for part in found.values():
        part.images = {name: next(made) for name in part.prompts}
    grader = Grader(plan, net)
    for key, part in DOMAINS.items():
        grader.grade_domain(part, found[key])
    one_each = [prompts[0] for prompts in found["whole"].prompts.values()]
    own, drawn = grader.diversity(one_each)
    numbers = {
        "diversity": own,
        "diversity drawn": drawn,
        "seconds": grader.seconds(),
        "megabytes": grader.megabytes(),
        "cores": os.cpu_count() or 0,
        "load": os.getloadavg()[0],
    }
    steps = "4 steps (--fast)" if plan.settings.get("fast") else "20 guided steps"
    text = render_table(found, numbers, steps) + "\n\n" + render_notes(found, plan.prompts, plan.checks)
    save_report(found, numbers, text, plan.work)
    for key, part in found.items():
        log(f"{key}\n{describe_confusions(count_confusions(part))}")
    return text


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.mini grade", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mini", help="a folder, to grade weights that are not shipped yet")
    parser.add_argument("--fast", action="store_true", help="grade the weights for four steps without guidance")
    parser.add_argument("--steps", type=int, help="default: as for everybody")
    parser.add_argument("--sampler", help="default: as for everybody")
    parser.add_argument("--guidance", type=float, help="default: mini's own")
    parser.add_argument("--prompts", type=int, default=50, help="of each question")
    parser.add_argument("--checks", type=int, default=150, help="more rendered pictures of each question")
    parser.add_argument("--minutes", type=float, default=10, help="to teach the recognizer, if there is none yet")
    parser.add_argument(
        "--more",
        type=float,
        default=0,
        help="minutes to teach the recognizer further, if there is one",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/grade"),
        help="recognizer, table, pictures of failures",
    )
    parser.add_argument("--quick", action="store_true", help="only try whether it runs: the numbers mean nothing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    if options.quick:
        options.work /= "quick"
        plan = GradePlan(2, 4, 2, {"steps": 2}, options.work, options.model)
        net = detector.load_or_train(options.work, minutes=1, pictures=200, steps=4, say=log)
    else:
        settings = {
            "steps": options.steps,
            "sampler": options.sampler,
            "guidance_scale": options.guidance,
        }
        if options.fast:
            settings["fast"] = True
        elif options.model != "mini" and options.guidance is None:  # a folder would get 7.5
            settings["guidance_scale"] = models.load("mini", "cpu").guidance_scale
        settings = {name: value for name, value in settings.items() if value is not None}
        plan = GradePlan(options.prompts, options.checks, 8, settings, options.work, options.model)
        net = detector.load_or_train(options.work, minutes=options.minutes, pictures=32_000, more=options.more, say=log)
    print(run(plan, net))

"""Grade `mini`: `python -m training.mini grade` generates images, detects what they show, and prints one table.

The prompts are about held-out combinations only. The detector is graded too, on images drawn by rules. Failures are in
`build/grade`: look at them first.
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
from typing import Any

import numpy as np
import torch
from PIL import Image

import diffusekit
from diffusekit import clip_score, latents, models

from ..dataset import to_tensor
from ..world.scenes import FIRST_PART, WHOLE_WORLD, Domain, draw
from . import detector
from .detector import Detector, detect
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
    """How many images are graded, how they are generated, and where the report goes."""

    prompts: int  # of each question
    checks: int  # more rendered images of each question, to grade the detector
    seeds: int  # images of one prompt, for diversity
    settings: dict[str, Any]  # of `generate`
    work: Path
    model: str = "mini"


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {message}", file=sys.stderr, flush=True)


def generate_images(prompt_lists: Sequence[Sequence[Prompt]], plan: GradePlan) -> list[list[Image.Image]]:
    """Generate an image for every prompt. The k-th prompt of every list gets seed k."""
    images: list[list[Image.Image]] = [[] for _ in prompt_lists]
    started = time.monotonic()
    for seed in range(plan.prompts):
        texts = [prompts[seed].text for prompts in prompt_lists]
        results = diffusekit.generate(texts, model=plan.model, seed=seed, batch=8, **plan.settings)
        for same_list, result in zip(images, results, strict=True):
            same_list.append(result.image)
        seconds = (time.monotonic() - started) / (seed + 1) / len(prompt_lists)
        if (seed + 1) % 10 == 0:
            log(f"images: {(seed + 1) * len(prompt_lists)}, {seconds:.2f} s each")
    return images


def _to_batch(images: Sequence[Image.Image]) -> torch.Tensor:
    """Convert images of one size to (N, 3, H, W) in [-1, 1]."""
    return to_tensor(np.stack([np.asarray(image.convert("RGB")) for image in images]))


class Grader:
    """The model, its CLIP scorer and the detector, and what is measured with them."""

    def __init__(self, plan: GradePlan, net: Detector):
        self.plan, self.net = plan, net
        self.model = models.load(plan.model, "cpu")
        scorer = clip_score.load_scorer(self.model)
        assert scorer is not None, "the model has no CLIP image encoder"
        self.scorer = scorer

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Encode and decode images with the VAE."""
        batches = images.split(25)
        return torch.cat([latents.decode(self.model, latents.encode(self.model, batch)) for batch in batches])

    def answer(self, question: Question, prompts: Sequence[Prompt], images: torch.Tensor) -> Answers:
        """Detect what images show, and decide whether each is correct."""
        contents = detect(self.net, images)
        correct = [question.is_correct(p.scene, content) for p, content in zip(prompts, contents, strict=True)]
        texts = self.scorer.embed_texts([p.text for p in prompts])
        similarity = (self.scorer.embed_images(images) * texts).sum(1)
        return Answers(correct, contents, detector.features(self.net, images), similarity)

    def grade_domain(self, domain: Domain, grade: DomainGrade) -> None:
        """Grade mini's images of a domain, drawn images of the same scenes, and more drawn images."""
        reference, errors = [], []
        for question in QUESTIONS:
            name, prompts = question.name, grade.prompts[question.name]
            drawn = _to_batch([draw(p.scene, p.index) for p in prompts])
            rebuilt = self.reconstruct(drawn)
            errors.append(((rebuilt - drawn) / 2).square().mean((1, 2, 3)))
            by_source = zip(SOURCES, (_to_batch(grade.images[name]), drawn, rebuilt), strict=True)
            grade.answers[name] = {source: self.answer(question, prompts, images) for source, images in by_source}
            checks = make_prompts(question, domain, self.plan.checks, seed=2)
            images = _to_batch([draw(p.scene, p.index) for p in checks])
            contents = detect(self.net, images)
            correct = [question.is_correct(p.scene, content) for p, content in zip(checks, contents, strict=True)]
            correct += grade.answers[name]["drawn"].correct
            grade.detector_accuracy[name] = sum(correct) / len(correct)
            reference.append(detector.features(self.net, images))
            log(f"{name}: {grade.share(name):.0%}, rendered {grade.detector_accuracy[name]:.1%}")
        grade.reference = torch.cat(reference)
        grade.psnr = float((-10 * torch.cat(errors).log10()).mean())

    def measure_diversity(self, prompts: Sequence[Prompt]) -> tuple[float, float]:
        """Return the mean distance (one minus cosine, in mini's CLIP) of images of one prompt: mini's and drawn."""
        plan, distances = self.plan, []
        texts = [p.text for p in prompts]
        results = diffusekit.generate(texts, model=plan.model, seed=1000, images=plan.seeds, batch=8, **plan.settings)
        for i, prompt in enumerate(prompts):
            own = [result.image for result in results[i * plan.seeds : (i + 1) * plan.seeds]]
            drawn = [draw(prompt.scene, prompt.index + k) for k in range(plan.seeds)]
            distances.append([self._mean_distance(images) for images in (own, drawn)])
        own, drawn = (sum(column) / len(column) for column in zip(*distances, strict=True))
        return own, drawn

    def _mean_distance(self, images: Sequence[Image.Image]) -> float:
        return 1 - clip_score.mean_pairwise_similarity(self.scorer.embed_images(_to_batch(images)))

    def measure_seconds(self, times: int = 5) -> float:
        """Return the seconds of one image alone, with its decoding."""
        seconds, plan = [], self.plan
        fast = plan.settings.get("fast", False)
        for seed in range(times):
            started = time.perf_counter()
            diffusekit.generate("a red house in the snow", model=plan.model, seed=seed, fast=fast)
            seconds.append(time.perf_counter() - started)
        return median(seconds)

    def count_megabytes(self) -> float:
        return sum(p.stat().st_size for p in self.model.folder.rglob("*") if p.is_file()) / 1e6


def run(plan: GradePlan, net: Detector) -> str:
    """Generate, detect and measure. Returns the table and its notes."""
    grades = {}
    for key, domain in DOMAINS.items():
        grades[key] = DomainGrade({q.name: make_prompts(q, domain, plan.prompts) for q in QUESTIONS}, {})
    prompt_lists = [prompts for grade in grades.values() for prompts in grade.prompts.values()]
    images = iter(generate_images(prompt_lists, plan))
    for grade in grades.values():
        grade.images = {name: next(images) for name in grade.prompts}
    grader = Grader(plan, net)
    for key, domain in DOMAINS.items():
        grader.grade_domain(domain, grades[key])
    diversity, drawn = grader.measure_diversity([prompts[0] for prompts in grades["whole"].prompts.values()])
    numbers = {
        "diversity": diversity,
        "diversity drawn": drawn,
        "seconds": grader.measure_seconds(),
        "megabytes": grader.count_megabytes(),
        "cores": os.cpu_count() or 0,
        "load": os.getloadavg()[0],
    }
    steps = "4 steps (--fast)" if plan.settings.get("fast") else "20 guided steps"
    text = render_table(grades, numbers, steps) + "\n\n" + render_notes(grades, plan.prompts, plan.checks)
    save_report(grades, numbers, text, plan.work)
    for key, grade in grades.items():
        log(f"{key}\n{describe_confusions(count_confusions(grade))}")
    return text


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.mini grade", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--model", default="mini", help="a folder, to grade weights that are not shipped yet")
    add("--fast", action="store_true", help="grade four steps without guidance")
    add("--steps", type=int, help="default: that of diffusekit generate")
    add("--sampler", help="default: that of diffusekit generate")
    add("--guidance", type=float, help="default: that of mini")
    add("--prompts", type=int, default=50, help="number of prompts of each question")
    add("--checks", type=int, default=150, help="number of rendered images of each question, to grade the detector")
    add("--minutes", type=float, default=10, help="minutes to train the detector, if there is none yet")
    add("--more", type=float, default=0, help="minutes to train an existing detector further")
    add("--work", type=Path, default=Path("build/grade"), help="folder of the detector, the table and the failures")
    add("--quick", action="store_true", help="only check that it runs: the numbers mean nothing")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of `generate` that the options name."""
    named = {"steps": options.steps, "sampler": options.sampler, "guidance_scale": options.guidance}
    settings = {name: value for name, value in named.items() if value is not None}
    if options.fast:
        settings["fast"] = True
    elif options.model != "mini" and options.guidance is None:  # the default for a folder is 7.5
        settings["guidance_scale"] = models.load("mini", "cpu").guidance_scale
    return settings


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    if options.quick:
        work = options.work / "quick"
        plan = GradePlan(2, 4, 2, {"steps": 2}, work, options.model)
        net = detector.load_or_train(work, minutes=1, images=200, steps=4, log=log)
    else:
        work = options.work
        plan = GradePlan(options.prompts, options.checks, 8, _settings(options), work, options.model)
        net = detector.load_or_train(work, minutes=options.minutes, images=32_000, more=options.more, log=log)
    print(run(plan, net))

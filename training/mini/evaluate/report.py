"""What the grader found: one table for the model card, and what failed, as a list and as pictures.

It knows what was asked and what was seen, and neither networks nor prompts' making.
"""

import json
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from .prompts import GENEVAL, QUESTIONS, ImageContent, Prompt, Question

# Below this share of rendered pictures read right, the recognizer's answers mean nothing.
TRUSTED = 0.97
SOURCES = ("mini", "drawn", "rebuilt")  # by mini, by rules, and by rules then through the VAE


@dataclass
class Answers:
    """Pictures of one kind answering one question: whether right, what was seen, how they look."""

    correct: list[bool]
    contents: list[ImageContent]
    features: torch.Tensor  # (N, 128) of the recognizer
    similarity: torch.Tensor  # (N,) cosine with their prompts in mini's own CLIP


@dataclass
class DomainGrade:
    """Everything found out about one part of the world."""

    prompts: dict[str, list[Prompt]]
    images: dict[str, list[Image.Image]]
    answers: dict[str, dict[str, Answers]] = field(default_factory=dict)  # by question and kind
    detector_accuracy: dict[str, float] = field(default_factory=dict)  # share of rendered pictures read right
    reference: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    psnr: float = 0.0

    def share(self, question: str, kind: str = "mini") -> float:
        right = self.answers[question][kind].correct
        return sum(right) / len(right)

    def similarity(self, kind: str) -> float:
        return float(torch.cat([look[kind].similarity for look in self.answers.values()]).mean())

    def frechet_distance(self, kind: str) -> float:
        found = torch.cat([look[kind].features for look in self.answers.values()])
        return frechet_distance(found, self.reference)


def frechet_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Fréchet distance of the Gaussians of two sets of features (N, D) (Heusel et al., 2017)."""
    one, other = one.double(), other.double()
    apart = (one.mean(0) - other.mean(0)).square().sum()
    a, b = one.T.cov(), other.T.cov()
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    both = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float(apart + a.trace() + b.trace() - 2 * both)


def render_table(found: dict[str, DomainGrade], numbers: dict[str, float], steps: str) -> str:
    """The card's table, in Markdown; `steps` says how the pictures were made."""
    whole, first = found["whole"], found["first"]
    lines = [
        "| | `mini`, whole world | `mini`, first part | goal | rendered | through the VAE | SD 1.5 | SDXL |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    means: dict[str, list[float]] = {name: [] for name in found}
    trust = dict.fromkeys(found, True)
    for i, question in enumerate(QUESTIONS):
        name, cells = question.name, []
        for key, part in found.items():
            means[key].append(part.share(name))
            trusted = part.detector_accuracy[name] >= TRUSTED
            trust[key] = trust[key] and trusted
            cells.append(_cell(f"{part.share(name):.0%}", trusted))
        reads = " / ".join(f"{100 * part.detector_accuracy[name]:.1f}" for part in found.values()) + "%"
        through = " / ".join(f"{100 * part.share(name, 'rebuilt'):.0f}" for part in found.values()) + "%"
        others = [f"{o:.0%}" for o in question.other_models] if question.other_models else ["", ""]
        lines.append(_row(name, *cells, f"{question.goal:.0%}", reads, through, *others))
        if i == GENEVAL - 1:
            mean = [_cell(f"{sum(shares) / GENEVAL:.2f}", trust[key]) for key, shares in means.items()]
            lines.append(_row("the six above", *mean, "", "", "", "0.43", "0.55"))

    def three(measure: str, name: str, digits: int) -> None:
        by_kind = [[getattr(part, measure)(kind) for part in found.values()] for kind in SOURCES]
        mini, *beside = [[f"{v:.{digits}f}" for v in values] for values in by_kind]
        lines.append(_row(name, *mini, "", *(" / ".join(v) for v in beside), "", ""))

    three("similarity", "cosine with the prompt, `mini`'s own CLIP", 3)
    three("frechet_distance", "Fréchet distance, recognizer's features", 1)
    own, drawn = numbers["diversity"], numbers["diversity drawn"]
    lines.append(
        _row(
            "diversity: mean distance at one prompt",
            f"{own:.3f}",
            "",
            "",
            f"{drawn:.3f}",
            "",
            "",
            "",
        )
    )
    psnr = [f"{part.psnr:.1f} dB" for part in (whole, first)]
    lines.append(_row("VAE, PSNR on held-out pictures", *psnr, "30 dB", "", "", "", ""))
    machine = f"{numbers['cores']:.0f} cores, load {numbers['load']:.1f}"
    name = f"one picture, {steps} and decode ({machine})"
    lines.append(_row(name, f"{numbers['seconds']:.2f} s", "", "3 s", *[""] * 4))
    lines.append(_row("size", f"{numbers['megabytes']:.1f} MB", "", "64 MB", *[""] * 4))
    return "\n".join(lines)


def _cell(text: str, trusted: bool) -> str:
    return text if trusted else f"({text})"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def render_notes(found: dict[str, DomainGrade], prompts: int, checks: int) -> str:
    """What the table means, in the sentences that go with it."""
    untrusted = sorted(
        f"{question} ({key})"
        for key, part in found.items()
        for question, share in part.detector_accuracy.items()
        if share < TRUSTED
    )
    said = (
        f"{prompts} prompts a question, all of held-out combinations, one picture each, first seeds: a "
        f"share near a half is uncertain by {50 / prompts**0.5:.0f} points. Rendered: the same asked of "
        f"{prompts + checks} pictures drawn by rules (whole world / first part), which is how well the "
        "recognizer reads; through the VAE: the ceiling. The cosine and the Fréchet distance of rendered "
        "pictures are what a perfect `mini` would get. SD 1.5 and SDXL were graded on the real GenEval, with "
        "photographs and everyday things: another test, for orientation only."
    )
    if untrusted:
        said += (
            " In brackets: the recognizer reads fewer than 97% of rendered pictures right, so the number "
            f"means nothing ({', '.join(untrusted)})."
        )
    return textwrap.fill(said, 118)


def count_confusions(found: DomainGrade) -> dict[str, Counter]:
    """(asked, seen) of mini's pictures, for every kind of thing that can be mistaken; the number is that
    of all things, whatever they are, and the color that of the asked subject or of the largest thing."""
    counts = {kind: Counter() for kind in ("subject", "number", "color", "style", "place")}
    for name in ("one object", "counting", "colors", "style", "place"):
        for prompt, seen in zip(found.prompts[name], found.answers[name]["mini"].contents, strict=True):
            thing = prompt.scene.things[0]
            there = seen.find(thing.subject) or sorted(seen.instances, key=lambda s: -s.radius)
            counts["subject"][thing.subject, there[0].thing.subject if there else "nothing"] += 1
            counts["number"][thing.count, len(seen.instances)] += 1
            if thing.color and there:
                counts["color"][thing.color, there[0].thing.color] += 1
            if name in ("style", "place"):
                field = {"style": "style", "place": "background"}[name]
                counts[name][getattr(prompt.scene, field), getattr(seen, field)] += 1
    return counts


def describe_confusions(counts: dict[str, Counter], most: int = 24) -> str:
    """The commonest mistakes, a line for each kind."""
    lines = []
    for kind, pairs in counts.items():
        right = sum(n for (asked, seen), n in pairs.items() if asked == seen)
        wrong = [(pair, n) for pair, n in pairs.most_common() if pair[0] != pair[1]][:most]
        told = ", ".join(f"{asked} → {seen}" + (f" ×{n}" if n > 1 else "") for (asked, seen), n in wrong)
        lines.append(f"{kind}: {right} of {sum(pairs.values())} right; {told or 'no mistakes'}")
    return "\n".join(lines)


def draw_failures(found: DomainGrade, question: Question, path: Path, most: int = 20) -> None:
    """A sheet of a question's failures, least like their prompts first, with what was seen below."""
    looks, prompts = found.answers[question.name]["mini"], found.prompts[question.name]
    failed = [i for i, right in enumerate(looks.correct) if not right]
    failed = sorted(failed, key=lambda i: float(looks.similarity[i]))[:most]
    side, below, columns = 160, 72, 5
    page = Image.new("RGB", (columns * side, max(-(-len(failed) // columns), 1) * (side + below)), "white")
    pen = ImageDraw.Draw(page)
    for k, i in enumerate(failed):
        x, y = k % columns * side, k // columns * (side + below)
        page.paste(found.images[question.name][i].resize((side - 4, side - 4)), (x, y))
        seen = looks.contents[i]
        things = ", ".join(f"{s.thing.color} {s.thing.subject}" for s in seen.instances) or "nothing"
        text = (
            textwrap.fill(prompts[i].text, 28)
            + "\n"
            + textwrap.fill(f"seen: {things}; {seen.background}, {seen.style}", 28)
        )
        pen.text((x + 3, y + side - 2), text, fill="black", font_size=10)
    page.save(path)


def save_report(found: dict[str, DomainGrade], numbers: dict[str, float], text: str, work: Path) -> None:
    """The table, the numbers behind it, and pictures of what failed, in a folder."""
    (work / "table.md").write_text(text + "\n")
    shares = {
        key: {
            q.name: {kind: part.share(q.name, kind) for kind in SOURCES} | {"reads": part.detector_accuracy[q.name]}
            for q in QUESTIONS
        }
        for key, part in found.items()
    }
    (work / "grades.json").write_text(json.dumps({"shares": shares, "numbers": numbers}, indent=1))
    said = [f"## {key}\n{describe_confusions(count_confusions(part))}\n" for key, part in found.items()]
    (work / "confusions.md").write_text("\n".join(said))
    for key, part in found.items():
        for question in QUESTIONS:
            draw_failures(part, question, work / f"worst-{key}-{question.name.replace(' ', '-')}.png")

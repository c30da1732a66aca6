"""Report of the grader: one table for the model card, and the failures as a list and as contact sheets."""

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from .prompts import GENEVAL, QUESTIONS, ImageContent, Prompt, Question

# If the detector reads fewer of the rendered images correctly, its answers mean nothing.
TRUSTED = 0.97
SOURCES = ("mini", "drawn", "rebuilt")  # by mini, by the rules of the world, and by the rules and then through the VAE
_HEADER = (
    "| | `mini`, whole world | `mini`, first part | goal | rendered | through the VAE | SD 1.5 | SDXL |",
    "|---|--:|--:|--:|--:|--:|--:|--:|",
)
_SCENE_FIELDS = {"style": "style", "place": "background"}  # of the questions about the whole image


@dataclass
class Answers:
    """Images of one source for one question: whether each is correct, and what was measured."""

    correct: list[bool]
    contents: list[ImageContent]
    features: torch.Tensor  # (N, 128) of the detector
    similarity: torch.Tensor  # (N,) cosine with their prompts in mini's own CLIP


@dataclass
class DomainGrade:
    """Everything that was measured on one domain."""

    prompts: dict[str, list[Prompt]]
    images: dict[str, list[Image.Image]]
    answers: dict[str, dict[str, Answers]] = field(default_factory=dict)  # by question and source
    detector_accuracy: dict[str, float] = field(default_factory=dict)  # on rendered images, by question
    reference: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    psnr: float = 0.0

    def share(self, question: str, source: str = "mini") -> float:
        """Return the share of correct images."""
        correct = self.answers[question][source].correct
        return sum(correct) / len(correct)

    def is_trusted(self, question: str) -> bool:
        return self.detector_accuracy[question] >= TRUSTED

    def similarity(self, source: str) -> float:
        return float(torch.cat([by_source[source].similarity for by_source in self.answers.values()]).mean())

    def frechet_distance(self, source: str) -> float:
        features = torch.cat([by_source[source].features for by_source in self.answers.values()])
        return frechet_distance(features, self.reference)


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the Fréchet distance of the Gaussians of two sets of features (N, D) (Heusel et al., 2017)."""
    a, b = a.double(), b.double()
    mean_distance = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float(mean_distance + cov_a.trace() + cov_b.trace() - 2 * product)


def render_table(grades: dict[str, DomainGrade], numbers: dict[str, float], steps: str) -> str:
    """Render the table of the model card, in Markdown. `steps` says how the images were generated."""
    return "\n".join([*_HEADER, *_question_rows(grades), *_measure_rows(grades, numbers, steps)])


def _question_rows(grades: dict[str, DomainGrade]) -> list[str]:
    rows = []
    for i, question in enumerate(QUESTIONS):
        name, values = question.name, grades.values()
        shares = [_cell(f"{grade.share(name):.0%}", grade.is_trusted(name)) for grade in values]
        accuracy = " / ".join(f"{100 * grade.detector_accuracy[name]:.1f}" for grade in values) + "%"
        rebuilt = " / ".join(f"{100 * grade.share(name, 'rebuilt'):.0f}" for grade in values) + "%"
        others = [f"{share:.0%}" for share in question.other_models] if question.other_models else ["", ""]
        rows.append(_row(name, *shares, f"{question.goal:.0%}", accuracy, rebuilt, *others))
        if i == GENEVAL - 1:
            means = [_geneval_mean(grade) for grade in values]
            rows.append(_row("the six above", *means, "", "", "", "0.43", "0.55"))
    return rows


def _geneval_mean(grade: DomainGrade) -> str:
    names = [question.name for question in QUESTIONS[:GENEVAL]]
    mean = sum(grade.share(name) for name in names) / GENEVAL
    return _cell(f"{mean:.2f}", all(grade.is_trusted(name) for name in names))


def _measure_rows(grades: dict[str, DomainGrade], numbers: dict[str, float], steps: str) -> list[str]:
    values = list(grades.values())
    psnr = [f"{grades[key].psnr:.1f} dB" for key in ("whole", "first")]
    diversity, drawn = (f"{numbers[key]:.3f}" for key in ("diversity", "diversity drawn"))
    machine = f"{numbers['cores']:.0f} cores, load {numbers['load']:.1f}"
    return [
        _by_source("cosine with the prompt, `mini`'s own CLIP", values, DomainGrade.similarity, 3),
        _by_source("Fréchet distance, detector's features", values, DomainGrade.frechet_distance, 1),
        _row("diversity: mean distance at one prompt", diversity, "", "", drawn, "", "", ""),
        _row("VAE, PSNR on held-out images", *psnr, "30 dB", "", "", "", ""),
        _row(f"one image, {steps} and decode ({machine})", f"{numbers['seconds']:.2f} s", "", "3 s", *[""] * 4),
        _row("size", f"{numbers['megabytes']:.1f} MB", "", "64 MB", *[""] * 4),
    ]


def _by_source(
    name: str, grades: Iterable[DomainGrade], measure: Callable[[DomainGrade, str], float], digits: int
) -> str:
    mini, *others = [[f"{measure(grade, source):.{digits}f}" for grade in grades] for source in SOURCES]
    return _row(name, *mini, "", *(" / ".join(cells) for cells in others), "", "")


def _cell(text: str, trusted: bool) -> str:
    return text if trusted else f"({text})"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def render_notes(grades: dict[str, DomainGrade], prompts: int, checks: int) -> str:
    """Explain the table in the sentences that go below it."""
    untrusted = sorted(
        f"{question} ({key})"
        for key, grade in grades.items()
        for question in grade.detector_accuracy
        if not grade.is_trusted(question)
    )
    text = (
        f"{prompts} prompts for each question, all about held-out combinations, one image each, first seeds. A share "
        f"near one half is uncertain by {50 / prompts**0.5:.0f} points. Rendered: the same questions about "
        f"{prompts + checks} images drawn by rules (whole world / first part), which measures the detector. Through "
        "the VAE: the upper limit. The cosine and the Fréchet distance of rendered images are what a perfect `mini` "
        "would get. SD 1.5 and SDXL were graded on the real GenEval, with photographs and everyday things. That is "
        "another test, for orientation only."
    )
    if untrusted:
        text += (
            " In brackets: the detector reads fewer than 97% of rendered images correctly, so the number means nothing "
            f"({', '.join(untrusted)})."
        )
    return textwrap.fill(text, 118)


def count_confusions(grade: DomainGrade) -> dict[str, Counter]:
    """Count (asked, detected) on mini's images, for subject, number, color, style and place.

    The number is that of all things, of any subject. The color is that of the asked subject or of the largest thing.
    """
    counts = {kind: Counter() for kind in ("subject", "number", "color", "style", "place")}
    for name in ("one object", "counting", "colors", "style", "place"):
        for prompt, content in zip(grade.prompts[name], grade.answers[name]["mini"].contents, strict=True):
            thing = prompt.scene.things[0]
            detected = content.find(thing.subject) or sorted(content.instances, key=lambda i: -i.radius)
            counts["subject"][thing.subject, detected[0].thing.subject if detected else "nothing"] += 1
            counts["number"][thing.count, len(content.instances)] += 1
            if thing.color and detected:
                counts["color"][thing.color, detected[0].thing.color] += 1
            if name in _SCENE_FIELDS:
                attribute = _SCENE_FIELDS[name]
                counts[name][getattr(prompt.scene, attribute), getattr(content, attribute)] += 1
    return counts


def describe_confusions(counts: dict[str, Counter], most: int = 24) -> str:
    """List the most common mistakes, a line for each kind."""
    lines = []
    for kind, pairs in counts.items():
        correct = sum(n for (asked, detected), n in pairs.items() if asked == detected)
        wrong = [(pair, n) for pair, n in pairs.most_common() if pair[0] != pair[1]][:most]
        listed = ", ".join(f"{asked} → {detected}" + (f" ×{n}" if n > 1 else "") for (asked, detected), n in wrong)
        lines.append(f"{kind}: {correct} of {sum(pairs.values())} right; {listed or 'no mistakes'}")
    return "\n".join(lines)


def draw_failures(grade: DomainGrade, question: Question, path: Path, most: int = 20) -> None:
    """Draw a contact sheet of wrong images, least similar to their prompts first, with what was detected."""
    answers, prompts = grade.answers[question.name]["mini"], grade.prompts[question.name]
    failed = [i for i, correct in enumerate(answers.correct) if not correct]
    failed = sorted(failed, key=lambda i: float(answers.similarity[i]))[:most]
    side, label_height, columns = 160, 72, 5
    height = max(-(-len(failed) // columns), 1) * (side + label_height)
    page = Image.new("RGB", (columns * side, height), "white")
    pen = ImageDraw.Draw(page)
    for k, i in enumerate(failed):
        x, y = k % columns * side, k // columns * (side + label_height)
        page.paste(grade.images[question.name][i].resize((side - 4, side - 4)), (x, y))
        label = textwrap.fill(prompts[i].text, 28) + "\n" + textwrap.fill(_describe(answers.contents[i]), 28)
        pen.text((x + 3, y + side - 2), label, fill="black", font_size=10)
    page.save(path)


def _describe(content: ImageContent) -> str:
    things = ", ".join(f"{i.thing.color} {i.thing.subject}" for i in content.instances) or "nothing"
    return f"detected: {things}; {content.background}, {content.style}"


def save_report(grades: dict[str, DomainGrade], numbers: dict[str, float], text: str, work: Path) -> None:
    """Write the table, the numbers behind it, the confusions, and contact sheets of failures to a folder."""
    (work / "table.md").write_text(text + "\n")
    shares = {
        key: {
            q.name: {source: grade.share(q.name, source) for source in SOURCES}
            | {"reads": grade.detector_accuracy[q.name]}
            for q in QUESTIONS
        }
        for key, grade in grades.items()
    }
    (work / "grades.json").write_text(json.dumps({"shares": shares, "numbers": numbers}, indent=1))
    sections = [f"## {key}\n{describe_confusions(count_confusions(grade))}\n" for key, grade in grades.items()]
    (work / "confusions.md").write_text("\n".join(sections))
    for key, grade in grades.items():
        for question in QUESTIONS:
            draw_failures(grade, question, work / f"worst-{key}-{question.name.replace(' ', '-')}.png")

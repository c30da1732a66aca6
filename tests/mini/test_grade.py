"""The grader: its prompts are held-out combinations, its checks are strict, and its detector learns."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import ROOT
from training.mini.dataset import to_tensor
from training.mini.evaluate import detector, report
from training.mini.evaluate.prompts import QUESTIONS, ImageContent, is_fully_described, is_related, make_prompts
from training.mini.evaluate.report import Answers, DomainGrade, frechet_distance
from training.mini.runtime import TimeBudget
from training.mini.world import captions, scenes
from training.mini.world.backgrounds import BACKGROUNDS
from training.mini.world.scenes import FIRST_PART, WHOLE_WORLD, Instance, Scene, Thing
from training.mini.world.styles import STYLES
from training.mini.world.subjects import HELD_OUT

BY_NAME = {question.name: question for question in QUESTIONS}


def oracle(scene: Scene, seed: int = 0) -> ImageContent:
    """What a perfect detector finds in a rendered image of a scene: every thing by itself."""
    _, instances = scenes.draw_with_instances(scene, seed)
    return ImageContent(
        tuple(replace(s, thing=replace(s.thing, count=1)) for s in instances), scene.background, scene.style
    )


@pytest.mark.slow
@pytest.mark.parametrize("domain", [WHOLE_WORLD, FIRST_PART])
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.name)
def test_prompts_describe_held_out_combinations_fully(question, domain):
    prompts = make_prompts(question, domain, 50)
    assert len({p.text for p in prompts}) == 50
    assert [p.text for p in prompts] == [p.text for p in make_prompts(question, domain, 50)]
    for prompt in prompts:
        scene = prompt.scene
        assert question.accepts(scene) and is_fully_described(scene, prompt.text)
        things = {t.subject for t in scene.things}
        assert things <= set(domain.subjects) and not things & set(HELD_OUT)
        assert not set(prompt.text.replace(",", "").split()) & captions.held_out_words()
        assert scene.style in domain.styles
        assert any(scenes.is_held_out(t.subject, t.color, scene.background, scene.style) for t in scene.things)


@pytest.mark.slow
def test_no_training_scene_contains_what_prompts_ask_for():
    """Neither the scenes asked for, nor a held-out thing of theirs, for several seeds."""
    asked = {
        (t.subject, t.color, p.scene.background, p.scene.style)
        for domain in (WHOLE_WORLD, FIRST_PART)
        for question in QUESTIONS
        for p in make_prompts(question, domain, 20)
        for t in p.scene.things
        if scenes.is_held_out(t.subject, t.color, p.scene.background, p.scene.style)
    }
    assert len(asked) > 200
    for domain in (WHOLE_WORLD, FIRST_PART, detector.TRAINING_DOMAIN):
        for seed in (0, 1, 8, 31):
            for index in range(1000):
                scene = scenes.sample(domain, index, seed)
                combinations = {(t.subject, t.color, scene.background, scene.style) for t in scene.things}
                assert not combinations & asked and not {t.subject for t in scene.things} & set(HELD_OUT)


@pytest.mark.parametrize(
    "name,values",
    [("counting", 3), ("colors", 12), ("style", 9), ("place", 12)],
)
def test_prompts_are_balanced_over_the_values(name, values):
    question = BY_NAME[name]
    assert question.balance_by
    counts = Counter(question.balance_by(p.scene) for p in make_prompts(question, WHOLE_WORLD, 36))
    assert len(counts) == values and max(counts.values()) - min(counts.values()) <= 1


def test_left_right_above_below_on_and_in_are_asked_for():
    prompts = make_prompts(BY_NAME["position"], WHOLE_WORLD, 36)
    relations = Counter(p.scene.relation for p in prompts)
    assert relations == {"left": 12, "above": 12, "on": 6, "in": 6}
    assert any("right of" in p.text for p in prompts) and any("left of" in p.text for p in prompts)


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.name)
def test_a_correct_image_is_correct(question):
    for prompt in make_prompts(question, WHOLE_WORLD, 40, seed=5):
        assert question.is_correct(prompt.scene, oracle(prompt.scene, prompt.index)), prompt


def wrong_contents(name: str, scene: Scene) -> list[ImageContent]:
    """What is detected in images that differ in what a question asks about."""
    content = oracle(scene)
    first, *rest = content.instances
    other = "sun" if scene.things[0].subject != "sun" else "heart"
    color = "red" if scene.things[0].color != "red" else "blue"
    stranger = replace(first, thing=replace(first.thing, subject=other))
    if name in ("one object", "two objects"):
        return [replace(content, instances=()), replace(content, instances=(stranger, *rest))]
    if name == "counting":
        more = replace(first, x=0.9, y=0.9)
        return [
            replace(content, instances=(*content.instances, more)),
            replace(content, instances=tuple(rest)),
            replace(content, instances=(stranger, *rest)),
        ]
    if name == "colors":
        dyed = replace(first, thing=replace(first.thing, color=color))
        return [
            replace(content, instances=(dyed,)),
            replace(content, instances=(stranger,)),
            replace(content, instances=()),
        ]
    if name == "position":
        second = rest[0]
        swapped = replace(first, thing=second.thing), replace(second, thing=first.thing)
        aside = replace(first, x=second.x + 0.5)
        wrong = [replace(content, instances=swapped), replace(content, instances=(first,))]
        return [*wrong, replace(content, instances=(aside, second))] if scene.relation != "above" else wrong
    if name == "color attribution":
        second = rest[0]
        swapped = (
            replace(first, thing=replace(first.thing, color=second.thing.color)),
            replace(second, thing=replace(second.thing, color=first.thing.color)),
        )
        return [replace(content, instances=swapped), replace(content, instances=(first,))]
    if name == "style":
        return [replace(content, style="oil" if scene.style != "oil" else "flat")]
    return [replace(content, background="snow" if scene.background != "snow" else "beach")]


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.name)
def test_an_altered_image_is_wrong(question):
    for prompt in make_prompts(question, WHOLE_WORLD, 40, seed=6):
        for content in wrong_contents(question.name, prompt.scene):
            assert not question.is_correct(prompt.scene, content), (prompt, content)


def test_relations_of_instances():
    def instance(x, y, radius=0.2):
        return Instance(Thing("cat", "red"), x, y, radius)

    middle = instance(0.5, 0.5)
    assert is_related(instance(0.2, 0.5), middle, "left") and not is_related(instance(0.47, 0.5), middle, "left")
    assert is_related(instance(0.5, 0.1), middle, "above") and not is_related(instance(0.5, 0.9), middle, "above")
    assert is_related(instance(0.5, 0.15), middle, "on") and not is_related(instance(0.5, 0.0), middle, "on")
    assert not is_related(instance(0.1, 0.15), middle, "on")
    assert is_related(instance(0.5, 0.3), middle, "in") and not is_related(instance(0.5, 0.15), middle, "in")


def test_an_incomplete_caption_is_not_a_prompt():
    scene = Scene((Thing("cat", "red"), Thing("boat", "blue")), "left", "beach")
    assert is_fully_described(scene, "a red cat left of a blue boat on the beach")
    assert is_fully_described(scene, "on the left a red cat and on the right a blue boat by the sea")
    assert not is_fully_described(scene, "a red cat and a blue boat on the beach")
    assert not is_fully_described(scene, "a red cat left of a blue boat")
    assert not is_fully_described(scene, "a cat left of a blue boat on the beach")


def test_frechet_distance_of_gaussians():
    torch.manual_seed(0)
    one = torch.randn(40_000, 3, dtype=torch.double)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    scale, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 1.0, -2.0])
    exact = shift.square().sum() + ((1 - scale) ** 2).sum()  # both covariances are diagonal
    assert frechet_distance(one, torch.randn_like(one) * scale + shift) == pytest.approx(float(exact), rel=0.03)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.double))[0]  # turning both changes nothing
    other = torch.randn_like(one) * scale + shift
    assert frechet_distance(one @ turn, other @ turn) == pytest.approx(frechet_distance(one, other), rel=1e-6)


def test_the_target_peaks_at_the_center_of_a_thing():
    instances = torch.full((1, 4, 5), -1.0)
    instances[0, 0] = torch.tensor([0.25 + 1 / 32, 0.5 + 1 / 32, 0.2, 7, 3])  # the middle of a cell
    heat, near = detector.targets(instances)
    assert heat.shape == (1, 16, 16) and heat[0, 8, 4] == 1 and (heat == 1).sum() == 1
    assert near[0, 8, 4].tolist() == instances[0, 0].tolist()
    assert detector.targets(torch.full((1, 4, 5), -1.0))[0].max() < 1e-6


def test_augmentation_moves_instances_with_the_image():
    """A bright dot stays where its label says it is."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    dot = (((x - 40) ** 2 + (y - 24) ** 2) < 12).float() * 2 - 1
    images = dot.expand(32, 3, 64, 64).contiguous()
    instances = torch.full((32, 4, 5), -1.0)
    instances[:, 0] = torch.tensor([40.5 / 64, 24.5 / 64, 0.1, 0, 0])
    moved, moved_instances = detector.augment(images, instances, torch.Generator().manual_seed(1))
    weight = (moved.mean(1) > 0.2).float()
    for axis, along in ((0, x), (1, y)):
        middle = (weight * (along + 0.5)).sum((1, 2)) / weight.sum((1, 2)) / 64
        assert (middle - moved_instances[:, 0, axis]).abs().max() < 0.02
    assert moved_instances[:, 0, :2].std(0).min() > 0.01


@pytest.mark.slow
def test_a_detector_learns_two_subjects():
    """Two subjects, one background: after seconds it tells them apart."""
    chosen = [Scene((Thing(name, "red"),), background="snow") for name in ("heart", "boat")]
    domain = replace(
        WHOLE_WORLD, subjects=("heart", "boat"), styles={"flat": 1.0}, galaxies=0, pairs=0, counts=0, empty=0
    )
    data = detector.render_range(domain, 0, 160, seed=3)
    net = detector.train(data, TimeBudget(5, steps=50), batch=16, log=lambda _: None)
    asked = chosen * 10
    images = to_tensor(np.stack([np.asarray(scenes.draw(s, i)) for i, s in enumerate(asked)]))
    contents = detector.detect(net, images)
    correct = [BY_NAME["one object"].is_correct(scene, c) for scene, c in zip(asked, contents, strict=True)]
    assert sum(correct) >= 15
    assert detector.features(net, images).shape == (20, 128)


@pytest.mark.slow
def test_a_detector_is_loaded_and_can_be_trained_further(tmp_path):
    """A folder that has one: nothing is trained. With `more`, the same detector is trained further."""
    torch.manual_seed(3)
    torch.save(detector.Detector().state_dict(), tmp_path / "recognizer.pt")
    log: list[str] = []
    plan = {"minutes": 1, "images": 64, "steps": 1, "log": log.append}
    net = detector.load_or_train(tmp_path, **plan)
    assert not log and not net.training
    assert (detector.load_or_train(tmp_path, **plan).map.weight == net.map.weight).all()
    further = detector.load_or_train(tmp_path, more=1, **plan)
    assert log and (further.map.weight != net.map.weight).any()
    assert (further.map.weight - net.map.weight).abs().max() < 0.01
    assert (detector.load_or_train(tmp_path, **plan).map.weight == further.map.weight).all()


def test_images_are_resized_as_in_training():
    image = scenes.draw(Scene((Thing("cat", "red"),), background="beach"), 1)
    resized = detector.resize(to_tensor(np.array(image)[None]))[0].permute(1, 2, 0)
    trained_on = torch.from_numpy(detector.shrink(image).copy()).float() / 127.5 - 1
    assert (resized - trained_on).abs().max() < 1.01 / 127.5


def grade_with(correct: list[bool], accuracy: float) -> DomainGrade:
    """A domain of which every question got these answers."""
    torch.manual_seed(0)
    prompts = {q.name: make_prompts(q, FIRST_PART, len(correct)) for q in QUESTIONS}
    images = {name: [scenes.draw(p.scene) for p in group] for name, group in prompts.items()}
    answers = {
        name: {
            source: Answers(
                correct, [oracle(p.scene) for p in group], torch.randn(len(correct), 4), torch.ones(len(correct))
            )
            for source in report.SOURCES
        }
        for name, group in prompts.items()
    }
    return DomainGrade(prompts, images, answers, {q.name: accuracy for q in QUESTIONS}, torch.randn(9, 4), 30.0)


def test_the_table_marks_numbers_that_mean_nothing(tmp_path):
    numbers = {"diversity": 0.1, "diversity drawn": 0.2, "seconds": 1.0, "megabytes": 36.0, "cores": 2, "load": 0.5}
    grades = {"whole": grade_with([True, False], 0.99), "first": grade_with([True, True], 0.9)}
    text = report.render_table(grades, numbers, "20 guided steps")
    lines = text.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| colors | 50% | (100%) | 95% | 99.0 / 90.0% | 50 / 100% | 76% | 85% |" in lines
    assert "| the six above | 0.50 | (1.00) |" in text
    notes = report.render_notes(grades, 2, 4)
    assert "another test" in notes.replace("\n", " ") and "colors (first)" in notes.replace("\n", " ")
    assert "(whole)" not in notes
    report.save_report(grades, numbers, text, tmp_path)
    assert len(list(tmp_path.glob("worst-*.png"))) == 16 and (tmp_path / "grades.json").stat().st_size
    assert "10 of 10 right" in (tmp_path / "confusions.md").read_text()


@pytest.mark.slow
def test_the_command_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "training.mini", "grade", "--quick", "--work", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| | `mini`, whole world |") and "color attribution" in done.stdout
    assert len(list((Path(tmp_path) / "quick").glob("worst-*.png"))) == 16


@pytest.mark.slow
def test_a_batch_of_prompts_gives_the_images_of_each_alone():
    """The grader generates eight in a batch, users one."""
    import diffusekit

    texts = [p.text for p in make_prompts(BY_NAME["colors"], FIRST_PART, 4)]
    together = diffusekit.generate(texts, seed=3, batch=4)
    for text, result in zip(texts, together, strict=True):
        alone = diffusekit.generate(text, seed=3)[0].image
        assert np.abs(np.asarray(alone, int) - np.asarray(result.image, int)).max() <= 2


def test_the_detector_knows_the_whole_world():
    assert len(detector.SUBJECT_NAMES) == len(WHOLE_WORLD.subjects) + 1
    assert not set(detector.SUBJECT_NAMES) & set(HELD_OUT)
    assert (len(detector.BACKGROUND_NAMES), len(detector.STYLE_NAMES)) == (len(BACKGROUNDS), len(STYLES))

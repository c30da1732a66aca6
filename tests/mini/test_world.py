"""The synthetic world: repeatable, with captions for everything, and a tenth of it held out."""

import hashlib
from random import Random

import numpy as np
import pytest

from training.mini.world import captions, scenes
from training.mini.world.backgrounds import BACKGROUNDS
from training.mini.world.pen import COLORS
from training.mini.world.scenes import FIRST_PART, MANY_THINGS, WHOLE_WORLD, Scene, Thing
from training.mini.world.styles import STYLES
from training.mini.world.subjects import HELD_OUT, SUBJECTS


def test_the_world_has_its_documented_size():
    assert len(WHOLE_WORLD.subjects) + 1 >= 40 and len(HELD_OUT) == 6  # and the galaxy
    assert (len(COLORS), len(BACKGROUNDS), len(STYLES)) == (12, 12, 9)
    assert set(FIRST_PART.subjects) <= set(WHOLE_WORLD.subjects)


@pytest.mark.parametrize("domain", [FIRST_PART, MANY_THINGS, WHOLE_WORLD])
def test_scenes_are_repeatable_and_never_held_out(domain):
    for index in range(3000):
        scene = scenes.sample(domain, index)
        assert scene == scenes.sample(domain, index)
        assert not scenes.is_unseen(scene)
        said = captions.caption(scene, Random(index))
        assert said == captions.caption(scene, Random(index))
        assert not set(said.replace(",", "").split()) & captions.held_out_words()


def test_a_tenth_is_held_out_and_can_be_sampled():
    combinations = [
        scenes.is_held_out(s, c, p, st)
        for s in WHOLE_WORLD.subjects
        for c in COLORS
        for p in BACKGROUNDS
        for st in STYLES
    ]
    assert 0.095 < sum(combinations) / len(combinations) < 0.108
    unseen = [scenes.sample(WHOLE_WORLD, i, unseen=True) for i in range(300)]
    assert all(scenes.is_unseen(s) for s in unseen if s.things)


def test_drawing_twice_gives_the_same_pixels():
    """One drawing of each style, by its bytes when drawn twice and by its size."""
    for style in STYLES:
        color = "red" if STYLES[style].has_color else None
        scene = Scene((Thing("cat", color, count=2),), background="beach", style=style)
        first, second = scenes.draw(scene, 5), scenes.draw(scene, 5)
        assert hashlib.sha256(first.tobytes()).digest() == hashlib.sha256(second.tobytes()).digest()
        assert first.size == (128, 128) and scenes.draw(scene, 5, side=256).size == (256, 256)


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_shows_and_stays_in_its_box(name):
    scene = Scene((Thing(name, "red"),))
    bare = np.asarray(scenes.draw(Scene(()), 3), int)
    drawn = np.asarray(scenes.draw(scene, 3), int)
    changed = np.argwhere(np.abs(drawn - bare).max(-1) > 24)
    assert len(changed) > 300
    rng = Random("draw 3")
    rng.uniform(-0.04, 0.04)
    (spot,) = scenes.arrange(scene, rng)
    left, top, right, bottom = (v * 128 for v in spot.box)
    assert changed[:, 1].min() >= left - 4 and changed[:, 1].max() <= right + 4
    assert changed[:, 0].min() >= top - 4 and changed[:, 0].max() <= bottom + 4


def test_captions_name_what_is_there():
    scene = Scene((Thing("cat", "red"), Thing("boat", "blue")), "left", "beach", "oil")
    for seed in range(50):
        said = captions.caption(scene, Random(seed))
        assert "red" in said and "cat" in said and "blue" in said and "boat" in said and "painting" in said
        if "right of" in said:
            assert said.index("boat") < said.index("cat")
        if "left of" in said:
            assert said.index("cat") < said.index("boat")


def test_every_word_is_one_token(mini):
    tokenizer = mini.tokenizers[0]
    split = [word for word in captions.vocabulary() if len(tokenizer(word, add_special_tokens=False).input_ids) != 1]
    assert split == []


def test_galaxies_differ_by_seed_and_color():
    blue = np.asarray(scenes.draw(Scene((Thing("galaxy", "blue"),), background="space"), 1), float)
    red = np.asarray(scenes.draw(Scene((Thing("galaxy", "red"),), background="space"), 1), float)
    other = np.asarray(scenes.draw(Scene((Thing("galaxy", "blue"),), background="space"), 2), float)
    warmth = [(image[..., 0] - image[..., 2]).mean() for image in (blue, red)]
    assert warmth[1] - warmth[0] > 20
    assert np.abs(blue - other).mean() > 3

"""The world mini is taught: repeatable, sayable, with a tenth of it held out."""

import hashlib
from random import Random

import pytest

from training.mini.world import captions, scenes
from training.mini.world.backgrounds import PLACES
from training.mini.world.pen import COLORS
from training.mini.world.scenes import FIRST, MANY, WHOLE, Scene, Thing
from training.mini.world.styles import STYLES
from training.mini.world.subjects import HELD_OUT, SUBJECTS


def test_it_is_as_large_as_it_says():
    assert len(WHOLE.subjects) + 1 >= 40 and len(HELD_OUT) == 6  # and the galaxy
    assert (len(COLORS), len(PLACES), len(STYLES)) == (12, 12, 9)
    assert set(FIRST.subjects) <= set(WHOLE.subjects)


@pytest.mark.parametrize("part", [FIRST, MANY, WHOLE])
def test_scenes_are_repeatable_and_never_held_out(part):
    for index in range(3000):
        scene = scenes.sample(part, index)
        assert scene == scenes.sample(part, index)
        assert not scenes.never_trained(scene)
        said = captions.caption(scene, Random(index))
        assert said == captions.caption(scene, Random(index))
        assert not set(said.replace(",", "").split()) & captions.held_out_words()


def test_a_tenth_is_held_out_and_can_be_asked_for():
    combinations = [
        scenes.held_out(s, c, p, st) for s in WHOLE.subjects for c in COLORS for p in PLACES for st in STYLES
    ]
    assert 0.095 < sum(combinations) / len(combinations) < 0.108
    unseen = [scenes.sample(WHOLE, i, unseen=True) for i in range(300)]
    assert all(scenes.never_trained(s) for s in unseen if s.things)


def test_pictures_are_the_same_everywhere():
    """One drawing of each style, by its bytes when drawn twice and by its size."""
    for style in STYLES:
        color = "red" if STYLES[style].color else None
        scene = Scene((Thing("cat", color, count=2),), place="beach", style=style)
        first, second = scenes.draw(scene, 5), scenes.draw(scene, 5)
        assert hashlib.sha256(first.tobytes()).digest() == hashlib.sha256(second.tobytes()).digest()
        assert first.size == (128, 128) and scenes.draw(scene, 5, side=256).size == (256, 256)


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_shows_and_stays_in_its_box(name):
    import numpy as np

    scene = Scene((Thing(name, "red"),))
    bare = np.asarray(scenes.draw(Scene(()), 3), int)
    drawn = np.asarray(scenes.draw(scene, 3), int)
    changed = np.argwhere(np.abs(drawn - bare).max(-1) > 24)
    assert len(changed) > 300
    rng = Random("draw 3")
    rng.uniform(-0.04, 0.04)
    (spot,) = scenes.layout(scene, rng)
    left, top, right, bottom = (v * 128 for v in spot.box)
    assert changed[:, 1].min() >= left - 4 and changed[:, 1].max() <= right + 4
    assert changed[:, 0].min() >= top - 4 and changed[:, 0].max() <= bottom + 4


def test_captions_say_what_is_there():
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
    split = [word for word in captions.words() if len(tokenizer(word, add_special_tokens=False).input_ids) != 1]
    assert split == []


def test_galaxies_differ_by_seed_and_color():
    import numpy as np

    blue = np.asarray(scenes.draw(Scene((Thing("galaxy", "blue"),), place="space"), 1), float)
    red = np.asarray(scenes.draw(Scene((Thing("galaxy", "red"),), place="space"), 1), float)
    other = np.asarray(scenes.draw(Scene((Thing("galaxy", "blue"),), place="space"), 2), float)
    warmth = [(picture[..., 0] - picture[..., 2]).mean() for picture in (blue, red)]
    assert warmth[1] - warmth[0] > 20
    assert np.abs(blue - other).mean() > 3

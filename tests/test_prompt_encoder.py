"""Prompts in A1111's syntax: what the U-Net gets for weights, long prompts, schedules and compositions."""

import pytest
import torch

from diffusekit import LearnedToken, generate, prompt_encoder, stream, text
from diffusekit.conditioning import Conditioning, ConditioningSchedule
from diffusekit.errors import UsageError
from diffusekit.prompt import parse
from diffusekit.sampling import denoise
from diffusekit.visualise.attention_maps import record_attention_maps

STEPS = 8


def encode(model, prompt, negative="", tokens=()):
    """The conditioning of a prompt and of its negative prompt."""
    parsed = parse(prompt, STEPS), parse(negative, STEPS, is_negative=True)
    return prompt_encoder.encode(model, [parsed[0]], [parsed[1]], tokens)


def plain(model, prompt):
    return text.encode(model, [prompt]).states


@pytest.mark.parametrize("prompt", ["", "a red cat on the grass", "a cat, 16:9", r"a \(red\) cat", "(a red cat:1.0)"])
def test_without_weights_states_are_those_of_plain_text(mini, prompt):
    cond, uncond = encode(mini, prompt, "dog")
    literal = prompt.replace("\\", "").replace("(a red cat:1.0)", "a red cat")
    assert torch.equal(cond.at(0).states, plain(mini, literal))
    assert torch.equal(uncond.at(0).states, plain(mini, "dog"))


def test_images_without_syntax_are_the_same_in_both_syntaxes():
    images = [
        generate("a red cat", negative_prompt="dog", seed=3, steps=3, prompt_syntax=syntax)[0].image.tobytes()
        for syntax in ("plain", "a1111")
    ]
    assert images[0] == images[1]


def test_a_weight_multiplies_the_states_of_its_words_and_keeps_the_mean(mini):
    cond, _ = encode(mini, "a (red:1.5) cat on the [grass]")
    states = plain(mini, "a red cat on the grass")
    words = {w.text: w for w in text.word_spans(mini, text.tokenize(mini, "a red cat on the grass"))}
    weights = torch.ones(states.shape[1])
    weights[words["red"].start : words["red"].stop] = 1.5
    weights[words["grass"].start : words["grass"].stop] = 1 / 1.1
    expected = states * weights[:, None]
    expected *= states.mean() / expected.mean()
    torch.testing.assert_close(cond.at(0).states, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(cond.at(0).states, states)


def test_weights_of_zero_give_finite_states(mini):
    assert encode(mini, "(a red cat:0)")[0].at(0).states.isfinite().all()
    assert encode(mini, "(((a red cat:-1000)))")[0].at(0).states.isfinite().all()


def test_each_section_has_its_own_window(mini):
    cond, uncond = encode(mini, "a red cat BREAK a blue dog", "rain")
    expected = torch.cat([plain(mini, "a red cat"), plain(mini, "a blue dog")], dim=1)
    torch.testing.assert_close(cond.at(0).states, expected, rtol=1e-5, atol=1e-5)
    padded = torch.cat([plain(mini, "rain"), plain(mini, "")], dim=1)  # as long as the prompt
    torch.testing.assert_close(uncond.at(0).states, padded, rtol=1e-5, atol=1e-5)


def lengths(model, prompt, tokens=()):
    sections = parse(prompt, STEPS).parts[0].variants[0].sections
    return [len(window.ids) for window in prompt_encoder.windows(model, sections, tokens)]


def test_long_prompts_fill_windows_and_end_them_at_commas(mini):
    assert mini.context_length == 77
    assert lengths(mini, "cat " * 75) == [75]
    assert lengths(mini, "cat " * 76) == [75, 1]
    assert lengths(mini, "cat " * 60 + ", " + "cat " * 30) == [61, 30]  # the comma is not far
    assert lengths(mini, "cat " * 40 + ", " + "cat " * 60) == [75, 26]  # it is
    assert lengths(mini, "cat " * 75 + ", cat") == [75, 2]
    assert lengths(mini, "cat " * 150) == [75, 75]
    assert lengths(mini, "") == [0]


@pytest.mark.parametrize("before", range(66, 78))
def test_a_learned_token_is_never_split(mini, before):
    token = LearnedToken("x", "S*", (torch.zeros(8, 256),))
    sections = parse("cat " * before + "(S*:1.2) dog", STEPS).parts[0].variants[0].sections
    found = prompt_encoder.windows(mini, sections, [token])
    holders = [window for window in found if 0 in window.vector_index]
    assert len(holders) == 1 and [i for i in holders[0].vector_index if i >= 0] == list(range(8))
    assert all(
        weight == (1.2 if vector >= 0 else 1)
        for window in found
        for vector, weight in zip(window.vector_index, window.weights, strict=True)
    )


def test_all_words_of_a_long_prompt_have_an_effect():
    long = "a red cat on the grass, " * 14
    images = {
        generate(long + end, seed=3, steps=2, prompt_syntax="a1111")[0].image.tobytes() for end in ("a dog", "a boat")
    }
    assert len(images) == 2
    assert not stream(long, seed=3, prompt_syntax="a1111").warnings
    assert "too long" in stream(long, seed=3).warnings[0]


def test_a_schedule_changes_the_prompt_after_a_step(mini):
    cond, _ = encode(mini, "a [red:blue:2] cat")
    for step in range(STEPS):
        color = "red" if step < 2 else "blue"
        torch.testing.assert_close(
            cond.at(step / STEPS).states, plain(mini, f"a {color} cat"), rtol=1e-5, atol=1e-5, msg=str(step)
        )


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_before_the_change_nothing_of_it_is_seen(sampler):
    options = {"seed": 3, "steps": STEPS, "sampler": sampler, "prompt_syntax": "a1111"}
    scheduled = list(stream("a [red:blue:0.5] cat", **options))
    constant = list(stream("a red cat", **options))
    half = len(scheduled) // 2
    for a, b in zip(scheduled[:half], constant[:half], strict=True):
        torch.testing.assert_close(a.x_next, b.x_next, rtol=1e-4, atol=1e-4)
    assert (scheduled[-1].x_next - constant[-1].x_next).abs().max() > 0.1


class Words:
    """A U-Net whose output is the first state of each row, and which keeps what it got."""

    def __call__(self, sample, timestep, encoder_hidden_states):
        class Output:
            pass

        output = Output()
        output.sample = encoder_hidden_states[:, :1, :1, None].expand_as(sample).clone()
        return output


def test_composed_prompts_each_guide_with_their_weight():
    """epsilon = uncond + scale * sum of weight * (cond - uncond) (Liu et al., 2022, equation 11)."""
    from diffusekit import schedule

    scheduler = schedule.make_scheduler("ddim", {"num_train_timesteps": 1000, "prediction_type": "epsilon"})
    scheduler.set_timesteps(3)
    rows = torch.tensor([1.0, 2.0, 10.0, 20.0])[:, None, None]  # the first prompt of two images, then the second
    cond = ConditioningSchedule(((1.0, Conditioning(rows)),), torch.tensor([[1.0, 1.0], [0.5, 0.0]]))
    uncond = Conditioning(torch.tensor([0.1, 0.2])[:, None, None])
    step = next(denoise(Words(), scheduler, torch.zeros(2, 1, 2, 2), cond, uncond=uncond, guidance_scale=3.0))
    first = 0.1 + 3 * ((1.0 - 0.1) + 0.5 * (10.0 - 0.1))
    torch.testing.assert_close(step.eps[:, 0, 0, 0], torch.tensor([first, 0.2 + 3 * (2.0 - 0.2)]))
    assert len(step.outputs) == 2


@pytest.mark.slow
def test_prompts_of_one_batch_may_be_composed_differently():
    options = {"seed": 3, "steps": 3, "prompt_syntax": "a1111"}
    prompts = ["a red cat", "a red cat AND a dog :0.7", "a [red|blue] cat BREAK grass"]
    together = generate(prompts, batch=3, **options)
    for prompt, image in zip(prompts, together, strict=True):
        alone = generate(prompt, **options)[0].image
        a, b = (torch.tensor(list(each.tobytes())).float() for each in (alone, image.image))
        assert (a - b).abs().max() <= 2, prompt


def test_compositions_need_no_other_guidance():
    options = {"seed": 3, "steps": 2, "guidance_scale": 1.0, "prompt_syntax": "a1111"}
    composed = generate("a red cat AND a blue dog", **options)[0].image
    assert composed.tobytes() != generate("a red cat", **options)[0].image.tobytes()


def test_the_syntax_is_recorded_and_warned_of_where_it_is_not_read():
    prompt = "a (red:1.4) cat"
    image = generate(prompt, seed=3, steps=1, prompt_syntax="a1111")[0]
    assert image.record.settings.prompt_syntax == "a1111"
    assert not stream(prompt, steps=1, prompt_syntax="a1111").warnings
    assert "weight (red:1.4)" in stream(prompt, steps=1).warnings[0]
    assert "not closed" in stream("a (red cat", steps=1, prompt_syntax="a1111").warnings[0]
    assert "wildcard" in stream("a __color__ cat", steps=1, prompt_syntax="a1111").warnings[0]


@pytest.mark.slow
def test_attention_to_a_word_changes_with_its_weight():
    shares = []
    for weight in (1.0, 1.5):
        _, maps = record_attention_maps(f"a (red:{weight}) cat on the grass", seed=5, prompt_syntax="a1111")
        assert maps.words == ("start", "a", "red", "cat", "on", "the", "grass", "end")
        torch.testing.assert_close(
            maps.mean_over_steps().sum(0), torch.ones_like(maps.mean_over_steps()[0]), atol=5e-3, rtol=0
        )
        shares.append(float(maps.mean_over_steps()[2].mean()))
    assert shares[1] > 1.5 * shares[0], shares


def test_words_of_every_window_have_a_map(mini):
    _, maps = record_attention_maps("a red cat BREAK a blue dog", seed=5, steps=2, prompt_syntax="a1111")
    assert maps.words == ("start", "a", "red", "cat", "a", "blue", "dog", "end")
    torch.testing.assert_close(maps.maps.float().sum(1), torch.ones_like(maps.maps[:, 0].float()), atol=5e-3, rtol=0)


@pytest.mark.parametrize("prompt", ["a cat AND a dog", "a [red|blue] cat", "a [red:blue:0.5] cat"])
def test_attention_maps_need_one_list_of_words(prompt):
    with pytest.raises(UsageError, match="no single list of words"):
        record_attention_maps(prompt, steps=2, prompt_syntax="a1111")

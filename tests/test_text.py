"""From words to ids and states."""

import torch

from diffusekit import text


def test_ids_are_the_tokenizers_own(mini):
    for prompt in ("", "a red cat", "Zebra, é 猫!"):
        own = mini.tokenizers[0](
            prompt, padding="max_length", max_length=77, truncation=True
        ).input_ids
        assert text.read(mini, prompt).ids == own


def test_every_length_fits_and_says_what_was_cut(mini):
    for count in (74, 75, 76, 77, 1000):
        reading = text.read(mini, " ".join(["cat"] * (count - 1) + ["dog"]))
        assert len(reading.ids) == 77
        assert reading.cut == " ".join(["cat"] * (count - 76) + ["dog"] if count > 75 else [])


def test_a_cut_prompt_is_warned_about(mini, caplog):
    text.encode(mini, ["cat " * 80 + "galaxy"])
    assert "does not see" in caplog.text and "galaxy" in caplog.text


def test_equal_prompts_are_read_once_and_keep_their_place(mini):
    states = text.encode(mini, ["a cat", "a dog", "a cat"])
    assert states.shape == (3, 77, mini.text_encoders[0].config.hidden_size)
    assert torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])
    torch.testing.assert_close(states[1:2], text.encode(mini, ["a dog"]), rtol=1e-4, atol=1e-4)

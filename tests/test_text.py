"""From prompts to token ids and text states."""

import pytest
import torch

from diffusekit import text
from diffusekit.embeddings import LearnedToken


def test_ids_are_the_tokenizers_own(mini):
    for prompt in ("", "a red cat", "Zebra, é 猫!"):
        own = mini.tokenizers[0](prompt, padding="max_length", max_length=77, truncation=True).input_ids
        assert text.tokenize(mini, prompt).ids == own


def test_every_length_fits_and_says_what_was_truncated(mini):
    for count in (74, 75, 76, 77, 1000):
        reading = text.tokenize(mini, " ".join(["cat"] * (count - 1) + ["dog"]))
        assert len(reading.ids) == 77
        assert reading.truncated == " ".join(["cat"] * (count - 76) + ["dog"] if count > 75 else [])


def test_what_is_truncated_of_each_prompt_is_found(mini):
    long = "cat " * 75 + "galaxy"
    assert text.find_truncated(mini, [long, "a cat", long]) == ["galaxy"]


def test_equal_prompts_are_encoded_once_and_keep_their_order(mini):
    states = text.encode(mini, ["a cat", "a dog", "a cat"]).states
    assert states.shape == (3, 77, mini.text_encoders[0].config.hidden_size)
    assert torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])
    torch.testing.assert_close(states[1:2], text.encode(mini, ["a dog"]).states, rtol=1e-4, atol=1e-4)


# --- learned tokens --------------------------------------------------------------------------


def token(name: str, spelled: str, count: int, width: int = 256) -> LearnedToken:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(count))
    return LearnedToken(name, spelled, (rows,), {})


def test_a_token_takes_one_position_per_vector(mini):
    three, two = token("my_cat", "S*", 3), token("other", "<other>", 2)
    reading = text.tokenize(mini, "a picture of S* and <other>, S*S*", [three, two])
    assert len(reading.ids) == len(reading.vector_index) == 77
    placed = [row for row in reading.vector_index if row >= 0]
    assert placed == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2]
    plain = text.tokenize(mini, "a picture of and ,")
    kept = [i for i, row in zip(reading.ids, reading.vector_index, strict=True) if row < 0]
    assert kept == plain.ids[: len(kept)]


def test_names_with_a_common_prefix_are_distinguished(mini):
    bad, hands = token("bad", "bad", 2), token("bad_hands", "bad_hands", 3)
    reading = text.tokenize(mini, "bad, bad_hands", [bad, hands])
    assert [row for row in reading.vector_index if row >= 0] == [0, 1, 2, 3, 4]
    assert reading.truncated == ""


def test_a_learned_token_that_does_not_fit_is_left_out_whole(mini):
    long = " ".join(["red"] * 73)
    reading = text.tokenize(mini, f"{long} S* cat", [token("my_cat", "S*", 5)])
    assert all(row == -1 for row in reading.vector_index) and reading.truncated == "S* cat"
    fits = text.tokenize(mini, " ".join(["red"] * 70) + " S* cat", [token("my_cat", "S*", 5)])
    assert [row for row in fits.vector_index if row >= 0] == [0, 1, 2, 3, 4] and fits.truncated == "cat"
    assert text.find_truncated(mini, [f"{long} S* cat"], [token("my_cat", "S*", 5)]) == ["S* cat"]


def test_the_states_are_those_of_rows_in_the_table(mini):
    """A token whose vectors are words' own rows is read as those words."""
    table = mini.text_encoders[0].get_input_embeddings().weight
    ids = mini.tokenizers[0]("red cat", add_special_tokens=False).input_ids
    known = LearnedToken("redcat", "S*", (table[ids].detach().clone(),), {})
    states = text.encode(mini, ["a S* in the snow", "a dog"], [known]).states
    assert torch.equal(states, text.encode(mini, ["a red cat in the snow", "a dog"]).states)


def test_the_table_never_changes_and_no_hook_remains(mini):
    encoder = mini.text_encoders[0]
    embedding = encoder.get_input_embeddings()
    before, plain = embedding.weight.detach().clone(), text.encode(mini, ["a red cat"]).states
    many = [token(f"t{i}", f"<t{i}>", 1 + i % 4) for i in range(15)]
    text.encode(mini, [" ".join(t.token for t in many)], many)
    assert torch.equal(embedding.weight, before) and len(embedding.weight) == len(before)
    assert encoder.get_input_embeddings() is embedding
    assert torch.equal(text.encode(mini, ["a red cat"]).states, plain)
    with pytest.raises(RuntimeError), text.injected_vectors(encoder, torch.zeros(1, 77).long(), before[:1]):
        raise RuntimeError
    assert torch.equal(text.encode(mini, ["a red cat"]).states, plain)


def test_gradients_reach_the_vectors_and_nothing_else(mini):
    reading = text.tokenize(mini, "a picture of S*", [token("x", "S*", 2)])
    rows = torch.randn(2, 256, requires_grad=True)
    index, ids = torch.tensor([reading.vector_index]), torch.tensor([reading.ids])
    text.encode_ids(mini.text_encoders, [ids], [index], [rows]).states.sum().backward()
    assert rows.grad is not None and (rows.grad.abs().sum(1) > 0).all()
    assert all(p.grad is None for p in mini.text_encoders[0].parameters())

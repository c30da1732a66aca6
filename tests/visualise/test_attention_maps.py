"""Cross-attention maps: one map per word, the choice of words, and how they are shown."""

import json
import shutil

import pytest
import torch
from PIL import Image

import diffusekit
from diffusekit import attention, models, read_metadata, text
from diffusekit.cli.main import run
from diffusekit.embeddings import LearnedToken
from diffusekit.errors import UsageError
from diffusekit.visualise import attention_maps
from tests.helpers import ROOT
from tests.helpers.hooks import count_hooks

PROMPT = "a red cat on the grass"
SETTINGS = {"seed": 7, "steps": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def recorded():
    return attention_maps.record_attention_maps(PROMPT, **SETTINGS)


@pytest.fixture(scope="module")
def figure(recorded, mini):
    return attention_maps.render(*recorded, attention_maps.find_words(mini, PROMPT, ["cat", "grass"]))


def sums_to_one(maps: torch.Tensor) -> bool:
    total = maps.float().sum(-3)
    return torch.allclose(total, torch.ones_like(total), atol=2e-3)


def test_the_maps_of_every_step_sum_to_one_over_words(recorded):
    trace, found = recorded
    assert found.words == ("start", "a", "red", "cat", "on", "the", "grass", "end")
    assert found.maps.shape == (3, 8, 8, 8) and found.maps.dtype == torch.float16
    assert found.mean_over_steps().shape == (8, 8, 8)
    assert sums_to_one(found.maps) and sums_to_one(found.mean_over_steps())
    assert found.steps == (0, 1, 2)
    assert list(found.timesteps) == [m.timestep for m in trace.steps]
    assert found.truncated == ""


def test_recording_does_not_change_the_image(recorded):
    plain = diffusekit.generate(PROMPT, **SETTINGS)[0].image
    assert plain.tobytes() == recorded[0].result.image.tobytes()


def test_the_map_of_a_word_is_the_sum_over_its_tokens(mini):
    tokens = torch.rand(2, 77, 4, 4)
    words = [text.WordSpan("S*", 1, 4), text.WordSpan("galaxy", 4, 5)]
    found = attention_maps.word_maps(tokens, words)
    assert found.shape == (2, 4, 4, 4)
    assert torch.equal(found[:, 0], tokens[:, 0]) and torch.equal(found[:, 2], tokens[:, 4])
    assert torch.allclose(found[:, 1], tokens[:, 1:4].sum(1))
    assert torch.allclose(found.sum(1), tokens.sum(1))
    assert attention_maps.word_maps(tokens, []).shape == (2, 2, 4, 4)


@pytest.fixture
def learned(mini) -> LearnedToken:
    table = mini.text_encoders[0].get_input_embeddings().weight
    return LearnedToken("my_thing", "S*", (table[[300, 301, 302]].clone(),), {})


def test_a_learned_token_of_three_vectors_is_one_word(mini, learned):
    from diffusekit.settings import GenerateSettings

    def stream():
        return diffusekit.Generation(GenerateSettings(**SETTINGS), ["a photo of S*"], [learned])

    recorder = attention_maps.AttentionMapRecorder(stream())
    last = [recorder.latest[0] for _ in recorder]
    found = recorder.attention_maps[0]
    assert found.words == ("start", "a", "photo", "of", "S*", "end")
    assert torch.allclose(found.maps[-1, 4].float(), last[-1][4:7].sum(0), atol=1e-3)
    assert sums_to_one(found.maps)
    asked = attention_maps.find_words(mini, "a photo of S*", ["S*"], [learned])
    assert asked == {"S*": (4,)}


@pytest.mark.slow
def test_recording_goes_over_batches_and_finds_the_prompt_of_each(mini):
    running = diffusekit.stream(["a cat", "a big red car"], images=2, batch=3, **SETTINGS)
    recorder = attention_maps.AttentionMapRecorder(running, steps=[1])
    total = recorder.total
    assert sum(1 for _ in recorder) == total == 6
    assert [len(h.words) for h in recorder.attention_maps] == [4, 4, 6, 6]
    assert all(h.steps == (1,) and h.maps.shape[0] == 1 for h in recorder.attention_maps)
    assert len(recorder.traces) == 4 and all(len(t.steps) == 3 for t in recorder.traces)
    first, _ = recorder.attention_maps[0], recorder.attention_maps[1]
    alone = attention_maps.record_attention_maps("a cat", **SETTINGS)[1]
    assert torch.allclose(first.maps[0].float(), alone.maps[1].float(), atol=2e-3)


def test_only_the_requested_steps_are_computed(mini, monkeypatch):
    taken, take = [], attention.AttentionRecorder.maps

    def counted(maps):
        taken.append(maps)
        return take(maps)

    monkeypatch.setattr(attention.AttentionRecorder, "maps", counted)
    for _ in attention_maps.AttentionMapRecorder(diffusekit.stream(PROMPT, **SETTINGS), steps=[0, 2]):
        pass
    assert len(taken) == 2


def test_layers_can_be_chosen(mini):
    recorder = attention_maps.AttentionMapRecorder(diffusekit.stream(PROMPT, **SETTINGS), layers=["mid_block"])
    for _ in recorder:
        pass
    assert recorder.attention_maps[0].maps.shape == (3, 8, 4, 4)


def test_cancelling_leaves_nothing_behind():
    generation = diffusekit.stream(PROMPT, **SETTINGS)
    unet, steps = generation.model.unet, iter(attention_maps.AttentionMapRecorder(generation))
    next(steps)
    assert count_hooks(unet) > 0
    steps.close()
    assert count_hooks(unet) == 0


def test_two_recorders_side_by_side_do_not_mix(mini):
    def one(prompt, guidance):
        return attention_maps.AttentionMapRecorder(diffusekit.stream(prompt, guidance_scale=guidance, **SETTINGS))

    left, right = one(PROMPT, 3.0), one("a blue car", 1.0)
    for _ in zip(left, right, strict=True):
        pass
    for found, prompt, guidance in ((left, PROMPT, 3.0), (right, "a blue car", 1.0)):
        alone = attention_maps.record_attention_maps(prompt, guidance_scale=guidance, **SETTINGS)[1]
        assert torch.equal(found.attention_maps[0].maps, alone.maps)


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_out_of_range_is_refused(mini, step):
    with pytest.raises(UsageError, match=f"step {step} is out of range"):
        attention_maps.AttentionMapRecorder(diffusekit.stream(PROMPT, **SETTINGS), steps=[step])


def test_requested_words_are_found(mini):
    prompt = "a red cat and a red car"
    assert attention_maps.find_words(mini, prompt, ["red"]) == {"red": (2, 6)}
    assert attention_maps.find_words(mini, prompt, ["red car", "Cat"]) == {"red car": (6, 7), "Cat": (3,)}
    assert list(attention_maps.find_words(mini, prompt)) == ["a", "red", "cat", "and", "car"]


@pytest.mark.parametrize("word", ["dog", "", "  ", "cat red", "c" * 100])
def test_a_word_that_is_not_in_the_prompt_is_refused(mini, word):
    with pytest.raises(UsageError, match="is not in the prompt") as caught:
        attention_maps.find_words(mini, PROMPT, [word])
    assert caught.value.hint == "the words are a, red, cat, on, the, grass"
    assert len(caught.value.message) < 120


def test_an_empty_prompt_has_no_word(mini):
    with pytest.raises(UsageError, match="contains no word"):
        attention_maps.attention("", **SETTINGS)


def test_a_long_prompt(mini):
    prompt = "a red cat " * 24 + "on the grass, snow mountain"
    _, found = attention_maps.record_attention_maps(prompt, **SETTINGS)
    assert len(found.words) == 77 and "mountain" in found.truncated
    assert sums_to_one(found.maps)
    with pytest.raises(UsageError, match="was cut"):
        attention_maps.find_words(mini, prompt, ["mountain"])


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_other_families_and_sizes(families, family):
    trace, found = attention_maps.record_attention_maps(
        PROMPT, model=str(families[family]), width=32, height=16, guidance_scale=1.0, **SETTINGS
    )
    assert trace.result.image.size == (32, 16)
    assert found.maps.shape == (3, 8, 4, 8) and sums_to_one(found.maps)
    assert models.load(str(families[family]), "cpu").unet is trace.model.unet


def test_the_peak_is_in_pixels():
    found = torch.zeros(4, 8)
    found[1, 6] = 1
    assert attention_maps.peak_position(found, (128, 64)) == (104.0, 24.0)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_still_carries_the_record_of_the_image(figure, tmp_path, ending):
    path = figure.save(tmp_path / f"words.{ending}")
    assert read_metadata(path).settings.prompt == PROMPT
    with Image.open(path) as sheet:
        assert sheet.width > 3 * attention_maps.SIDE


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["webp", "apng", "gif"])
def test_a_film_has_a_frame_for_every_step_and_the_mean(figure, tmp_path, ending):
    path = figure.save(tmp_path / f"words.{ending}")
    with Image.open(path) as film:
        assert film.n_frames == 4
        frames = []
        for i in range(4):
            film.seek(i)
            frames.append(film.convert("RGB").tobytes())
    assert len(set(frames)) == 4


def test_numbers_agree_with_the_maps(figure, recorded, tmp_path):
    found = json.loads(figure.save(tmp_path / "words.json").read_text())
    assert found["words"] == list(recorded[1].words) and found["cut"] == ""
    assert [step["step"] for step in found["steps"]] == [1, 2, 3]
    cat = recorded[1].maps[1, 3].float()
    row = found["steps"][1]["words"][0]
    assert [r["word"] for r in found["averaged"]] == ["cat", "grass", "start", "end"]
    assert row["word"] == "cat" and row["share"] == pytest.approx(float(cat.mean()), abs=1e-4)
    at = int(row["peak"]["y"] // 16), int(row["peak"]["x"] // 16)
    assert float(cat[at]) == float(cat.max()) == pytest.approx(row["peak"]["share"], abs=1e-4)


@pytest.mark.slow
def test_all_words_with_start_and_end_sum_to_one(mini):
    found = attention_maps.attention(PROMPT, **SETTINGS).numbers
    assert sum(row["share"] for row in found["averaged"]) == pytest.approx(1, abs=2e-3)


def test_a_learned_token_of_the_folder(tmp_path):
    (tmp_path / "embeddings").mkdir()
    for file in (ROOT / "embeddings").glob("my_robot*.safetensors"):
        shutil.copy(file, tmp_path / "embeddings")
    prompt = "a picture of <my_robot> in the snow"
    found = attention_maps.attention(prompt, ["<my_robot>"], **SETTINGS).numbers
    assert found["averaged"][0]["word"] == "<my_robot>" and found["averaged"][0]["share"] > 0


class TestCommand:
    """`diffusekit visualise attention`."""

    def verb(self, *words):
        return run(["visualise", "attention", *words, "--steps", "2", "--seed", "7", "-q"])

    def test_an_image_under_a_dated_name(self, capsys):
        assert self.verb(PROMPT) == 0
        path = capsys.readouterr().out.strip()
        assert path.startswith("outputs/") and "attention-00001.png" in path
        assert read_metadata(path).settings.prompt == PROMPT

    def test_a_film_of_words_and_their_numbers(self, capsys, tmp_path):
        assert self.verb(PROMPT, "--word", "cat", "--word", "grass", "-o", "x.webp", "--json") == 0
        rows = json.loads(capsys.readouterr().out)["averaged"]
        assert [row["word"] for row in rows] == ["cat", "grass", "start", "end"]
        assert (tmp_path / "x.webp").exists()

    def test_refused(self, capsys, tmp_path):
        assert self.verb(PROMPT, "--word", "dog", "-o", "x.png") == 2
        said = capsys.readouterr().err
        assert "'dog' is not in the prompt" in said and "the words are a, red, cat" in said
        assert self.verb(PROMPT, "-o", "x.txt") == 2
        (tmp_path / "x.png").write_text("mine")
        assert self.verb(PROMPT, "-o", "x.png") == 2
        assert (tmp_path / "x.png").read_text() == "mine"

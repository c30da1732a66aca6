"""A run learns the vectors of a token and nothing else, and says what goes wrong."""

import json
import math

import pytest
import torch

from diffusekit import embeddings, models
from diffusekit.config import read_recipe
from diffusekit.errors import DataSetError, Diverged, OutOfMemory, UsageError
from diffusekit.inversion import checkpoint, optimizer, selection
from diffusekit.inversion.trainer import Inversion
from diffusekit.pipeline import Generation
from diffusekit.settings import GenerateSettings, InvertSettings
from tests.helpers import ROOT
from tests.helpers.inversions import learn, pictures, quick


def bits(model: models.Model) -> dict[str, torch.Tensor]:
    networks = {"text": model.text_encoders[0], "unet": model.unet, "vae": model.vae}
    return {f"{n}.{k}": v.clone() for n, net in networks.items() for k, v in net.state_dict().items()}


@pytest.mark.slow
def test_only_the_new_rows_are_learned(families, tmp_path):
    settings = quick(tmp_path, families["sd1"])
    model = models.load(settings.model, "cpu", "float32")
    before = bits(model)
    run = Inversion(settings, tmp_path / "out")
    assert run.model is model
    list(run)
    run.close()
    assert all(torch.equal(value, before[name]) for name, value in bits(model).items())
    assert not any(p.requires_grad or p.grad is not None for p in model.unet.parameters())
    assert not any(p.grad is not None for p in model.text_encoders[0].parameters())
    token = run.result
    assert token is not None and token.vectors[0].shape == (2, 32)
    assert not torch.equal(token.vectors[0], run.optimizer.placeholders[0].start)


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_the_gradient_is_that_of_the_loss(families, tmp_path, family):
    """Against finite differences, for epsilon and for velocity. Every vector has a gradient of its own."""
    run = Inversion(quick(tmp_path, families[family], norm_bound=0.0), tmp_path / "out")
    vectors, compute_gradient = run.optimizer.placeholders[0].vectors, run.optimizer.compute_gradient
    compute_gradient([0, 1])
    gradient = vectors.grad.clone()
    for row in range(2):
        column = int(gradient[row].abs().argmax())
        values = []
        for step in (1e-2, -1e-2):
            vectors.data[row, column] += step
            values.append(compute_gradient([0, 1]))
            vectors.data[row, column] -= step
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(gradient[row, column]), rel=0.05)
    run.close()


@pytest.mark.slow
def test_it_learns_what_the_images_show(mini, tmp_path):
    """On the embedded model the loss on the training images falls below the init word's."""
    settings = quick(tmp_path, "mini", steps=20, batch=4, vectors=1, preview_every=0, init="moon")
    run = Inversion(settings, tmp_path / "out")
    fixed = list(range(1000, 1016))
    before = run.optimizer.compute_gradient(fixed)
    list(run)
    assert run.optimizer.compute_gradient(fixed) < 0.97 * before
    run.close()


def test_steps_are_the_same_in_any_number_of_chunks(families, tmp_path):
    run = Inversion(quick(tmp_path, families["sd1"], batch=4), tmp_path / "out")
    run.optimizer.compute_gradient([0, 1, 2, 3])
    whole = run.optimizer.placeholders[0].vectors.grad.clone()
    run.optimizer.chunks = 3
    run.optimizer.compute_gradient([0, 1, 2, 3])
    assert torch.allclose(run.optimizer.placeholders[0].vectors.grad, whole, rtol=1e-4, atol=1e-7)
    run.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate",
        "CUDNN_STATUS_ALLOC_FAILED",
        "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
        "DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_out_of_memory_continues_in_smaller_chunks(families, tmp_path, monkeypatch, caplog, words):
    real = optimizer.loss

    def narrow(unet, cond, batch, *rest):
        if len(batch.latents) > 1:
            raise RuntimeError(words)
        return real(unet, cond, batch, *rest)

    monkeypatch.setattr(optimizer, "loss", narrow)
    run = Inversion(quick(tmp_path, families["sd1"], batch=4, steps=2), tmp_path / "out")
    assert [m.step for m in run] == [0, 1, 2]
    assert "in 4 chunks" in caplog.text
    run.close()


def test_when_not_even_one_fits_it_says_so_and_other_errors_pass(families, tmp_path, monkeypatch):
    for error, expected in (("CUDA out of memory", OutOfMemory), ("shapes differ", RuntimeError)):

        def fail(*_, error=error):
            raise RuntimeError(error)

        monkeypatch.setattr(optimizer, "loss", fail)
        run = Inversion(quick(tmp_path, families["sd1"]), tmp_path / "out", overwrite=True)
        with pytest.raises(expected):
            list(run)
        run.close()


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("at", [1, 8])
def test_a_loss_that_is_no_number_stops_the_run_at_once(families, tmp_path, monkeypatch, value, at):
    real, calls = optimizer.loss, [0]

    def broken(*given):
        calls[0] += 1
        return real(*given) * (value if calls[0] == at else 1)

    monkeypatch.setattr(optimizer, "loss", broken)
    run = Inversion(quick(tmp_path, families["sd1"], checkpoint_every=2), tmp_path / "out")
    with pytest.raises(Diverged, match=f"at step {at}") as caught:
        list(run)
    run.close()
    assert ("checkpoint is kept" in caught.value.hint) == (at == 8)  # at the first there is none
    assert not (tmp_path / "out/three.safetensors").exists()
    for path in (tmp_path / "out").rglob("*.safetensors"):
        (saved,) = checkpoint.read(path).optimizer.encoders
        assert saved.vectors.isfinite().all() and saved.first_moment.isfinite().all()


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_an_absurd_rate_writes_no_nan(families, tmp_path, bound):
    settings = quick(tmp_path, families["sd1"], learning_rate=1e30, norm_bound=bound)
    with pytest.raises(Diverged, match=r"learning rate 1e\+30") as caught:
        learn(settings, tmp_path / "out")
    assert "usual `learning_rate`" in caught.value.hint
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_training_that_does_nothing_is_noticed(families, tmp_path):
    settings = quick(tmp_path, families["sd1"], learning_rate=1e-12)
    with pytest.raises(Diverged, match="have not moved"):
        learn(settings, tmp_path / "out")


@pytest.mark.slow
def test_vectors_stay_as_long_as_words_are(families, tmp_path):
    run = Inversion(quick(tmp_path, families["sd1"], learning_rate=1.0), tmp_path / "out")
    typical = run.vocabularies[0].typical_norm
    for progress in run:
        assert progress.vectors[0].norm <= typical * 1.0001
    run.close()


def test_init_words_of_several_tokens_and_of_none(families, tmp_path):
    run = Inversion(quick(tmp_path, families["sd1"], init="a red cat", vectors=3), tmp_path / "a")
    words = run.vocabularies[0].vectors("a red cat")
    directions = torch.nn.functional.cosine_similarity(run.optimizer.placeholders[0].start, words)
    assert directions.min() > 0.999
    run.close()
    folder = pictures(tmp_path / "my_cat")
    run = Inversion(quick(tmp_path, families["sd1"], init=None, pictures=str(folder)), tmp_path / "b")
    assert run.settings.init == "cat" and run.name == "my_cat"
    run.close()
    with pytest.raises(UsageError):
        Inversion(quick(tmp_path, families["sd1"], init=" "), tmp_path / "c")


def test_starting_from_the_encoders_output(families, tmp_path):
    runs = [
        Inversion(quick(tmp_path, families["sd1"], start=start, vectors=1), tmp_path / start)
        for start in ("word", "output")
    ]
    starts = [run.optimizer.placeholders[0].start for run in runs]
    assert not torch.allclose(*starts)
    assert starts[1].norm() == pytest.approx(runs[1].vocabularies[0].typical_norm, rel=1e-4)
    for run in runs:
        run.close()


@pytest.mark.slow
def test_validation_images_change_and_are_kept(mini, tmp_path):
    settings = quick(tmp_path, "mini", steps=8, preview_every=4, vectors=1, learning_rate=0.4)
    run = Inversion(settings, tmp_path / "out")
    evaluations = [progress.evaluation for progress in run if progress.evaluation]
    run.close()
    assert len(evaluations) == 3 and len({each.images[0].tobytes() for each in evaluations}) == 3
    folder = tmp_path / "out/three"
    assert {p.name for p in (folder / "previews").iterdir()} == {
        "init.png",
        "000004.png",
        "000008.png",
    }
    assert (folder / "strip.webp").stat().st_size > 1000
    page = (folder / "index.html").read_text()
    assert "data:image" in page and "S*" in page and "0.png" in page
    assert str(tmp_path) not in page
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[0]["baseline"].keys() == {"reconstruction", "editability", "pairwise"}
    assert {"loss", "norm", "moved", "nearest", "reconstruction", "editability"} <= log[-1].keys()
    assert log[-1]["percentile"] < 60


@pytest.mark.slow
def test_it_stops_when_nothing_gets_better(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "is_better", lambda new, old, baseline: not old)
    monkeypatch.setattr(selection, "MIN_GAIN", math.inf)
    settings = quick(tmp_path, "mini", steps=40, preview_every=2, patience=2, vectors=1)
    run = Inversion(settings, tmp_path / "out")
    assert max(progress.step for progress in run) == 6
    assert run.result.metadata["steps"] == "2"
    run.close()


@pytest.mark.slow
def test_a_long_vector_is_warned_of_once(families, tmp_path, caplog):
    for bound, warnings in ((1.0, 0), (0.0, 1)):
        caplog.clear()
        changes = {"learning_rate": 0.1, "norm_bound": bound}
        learn(quick(tmp_path, families["sd1"], **changes), tmp_path / str(bound))
        said = [record.getMessage() for record in caplog.records if record.name.startswith("diffusekit.inversion")]
        assert len(said) == warnings and all("longer than 99 % of the model's words" in each for each in said)


@pytest.mark.parametrize("token", ["S*", "<x>", "pict"])
def test_validation_prompts_contain_the_token_whatever_it_is(families, tmp_path, token):
    style = read_recipe(InvertSettings, ROOT / "training/style.toml")
    for changes in ({}, style):
        own = quick(tmp_path, families["sd1"], **({"token": token} | changes))
        run = Inversion(own, tmp_path / "out")
        run.close()
        prompt = run.settings.preview
        assert prompt in (f"a picture of {token}", f"a painting in the style of {token}")
        assert run.evaluator.prompt == prompt.removesuffix(token) + "{}"
        assert run.evaluator.prompts[0] == prompt and all(token in each for each in run.evaluator.prompts)


@pytest.mark.slow
def test_a_name_that_is_a_word_does_not_take_it(families, tmp_path):
    settings = quick(tmp_path, families["sd1"], steps=1, preview_every=0)
    token, other = (learn(settings.model_copy(update={"name": name}), tmp_path / "out") for name in (None, "my_three"))
    assert token.name == "three" and token.spellings == ("S*", "<three>")
    assert other.spellings == ("S*", "<my_three>", "my_three")
    for prompt, found in (("three cats", []), ("<three>", ["three"]), ("my_three", ["my_three"])):
        assert [t.name for t in embeddings.tokens_in_prompts([prompt], folder=tmp_path / "out")] == found


def test_no_usable_image_and_a_prompt_without_the_token(families, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataSetError):
        Inversion(quick(tmp_path, families["sd1"], pictures=str(tmp_path / "empty")))
    with pytest.raises(UsageError, match="does not contain"):
        Inversion(quick(tmp_path, families["sd1"], preview="a photo of a cat"), tmp_path / "out")


@pytest.mark.slow
def test_the_token_works_everywhere_and_hides_nothing(mini, tmp_path):
    """Other words draw what they drew; the token alone and beside others is seen."""
    settings = quick(tmp_path, "mini", name="disc_1", steps=20, vectors=2, preview_every=0, learning_rate=0.3)
    own = GenerateSettings(steps=3, seed=1, device="cpu")

    def drawn(prompt: str, given=()) -> bytes:
        running = Generation(own.model_copy(update={"embedding": tuple(given)}), [prompt])
        list(running)
        return running.images[0].image.tobytes()

    before = drawn("a red cat in the snow")
    token = learn(settings, tmp_path / "embeddings")
    assert drawn("a red cat in the snow") == before
    assert drawn("a red cat in the snow", ["disc_1"]) == before
    named = drawn("a picture of S* in the snow", ["disc_1"])
    assert named == drawn("a picture of <disc_1> in the snow") == drawn("a picture of disc_1 in the snow")
    assert named == drawn("a picture of S* in the snow")  # the only one of that name
    assert len({named, drawn("a picture of S*"), drawn("a picture of S* and S* in the snow"), before}) == 4
    assert token.metadata["init"] == "cat" and "disc" not in token.metadata["base_model"]


@pytest.mark.slow
def test_every_vector_matters(mini, tmp_path):
    from diffusekit import text

    settings = quick(tmp_path, "mini", steps=4, vectors=3, preview_every=0)
    token = learn(settings, tmp_path / "out")
    states = text.encode(mini, ["a picture of S*"], [token]).states
    for row in range(3):
        changed = token.vectors[0].clone()
        changed[row] += 1
        other = embeddings.LearnedToken(token.name, token.token, (changed,), {})
        assert not torch.allclose(text.encode(mini, ["a picture of S*"], [other]).states, states)


def test_the_defaults_are_the_recipes():
    for name in ("object", "style", "quick"):
        path = ROOT / "training" / f"{name}.toml"
        values = read_recipe(InvertSettings, path)
        assert values.get("property", "object") == ("style" if name == "style" else "object")
    text = (ROOT / "training/object.toml").read_text()
    for field in InvertSettings.model_fields:
        assert f"{field} =" in text, f"object.toml does not explain {field}"
    given = InvertSettings(**read_recipe(InvertSettings, ROOT / "training/object.toml"))
    assert given == InvertSettings()


def test_an_unknown_key_in_a_recipe_names_the_nearest(tmp_path):
    (tmp_path / "mine.toml").write_text("lerning_rate = 1")
    with pytest.raises(UsageError, match="lerning_rate") as caught:
        read_recipe(InvertSettings, tmp_path / "mine.toml")
    assert "learning_rate" in caught.value.hint


@pytest.mark.slow
def test_a_token_that_is_an_ordinary_word_is_refused(families, tmp_path):
    with pytest.raises(UsageError, match="is a word of the model") as caught:
        learn(quick(tmp_path, families["sd1"], token="Cat"), tmp_path / "out")
    assert "S*" in caught.value.hint
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert learn(quick(tmp_path, families["sd1"], token="<Cat>"), tmp_path / "out").token == "<Cat>"


PHOTOS = sorted(p for p in ROOT.parent.glob("*/photos/*") if p.is_dir())


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS, reason="no folders of photographs beside the checkout")
@pytest.mark.parametrize("folder", PHOTOS, ids=lambda p: p.name)
def test_real_photographs(mini, folder, tmp_path):
    """Straight from the camera: every one is used, and the vectors move."""
    settings = InvertSettings(pictures=str(folder), steps=12, preview_every=12, device="cpu")
    run = Inversion(settings, tmp_path / "out", strict=True)
    list(run)
    run.close()
    assert len(run.dataset.photos) >= 3
    assert run.result is not None and run.result.vectors[0].isfinite().all()
    assert (tmp_path / "out" / folder.name / "index.html").is_file()

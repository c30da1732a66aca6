"""`diffusekit embeddings`: every verb, on tokens of ours and of other programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusekit import embeddings
from diffusekit.cli.main import run
from diffusekit.embeddings import LearnedToken, Vocabulary
from tests.helpers import foreign_files
from tests.helpers.foreign_files import rows


@pytest.fixture
def cat(mini) -> LearnedToken:
    """A token near `cat` in ./embeddings."""
    vectors = Vocabulary(mini).vectors("cat").repeat(2, 1)
    vectors[1] *= 3
    facts = {"base_model": "mini", "init": "dog", "seed": "7", "scores": '{"picture": 0.5}'}
    token = LearnedToken("my_cat", "S*", (vectors,), facts)
    return embeddings.read(embeddings.save(token, "embeddings/my_cat.safetensors"))


def out(capsys, *arguments: str, code: int = 0) -> str:
    assert run(["embeddings", *arguments]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.out if code == 0 else printed.err


def test_list_shows_name_token_vectors_and_model(capsys, cat):
    wide = LearnedToken("wide", "<wide>", (rows(), rows(2, 1280)))
    embeddings.save(wide, "embeddings/wide.safetensors")
    Path("embeddings/broken.safetensors").write_bytes(b"x")
    assert run(["embeddings", "list"]) == 0
    printed = capsys.readouterr()
    first, second = printed.out.splitlines()
    assert first.split() == ["my_cat", "S*", "2", "vectors", "256", "mini"]
    assert "768+1280" in second and "broken" in printed.err and "skipped" in printed.err
    found = json.loads(out(capsys, "list", "--json"))["embeddings"]
    assert [row["name"] for row in found] == ["my_cat", "wide"] and found[0]["sha256"] == cat.sha256


def test_list_without_tokens(capsys):
    assert out(capsys, "list") == ""
    assert json.loads(out(capsys, "list", "--json")) == {"embeddings": []}


def test_show_prints_metadata_and_nearest_words(capsys, cat):
    printed = out(capsys, "show", "my_cat")
    assert "S*" in printed and cat.sha256 in printed and '"picture": 0.5' in printed
    first, second = [line for line in printed.splitlines() if line.startswith("vector ")]
    assert "nearest words: cat 1.00" in first and "nearest words: cat 1.00" in second
    assert "percentile 100" in second
    found = json.loads(out(capsys, "show", "my_cat", "--json"))
    assert found["facts"]["scores"] == {"picture": 0.5} and found["vectors"] == 2
    assert found["encoders"][0]["vectors"][0]["nearest"][0][0] == "cat"


def test_show_names_the_report_and_the_images_of_the_training_run(capsys, cat):
    assert "index.html" not in out(capsys, "show", "my_cat")
    Path("embeddings/my_cat").mkdir()
    Path("embeddings/my_cat/index.html").write_text("")
    Path("embeddings/my_cat/strip.webp").write_text("")
    printed = out(capsys, "show", "my_cat")
    assert "embeddings/my_cat/index.html" in printed and "embeddings/my_cat/strip.webp" in printed
    found = json.loads(out(capsys, "show", "my_cat", "--json"))
    assert found["previews"] == "embeddings/my_cat/strip.webp" and found["page"].endswith(".html")


def test_show_of_another_models_token(capsys):
    embeddings.save(LearnedToken("wide", "W*", (rows(),)), "embeddings/wide.safetensors")
    assert run(["embeddings", "show", "wide"]) == 0
    printed = capsys.readouterr()
    assert "W*" in printed.out and "mini has width 256" in printed.err and "vector 1 " not in printed.out
    assert "mini has width 256" in out(capsys, "show", "wide", "--model", "mini", code=3)


def test_metadata_of_other_programs_cannot_control_the_terminal(capsys):
    Path("embeddings").mkdir()
    metadata = {"base_model": "a\x1b[2J", "note": "\x1b]0;x\x07", "\x1bkey": "1"}
    foreign_files.tensors(Path("embeddings/x.safetensors"), {"emb_params": rows()}, metadata)
    assert "\x1b" not in out(capsys, "list") + out(capsys, "show", "x")


def test_import_converts_a_token(capsys):
    foreign_files.tensors(Path("My Style v2.safetensors"), {"emb_params": rows()})
    assert out(capsys, "import", "My Style v2.safetensors") == "embeddings/My_Style_v2.safetensors\n"
    found = embeddings.load_token("My_Style_v2")
    assert torch.equal(found.vectors[0], rows()) and len(found.metadata["imported_sha256"]) == 64
    line = out(capsys, "import", "My Style v2.safetensors", "--name", "b", "--token", "B*", "-o", "x")
    assert line == "x/b.safetensors\n" and embeddings.read(Path("x/b.safetensors")).token == "B*"


@pytest.mark.slow
def test_import_of_a_pickle(capsys):
    torch.save({"<toy>": rows()}, "learned_embeds.bin")
    hint = out(capsys, "show", "learned_embeds.bin", code=3)
    assert "hint: diffusekit embeddings import learned_embeds.bin" in hint
    assert out(capsys, "import", "learned_embeds.bin") == "embeddings/toy.safetensors\n"
    assert embeddings.load_token("toy").token == "<toy>"


def test_import_keeps_existing_files(capsys, cat):
    foreign_files.tensors(Path("my_cat.safetensors"), {"emb_params": rows()})
    assert "already exists" in out(capsys, "import", "my_cat.safetensors", code=2)
    assert embeddings.load_token("my_cat").sha256 == cat.sha256
    out(capsys, "import", "my_cat.safetensors", "--overwrite")
    assert embeddings.load_token("my_cat").width == (768,)


@pytest.mark.parametrize("name", ["..", "../x", "/abs", "a\\b", "CON", "x:y", "a\nb", "", "%2e"])
def test_import_under_an_unsafe_name(capsys, tmp_path, name):
    foreign_files.tensors(Path("x.safetensors"), {"emb_params": rows()})
    assert "the name" in out(capsys, "import", "x.safetensors", f"--name={name}", code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert "the token" in out(capsys, "import", "x.safetensors", "--token=a b", code=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", embeddings.EXPORT_FORMATS)
def test_export_can_be_imported_again(capsys, cat, kind):
    path = Path(out(capsys, "export", "my_cat", "--to", kind).strip())
    assert path.parent == Path(f"exports/my_cat-{kind}") and path.exists()
    again = embeddings.import_token(path)
    assert again.token == "S*" and torch.equal(again.vectors[0], cat.vectors[0])
    assert "already exists" in out(capsys, "export", "my_cat", "--to", kind, code=2)
    assert "unknown export format" in out(capsys, "export", "my_cat", "--to", "comfy", code=2)


def test_a_dot_in_a_name_does_not_start_a_file_ending(capsys, cat):
    embeddings.save(cat, "embeddings/v1.5-style.safetensors")
    printed = out(capsys, "export", "v1.5-style", "--to", "kohya")
    assert printed == "exports/v1.5-style-kohya/v1.5-style.safetensors\n"
    assert out(capsys, "export", "my_cat", "--to", "a1111", "-o", "to/v2.0") == "to/v2.0/my_cat.pt\n"
    assert "does not end in .pt" in out(capsys, "export", "my_cat", "--to", "a1111", "-o", "x.safetensors", code=2)


def test_remove_asks_and_keeps_the_run_folder(capsys, cat):
    run_folder = Path("embeddings/my_cat")
    run_folder.mkdir()
    (run_folder / "log.jsonl").write_text("")
    assert "cannot ask whether to delete" in out(capsys, "remove", "my_cat", code=2)
    assert cat.path is not None and cat.path.exists()
    assert out(capsys, "remove", "my_cat", "--yes") == "embeddings/my_cat.safetensors\n"
    assert not cat.path.exists() and run_folder.exists()
    assert "no learned token" in out(capsys, "remove", "my_cat", "--yes", code=2)


def test_remove_with_its_run_and_a_damaged_file(capsys):
    Path("embeddings/x").mkdir(parents=True)
    Path("embeddings/x/log.jsonl").write_text("")
    Path("embeddings/x.safetensors").write_bytes(b"damaged")
    out(capsys, "remove", "x", "--yes", "--run")
    assert not list(Path("embeddings").iterdir())


def test_remove_deletes_only_learned_tokens(capsys, cat):
    Path("photos").mkdir()
    Image.new("RGB", (8, 8)).save("photos/holiday.png")
    Path("embeddings/my_cat").mkdir()
    Path("embeddings/my_cat/log.jsonl").write_text("")
    Path("other.safetensors").write_bytes(b"weights")
    paths = ("./photos", "photos/holiday.png", "embeddings/my_cat", "./other.safetensors")
    before = sorted(Path().rglob("*"))
    for path in paths:
        printed = out(capsys, "remove", path, "--yes", "--run", code=3)
        assert "nothing was deleted" in printed and "hint: only learned tokens" in printed
    assert sorted(Path().rglob("*")) == before


def test_remove_by_path_keeps_a_folder_that_is_not_a_run(capsys, cat):
    elsewhere = embeddings.save(cat, "elsewhere/my_cat.safetensors")
    Path("elsewhere/my_cat").mkdir()
    Path("elsewhere/my_cat/photo.jpg").write_text("")
    assert out(capsys, "remove", str(elsewhere), "--yes", "--run") == f"{elsewhere}\n"
    assert not elsewhere.exists() and Path("elsewhere/my_cat/photo.jpg").exists()
    assert cat.path is not None and cat.path.exists()


def test_combine_adds_and_subtracts_words(capsys, cat):
    printed = out(capsys, "combine", "cat - red + blue", "--count", "4")
    assert len(printed.splitlines()) == 4
    assert not {"cat", "red", "blue"} & {line.split()[1] for line in printed.splitlines()}
    found = json.loads(out(capsys, "combine", "S*", "--json"))
    assert found["nearest"][0] == ["cat", pytest.approx(1, abs=1e-4)]
    assert "not a sum of words" in out(capsys, "combine", "cat +", code=2)


def test_combine_with_a_token_of_several_files(capsys, cat):
    embeddings.save(cat, "embeddings/second.safetensors")
    printed = out(capsys, "combine", "S* - cat", code=2)
    assert "S* is the token of my_cat and second" in printed
    assert "hint: write for example <my_cat>" in printed and "--embedding" not in printed


def test_interpolate_under_the_name_of_a_word(capsys, cat):
    out(capsys, "interpolate", "my_cat", "0.5", "-o", "moon")
    assert embeddings.load_token("moon").spellings == ("<moon>",)
    out(capsys, "interpolate", "moon", "0.5", "-o", "my_moon")
    assert embeddings.load_token("my_moon").spellings == ("<my_moon>", "my_moon")


def test_interpolate_moves_back_to_the_initial_words(capsys, cat, mini):
    assert out(capsys, "interpolate", "my_cat", "0.5", "-o", "half") == "embeddings/half.safetensors\n"
    half = embeddings.load_token("half")
    dog = Vocabulary(mini).vectors("dog")
    assert torch.allclose(half.vectors[0], (cat.vectors[0] + dog) / 2, atol=1e-6)
    assert half.token == "<half>" and "scores" not in half.metadata
    assert "from 0 to 1" in out(capsys, "interpolate", "my_cat", "2", "-o", "x", code=2)
    assert "the name" in out(capsys, "interpolate", "my_cat", "1", "-o", "../x", code=2)


def test_interpolate_from_the_vectors_in_the_file(capsys, cat):
    from dataclasses import replace

    start = rows(2, 256)
    trained = replace(cat, metadata=cat.metadata | {"start_vectors": embeddings.encode_vectors((start,))})
    embeddings.save(trained, "embeddings/trained.safetensors")
    out(capsys, "interpolate", "trained", "0", "-o", "begin")
    assert torch.equal(embeddings.load_token("begin").vectors[0], start)
    text = out(capsys, "show", "trained")
    assert len(text) < 3000


def test_interpolate_needs_initial_words(capsys):
    embeddings.save(LearnedToken("x", "X*", (rows(1, 256),)), "embeddings/x.safetensors")
    assert "does not say" in out(capsys, "interpolate", "x", "0.5", "-o", "y", code=3)


def test_help_imports_no_heavy_library():
    code = (
        "import sys; from diffusekit.cli.main import run; run(['embeddings', '--help']);"
        "sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    verbs = ("list", "show", "import", "export", "remove", "combine", "interpolate")
    assert all(verb in done.stdout for verb in verbs)


@pytest.mark.slow
def test_tokens_of_two_text_encoders(capsys, random_models):
    """SDXL: words near to the vectors for each encoder, and start vectors of both."""
    from diffusekit import models
    from diffusekit.embeddings import make_vocabularies

    folder = str(random_models["sdxl"])
    words = make_vocabularies(models.load_text(folder))
    cat, dog, star = (tuple(each.vectors(word) for each in words) for word in ("cat", "dog", "star"))
    facts = {"init": "dog", "base_model": "sdxl", "start_vectors": embeddings.encode_vectors(dog)}
    embeddings.save(LearnedToken("xl", "X*", (cat[0], star[1]), facts), "embeddings/xl.safetensors")

    found = json.loads(out(capsys, "show", "xl", "--model", folder, "--json"))["encoders"]
    assert [each["name"] for each in found] == ["text_encoder", "text_encoder_2"]
    assert [each["vectors"][0]["nearest"][0][0] for each in found] == ["cat", "star"]
    lines = out(capsys, "show", "xl", "--model", folder).splitlines()[-4:]
    assert lines[0] == "text_encoder:" and "nearest words: cat 1.00" in lines[1]
    assert lines[2] == "text_encoder_2:" and "nearest words: star 1.00" in lines[3]

    sums = json.loads(out(capsys, "combine", "<xl> + 0.1 * dog", "--model", folder, "--count", "1", "--json"))
    assert [each[0][0] for each in sums["encoders"]] == ["cat", "star"] and sums["nearest"] == sums["encoders"][0]
    printed = out(capsys, "combine", "<xl> + 0.1 * dog", "--model", folder, "--count", "1").splitlines()
    assert printed[::2] == ["text_encoder:", "text_encoder_2:"] and "star" in printed[3]

    out(capsys, "interpolate", "xl", "0.5", "--model", folder, "-o", "half")
    half = embeddings.load_token("half")
    for ours, first, last in zip(half.vectors, dog, (cat[0], star[1]), strict=True):
        assert torch.allclose(ours, (first + last) / 2, atol=1e-6)

"""The Tokens tab: the library on disk without a browser, and how it is used in one."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken
from diffusekit.errors import DiffusekitError, FileRefused, UsageError
from diffusekit.server.storage import tokens
from diffusekit.server.ui import prompt_info
from diffusekit.server.ui.tabs import tokens_html
from diffusekit.workspace import Workspace
from tests.helpers.browser import fill, wait_for_value
from tests.helpers.markup import EVIL, nodes

FOLDER = Workspace().embeddings


def token(name, *, vectors=2, **facts):
    rows = torch.randn(vectors, 256, generator=torch.Generator().manual_seed(vectors))
    made = LearnedToken(name, "S*", (rows,), {"base_model": "mini"} | facts)
    embeddings.save(made, FOLDER / f"{name}.safetensors")
    return made


@pytest.fixture
def vocabularies():
    return prompt_info.load_vocabularies("mini")


def test_the_table_tells_everything_and_leaves_out_what_is_no_token(vocabularies):
    token("owl", scores='{"reconstruction": 0.5, "editability": true, "x": "y"}')
    token("evil", base_model=EVIL, init=EVIL, scores=f'{{"{EVIL[2:10]}": 1}}')
    Path("embeddings/broken.safetensors").write_bytes(b"nothing")
    found = {row.name: row for row in tokens.list_tokens(FOLDER, vocabularies)}
    assert found["broken"].error and not found["owl"].error
    assert found["owl"].vectors == 2 and [len(words) for words in found["owl"].nearest] == [5]
    assert 0 <= found["owl"].percentile <= 100 and dict(found["owl"].scores)["reconstruction"] == 0.5
    shown = tokens_html.render_table(list(found.values()), "owl")
    inside, handlers = nodes(shown)
    assert "script" not in inside and "img" not in inside and not handlers
    assert shown.count("<tbody><tr") == 1 and shown.count("aria-current=true") == 2
    inside, handlers = nodes(tokens_html.render_card(embeddings.load_token("evil"), found["evil"], FOLDER))
    assert "script" not in inside and "img" not in inside and not handlers
    assert all(row.percentile is None for row in tokens.list_tokens(FOLDER))


def test_a_word_of_the_model_is_near_itself(vocabularies):
    vector = vocabularies[0].vectors("cat")
    embeddings.save(LearnedToken("my_cat", "S*", (vector,)), "embeddings/my_cat.safetensors")
    (row,) = tokens.list_tokens(FOLDER, vocabularies)
    assert row.nearest[0][0] == "cat"
    _, made = tokens.combine(FOLDER, vocabularies, "<my_cat> + dog - <my_cat>")
    assert torch.allclose(made.vectors[0], vocabularies[0].vectors("dog").mean(0, keepdim=True), atol=1e-4)
    with pytest.raises(UsageError, match="300"):
        tokens.combine(FOLDER, vocabularies, "cat + " * 100)


def test_what_is_removed_comes_back_with_its_run():
    token("owl")
    run = FOLDER / "owl"
    run.mkdir()
    (run / "log.jsonl").write_text("{}")
    before = (FOLDER / "owl.safetensors").read_bytes()
    kept = tokens.remove(FOLDER, "owl")
    assert not run.exists() and not embeddings.list_files()
    token("owl", vectors=1)
    with pytest.raises(UsageError, match="again"):
        tokens.restore(FOLDER, kept)
    tokens.remove(FOLDER, "owl")
    assert tokens.restore(FOLDER, kept) == "owl"
    assert (run / "log.jsonl").exists() and embeddings.list_files()[0].read_bytes() == before


def test_a_run_is_discarded_unless_a_process_learns_in_it():
    run = FOLDER / "owl"
    (run / "checkpoints").mkdir(parents=True)
    with FileLock(run / ".lock"), pytest.raises(UsageError, match="owl is being trained"):
        tokens.remove_run(FOLDER, "owl")
    assert run.exists()
    tokens.remove_run(FOLDER, "owl")
    tokens.remove_run(FOLDER, "owl")  # there is none: nothing happens
    assert not run.exists() and len(list(Path("embeddings/.trash").glob("*/owl/checkpoints"))) == 1
    for name in ("..", "../x", ".trash", ""):
        with pytest.raises(UsageError):
            tokens.remove_run(FOLDER, name)


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "", ".trash", "a/b", "x" * 300, "\0"])
def test_names_reach_nothing_else(name, tmp_path):
    token("owl")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "log.jsonl").touch()
    for act in (tokens.remove, tokens.restore, tokens.check_exists):
        with pytest.raises(DiffusekitError):
            act(FOLDER, name)
    with pytest.raises(DiffusekitError):
        tokens.export_token(FOLDER, name, "a1111", tmp_path / "out")
    assert (tmp_path / "x" / "log.jsonl").exists() and embeddings.list_files()


@pytest.mark.slow
def test_files_of_other_programs_come_in_and_go_out(tmp_path):
    made = token("owl", vectors=1)
    for kind in embeddings.EXPORT_FORMATS:
        path = tokens.export_token(FOLDER, "owl", kind, tmp_path / "out")
        name = f"from_{kind}"
        found = tokens.import_token(FOLDER, path, name, "O*")
        assert found.token == "O*" and torch.equal(found.vectors[0], made.vectors[0])
        with pytest.raises(UsageError, match="already"):
            tokens.import_token(FOLDER, path, name, "")
    both = LearnedToken("xl", "S*", (torch.ones(1, 768), torch.ones(1, 1280)))
    embeddings.save(both, "embeddings/xl.safetensors")
    with zipfile.ZipFile(tokens.export_token(FOLDER, "xl", "diffusers", tmp_path / "out")) as archive:
        assert len(archive.namelist()) == 2


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("pwned").absolute(),))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", ".png"])
def test_a_file_that_would_run_code_is_refused(tmp_path, suffix):
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps({"string_to_param": Bomb()}))
    with pytest.raises(FileRefused) as caught:
        tokens.import_token(FOLDER, path, "", "")
    assert str(tmp_path) not in caught.value.message
    assert not Path("pwned").exists() and not embeddings.list_files()


@pytest.mark.slow
def test_tokens_are_looked_at_combined_exported_removed_and_taken_back(page):
    token("owl", vectors=1)
    page.locator("#tab-tokens-button").click()
    page.locator(".tokens-table button[data-name=owl]").click()
    page.wait_for_selector("#token-facts h3")
    page.locator("#token-combine button").first.click()
    fill(page, "#sum", "cat - red + <owl>")
    page.locator("#sum-go").click()
    page.wait_for_selector("#sum-near li")
    fill(page, "#sum-name", "<b>")
    page.locator("#sum-keep").click()
    page.wait_for_selector("#tokens-notice .error")
    fill(page, "#sum-name", "mix")
    page.locator("#sum-keep").click()
    page.wait_for_selector(".tokens-table button[data-name=mix][aria-current]")
    page.locator("#token-kind input").click()
    page.get_by_role("option", name="A1111").click()
    with page.expect_download() as download:
        page.locator("#token-file").click()
    file = Path(download.value.path()).rename(Path("mix.pt").absolute())
    page.locator("#token-import button").first.click()
    fill(page, "#import-name", "again")
    with page.expect_file_chooser() as chooser:
        page.locator("#import-file").click()
    chooser.value.set_files(file)
    page.wait_for_selector(".tokens-table button[data-name=again]")
    assert torch.equal(embeddings.load_token("again").vectors[0], embeddings.load_token("mix").vectors[0])
    page.locator("#token-remove").click()
    page.wait_for_selector("#tokens-undo")
    assert [path.stem for path in embeddings.list_files()] == ["mix", "owl"]
    listed = "document.querySelector('#words [data-words]').dataset.words.includes('again')"
    page.wait_for_function(f"!{listed}")
    page.locator("#tokens-undo").click()
    page.wait_for_selector(".tokens-table button[data-name=again]")
    page.wait_for_function(listed)
    page.locator("#token-use").click()
    page.wait_for_selector("#prompt textarea")
    wait_for_value(page, page.locator("#prompt textarea"), "a picture of <again>")
    token("late", vectors=1)
    page.locator("#tab-tokens-button").click()
    page.wait_for_selector(".tokens-table button[data-name=late]")  # the list is read anew
    page.wait_for_selector(".tokens-table button[data-name=again][aria-current]")
    page.locator("#token-remove").click()
    page.wait_for_selector("#tokens-undo")
    page.locator("#tokens-trash", has_text="Empty trash (1 file").click()
    page.locator("#tokens-trash", has_text="permanently").click()
    page.wait_for_selector("#tokens-notice >> text=The trash is empty")
    assert not Path("embeddings/.trash").exists() and not page.locator("#tokens-undo").is_visible()


@pytest.mark.slow
def test_tokens_of_two_text_encoders(random_models):
    """SDXL: both are compared with their own words, and a sum is stored for both."""
    pair = prompt_info.load_vocabularies(str(random_models["sdxl"]))
    vectors = pair[0].vectors("cat"), pair[1].vectors("star")
    embeddings.save(LearnedToken("xl", "X*", vectors, {"base_model": "sdxl"}), "embeddings/xl.safetensors")
    (row,) = tokens.list_tokens(FOLDER, pair)
    assert [words[0] for words in row.nearest] == ["cat", "star"]
    percentiles = [each.norm_percentile(own.norm(dim=1))[0] for each, own in zip(pair, vectors, strict=True)]
    assert row.percentile == max(percentiles)
    assert "cat" in tokens_html.render_table([row], "") and "star" in tokens_html.render_table([row], "")
    card = tokens_html.render_card(embeddings.load_token("xl"), row, FOLDER)
    assert "Nearest words, second text encoder" in card
    nearest, made = tokens.combine(FOLDER, pair, "<xl> + 0.1 * dog", count=1)
    assert [words[0][0] for words in nearest] == ["cat", "star"] and made.width == (32, 48)
    assert tokens_html.render_nearest(nearest).count("<ol") == 2
    assert tokens.add_token(FOLDER, made).width == (32, 48)
    (other,) = [each for each in tokens.list_tokens(FOLDER, pair[:1]) if each.name == "xl"]
    assert other.percentile is None and not other.nearest
    with pytest.raises(UsageError, match="is for another model"):
        tokens.combine(FOLDER, pair[:1], "<xl> + dog")

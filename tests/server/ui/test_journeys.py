"""The web page in a real browser, as people use it: Debian's chromium, driven by Playwright.

Every journey ends with no error in the console and no request to anywhere else.
"""

import base64
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from diffusekit import metadata
from diffusekit.settings import FAST_DEFAULTS
from diffusekit.start_image import StartImage
from tests.helpers import ROOT
from tests.helpers.browser import wait_for_value, write
from tests.helpers.generated_image import save_image
from tests.helpers.server import paced, until

pytestmark = pytest.mark.slow
EVIL = '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
LONG = "150"  # steps: as many as may be asked for


def settings(page, **values):
    """Fold the settings out and fill some in, by label."""
    if not page.locator("#seed").is_visible():
        page.locator("#settings button").first.click()
    for label, value in values.items():
        write(page, page.locator("#settings").get_by_label(label.replace("_", " ")).first, value)


def prompt(page):
    return page.locator("#prompt textarea")


def result(page):
    page.wait_for_selector("#result img[data-testid=detailed-image]")
    return page.locator("#result img[data-testid=detailed-image]")


def pictures(jobs):
    return sorted(jobs.outputs.rglob("[!.]*.png"), key=lambda path: path.stat().st_mtime)


def drop(page, path):
    """Drop a file on the page, as from the desktop."""
    data = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([data, name]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name, { type: 'image/png' }));
          for (const type of ['dragenter', 'dragover', 'drop'])
            document.querySelector('#prompt').dispatchEvent(
              new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer }));
        }""",
        [data, path.name],
    )


def made(path, prompt, **more):
    """An image with a record, without waiting for one."""
    color = more.get("negative_prompt")
    return save_image(
        path,
        prompt,
        color=color if color in ("blue", "green") else "red",
        side=64,
        seed=77,
        steps=9,
        **{"guidance_scale": 2.5} | more,
    )


# --- generate --------------------------------------------------------------------------------


def test_an_empty_form_makes_a_picture_and_shows_how_it_comes(visit, jobs):
    page = visit()
    settings(page, Steps="40")
    with paced(hold=3):
        page.click("#go")
        page.wait_for_selector(".stage img[src^='data:image/webp']")
        page.wait_for_function("document.querySelector('.stage progress').value > 0")
        assert "Step" in page.inner_text(".stage figcaption")
    shown = result(page)
    record = metadata.read(pictures(jobs)[-1]).record
    assert record and record.settings.prompt == prompt(page).input_value() != ""
    assert record.settings.steps == 40
    assert shown.get_attribute("alt") == record.settings.prompt
    downloaded = page.request.get(shown.get_attribute("src")).body()
    assert downloaded == pictures(jobs)[-1].read_bytes()  # with its record, bit by bit
    assert page.locator("#go").is_visible() and not page.locator("#stop").is_visible()


def test_keys_generate_and_stop(visit, jobs):
    page = visit()
    prompt(page).fill("a red tree")
    settings(page, Steps=LONG)
    before = len(pictures(jobs))
    with paced(hold=3):
        prompt(page).press("Control+Enter")
        page.wait_for_selector(".stage img[src^='data:image/webp']")
        feed = jobs.channel(jobs.running_job.id)
        page.keyboard.press("Escape")
        until(lambda: feed.cancel_requested)
    page.wait_for_selector("#go")
    page.wait_for_function("document.querySelector('.stage')?.innerText.includes('Stopped at step')")
    job = jobs.list(1)[0]
    assert job.state == "cancelled" and 0 < job.step <= 3
    assert len(pictures(jobs)) == before and page.locator(".stage img").count()


def test_a_closed_tab_stops_its_job(visit, jobs):
    page = visit()
    settings(page, Steps=LONG, Images="16")
    with paced(hold=3):
        page.click("#go")
        page.wait_for_function("document.querySelector('.stage progress')?.value > 0")
        feed = jobs.channel(jobs.running_job.id)
        page.close()
        until(lambda: feed.cancel_requested)
    until(lambda: feed.job.is_finished)
    assert feed.job.state == "cancelled"


def test_several_pictures_and_the_seed_of_the_one_that_is_chosen(visit, jobs):
    page = visit()
    prompt(page).fill("a blue star")
    settings(page, Steps="4", Seed="100", Images="3")
    page.click("#go")
    result(page)
    with page.expect_response(lambda answer: answer.request.method == "POST"):  # it is told which
        page.locator("#result .thumbnails button").nth(2).click()
    page.get_by_role("button", name="Use seed").first.click()
    page.wait_for_function("document.querySelector('#seed textarea, #seed input').value === '102'")
    page.click("#dice")
    page.wait_for_function("document.querySelector('#seed textarea, #seed input').value === ''")


def test_fast_takes_four_steps_without_guidance(visit, jobs):
    page = visit()
    prompt(page).fill("a red balloon")
    settings(page, Seed="8")
    steps = page.locator("#settings").get_by_label("Steps").first
    for check, count in ((True, "4"), (False, "20"), (True, "4")):
        page.locator("#fast input").set_checked(check)
        wait_for_value(page, steps, count)
    page.click("#go")
    result(page)
    made = metadata.read(pictures(jobs)[-1]).record.settings
    assert made.fast and made.seed == 8 and made.prompt == "a red balloon"
    assert {name: getattr(made, name) for name in FAST_DEFAULTS} == FAST_DEFAULTS


def test_a_mask_painted_in_the_browser_changes_only_what_it_covers(visit, jobs, tmp_path):
    photo = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    photo.save(tmp_path / "photo.png")
    page = visit(height=1600)  # the editor is in view
    prompt(page).fill("a boat on the sea")
    settings(page, Steps="2", Seed="3")
    page.locator("#start button").first.click()
    page.locator("#start-editor canvas").first.wait_for()
    page.wait_for_timeout(1500)  # until the canvas is ready, the editor loses files
    page.locator("#start-editor input[type=file]").first.set_input_files(tmp_path / "photo.png")
    wait_for_value(page, page.locator("#settings").get_by_label("Width").first, "")
    page.wait_for_timeout(1000)  # the canvas takes the size of the image
    box = page.locator("#start-editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    for offset in range(-20, 21, 5):
        page.mouse.move(x + offset, y)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.click("#go")
    result(page)
    path = pictures(jobs)[-1]
    record = metadata.read(path).record
    assert record.mask and record.start_image == StartImage.open(photo).sha256
    with Image.open(path) as made:
        kept = (np.asarray(made) == np.asarray(photo)).all(2)
    assert 0.3 < kept.mean() < 0.99 and kept[:8].all() and kept[-8:].all() and not kept[60:68, 60:68].all()
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.click("#use-start")


def test_a_grid_is_drawn_with_its_cells(visit, jobs):
    page = visit()
    prompt(page).fill("a red star")
    page.locator("#grid button").first.click()
    write(page, page.get_by_label("X axis (columns): values"), "2, 4")
    page.click("#draw")
    page.wait_for_function("document.querySelectorAll('#result .thumbnails button').length === 3")
    sheet = pictures(jobs)[-1]
    assert sheet.name.endswith("-grid.png") and metadata.read(sheet).label
    steps = [metadata.read(p).record.settings.steps for p in pictures(jobs)[-3:-1]]
    seeds = {metadata.read(p).record.settings.seed for p in pictures(jobs)[-3:-1]}
    assert steps == [2, 4] and len(seeds) == 1
    prompt(page).fill("another")
    drop(page, sheet)
    page.wait_for_selector("#notice >> text=grid axis Steps: 2, 4")
    assert prompt(page).input_value() == "a red star"
    settings(page)
    wait_for_value(page, page.locator("#settings").get_by_label("Steps").first, "20")
    wait_for_value(page, page.locator("#seed").get_by_label("Seed"), str(*seeds))


def test_a_wrong_field_is_named_and_nothing_is_queued(visit, jobs):
    page = visit()
    settings(page, Seed="seven")
    before = len(jobs.list())
    page.click("#go")
    page.wait_for_selector("#notice .error")
    assert page.inner_text("#notice .error").startswith("Seed ")
    assert page.locator("#go").is_visible() and len(jobs.list()) == before


def test_the_counter_shows_what_is_cut_and_prompts_are_never_html(visit):
    page = visit()
    prompt(page).fill(EVIL + " a cat" * 90 + " castle")
    page.wait_for_selector(".meter.over")
    assert "castle" in page.inner_text(".meter.over del") or "cat" in page.inner_text(".meter.over")
    prompt(page).fill("a cat")
    page.wait_for_function("document.querySelector('.meter')?.innerText.includes('2 / 75')")
    assert page.evaluate("window.pwned") is None


def test_learned_tokens_are_completed(visit, tmp_path):
    (tmp_path / "embeddings").mkdir()
    shutil.copy(ROOT / "embeddings" / "my_robot.safetensors", tmp_path / "embeddings")
    page = visit()
    page.wait_for_function("document.querySelector('#words [data-words]')?.dataset.words.includes('robot')")
    prompt(page).press_sequentially("a picture of my_")
    page.wait_for_selector("#completions li")
    page.keyboard.press("Enter")
    assert prompt(page).input_value() == "a picture of <my_robot>"
    page.wait_for_selector(".chip")
    assert page.inner_text(".chip") == "my_robot"


# --- restore ---------------------------------------------------------------------------------


def test_a_dropped_picture_gives_its_settings_back(visit, tmp_path):
    path = made(tmp_path / "mine.png", EVIL, negative_prompt="a dog", sampler="euler_a")
    page = visit()
    page.get_by_role("tab", name="Gallery").click()
    page.get_by_role("tab", name="Generate").click()
    drop(page, path)
    page.wait_for_selector("#notice .note")
    assert prompt(page).input_value() == EVIL and page.evaluate("window.pwned") is None
    settings(page)
    wait_for_value(page, page.locator("#seed").get_by_label("Seed"), "77")
    wait_for_value(page, page.get_by_label("Negative prompt"), "a dog")
    wait_for_value(page, page.get_by_label("Sampler"), "Euler a")


def test_a_picture_of_comfyui_gives_its_settings_back(visit, tmp_path):
    graph = {
        "1": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 42,
                "steps": 11,
                "cfg": 4.5,
                "sampler_name": "euler_ancestral",
                "scheduler": "normal",
                "positive": ["2", 0],
                "negative": ["3", 0],
            },
        },
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": EVIL}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog"}},
    }
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(graph))
    Image.new("RGB", (64, 64)).save(tmp_path / "theirs.png", pnginfo=info)
    page = visit()
    drop(page, tmp_path / "theirs.png")
    page.wait_for_selector("#notice .note")
    assert prompt(page).input_value() == EVIL and page.evaluate("window.pwned") is None
    settings(page)
    wait_for_value(page, page.locator("#seed").get_by_label("Seed"), "42")
    wait_for_value(page, page.get_by_label("Negative prompt"), "a dog")
    wait_for_value(page, page.get_by_label("Sampler"), "Euler a")


def test_a_dropped_file_that_is_none_says_so(visit, tmp_path):
    (tmp_path / "no.png").write_text("hello")
    page = visit()
    drop(page, tmp_path / "no.png")
    page.wait_for_selector("#notice .error")
    assert "not an image" in page.inner_text("#notice .error")


# --- gallery ---------------------------------------------------------------------------------


@pytest.fixture
def shelf(jobs):
    """Three pictures, and no others."""
    made(jobs.outputs / "a" / "one.png", "a red cat")
    made(jobs.outputs / "a" / "two.png", "a blue house", negative_prompt="blue")
    made(jobs.outputs / "b" / "three.png", f"green grass {EVIL}", negative_prompt="green")
    for i, name in enumerate(("a/one.png", "a/two.png", "b/three.png")):
        os.utime(jobs.outputs / name, (1_700_000_000 + i, 1_700_000_000 + i))
    return jobs.outputs


def gallery(page, count=3):
    page.get_by_role("tab", name="Gallery").click()
    thumbs(page, count)


def thumbs(page, count):
    page.wait_for_function(f"document.querySelectorAll('.thumb').length === {count}")
    return [t.get_attribute("data-name") for t in page.locator(".thumb").all()]


def test_the_gallery_is_searched_by_words_and_by_likeness(visit, shelf):
    page = visit()
    gallery(page)
    box = page.locator("#words-wanted textarea, #words-wanted input")
    box.fill("red")
    assert thumbs(page, 1) == ["a/one.png"]
    box.fill("nothing like it")
    page.wait_for_selector("#pictures .empty")
    box.fill("a blue picture")
    page.wait_for_selector("#pictures .empty")
    page.get_by_label("Similarity").check()
    assert set(thumbs(page, 3)) == {"a/one.png", "a/two.png", "b/three.png"}
    page.wait_for_selector("#gallery-notice .note")
    page.locator("#like").locator("xpath=..").locator("input[type=file]").first.set_input_files(
        str(shelf / "a" / "two.png")
    )
    page.wait_for_function("document.querySelector('.thumb')?.dataset.name === 'a/two.png'")
    assert page.evaluate("window.pwned") is None


def test_a_picture_is_opened_with_keys_starred_and_its_settings_used(visit, shelf):
    page = visit()
    gallery(page)
    page.locator(".thumb").first.click()
    page.wait_for_selector("#facts .prompt")
    assert "green grass" in page.inner_text("#facts .prompt")
    page.locator(".thumb").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#facts .prompt').innerText === 'a blue house'")
    assert page.locator("#picture img").get_attribute("alt") == "a blue house"
    page.click("#star")
    page.wait_for_selector(".thumb .star")
    assert (shelf / ".stars").read_text() == "a/two.png\n"
    page.get_by_label("★ only").check()
    assert thumbs(page, 1) == ["a/two.png"]
    page.locator("#open").get_by_role("button", name="Remix").click()
    page.wait_for_selector("#go")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a blue house'")
    assert page.evaluate("window.pwned") is None


def test_what_is_deleted_comes_back(visit, shelf):
    page = visit()
    gallery(page)
    page.locator(".thumb").nth(1).click()
    page.wait_for_selector("#facts .prompt")
    page.click("#delete")
    assert thumbs(page, 2) == ["b/three.png", "a/one.png"]
    assert not (shelf / "a" / "two.png").exists()
    page.click("#undo")
    assert thumbs(page, 3) == ["b/three.png", "a/two.png", "a/one.png"]
    assert (shelf / "a" / "two.png").exists()
    page.click("#delete")
    thumbs(page, 2)
    page.locator("#gallery-trash", has_text="Empty trash (1 file").click()
    page.locator("#gallery-trash", has_text="permanently").click()
    page.wait_for_selector("#gallery-notice >> text=The trash is empty")
    assert not (shelf / ".trash").exists() and thumbs(page, 2) == ["b/three.png", "a/one.png"]
    assert not page.locator("#undo").is_visible() and not page.locator("#gallery-trash").is_visible()


def test_two_pictures_are_compared(visit, shelf):
    page = visit()
    gallery(page)
    page.locator(".thumb").first.click()
    page.wait_for_selector("#facts .prompt")
    page.click("#compare")
    page.wait_for_selector("#gallery-notice .note")
    page.locator(".thumb").nth(2).click()
    page.wait_for_selector("#slider img")
    assert page.locator("#slider img").count() == 2
    page.click("#compare")
    page.wait_for_selector("#picture img")


# --- looks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_every_tab_fits_in_light_and_dark(visit, shelf, width, scheme):
    page = visit(width, 844, scheme)
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(wide)
    settings(page)
    page.locator("#grid button").first.click()
    page.wait_for_selector("#draw")
    assert page.evaluate(wide)
    gallery(page)
    page.locator(".thumb").first.click()
    page.wait_for_selector("#facts .prompt")
    assert page.evaluate(wide)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128")
    assert light == (scheme == "light")
    page.click("#shade")
    page.wait_for_function(
        "(getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128)"
        f" === {str(not light).lower()}"
    )


def test_the_python_client_has_one_endpoint(address, jobs):
    from gradio_client import Client

    client = Client(address, verbose=False, download_files=False)
    found = client.predict(prompt="a red star", steps=2, seed="5", api_name="/generate")
    assert len(found) == 1
    record = metadata.read(pictures(jobs)[-1]).record
    assert record.settings.prompt == "a red star" and record.settings.seed == 5
    assert record.settings.steps == 2 and not record.settings.fast
    client.predict(prompt="a red star", fast=True, api_name="/generate")
    record = metadata.read(pictures(jobs)[-1]).record
    assert {name: getattr(record.settings, name) for name in FAST_DEFAULTS} == FAST_DEFAULTS

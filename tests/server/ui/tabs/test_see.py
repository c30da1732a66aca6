"""The See tab: a lesson made, scrubbed, walked through, kept apart from the page."""

from pathlib import Path

import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.device import choose
from diffusekit.server.jobs import visualise
from diffusekit.server.ui.tabs import see_html
from diffusekit.settings import GenerateSettings
from tests.helpers.browser import fill, fill_number, wait_for_value
from tests.helpers.server import paced, until


def test_a_lesson_is_shown_in_a_frame_that_reaches_nothing():
    found = see_html.render_frame('<p title="a&amp;b">"</p><script>1</script>')
    assert 'sandbox="allow-scripts"' in found and "<script>" not in found and "<p" not in found
    assert found.count("<iframe") == 1 and "allow-same-origin" not in found


def test_the_walk_has_an_exhibit_for_every_part():
    assert {part.figure for part in see_html.WALK} == set(visualise.FIGURES)
    assert len({part.title for part in see_html.WALK}) == len(see_html.WALK)


@pytest.mark.slow
def test_the_visualiser_is_scrubbed_and_walked_through(page, jobs):
    page.locator("#tab-see-button").click()
    fill(page, "#see-prompt", "a red apple <script>window.top.pwned=1</script>")
    fill(page, "#see-other", "a green apple")
    page.locator("#see-settings button").first.click()
    fill_number(page, "#see-steps", "4")
    page.locator("#see-go").click()
    page.wait_for_selector("iframe.lesson")
    frame = page.frame_locator("iframe.lesson")
    assert frame.locator("#at").get_attribute("max") == "4"
    frame.locator("#where b").wait_for()  # the script at the end of the page has run
    before = frame.locator("#where").inner_text()
    frame.locator("#at").fill("1")
    after = frame.locator("#where").inner_text()
    assert before != after and after.split()[0] == "2"  # the first is 1
    assert frame.locator("q").first.inner_text().startswith("a red apple <script>")
    assert page.evaluate("window.pwned") is None
    with page.expect_download() as download:
        page.locator("#lesson-file").click()
    assert Path(download.value.path()).read_text().startswith("<!doctype html>")
    page.get_by_role("tab", name="Step-by-step introduction").click()
    for number_, part in enumerate(see_html.WALK):
        picture = page.locator(f"#walk-{part.figure} img")
        picture.wait_for()
        page.wait_for_function("(image) => image.naturalWidth > 0", arg=picture.element_handle())
        last = number_ + 1 == len(see_html.WALK)
        page.get_by_role("button", name="Start again" if last else "Next", exact=True).click()
    page.locator(f"#walk-{see_html.WALK[0].figure} img").wait_for()
    page.locator("#tab-gallery-button").click()  # lessons are no pictures of the gallery
    page.wait_for_selector("#pictures .empty")


@pytest.mark.slow
def test_a_picture_of_the_gallery_shows_how_it_was_made(page, jobs):
    made = GenerateSettings(
        prompt="a red star",
        negative_prompt="a dog",
        seed=77,
        steps=3,
        sampler="euler",
        width=64,
        height=64,
        guidance_scale=2.5,
    )
    record = metadata.Record.create(made, "r1", choose("cpu", "float32"))
    metadata.save(Image.new("RGB", (64, 64)), jobs.outputs / "day" / "x.png", record)
    page.locator("#tab-gallery-button").click()
    page.locator(".thumb").click()
    page.locator("#see-shown").click()
    page.wait_for_selector("#see-notice >> text=settings of the image")
    wait_for_value(page, page.locator("#see-prompt textarea"), "a red star")
    page.locator("#see-go").click()
    page.wait_for_selector("iframe.lesson")
    asked = jobs.list(1)[0].settings
    same = ("negative_prompt", "seed", "steps", "sampler", "width", "height", "guidance_scale")
    assert {name: asked[name] for name in same} == made.model_dump(include=set(same))
    assert asked["prompts"] == ["a red star"]


@pytest.mark.slow
def test_a_lesson_is_stopped(page, jobs):
    page.locator("#tab-see-button").click()
    fill(page, "#see-prompt", "a red apple")
    page.locator("#see-settings button").first.click()
    fill_number(page, "#see-steps", "60")
    with paced(hold=3):
        page.locator("#see-go").click()
        page.wait_for_selector("#see-stage >> text=/Step \\d+/")
        feed = jobs.channel(jobs.running_job.id)
        page.locator("#see-stop").click()
        until(lambda: feed.cancel_requested)
    page.wait_for_selector("#see-notice >> text=Stopped")
    assert jobs.list(1)[0].state == "cancelled"
    assert page.locator("#see-go").is_visible() and not page.locator("iframe.lesson").count()

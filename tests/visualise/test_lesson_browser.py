"""The lesson in a real browser: no errors, no requests, controlled by slider, keys and pointer, at any width."""

import re
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

from diffusekit.visualise import lesson  # noqa: E402

expect = sync_api.expect
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
STEPS = 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesson")
    settings = {"steps": STEPS, "seed": 3, "device": "cpu"}
    return {
        "one": lesson("a red car on grass", **settings).save(folder / "one.html"),
        "two": lesson(["a red car", "a <b>blue</b> house"], **settings).save(folder / "two.html"),
    }


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, files):
    """Open a page; when the test is over, check that it logged no error and requested nothing."""
    opened = []

    def go(which="one", *, width=1280, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        troubles, requests = [], []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(files[which].as_uri())
        opened.append((context, files[which].as_uri(), troubles, requests))
        return page

    yield go
    for context, address, troubles, requests in opened:
        context.close()
        assert not troubles
        assert requests[0] == address
        assert all(url.startswith("data:") for url in requests[1:])


def pixels(page, selector=".screen"):
    return page.locator(selector).first.screenshot(animations="disabled")


def at(page):
    return int(page.input_value("#at"))


def unfolded(page, name):
    return page.locator(f"#body-{name}").is_visible()


def test_the_slider_changes_the_image_and_the_numbers(visit):
    page = visit()
    assert at(page) == STEPS and page.inner_text("#where").startswith("done")
    seen = {STEPS: pixels(page)}
    for step in range(STEPS):
        page.locator("#at").fill(str(step))
        seen[step] = pixels(page)
        assert page.inner_text("#where").split()[0] == str(step + 1)
        alt = page.get_attribute("img.main", "alt")
        assert f"step {step + 1} of {STEPS}" in alt and "a red car on grass" in alt
        shown = page.inner_text(".readout [data-number=timestep]")
        wanted = page.evaluate(
            "at => JSON.parse(document.getElementById('data').textContent).runs[0].numbers[at]",
            step,
        )
        assert shown == str(wanted["timestep"])
        sigma = float(page.inner_text(".readout [data-number=sigma]"))
        assert sigma == pytest.approx(wanted["sigma"], rel=0.01)
    assert len(set(seen.values())) == STEPS + 1


def test_every_kind_of_image_can_be_made_large(visit):
    page = visit()
    page.locator("#at").fill("2")
    seen = set()
    for button in page.locator(".kind").all():
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        seen.add(page.get_attribute("img.main", "src"))
    assert len(seen) == 6
    assert page.locator(".kind[aria-pressed=true]").count() == 1


def test_keys(visit):
    page = visit()
    page.keyboard.press("ArrowLeft")
    assert at(page) == STEPS - 1
    page.focus("#at")
    page.keyboard.press("Home")
    assert at(page) == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert at(page) == 2
    page.keyboard.press("End")
    assert at(page) == STEPS
    page.keyboard.press("Space")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    expect(page.locator("#at")).to_have_value(str(STEPS), timeout=30_000)
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")


def test_play_runs_from_noise_to_image_and_can_be_paused(visit):
    page = visit()
    page.clock.install(time=0)
    page.clock.pause_at(60_000)  # from here on, time passes only when told
    page.click("#play")
    assert at(page) == 0 and page.get_attribute("#play", "aria-label") == "Pause"
    page.clock.run_for(1000)
    assert at(page) == 2
    page.click("#play")
    page.clock.run_for(5000)
    assert at(page) == 2 and page.get_attribute("#play", "aria-label") == "Play"
    page.click("#play")
    page.clock.run_for(5000)
    assert at(page) == STEPS and page.get_attribute("#play", "aria-label") == "Play"


def test_a_word_shows_where_it_was_looked_for(visit):
    page = visit()
    page.locator("#at").fill("3")
    before = pixels(page)
    words = page.locator(".word")
    assert words.all_inner_texts() == ["start", "a", "red", "car", "on", "grass", "end"]
    words.nth(3).hover()
    glow = page.locator("[data-glow]")
    assert glow.is_visible()
    car = pixels(page)
    assert "“car” at step 4" in page.inner_text("#word-shares")
    words.nth(5).hover()
    assert len({before, car, pixels(page)}) == 3
    at_step = page.inner_text("#word-shares")
    page.locator("#mean").check()
    words.nth(5).hover()
    assert "over all steps" in page.inner_text("#word-shares") != at_step
    page.mouse.move(2, 2)
    assert not glow.is_visible() and pixels(page) == before


def test_a_word_by_keyboard_and_by_touch(visit):
    page = visit()
    page.locator(".word").nth(1).focus()
    page.keyboard.press("Tab")
    assert page.locator("[data-glow]").is_visible() and "“red”" in page.inner_text("#word-shares")
    page.keyboard.press("Enter")
    assert page.locator(".word[aria-pressed=true]").inner_text() == "red"
    page.locator("#back").focus()
    assert page.locator("[data-glow]").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("[data-glow]").is_visible()
    phone = visit(width=390, height=844, has_touch=True, is_mobile=True)
    phone.locator(".word").nth(3).tap()
    assert phone.locator("[data-glow]").is_visible()
    phone.locator(".word").nth(3).tap()
    assert not phone.locator("[data-glow]").is_visible()


def test_explanations_open_from_the_overview_and_from_their_headings(visit):
    page = visit(reduced_motion="reduce")  # no smooth scrolling to wait for
    names = ["words", "states", "noise", "unet", "guidance", "scheduler", "vae", "numbers"]
    assert not any(unfolded(page, name) for name in names)
    for name in names:
        box = page.locator(f".box[data-layer={name}]")
        box.click()
        assert unfolded(page, name) and box.get_attribute("aria-expanded") == "true"
        assert page.get_attribute(f"#title-{name}", "aria-expanded") == "true"
    page.focus("#title-words")
    page.keyboard.press("Enter")
    assert not unfolded(page, "words")
    assert page.get_attribute(".box[data-layer=words]", "aria-expanded") == "false"
    page.click("#all")
    assert all(unfolded(page, name) for name in names)
    page.click("#all")
    assert not any(unfolded(page, name) for name in names)


def test_a_row_of_the_table_moves_the_slider(visit):
    page = visit()
    page.click(".box[data-layer=numbers]")
    page.locator("[data-row='2']").click()
    assert at(page) == 2 and page.locator("tr.now td").first.inner_text() == "3"


def test_a_cell_of_the_latents_shows_its_numbers(visit):
    page = visit()
    page.click(".box[data-layer=vae]")
    grid = page.locator("[data-pick='0']")
    grid.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    label = page.inner_text("#cell-0")
    channels = grid.locator("canvas").count()
    assert "row 2, column 2" in label and len(re.findall(r"[+−]\d\.\d\d", label)) == channels == 6
    assert page.locator(".decoder .spot").is_visible()
    grid.locator("canvas").first.hover(position={"x": 2, "y": 2})
    assert "row 1, column 1" in page.inner_text("#cell-0")


def test_two_prompts_are_shown_side_by_side_at_the_same_step(visit):
    page = visit("two")
    screens = page.locator(".screen:not(.small)")
    assert screens.count() == 2
    left, right = (screens.nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    finished = [screens.nth(i).locator("img").get_attribute("src") for i in (0, 1)]
    assert finished[0] != finished[1]
    page.locator("#at").fill("0")
    noise = [screens.nth(i).locator("img").get_attribute("src") for i in (0, 1)]
    assert noise[0] == noise[1]
    assert "a <b>blue</b> house" in page.inner_text("h1") and page.locator("h1 b").count() == 0
    page.locator(".words").nth(1).locator(".word").nth(1).hover()
    assert [page.locator("[data-glow]").nth(i).is_visible() for i in (0, 1)] == [False, True]


@pytest.mark.parametrize("which", ["one", "two"])
def test_a_narrow_phone_has_no_horizontal_scroll(visit, which):
    page = visit(which, width=360, height=740, has_touch=True, is_mobile=True)
    page.locator("#all").tap()
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth, innerWidth]")
    assert wide == [360, 360, 360]
    for name in ("#play", "#back", "#forth", ".kind", ".unfold"):
        box = page.locator(name).first.bounding_box()
        assert box["height"] >= 40, name


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const numbers = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color[3] > 200) return color;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest('svg, script, .tag, .skip, button:disabled') || !element.checkVisibility()) continue;
    const a = light(numbers(getComputedStyle(element).color)), b = light(behind(element));
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 120)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast_in_light_and_dark_mode(visit, scheme):
    page = visit(color_scheme=scheme)
    page.click("#all")
    page.locator("#at").fill("4")
    found = page.evaluate(CONTRAST)
    assert len(found) > 150
    faint = [(ratio, text) for ratio, text in found if ratio < 4.5]
    assert not faint
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60


def test_images_have_descriptions(visit):
    page = visit("two")
    page.locator("#at").fill("1")
    page.click("#all")
    for image in page.locator("img[data-frame]").all():
        assert f"step 2 of {STEPS}" in image.get_attribute("alt")
    for canvas in page.locator("canvas:not([aria-hidden])").all():
        assert canvas.get_attribute("role") == "img" and canvas.get_attribute("aria-label")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button')].filter(b => !b.innerText.trim() && !b.ariaLabel).length"
    )
    assert unnamed == 0


def test_reduced_motion_is_respected(visit):
    page = visit(reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.querySelector('.word i')).transitionDuration") == "0s"
    page.clock.install(time=0)
    page.clock.pause_at(60_000)  # from here on, time passes only when told
    page.click("#play")
    page.clock.run_for(1000)  # half as fast
    assert at(page) == 1


def test_without_javascript_the_image_and_the_text_are_shown(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("img.main").is_visible()
    assert page.locator("img.main").bounding_box()["width"] > 300
    for name in ("words", "states", "unet", "scheduler", "vae", "numbers"):
        assert unfolded(page, name)
    assert not page.locator("#at").is_visible() and not page.locator("#play").is_visible()
    assert not page.get_by_text("at t =").is_visible()


def test_the_command_can_be_copied(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.click("#copy")
    expect(page.locator("#copied")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#command")
    assert page.inner_text("#command").startswith("diffusekit visualise lesson 'a red car on grass'")

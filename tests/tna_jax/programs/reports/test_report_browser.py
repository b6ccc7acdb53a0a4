"""A report in a real browser: no console errors, no requests, tooltips, legend, colours, keyboard, paper. Chromium without a window."""

import json
import shutil
from pathlib import Path

import pytest

from tna_jax.programs.cli.main import main

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path (apt-get install chromium)"),
]
api = pytest.importorskip("playwright.sync_api", reason="no Playwright (pip install playwright)")
pytest.importorskip("plotly")

LMC = Path(__file__).parents[4] / "train" / "results" / "digits_lmc.json"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A report on the committed sweep and on a run with an evil name."""
    folder = tmp_path_factory.mktemp("report")
    evil = folder / "<img src=x onerror=alert(1)>"
    evil.mkdir()
    rounds = [
        {"round": r, "algorithm": a, "accuracy": 0.1 * r} for r in range(5) for a in ("</script><script>alert(1)", "b")
    ]
    (evil / "campaign.json").write_text(json.dumps({"provenance": {}, "rounds": rounds}))
    plane = {"models": [{"name": f"model {i}", "x": x, "y": y, "loss": 1.0} for i, (x, y) in enumerate([(0, 0), (4, 0), (1, 4)])],
             "lengths": [4, 4, 5], "x": [0, 2, 4], "y": [0, 2, 4], "loss": [[1, 2, 1], [2, 3, 4], [1, 4, 9]], "examples": 10,
             "metrics": [{"name": "loss", "label": "loss", "larger_is_better": False, "on_png": True}], "checkpoints": [], "run": {"dataset": "d"}, "network": "net"}  # fmt: skip
    (evil / "landscape.json").write_text(json.dumps({"provenance": {}, **plane}))
    assert main(["report", str(LMC), str(evil), "-o", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as driver:
        software = ["--enable-unsafe-swiftshader", "--use-angle=swiftshader"]  # WebGL without a graphics card
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *software])
        yield started
        started.close()


@pytest.fixture
def page(browser, file, request):
    """The report, drawn; afterwards: nothing on the console, nothing asked of any network, no dialog."""
    options = {"viewport": DESKTOP, **getattr(request, "param", {})}
    context = browser.new_context(**options)
    opened = context.new_page()
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda one: asked.append(one.url))
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-drawn]")
    yield opened
    context.close()
    assert [
        text for text in said if "Canvas2D" not in text
    ] == []  # Chromium's advice on how to draw in three dimensions
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == [file.as_uri()]


def visible(page, plot: str) -> int:
    """The lines with markers that a figure shows."""
    return page.locator(f"{plot} .scatterlayer .trace .points path.point").count()


def test_it_opens_and_draws_every_figure(page):
    assert page.locator("figure .plot .main-svg").count() >= 2 * page.locator("figure").count() > 10
    assert page.locator("h1").inner_text().startswith("2 runs: digits_lmc, <img src=x")


def test_a_tooltip_shows_the_numbers_of_a_curve(page):
    plot = page.locator("#run-1 .plot").first
    plot.scroll_into_view_if_needed()
    point = plot.locator(".scatterlayer .trace .points path.point").nth(2).bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    text = page.locator(".hoverlayer .hovertext").first.text_content()
    assert "mask ratio" in text and "±" in text and "TNA" in text


def test_a_legend_button_hides_and_shows_its_curve(page):
    button = page.locator("#run-1 .legend button").first
    plot = f"#{button.get_attribute('data-figure')}"
    before = visible(page, plot)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert visible(page, plot) < before
    button.press("Enter")  # by keyboard
    assert visible(page, plot) == before


def test_arrow_keys_read_the_values(page):
    plot = page.locator("#run-1 .plot").first
    plot.focus()
    for _ in range(3):
        plot.press("ArrowRight")
    spoken = page.locator("#run-1 .spoken").first
    assert spoken.text_content().startswith("TNA, ends 0.4: 0.99")
    plot.press("ArrowDown")
    assert spoken.text_content().startswith("TNA, midpoint 0.4: 0.98")


def test_a_landscape_turns_by_keyboard_and_pointer_and_lies_flat_again(page):
    button = page.locator("[data-turn]").first
    plot = page.locator(f"#{button.get_attribute('data-figure')}")
    eye = f"document.getElementById('{button.get_attribute('data-figure')}').layout.scene.camera.eye"
    button.click()
    assert button.get_attribute("aria-pressed") == "true" and plot.locator("canvas").count() == 1
    before = page.evaluate(eye)
    plot.press("ArrowRight")
    turned = page.evaluate(eye)
    assert turned["x"] != before["x"] and turned["z"] == before["z"]
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 80, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert page.evaluate(eye)["x"] != turned["x"]
    button.click()
    assert plot.locator("canvas").count() == 0 and plot.locator(".contourlayer").count() > 0


def test_a_figure_and_its_data_are_saved(page, tmp_path):
    for kind, begin in (("svg", "<svg"), ("csv", "curve,")):
        with page.expect_download() as download:
            page.locator(f"[data-save={kind}]").first.click()
        download.value.save_as(tmp_path / kind)
        assert download.value.suggested_filename.endswith(f".{kind}") and (tmp_path / kind).read_text().startswith(
            begin
        )
    assert "TNA" in (tmp_path / "svg").read_text() and "TNA" in (tmp_path / "csv").read_text()  # with its legend


def test_everything_can_be_reached_with_the_tab_key(page):
    seen = set()
    page.locator("body").press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(60):
        seen.add(page.evaluate("document.activeElement.className + document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert {"A", "BUTTON", "SUMMARY", "scrollDIV"} <= seen and any("plot" in name for name in seen)


def test_dark_is_a_button_away_and_follows_the_system(page):
    def colours():
        return page.evaluate("[getComputedStyle(document.body).backgroundColor,"
                             " document.querySelector('#run-1 .scatterlayer path.point').style.fill]")  # fmt: skip

    light = colours()
    page.locator("#theme").click()
    dark = colours()
    assert light[0] == "rgb(255, 255, 255)" and dark[0] == "rgb(21, 23, 26)" and light[1] != dark[1]
    page.locator("#theme").click()
    assert colours() == light


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_a_dark_system_gets_a_dark_page(page):
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert page.locator("#theme").inner_text() == "Light"


@pytest.mark.parametrize("page", [{"viewport": PHONE, "is_mobile": True, "has_touch": True}], indirect=True)
def test_a_phone_scrolls_down_only(page):
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    widths = page.evaluate(
        "[...document.querySelectorAll('.plot svg.main-svg')].map(svg => svg.getBoundingClientRect().right)"
    )
    assert max(widths) <= PHONE["width"]


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_paper_is_white_and_holds_the_figures(page, tmp_path):
    page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_selector("html[data-theme=light]", state="attached")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    widths = page.evaluate("[...document.querySelectorAll('.plot svg.main-svg')].map(svg => svg.clientWidth)")
    assert set(widths) == {310}
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_selector("html:not([data-theme=light])", state="attached")


def test_without_scripts_all_numbers_are_there(browser, file):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(file.as_uri())
    assert "every number is in the tables" in opened.locator("noscript").inner_text()
    assert "0.0093 ± 0.0024" in opened.locator("table").all_inner_texts()[2] + "".join(
        opened.locator("table").all_inner_texts()
    )
    context.close()

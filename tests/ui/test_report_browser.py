"""The pages in the system's Chromium: drawn, readable in light and dark, and nothing leaves them."""

from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
KINDS = ("dataset", "model", "map", "run")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser():
    """One browser for all pages."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(kind, scheme) for kind in KINDS for scheme in ("light", "dark")], ids="-".join)
def opened(request, browser, pages):
    """A page, opened offline; `.asked` are the requests and `.said` the messages that it made."""
    kind, scheme = request.param
    context = browser.new_context(color_scheme=scheme, offline=True, viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.asked, tab.said, tab.kind = [], [], kind
    tab.on("request", lambda asked: tab.asked.append(asked.url))
    tab.on("console", lambda said: tab.said.append(said.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.goto(pages[kind].as_uri())
    yield tab
    context.close()


def test_nothing_is_asked_but_the_file_itself_and_nothing_complains(opened, pages):
    assert {url for url in opened.asked if not url.startswith("data:")} == {pages[opened.kind].as_uri()}
    assert opened.said == []


def test_every_picture_is_drawn_has_words_and_is_not_blank(opened):
    pictures = opened.evaluate(
        """() => [...document.images].map(one => {
            const canvas = Object.assign(document.createElement('canvas'), {width: one.naturalWidth, height: one.naturalHeight});
            const context = canvas.getContext('2d');
            context.drawImage(one, 0, 0);
            const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return [one.complete && one.naturalWidth > 0 && one.clientWidth > 30, one.alt, pixels.some((value, i) => i % 4 === 3 && value > 0)];
        })"""
    )
    assert all(drawn and alt and seen for drawn, alt, seen in pictures)
    assert bool(pictures) == (opened.kind in ("dataset", "map"))


def test_every_section_has_content_and_is_reached_by_its_link(opened):
    sections = opened.evaluate(
        "() => [...document.querySelectorAll('section')].map(one => [one.id, one.querySelectorAll('table,svg,img,.facts,.empty').length])"
    )
    links = opened.evaluate(
        "() => [...document.querySelectorAll('nav a')].map(one => one.getAttribute('href'))"
    )
    assert len(sections) >= 4
    assert all(blocks for _, blocks in sections)
    assert links == [f"#{name}" for name, _ in sections]


def test_charts_keep_their_texts_inside(opened):
    outside = opened.evaluate(
        """() => [...document.querySelectorAll('svg')].flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const box = text.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 2 || box.bottom > frame.bottom + 2;
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []


def test_text_stands_out_from_its_ground(opened):
    ratio = opened.evaluate(
        """() => {
            const light = css => {
                const parts = css.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            const ground = light(getComputedStyle(document.querySelector('section')).backgroundColor);
            const inks = ['h2', '.lead,.empty', 'nav a'].map(name => document.querySelector(name))
                .map(node => light(getComputedStyle(node).color));
            return Math.min(...inks.map(ink => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)));
        }"""
    )
    assert ratio >= 4.5, "WCAG AA"


@pytest.mark.parametrize("width", [390, 1200])
def test_no_page_is_wider_than_its_window(browser, pages, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
    tab = context.new_page()
    for kind in KINDS:
        tab.goto(pages[kind].as_uri())
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= width, kind
    context.close()

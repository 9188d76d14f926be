"""The report is complete, safe and readable, also in a real browser."""

import dataclasses
import html.parser
import http.server
import re
import threading

import matplotlib.pyplot as plt
import pytest

from cnn_jax import plots
from cnn_jax.names import ConfigError
from cnn_jax.report import page as report
from tests import browser
from tests.needs import needs

PHONE, DESK = 390, 1280


@pytest.fixture
def figure(tmp_path):
    """A figure of the largest width in use."""
    drawing, panel = plt.subplots(figsize=(9, 3.6))
    panel.plot([0, 1], [0, 1])
    plots.save(drawing, tmp_path, "line")
    return report.Figure("line", 'A line & "more"', "It goes up.")


@pytest.fixture
def page(figure):
    """A report with one of everything, some of it very long."""
    wide = report.Table(
        "Mean ± std of 3 seeds.",
        ("net", *(f"a column of number {n}" for n in range(12))),
        [("plain-56", *("12.345 ± 0.678",) * 12)] * 3,
    )
    first = report.Section(
        title="Whether <this> is <b>escaped</b>",
        question="Is it?",
        method="By " + "averylongwordwithoutabreak" * 12,
        sources=[report.Source("He et al. (2015)", "https://arxiv.org/abs/1512.03385")],
        figures=[figure],
        tables=[wide],
        findings=[
            report.Finding("Residual is below plain.", True, "1.0 against 2.0"),
            report.Finding("Deeper is better.", False, "3.0 against 2.0"),
            report.Finding("So it is everywhere.", None, "2.0 against 2.1"),
        ],
        remark="Small nets.",
    )
    second = report.Section("Another", "And this?", "Otherwise.")
    return report.Report(
        title="Why it works",
        introduction=["One paragraph.", "Another."],
        facts={"nets": "plain and residual", "seeds": "0, 1, 2"},
        sections={"first": first, "second": second},
        configs={"study": {"name": "digits", "depths": [8, 20], "x": "</pre><b>"}},
    )


class Reader(html.parser.HTMLParser):
    """The parts of a page, and whether its tags nest."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], []):
            self.text.append(data)


def test_the_page_says_everything_and_its_tags_nest(page, tmp_path):
    read = Reader(report.render(page, tmp_path))
    text = " ".join(" ".join(read.text).split())
    for words in (
        *("Why it works", "One paragraph.", "plain and residual", "Is it?"),
        *("Whether <this> is <b>escaped</b>", "He et al. (2015)", "It goes up."),
        *("12.345 ± 0.678", "Mean ± std of 3 seeds.", "Small nets."),
        *("Residual is below plain. Yes. 1.0 against 2.0", '"x": "</pre><b>"'),
        "Deeper is better. No. 3.0 against 2.0",
        "So it is everywhere. Undecided. 2.0 against 2.1",
    ):
        assert words in text
    assert "b" not in read.tags  # nothing of the text became a tag
    assert ("alt", 'A line & "more"') in read.attributes
    assert read.tags.count("section") == 3


def test_the_same_report_gives_the_same_page(page, tmp_path):
    assert report.render(page, tmp_path) == report.render(page, tmp_path)


def test_the_page_needs_nothing_from_elsewhere(page, tmp_path):
    read = Reader(report.render(page, tmp_path))
    assert not {"script", "link", "iframe", "object", "base"} & set(read.tags)
    sources = [value for name, value in read.attributes if name in ("src", "srcset")]
    assert sources
    assert all(value.startswith("data:image/") for value in sources)
    assert "url(" not in report.render(page, tmp_path)
    assert "@import" not in report.render(page, tmp_path)
    policies = [value for name, value in read.attributes if name == "content"]
    assert any(value.startswith("default-src 'none'") for value in policies)


def test_a_large_drawing_goes_in_as_pixels(figure, tmp_path, monkeypatch):
    assert figure.source(tmp_path).startswith("data:image/svg+xml;base64,")
    monkeypatch.setattr(report, "LARGEST_SVG", 10)
    again = report.Figure(figure.name, "", "")
    assert again.source(tmp_path).startswith("data:image/png;base64,iVBOR")


def test_a_missing_figure_is_named(figure, tmp_path):
    (tmp_path / "line.png").unlink()
    with pytest.raises(ConfigError, match=r"needs .*line\.png, which does not exist"):
        figure.source(tmp_path)


def luminance(color):
    """Relative luminance (WCAG 2.2) of '#rrggbb'."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_stands_out_in_both_themes(page, tmp_path):
    """A contrast of 4.5 or more (WCAG 2.2, AA) of all text colours."""
    blocks = re.findall(r":root \{(.*?)\}", report.render(page, tmp_path), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colors = dict(re.findall(r"--(\w+): (#\w{6});", block))
        for text in ("text", "quiet", "link", "yes", "no"):
            for ground in ("page", "panel"):
                light, dark = sorted(
                    (luminance(colors[text]), luminance(colors[ground])), reverse=True
                )
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground, colors)


@needs("a browser")
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_layout_in_a_real_browser(page, width, tmp_path):
    found = browser.measure(report.render(page, tmp_path), width, tmp_path)
    assert found["width"] == width
    assert found["needed"] <= width
    assert not found["sticking_out"]
    [image] = found["images"]
    assert image["natural"] > 0
    assert image["width"] > 0.9 * min(width, 600)
    # 9 by 3.6 inches, as drawn
    assert image["width"] / image["height"] == pytest.approx(9 / 3.6, rel=0.02)
    assert found["smallest_text"] >= 12
    assert not found["requests"]
    assert not found["dangling"]
    assert found["headings"][0] == "Why it works"
    for box in found["boxes"]:
        assert box["scrolls"] == "auto"
        assert box["width"] <= width
    assert found["hints"] == (1 if width == PHONE else 0)
    if width == PHONE:  # wide figures and tables scroll within themselves
        assert all(box["content"] > box["width"] for box in found["boxes"])


@needs("a browser")
def test_the_browser_is_forbidden_every_request(page, tmp_path):
    """The policy holds even for an image that was injected into the page."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/picture.png"
        smuggled = report.render(page, tmp_path).replace(
            "</main>", f'<img src="{address}" alt=""></main>'
        )
        for name, text in (
            ("policy", smuggled),
            ("none", re.sub(r"<meta http-equiv=.*?>", "", smuggled)),
        ):
            path = tmp_path / f"{name}.html"
            path.write_text(text)
            browser.run(path, tmp_path / f"profile-{name}", "--dump-dom")
            assert asked == ([] if name == "policy" else ["/picture.png"])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_section_that_failed_is_shown_so(page, tmp_path):
    failed = report.Section("lesions", failure="ValueError: <so>")
    page = dataclasses.replace(page, sections={"lesions": failed, **page.sections})
    text = " ".join(" ".join(Reader(report.render(page, tmp_path)).text).split())
    assert "1. lesions This section failed. ValueError: <so>" in text
    assert "It goes up." in text


def test_an_undecided_claim_has_no_frame_around_its_text(page, tmp_path):
    rules = re.findall(
        r"\.findings \.undecided \{(.*?)\}", report.render(page, tmp_path)
    )
    assert rules == [" border-left-style: dashed; "]

"""A headless browser for tests of pages."""

import html
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

from tests.needs import BROWSERS

FOUND = next(filter(None, map(shutil.which, BROWSERS)), None)

# The page under test is in a frame as wide as the requested screen; a browser window
# cannot be made as narrow as a phone.
FRAME = """<!doctype html><meta charset="utf-8"><pre id="found">nothing</pre>
<iframe id="page" style="border:0;width:{width}px;height:800px"
  srcdoc="{page}"></iframe>
<script>
const frame = document.getElementById("page");
frame.addEventListener("load", async () => {{
  const inner = frame.contentWindow, page = frame.contentDocument;
  await Promise.all([...page.images].map(image => image.decode().catch(() => 0)));
  const box = element => element.getBoundingClientRect();
  const inside = element => element.closest(".scroll, pre");
  document.getElementById("found").textContent = JSON.stringify({{
    width: inner.innerWidth,
    needed: page.documentElement.scrollWidth,
    sticking_out: [...page.body.querySelectorAll("*")]
      .filter(element => !inside(element))
      .filter(element => box(element).right > inner.innerWidth + 0.5)
      .map(element => element.outerHTML.slice(0, 80)),
    images: [...page.images].map(image => ({{
      alt: image.alt, natural: image.naturalWidth,
      width: box(image).width, height: box(image).height,
    }})),
    hints: [...page.querySelectorAll(".hint")].filter(
      hint => getComputedStyle(hint).display != "none").length,
    boxes: [...page.querySelectorAll(".scroll")].map(element => ({{
      width: box(element).width, content: element.scrollWidth,
      scrolls: getComputedStyle(element).overflowX,
    }})),
    smallest_text: Math.min(...[...page.body.querySelectorAll("*")]
      .filter(element => element.innerText)
      .map(element => parseFloat(getComputedStyle(element).fontSize))),
    requests: inner.performance.getEntriesByType("resource")
      .map(entry => entry.name).filter(name => !name.startsWith("data:")),
    headings: [...page.querySelectorAll("h1, h2")].map(element => element.innerText),
    dangling: [...page.querySelectorAll('a[href^="#"]')]
      .map(link => link.getAttribute("href").slice(1))
      .filter(name => !page.getElementById(name)),
  }});
}});
</script>
"""


def run(page: pathlib.Path, profile: pathlib.Path, *flags: str) -> str:
    """Open a page offline and return the browser's output."""
    quiet = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"),
        *(f"--user-data-dir={profile}", "--virtual-time-budget=10000"),
    )
    assert FOUND is not None
    done = subprocess.run(
        [FOUND, *quiet, *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def measure(page: str, width: int, directory: pathlib.Path) -> dict[str, Any]:
    """Lay a page out on a screen of ``width`` pixels and measure it."""
    frame = directory / f"frame{width}.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page)))
    printed = run(frame, directory / f"profile{width}", "--dump-dom")
    found = re.search(r'<pre id="found">(.*?)</pre>', printed, re.DOTALL)
    assert found, printed[:500]
    return json.loads(html.unescape(found.group(1)))

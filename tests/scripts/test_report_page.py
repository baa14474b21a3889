"""The page of a report, in a browser: it sorts, it needs no network, and nothing in it comes alive."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import summarise
from tests.scripts.browser import BROWSER, looked_at
from tests.training.sweeps.helpers import written_run

HOSTILE = "<img src=x onerror=alert(1)> \"quoted\" & <script>document.title='taken'</script>"
in_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here, and .ci/run could not install it")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    runs = folder / "runs"
    for name, scores in {"a": [-0.5, 0.1, 0.2], "b": [-0.4, 0.9, 1.0], "c": [-0.6, 0.3, 0.4]}.items():
        steps = f"steps={['a', 'b', 'c'].index(name) + 9}"  # 9, 10, 11: in the order of numbers, not of letters
        for environment in ("pendulum", "hopper"):
            own: dict[int, Sequence[float]] = {seed: [score + 0.01 * seed for score in scores] for seed in range(5)}
            written_run(runs / f"{name}_{environment}", own, steps, f"env={environment}")
    written_run(runs / HOSTILE.replace("/", ""), {0: [0.5]}, "env=hopper", state="failed", error=HOSTILE)
    assert summarise.main([str(runs), "--output", str(folder / "report")]) == 0
    return folder / "report.html"


def test_what_the_file_says_without_a_browser(page: Path) -> None:
    text = page.read_text()
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<]+", text))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, which nobody fetches
    assert "<button" not in text  # without the script there is nothing to click
    assert text.count("<svg role") == 4  # curves in two environments, a profile and the efficiency over both
    # seeds 0 to 4 of a: 0.2 to 0.24, of which the inner three have the mean 0.22
    assert '<tr><td>SAC pendulum steps=9</td><td class="number">5</td><td class="number">0.220</td>' in text
    assert "<img" not in text
    assert text.count("<script") == 1


def test_the_same_runs_make_the_same_page(page: Path, tmp_path: Path) -> None:
    before = page.read_bytes()
    assert summarise.main([str(page.parent / "runs"), "--output", str(page.with_suffix(""))]) == 0
    assert page.read_bytes() == before


@in_browser
def test_tables_sort_by_a_click(page: Path) -> None:
    script = """
      const table = page.querySelector("table");
      const order = () => Array.from(table.tBodies[0].rows, (row) => row.cells[0].textContent);
      const found = [order()];
      for (const name of ["mean", "mean", "95% interval", "runs", "runs"]) {
        const titles = Array.from(table.tHead.rows[0].cells);
        titles.find((title) => title.textContent === name).querySelector("button").click();
        found.push([...order(), titles.map((title) => title.getAttribute("aria-sort")).join(" ").trim()]);
      }
      return found;
    """
    written, *clicked = looked_at(page, script)
    directions = [order.pop() for order in clicked]
    assert directions == ["ascending", "descending", "ascending", "ascending", "descending"]
    assert all(sorted(order) == sorted(written) for order in clicked)
    steps = [[int(name.split("=")[1]) for name in order] for order in clicked]
    unknown = 1000000  # of the run that failed, which has no mean: last, however one sorts
    assert steps[0] == steps[2] == [9, 9, 11, 11, 10, 10, unknown]  # 0.2, 0.4, 1.0 in both environments
    assert steps[1] == [10, 10, 11, 11, 9, 9, unknown]
    assert steps[3] == [9, 10, 11, unknown, 9, 10, 11]  # by the name, numbers as numbers: Hopper, then Pendulum
    assert clicked[4] == clicked[3][::-1]


@in_browser
def test_nothing_is_fetched_and_nothing_of_others_runs(page: Path) -> None:
    script = """
      return {
        title: page.title,
        fetched: view.performance.getEntriesByType("resource").map((entry) => entry.name),
        elements: page.querySelectorAll("img, iframe, object, link, script[src]").length,
        text: page.body.textContent,
        drawn: Array.from(page.querySelectorAll("figure > svg"), (picture) => picture.getBoundingClientRect().height),
      };
    """
    said = looked_at(page, script)
    assert (said["title"], said["fetched"], said["elements"]) == ("Report", [], 0)
    assert HOSTILE in said["text"]  # as text, in the list of what is left out
    assert len(said["drawn"]) == 4
    assert min(said["drawn"]) > 100  # pixels


@in_browser
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_colours_can_be_told_from_the_paper(page: Path, scheme: int) -> None:
    """The contrast that WCAG 2.1 asks for: 7 for text (AAA), 3 for what is drawn."""
    script = """
      const style = (element) => view.getComputedStyle(element);
      const probe = page.querySelector(".swatch line");
      const lines = Array.from({ length: 8 }, (_, number) => {
        probe.setAttribute("stroke", `var(--curve-${number})`);
        return style(probe).stroke;
      });
      const pictured = style(page.querySelector("figure > svg text")).fill;
      return { paper: style(page.body).backgroundColor, text: [style(page.body).color, pictured], lines };
    """
    said = looked_at(page, script, f"--blink-settings=preferredColorScheme={scheme}")
    paper = luminance(said["paper"])
    assert (paper < 0.5) == (scheme == 0)
    assert min(contrast(luminance(colour), paper) for colour in said["text"]) > 7
    assert min(contrast(luminance(colour), paper) for colour in said["lines"]) > 3
    assert len(set(said["lines"])) == 8


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(...)`: https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    values = [int(value) / 255 for value in re.findall(r"\d+", colour)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: float, second: float) -> float:
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)

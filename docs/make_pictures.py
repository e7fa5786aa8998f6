"""Makes the pictures of the README from a scan of SmolLM2: `python docs/make_pictures.py [report.json]`.

Not here: anything that is drawn for show. The page and the tables are those that the commands write; without a report
SmolLM2 is scanned first. Needs chromium and its driver (see tests/browser.py).
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, chromium, missing  # noqa: E402

from srdd.analysis.bundle import Bundle, View  # noqa: E402
from srdd.documents.report import Report  # noqa: E402
from srdd.exporters.report.html import render  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 300_000
WIDTH = 1200


def main() -> None:
    if lacking := missing():
        sys.exit(lacking)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = Report.load(sys.argv[1] if len(sys.argv) > 1 else scan(folder))
        page = folder / "page.html"
        page.write_text(render(Bundle(report), View()), encoding="utf-8")
        tables = folder / "terminal.html"
        tables.write_text(terminal(report), encoding="utf-8")
        with chromium(folder / "profile") as browser:
            browser.open(page, WIDTH, 1000)
            browser.screenshot(PICTURES / "page.png", WIDTH, 1000)
            figure(browser, "profile")
            figure(browser, "heatmap")
            browser.open(tables, 1100)
            height = browser.js("return Math.ceil(document.querySelector('svg').getBoundingClientRect().bottom)")
            browser.screenshot(PICTURES / "terminal.png", 1100, height)
    for picture in sorted(PICTURES.glob("*.png")):
        small = palette(picture)
        print(f"{picture.relative_to(ROOT)}: {small / 1000:.0f} kB")
        if small > MOST_BYTES:
            sys.exit(f"{picture.name} is larger than {MOST_BYTES / 1000:.0f} kB")


def scan(folder: Path) -> Path:
    from srdd.cli.app import main as srdd

    out = folder / "report.json"
    if srdd(["scan", "smollm2", "--out", str(out)]) != 0:
        sys.exit("the scan failed")
    return out


def figure(browser: Browser, name: str) -> None:
    """The section of one figure, as wide as the page."""
    browser.size(WIDTH, 900)
    browser.show_figure(name)
    browser.js("document.getElementById('controls').style.display = 'none'")
    height = browser.js(f"return Math.ceil(document.getElementById('{name}').getBoundingClientRect().height)")
    browser.js("document.documentElement.style.scrollPaddingTop = '0'")
    browser.js(f"document.getElementById('{name}').scrollIntoView({{block: 'start', behavior: 'instant'}})")
    browser.screenshot(PICTURES / f"{name}.png", WIDTH, height + 10)


def terminal(report: Report) -> str:
    """The first screen, as rich draws it."""
    from rich.console import Console

    from srdd.exporters.terminal import screen

    console = Console(record=True, width=80, file=open("/dev/null", "w"), force_terminal=True, highlight=False)  # noqa: SIM115
    screen.show(console, report)
    svg = console.export_svg(title="srdd scan smollm2", code_format=_FORMAT)
    return f'<!doctype html><meta charset="utf-8"><body style="margin:0">{svg}'


def palette(picture: Path) -> int:
    """256 colours are enough for lines and text and take a third of the bytes."""
    from PIL import Image

    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)
    return picture.stat().st_size


# rich's own frame without the web font it would load
_FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>"""

if __name__ == "__main__":
    main()

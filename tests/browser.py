"""A real browser for tests and for the pictures of the README: headless Chromium with what it asked for and said."""

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --disable-dev-shm-usage"
)


def missing() -> str:
    """What this machine lacks, with the remedy; empty when nothing."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)}: apt-get install chromium chromium-driver" if lacking else ""


def required() -> bool:
    """CI must not pass for want of a browser."""
    return os.environ.get("CI") == "true"


class Browser:
    """One window. `open` forgets what earlier pages asked for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1400, height: int = 900, *, dark: bool = False) -> float:
        """Open a file, wait until its figures can be drawn, return the seconds the browser took."""
        self.size(width, height)
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(path.as_uri())
        return float(self.js("return performance.getEntriesByType('navigation')[0].duration")) / 1000

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def js(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def wait(self, condition: str, seconds: float = 15) -> Any:
        """Until a JavaScript expression is true; AssertionError when it never is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.js(f"return {condition}"):
                return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {condition}")

    def show_figure(self, name: str) -> None:
        """Scroll to a figure, which is drawn then."""
        self.js(f"document.getElementById('figure-{name}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
        self.wait(f"document.querySelector('#figure-{name} .main-svg, #figure-{name} p')")

    def complaints(self) -> list[str]:
        """Console messages above information, and requests for anything but the file itself and data inside it."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        own = self.driver.current_url
        return said + [f"request: {url}" for url in asked if url != own and not url.startswith(("data:", "blob:"))]

    def screenshot(self, path: Path, width: int, height: int | None = None) -> None:
        """The window, or the whole page when no height is given."""
        self.size(width, height or 900)
        time.sleep(0.3)
        if height is None:
            for _ in range(2):  # figures drawn on the way make the page longer
                self.size(width, self.js("return document.documentElement.scrollHeight"))
                time.sleep(0.8)
        picture = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile folder, closed at the end."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in [*_FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()

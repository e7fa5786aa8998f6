"""The page in a real browser: it opens without a word on the console and without a request, and every control works."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser, chromium, missing, required
from builders import make_report, tally
from hostile import NAMES, hostile_report, impact_document, noise_documents
from priced_reports import PRICED

from srdd.analysis.bundle import Bundle, View, gather
from srdd.core.metrics import significant
from srdd.documents.report import Report, in_order
from srdd.documents.schema import Site, measurement
from srdd.exporters.report.html import render

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    lacking = missing()
    if lacking and required():
        pytest.fail(f"CI needs a browser; {lacking}")
    if lacking:
        pytest.skip(lacking)
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="module")
def smollm2_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    from srdd.cli.app import main

    folder = tmp_path_factory.mktemp("page")
    words = ["scan", "--model", "smollm2", "--quant", "mxfp4,nvfp4,mxfp8", "--samples", "2", "--seq-len", "128"]
    assert main([*words, "--out", str(folder / "report.json")]) == 0
    bundle = gather(folder / "report.json")
    page = folder / "page.html"
    page.write_text(render(bundle, View()), encoding="utf-8")
    return page, bundle.report


def point(browser: Browser, figure: str, selector: str) -> None:
    """Put the mouse on a mark of a figure."""
    from selenium.webdriver import ActionChains

    browser.show_figure(figure)
    mark = browser.wait(f"document.querySelector('#figure-{figure} {selector}')")
    ActionChains(browser.driver).move_to_element(mark).perform()


def click(browser: Browser) -> None:
    from selenium.webdriver import ActionChains

    time.sleep(0.2)  # Plotly ignores a click before it has seen the hover
    ActionChains(browser.driver).click().perform()


@pytest.mark.model
def test_smollm2(browser: Browser, smollm2_page: tuple[Path, Report], tmp_path: Path) -> None:
    page, _ = smollm2_page
    assert page.stat().st_size <= 6_000_000
    assert min(browser.open(page) for _ in range(5)) < 2, "the machine may be busy; the quickest of five counts"
    for figure in ("profile", "heatmap", "scatter", "noise", "tradeoff", "multipliers"):
        browser.show_figure(figure)
        browser.wait(f"document.querySelector('#figure-{figure} .main-svg')")
    point(browser, "profile", ".scatterlayer .point")
    assert "mxfp4:even" in browser.wait("document.querySelector('#figure-profile .hoverlayer').textContent")
    click(browser)
    title = browser.wait("document.querySelector('dialog[open] h2')?.textContent")
    assert title.startswith("Layer ")
    browser.find("dialog .head button").click()
    browser.size(1400, 900)
    assert browser.complaints() == []
    for width in (1400, 390):
        browser.open(page, width)
        browser.screenshot(tmp_path / f"{width}.png", width)
        assert (tmp_path / f"{width}.png").stat().st_size > 50_000
        assert browser.js("return document.documentElement.scrollWidth") == width, "nothing sticks out sideways"
    assert browser.complaints() == []


@pytest.mark.model
def test_numbers_on_the_page_are_the_reports(browser: Browser, smollm2_page: tuple[Path, Report]) -> None:
    """The worst layers, and a module's full tally, as a reader sees them."""
    page, report = smollm2_page
    browser.open(page)
    layers = {row.layer: row.formats["mxfp4:even"] for row in report.layers if row.kind == "output"}
    rows = browser.js(
        "return [...document.querySelectorAll('#worst tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert len(rows) == 10
    assert report.costs is not None
    costs = {r.layer: r.predicted_kl for r in report.costs.layers if (r.format, r.mode) == ("mxfp4:even", "both")}
    dearest = sorted(costs, key=lambda layer: -costs[layer].value)
    assert [int(row[0]) for row in rows] == dearest[:10]
    for row in rows:
        measured, cost = layers[int(row[0])], costs[int(row[0])]
        assert row[1] == significant(cost.value, cost.error)
        assert row[2] == f"{100 * measured.value('relative_error'):.2f} ± {100 * measured.error('relative_error'):.2f}"
        assert row[3] == f"{measured.value('sqnr_db'):.2f} ± {measured.error('sqnr_db'):.2f}"
    site = next(s for s in report.sites if s.role == "v_proj" and s.layer == 3 and s.kind == "weight")
    browser.js("openSite(arguments[0])", report.sites.index(site))
    sums = browser.js(
        "const rows = [...document.querySelectorAll('#tally tbody tr')];"
        "return rows.map(r => [...r.cells].slice(0, 2).map(c => c.innerText))"
    )
    tally_of = site.formats["mxfp4:even"].merged()
    assert {name: float(text) for name, text in sums} == {name: getattr(tally_of, name) for name, _ in sums}
    assert len(sums) == len(report.tally_fields)


@pytest.mark.model
def test_filter_sort_theme_and_keys(browser: Browser, smollm2_page: tuple[Path, Report]) -> None:
    from selenium.webdriver.common.keys import Keys

    page, report = smollm2_page
    browser.open(page)
    browser.find("#filter").send_keys("v_proj layer=7")
    browser.wait("document.querySelector('#count').textContent.startsWith('1 of 362')")
    assert "layers.7.self_attn.v_proj" in browser.find("#sites tbody").text
    browser.find("#filter").clear()
    browser.find("#filter").send_keys("weight")
    heading = "document.querySelector('#sites th[aria-sort=\"descending\"]')"
    assert browser.js(f"return {heading}.textContent") == "predicted_kl ▼"
    shown = (
        "const keys = [...document.querySelectorAll('#sites th')].map(h => h.querySelector('button')?.dataset.key);"
        "const place = keys.indexOf(arguments[0]);"
        "return [...document.querySelectorAll('#sites tbody tr')].map(r => parseFloat(r.cells[place].textContent))"
    )
    assert report.costs is not None
    linears = [r for r in report.costs.linears if r.format == "mxfp4:even"]
    assert browser.js(shown, "predicted_kl")[0] == pytest.approx(
        max(row.predicted_kl["both"].value for row in linears), rel=0.01
    )
    values = [s.formats["mxfp4:even"].value("relative_error") for s in report.sites if s.kind == "weight"]
    browser.find('#sites button[data-key="relative_error"]').send_keys(Keys.ENTER)
    assert browser.js(shown, "relative_error") == [round(100 * value, 2) for value in sorted(values, reverse=True)[:50]]
    browser.find('#sites button[data-key="relative_error"]').send_keys(Keys.ENTER)
    assert browser.js(shown, "relative_error")[0] == round(100 * min(values), 2)
    assert browser.js("return document.activeElement.dataset.key") == "relative_error", "the focus stays"
    browser.find("#sites tbody button").send_keys(Keys.ENTER)
    assert browser.js("return document.getElementById('detail').open")
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.js("return document.getElementById('detail').open")
    browser.show_figure("profile")
    before = browser.js("return getComputedStyle(document.body).backgroundColor")
    browser.find("#theme").click()
    assert browser.js("return getComputedStyle(document.body).backgroundColor") != before
    browser.js("document.getElementById('format').value = 'nvfp4:nvidia'")
    browser.js("document.getElementById('format').dispatchEvent(new Event('change'))")
    assert "nvfp4:nvidia" in browser.find("#verdict").text
    assert browser.complaints() == []


@pytest.mark.model
def test_a_cell_of_the_heatmap_opens_its_tally(browser: Browser, smollm2_page: tuple[Path, Report]) -> None:
    browser.open(smollm2_page[0])
    point(browser, "heatmap", ".heatmaplayer image")
    assert "layer 1" in browser.wait("document.querySelector('#figure-heatmap .hoverlayer').textContent")
    click(browser)
    assert "sum_e2_deadzone" in browser.wait("document.querySelector('dialog[open] #tally')?.textContent")
    assert browser.complaints() == []


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    report = hostile_report()
    page = tmp_path / "hostile.html"
    probe, experiment = noise_documents(report.model, NAMES)
    costs = impact_document(report.model, NAMES)
    bundle = Bundle(report, costs, baseline=report, probe=probe, experiment=experiment)
    page.write_text(render(bundle, View(title="</title><script>window.pwned=4</script>")), "utf-8")
    for width in (1400, 390):
        browser.open(page, width)
        for figure in browser.js("return figures.map((entry) => entry.plot.id.slice('figure-'.length))"):
            browser.show_figure(figure)
        for control in ("kind", "format", "metric", "heatmap-kind", "probe-measure", "probe-shape"):
            count = browser.js(f"return document.getElementById('{control}').options.length")
            for index in range(count):
                browser.js(f"const s = document.getElementById('{control}'); s.selectedIndex = {index};"
                           "s.dispatchEvent(new Event('change'))")  # fmt: skip
        browser.js("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
        for site in range(len(report.sites)):
            browser.js("openSite(arguments[0])", site)
        browser.js("openCell(0); openLayer('weight', 3); document.getElementById('detail').close()")
        browser.js("figures.filter((e) => e.made && e.made.keys).forEach((e) => highlight(e, [0, 0]))")
        time.sleep(0.3)
        assert browser.js("return window.pwned") is None
        strange = "main img, dialog img, main a:not([href^='#']), dialog a, b, u"
        assert browser.js("return document.querySelectorAll(arguments[0]).length", strange) == 0
        assert browser.js("return document.querySelectorAll('svg a').length") == 0
        assert browser.js("return getComputedStyle(document.body).display") == "block"
        assert browser.js("return document.documentElement.scrollWidth") == width, "a long name does not widen the page"
        assert browser.complaints() == []
    assert browser.js("return document.title") == "</title><script>window.pwned=4</script>"
    browser.show_figure("heatmap")
    assert browser.js("return document.getElementById('figure-heatmap').data[0].z.length") == len(set(NAMES))
    assert browser.js("return page.sites.name") == [site.name for site in report.sites]


def beside(folder: Path) -> Path:
    """A page with a probe, an experiment and costs beside a report of six layers, which it holds."""
    path = folder / "report.json"
    rows = [[tally(0.2 + 0.01 * i, 1.0 + i)] * 2 for i in range(6)]
    report = make_report({"weight": [[row[0]] for row in rows], "output": rows})
    report.save(path)
    probe, experiment = noise_documents(report.model)
    bundle = replace(gather(path), impact=impact_document(report.model), probe=probe, experiment=experiment)
    page = folder / "beside.html"
    page.write_text(render(bundle, View()), encoding="utf-8")
    return page


def test_noise_and_costs_are_shown(browser: Browser, tmp_path: Path) -> None:
    browser.open(beside(tmp_path))
    for figure in ("impact", "probe", "experiment"):
        browser.show_figure(figure)
    data = "document.getElementById('figure-probe').data"
    assert browser.js(f"return {data}.map((trace) => trace.name)") == [
        "w16a16, guided", "w4a4, guided", "w16a16", "w4a4", "w4a4: collapsed",
    ]  # fmt: skip
    assert browser.js(f"return {data}[2].y") == pytest.approx([3, 3.2, 3.3, 3.5])
    assert browser.js(f"return [{data}[4].x[0], {data}[4].yaxis]") == [0.04, "y2"], "a cross at the top"
    shapes = browser.js("return document.getElementById('figure-probe').layout.shapes.map((s) => [s.type, s.x0, s.x1])")
    assert shapes == [["rect", 0.02, 0.03], ["line", 0.025, 0.025]], "the band lies where the data does"
    band, at = browser.js(
        "const r = (node) => { const b = node.getBoundingClientRect(); return b.left + b.width / 2; };"
        "const plot = document.querySelector('#figure-probe');"
        "return [r(plot.querySelectorAll('.shapelayer path')[1]),"
        "r(plot.querySelectorAll('.scatterlayer .trace')[2].querySelectorAll('.point')[2])];"
    )
    assert 0 < band - at < 200, "0.025 is right of 0.02 on the same logarithmic axis"
    rows = "return [...document.querySelectorAll('%s tbody tr')].map((r) => [...r.cells].map((c) => c.innerText))"
    assert browser.js(rows % "#breaks")[0] == ["w16a16", "w16a16", "global", "0.025", "0.02 to 0.03", "25.0", "w4a4"]
    assert browser.js(rows % "#comparisons")[0][1:5] == ["+0.0500", "-0.1000 to +0.2000", "+0.50", "0.031"]
    assert browser.js(rows % "#impact .long[aria-label^=Linears]")[0][1:5] == [
        "25.0 ± 1.0",
        "25.0 ± 1.0",
        "25.0 ± 1.0",
        "-0.12",
    ]
    assert browser.js("return document.querySelector('#noise-verdict').textContent") == "w4a4."
    assert len(browser.js("return document.getElementById('figure-experiment').data")) == 5, "3 seeds, mean, collapse"
    choice = "document.getElementById('probe-measure')"
    browser.js(f"{choice}.value = 'agreement'; {choice}.dispatchEvent(new Event('change'))")
    browser.wait(f"{data}[2].y[0] === 100")
    assert browser.complaints() == []


def test_the_report_is_unpacked_byte_by_byte(browser: Browser, tmp_path: Path) -> None:
    browser.open(beside(tmp_path))
    text = browser.driver.execute_async_script(
        "const done = arguments[0];"
        "unpackedReport().then((blob) => blob.text()).then(done, (problem) => done(String(problem)));"
    )
    assert text == (tmp_path / "report.json").read_text(encoding="utf-8")
    browser.js("window.saved = []; window.save = (blob, name) => window.saved.push(name)")
    browser.find("#download-report").click()
    browser.find("#download").click()
    browser.wait("window.saved.length === 2")
    assert sorted(browser.js("return window.saved")) == ["srdd-page.json", "srdd-report.json"]
    assert browser.complaints() == []
    page = tmp_path / "memory.html"
    page.write_text(render(Bundle(Report.load(tmp_path / "report.json")), View()), encoding="utf-8")
    browser.open(page)
    button = browser.find("#download-report")
    assert button.get_attribute("aria-disabled") == "true"
    assert button.get_attribute("title") == "The report is not inside: the page was made from a report in memory"


def test_figures_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(beside(tmp_path))
    names = browser.js("return figures.map((entry) => entry.plot.id.slice('figure-'.length))")
    assert len(names) == 9
    for name in names:
        browser.show_figure(name)
        plot = browser.find(f"#figure-{name}")
        found = browser.js("const n = arguments[0]; return [n.tabIndex, n.getAttribute('role')]", plot)
        assert found == [0, "img"], name
        assert len(plot.get_attribute("aria-label")) > 50, name
        assert browser.js("return !figures.find((e) => e.plot === arguments[0]).details.hidden", plot), name
    label = browser.find("#figure-profile").get_attribute("aria-label")
    assert "from 20.00 % (layer 0) to 25.00 % (layer 5, the worst)" in label
    said = "document.querySelector('#%s [aria-live=polite]').textContent"
    browser.show_figure("profile")
    plot = browser.find("#figure-profile")
    shapes = browser.js("return (document.getElementById('figure-profile').layout.shapes || []).length")
    plot.send_keys(Keys.ARROW_RIGHT)
    assert browser.js(f"return {said % 'profile'}").startswith("layer 0, mxfp4:even: relative_error 20.00")
    plot.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert browser.js(f"return {said % 'profile'}").startswith("layer 2, ")
    now = browser.js("return document.getElementById('figure-profile').layout.shapes.slice(-1)[0].x0")
    assert now == 1.5
    plot.send_keys(Keys.ENTER)
    assert browser.wait("document.querySelector('dialog[open] h2')?.textContent") == "Layer 2, decoder-layer outputs"
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.js("return document.activeElement.id") == "figure-profile", "the focus comes back"
    plot.send_keys(Keys.ESCAPE)
    assert browser.js(f"return {said % 'profile'}") == ""
    assert browser.js("return document.getElementById('figure-profile').layout.shapes.length") == shapes
    browser.show_figure("heatmap")
    plot = browser.find("#figure-heatmap")
    plot.send_keys(Keys.END)
    assert browser.js(f"return {said % 'heatmap'}").startswith("layer 5, down_proj: relative_error 25.00 %")
    plot.send_keys(Keys.ARROW_RIGHT, Keys.ENTER)
    assert "sum_e2" in browser.wait("document.querySelector('dialog[open] #tally')?.textContent")
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.js(
        "document.querySelectorAll('#scatter details, #impact details').forEach((node) => { node.open = true; })"
    )
    browser.wait("document.querySelectorAll('#scatter details tbody tr').length === 6")
    browser.wait("document.querySelectorAll('#impact details tbody tr').length === 1")
    assert browser.complaints() == []


def many(layers: int, roles: tuple[str, ...], inside: int) -> Report:
    """So many sites in each place; measurements are shared, the page does not know."""
    specs = ("mxfp4:even", "nvfp4:nvidia", "mxfp8_e4m3:rceil")
    few = [dict.fromkeys(specs, measurement(tally(0.2 + 0.001 * i, 1 + i / 7))) for i in range(40)]
    sites = [
        Site(
            kind="weight",
            name=f"model.layers.{layer}.mlp.experts.{expert}.{role}",
            role=role,
            layer=layer,
            index=expert,
            formats=few[(layer * 3 + expert * 7 + place) % 40],
        )
        for layer in range(layers)
        for expert in range(inside)
        for place, role in enumerate(roles)
    ]
    report = make_report({"weight": [[tally(0.2)]]}, specs)
    return in_order(report.model_copy(update={"sites": sites}))


def test_twenty_thousand_sites(browser: Browser, tmp_path: Path) -> None:
    report = many(126, tuple(f"part_{i}" for i in range(20)), 8)
    assert len(report.sites) > 20_000
    page = tmp_path / "large.html"
    page.write_text(render(Bundle(report), View()), encoding="utf-8")
    assert min(browser.open(page) for _ in range(2)) < 10
    browser.show_figure("heatmap")
    start = time.monotonic()
    browser.find("#filter").send_keys("experts.7 part_19 layer=125")
    browser.wait("document.querySelector('#count').textContent.startsWith('1 of 20,160')")
    browser.js("openCell(page.cells.row.length - 1)")
    assert "8 sites" in browser.find("#detail").text
    browser.js("document.getElementById('detail').close(); window.scrollTo(0, document.documentElement.scrollHeight)")
    assert time.monotonic() - start < 10
    assert browser.complaints() == []


def test_experts_are_one_row_with_quantiles_and_the_worst_by_name(browser: Browser, tmp_path: Path) -> None:
    report = many(4, ("gate_proj", "up_proj", "down_proj"), 53)
    page = tmp_path / "experts.html"
    page.write_text(render(Bundle(report), View()), encoding="utf-8")
    browser.open(page)
    browser.find("#filter").send_keys("up_proj layer=3")
    browser.wait("document.querySelector('#count').textContent.startsWith('1 of 12 sites')")
    browser.js("document.querySelector('#sites td.module button').click()")
    shown = browser.find("#detail").text
    assert "model.layers.3.mlp.experts.*.up_proj (53 sites)" in shown
    assert "Over 53 sites, mxfp4:even" in shown
    quantiles = browser.js(
        "return [...document.querySelectorAll('#quantiles tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert quantiles[0] == ["quantile", "min", "5 %", "25 %", "50 %", "75 %", "95 %", "max"]
    errors = next(row for row in quantiles if row[0] == "rel. error %")
    assert (errors[1], errors[-1]) == ("20.00", "23.90")
    assert re.search(r"experts\.\d+\.up_proj\s+23\.90", shown)
    assert browser.complaints() == []


def test_contents_and_steps_lead_to_sections(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "contents.html"
    page.write_text(render(Bundle(PRICED), View()), encoding="utf-8")
    browser.open(page)
    links = "[...document.querySelectorAll('%s')].map((a) => a.getAttribute('href'))"
    named = browser.js("return [...document.querySelectorAll('#contents a')].map((a) => a.innerText)")
    assert named[:4] == ["The answers", "Formats of this report", "What it costs", "Over the depth of the model"]
    assert browser.js(f"return {links % '#contents a, #answers a'}.every((to) => document.querySelector(to))") is True
    assert "#impact" in browser.js(f"return {links % '#answers ol a'}")
    assert browser.complaints() == []


def test_a_bad_page_is_noticed(browser: Browser, tmp_path: Path) -> None:
    """The meta-test: a request and a console error are complaints."""
    page = tmp_path / "bad.html"
    page.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png"><script>console.error("bad")</script>', "utf-8")
    browser.open(page)
    time.sleep(0.3)
    found = browser.complaints()
    assert any('"bad"' in text for text in found)
    assert "request: http://127.0.0.1:9/x.png" in found


def test_a_page_with_costs_leads_with_them(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "costs.html"
    page.write_text(render(Bundle(PRICED), View()), encoding="utf-8")
    browser.open(page)
    rows = browser.js(
        "return [...document.querySelectorAll('#worst tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert [row[0] for row in rows][:2] == ["7", "10"]
    assert rows[0][1] == "0.900 ± 0.045"
    assert "Which layers: the 10 that cost most" in browser.find("#answers").text
    assert "Worst first, by predicted_kl of layers under mxfp4:even W4A4" in browser.find("#answers").text
    for figure in ("profile", "heatmap"):
        browser.show_figure(figure)
        browser.wait(f"document.querySelector('#figure-{figure} .main-svg')")
    assert "predicted_kl of layers over depth" in browser.find("body").text
    assert "2.10 ± 0.11" in browser.find("#formats").text
    browser.js("choose({ metric: 'relative_error' })")
    assert browser.complaints() == []

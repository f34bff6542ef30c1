"""The report of a ladder, in words and in a real browser."""

import shutil

import pytest

from src.extras.sweep.definition import sweep_of
from src.extras.sweep.report import write_report
from src.extras.sweep.study import find_study, open_storage
from tests.extras.sweep.pretend import finished

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=alert(1)>"


def record(cell, seed):
    """A loss that falls with the size, and is lower by a twentieth with the other activation."""
    size, factor = cell["ladder"], 0.95 if cell["a"] == HOSTILE else 1.0
    n_parameters = 1000 * size**3
    value = factor * 3 * (n_parameters**2) ** -0.05 * (1 + 0.001 * ((7 * seed + size) % 5))
    costs = {"steps": 2, "seconds": 10.0 * size, "memory_mib": 100.0, "seconds_at": [5.0 * size, 10.0 * size]}
    tokens = {"tokens": 10 * n_parameters, "tokens_at": [5 * n_parameters, 10 * n_parameters]}
    return {"value": value, "n_parameters": n_parameters, **costs, **tokens}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "ladder"
    content = {"base": "x", "parameters": {"a": ["plain", HOSTILE]}, "ladder": [1, 2, 3, 4], "target": 2.0}
    finished(folder, sweep_of(content, "sweep.yaml"), record)
    study = find_study(open_storage(folder), folder.name)
    study.set_user_attr(
        "config", {"model": {"config": {"n_layers": 1, "n_heads": 1, "d_model": 8}, "optimizer": {"lr": 1}}}
    )
    write_report(study, folder)
    return folder


def test_the_report_has_verdicts_costs_of_the_target_and_the_ladder(folder):
    text = (folder / "report.md").read_text()
    assert f"- **{HOSTILE}, 4 layers**: better than plain, 4 layers by 0.0" in text
    assert "| seeds | steps to 2 | tokens to 2 | seconds to 2 |" in text
    assert f"- **{HOSTILE}**: its gain " in text
    assert "![loss by compute](ladder.png)" in text
    for name in ("final", "curves", "ladder"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def page(folder):
    """The report's page; what it says on the console, loads, or asks in a dialog, is a failure."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened, said = browser.new_page(), []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("dialog", lambda dialog: said.append(dialog.message))
        opened.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        opened.goto((folder / "report.html").as_uri())
        yield opened
        assert said == []
        browser.close()


def test_a_mark_says_its_values_under_the_pointer(page):
    assert page.locator("figure svg").count() == 3
    assert page.locator("img").count() == 0
    mark = page.locator("[data-tip^='plain, 4 layers, step 2:']").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    assert page.get_by_role("tooltip").text_content() == mark.get_attribute("data-tip")
    page.mouse.move(1, 1)
    assert page.get_by_role("tooltip").is_hidden()


def test_a_table_is_sorted_by_the_column_that_is_clicked(page):
    table = page.locator("table").first
    means = table.locator("tbody td:nth-child(2)")
    table.get_by_role("button", name="mean").click()
    up = means.all_text_contents()
    table.get_by_role("button", name="mean").click()
    assert means.all_text_contents() == up[::-1] == sorted(up, reverse=True)
    assert table.locator("th[aria-sort=descending]").count() == 1

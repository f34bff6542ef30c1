"""The page in a real browser: each task, what is hostile, errors, and a narrow window."""

import re

import pytest

from tests.extras.serve.browsing import asked, opened

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def page(browser, shared):
    with opened(browser, shared.address) as page:
        yield page


def test_each_task(page, shared):
    assert page.get_by_role("tab").all_text_contents() == ["Generate", "Translate", "Fill masks", "Classify"]
    answer, status = asked(page, "Generate", HOSTILE[:14], "Generate", Temperature="0", Tokens_at_most="9")
    expected = shared.ask("generate", text=HOSTILE[:14], max_new_tokens=9, temperature=0)["text"]
    assert answer.text_content() == HOSTILE[:14] + expected
    assert status.startswith("9 tokens, ")
    answer, _ = asked(page, "Translate", "the cat\nsat", "Translate")
    assert answer.text_content() == shared.ask("translate", text="the cat\nsat")["text"]
    answer, _ = asked(page, "Fill masks", "the [MASK] sat on [MASK]", "Fill", Candidates="2")
    names = [
        c["name"] for mask in shared.ask("fill-mask", text="the [MASK] sat on [MASK]", top_k=2)["masks"] for c in mask
    ]
    assert answer.get_by_role("rowheader").all_text_contents() == names
    answer, _ = asked(page, "Classify", HOSTILE[:10], "Classify")
    labels = shared.ask("classify", text=HOSTILE[:10])["labels"]
    assert answer.get_by_role("cell").all_text_contents() == [f"{100 * c['probability']:.1f}%" for c in labels]
    assert page.locator("img").count() == 0


def test_an_error_is_shown_and_the_next_request_works(page):
    answer, status = asked(page, "Fill masks", HOSTILE, "Fill")
    assert "has no [MASK]" in status
    assert answer.text_content() == ""
    assert asked(page, "Fill masks", "the [MASK]", "Fill")[1] == "Done"


def test_a_stream_can_be_stopped(page):
    panel = page.get_by_role("tabpanel")
    panel.get_by_label("Tokens at most").fill("1000000")
    panel.get_by_label("Temperature").fill("0")  # by chance it could come to an end
    panel.locator("textarea").fill("the")
    panel.get_by_role("button", name="Generate").click()
    answer = panel.get_by_role("region", name="Answer")
    sync_api.expect(answer).to_have_text(re.compile(".{20}", re.DOTALL))
    panel.get_by_role("button", name="Stop").click()
    sync_api.expect(panel.get_by_role("status")).to_have_text("Stopped")
    written = answer.text_content()
    page.wait_for_timeout(200)
    assert answer.text_content() == written


def test_the_tabs_are_reached_by_keys_and_every_field_has_a_label(page):
    page.get_by_role("tab", name="Generate").focus()
    for title in ("Translate", "Fill masks", "Classify", "Generate"):
        page.keyboard.press("ArrowRight")
        sync_api.expect(page.get_by_role("tab", name=title)).to_be_focused()
        sync_api.expect(page.get_by_role("tabpanel", name=title)).to_be_visible()
        unnamed = (
            "[...document.querySelectorAll('section:not([hidden]) :is(input, textarea)')].filter(f => !f.labels.length)"
        )
        assert page.evaluate(f"{unnamed}.length") == 0


def test_the_interface_is_described(page, shared):
    page.goto(f"{shared.address}/docs")
    page.wait_for_selector("h2")
    expected = [
        "POST /api/generate",
        "POST /api/translate",
        "POST /api/fill-mask",
        "POST /api/classify",
        "GET /api/info",
    ]
    assert page.locator("h2").all_text_contents() == expected
    assert page.get_by_text("max_new_tokens").count() == 1

"""The page in a real browser, and how to ask for a task on it."""

from collections.abc import Iterator
from contextlib import contextmanager

WIDTH = 400


@contextmanager
def opened(browser, address: str) -> Iterator:
    """The page, narrow; what it says on the console, or asks in a dialog, is a failure."""
    page, said = browser.new_page(viewport={"width": WIDTH, "height": 800}), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(address)
    page.wait_for_selector("[role=tab]")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
    page.close()
    assert [line for line in said if "422" not in line] == []


def asked(page, task: str, text: str, button: str, **options: str):
    """Ask for a task on its tab; gives its answer and what its status says, once it is complete."""
    from playwright.sync_api import expect

    page.get_by_role("tab", name=task).click()
    panel = page.get_by_role("tabpanel")
    panel.locator("textarea").first.fill(text)
    for label, value in options.items():
        panel.get_by_label(label.replace("_", " ")).fill(value)
    panel.get_by_role("button", name=button).click()
    answer = panel.get_by_role("region", name="Answer")
    expect(panel.get_by_role("button", name="Stop")).to_be_disabled()
    return answer, panel.get_by_role("status").text_content()

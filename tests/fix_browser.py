"""A real browser: a page of somebody who has not logged in, and how wide what it shows is."""

import shutil

import fix_postgres
import pytest
from fix_web import PASSWORD

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or fix_postgres.missing("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served, people):
    """A page of somebody who has not logged in; errors of the page fail the test."""
    people("admin")
    context = browser.new_context(base_url=served.url)
    page = context.new_page()
    errors = []
    refused = "status of 400"  # a form that comes back is no error of the page
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    assert [error for error in errors if refused not in error] == []


def log_in(page, path="/"):
    page.goto(path)
    page.fill("[name=login]", "a-admin")
    page.fill("[name=password]", PASSWORD)
    page.click("button.primary")
    page.wait_for_url(lambda address: "/login" not in address)


def seen(page, expression):
    """What an expression says of a page once its stylesheet is there: before, it is bare."""
    page.wait_for_load_state()
    return page.evaluate(expression)


def too_wide(page):
    """How many pixels of a page can only be seen by scrolling it sideways."""
    return seen(page, "document.documentElement.scrollWidth - window.innerWidth")

"""Deploying in a real browser: nothing is refused by the policy, and it fits on a phone."""

import pytest
from fix_browser import log_in, too_wide
from playwright.sync_api import expect

SCRIPT = b'# /// script\n# [tool.kirby]\n# variables = { DAYS = "7" }\n# ///\nprint("sold")\n'


@pytest.mark.parametrize("width", [1280, 390])
def test_a_file_is_deployed_and_rolled_back(width, page):
    page.set_viewport_size({"width": width, "height": 844})
    log_in(page, "/jobs")
    for number in (b"1", b"2"):
        page.goto("/deploy")
        content = SCRIPT.replace(b"7", number)
        file = {"name": "report.py", "mimeType": "text/x-python", "buffer": content}
        page.set_input_files("[name=file]", file)
        page.click("text=Read it >> nth=0")
        page.wait_for_url("**/deploy/*")
        assert too_wide(page) == 0
        page.fill("[name=reason]", f"try {number.decode()}")
        page.click("text=Deploy in dev")
        page.wait_for_url("**/jobs/report*")
    assert too_wide(page) == 0
    expect(page.locator(".versions").first).to_contain_text("try 2")

    page.click("text=what changed")
    expect(page.locator(".d-added").first).to_contain_text('DAYS = "2"')
    page.go_back()
    page.click("text=Roll back to it")
    page.click("text=Deploy version 1 again")

    expect(page.locator(".done")).to_contain_text("Rolled back: version 3")

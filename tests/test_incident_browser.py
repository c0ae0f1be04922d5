"""An incident in a real browser: what is typed while its page refreshes itself stays."""

from fix_browser import log_in, too_wide
from fix_incidents import House
from fix_web import connected
from playwright.sync_api import expect

HELD = """() => !document.dispatchEvent(new CustomEvent("htmx:beforeRequest", {
    cancelable: true, detail: { elt: document.querySelector("[data-refresh]") } }))"""


def test_a_reason_that_is_being_written_outlives_a_refresh(page, dsn):
    with connected(dsn) as conn:
        house = House(conn)
        report = house.scheduled("report")
        house.ran(report, fails="ValueError: no orders")
        [incident] = house.incidents()
        page.set_viewport_size({"width": 390, "height": 844})
        log_in(page, f"/incidents/{incident['id']}")
        assert too_wide(page) == 0
        assert not page.evaluate(HELD)
        page.fill("[name=reason]", "the disk is being enlarged")
        page.locator("[name=reason]").blur()
        assert page.evaluate(HELD)
        page.click("text=Acknowledge")
    expect(page.locator(".facts.grid")).to_contain_text("Acknowledged")
    expect(page.locator("main")).to_contain_text("the disk is being enlarged")

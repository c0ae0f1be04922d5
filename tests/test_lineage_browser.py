"""The pages of lineage in a real browser: links lead on, nothing is wider than a phone."""

import pytest
from fix_browser import log_in, too_wide
from fix_lineage import airport_fixture  # noqa: F401
from playwright.sync_api import expect

PHONE = {"width": 390, "height": 800}


def test_from_the_graph_to_a_message_to_all_it_touched(page, airport):
    log_in(page, "/flow")
    expect(page.locator(".graph .box")).to_have_count(10)
    page.click(".graph a.box.k-topic:has-text('departures')")
    page.wait_for_url("**/topics/departures*")

    page.goto(f"/messages/{airport.flights[0]}")
    page.click("text=What it was made from")
    page.wait_for_url(f"**/trace/{airport.flights[0]}*")
    expect(page.locator(".trace")).to_contain_text("carrier_delay")
    page.click(f".trace a.num:has-text('{airport.delays[0]}')")
    page.wait_for_url(f"**/trace/{airport.delays[0]}*")


@pytest.mark.parametrize("path", ["/flow", "/trace/{figure}", "/catalogue", "/catalogue/job/tally"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_pages_fit_a_phone(page, airport, path, colours):
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=colours)
    log_in(page, path.format(figure=airport.figure))

    assert too_wide(page) == 0

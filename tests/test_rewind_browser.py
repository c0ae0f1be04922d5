"""Time travel in a real browser: from the plan of a rewind to its end; a state in time."""

import pytest
from fix_browser import log_in, too_wide
from fix_rewind_pages import handle, shop_fixture  # noqa: F401
from fix_web import connected, scalar, set_keys
from playwright.sync_api import expect


@pytest.mark.parametrize("width", [1280, 390])
def test_a_topic_is_rewound_from_its_page_to_the_end(width, page, shop):
    page.set_viewport_size({"width": width, "height": 844})
    log_in(page, "/topics/orders")
    page.click("text=Rewind…")
    page.fill("[name=to]", "1h")
    page.check("[name=only][value=biller]")
    page.check("[name=states]")
    page.click("text=Show the plan")
    again = page.locator(".tile", has_text="Delivered again")
    expect(again.locator(".tile-value")).to_have_text("4")
    assert too_wide(page) == 0
    page.fill("[name=reason]", "invoices were wrong")
    page.click("button[value=start]")
    page.wait_for_url("**/rewinds/*")
    scalar(shop.conn, "select kirby.end_rewinds()")  # the leader: states are set back now
    expect(page.locator(".head .pill")).to_have_text("running")
    assert too_wide(page) == 0

    page.click("text=Pause")
    expect(page.locator(".head .pill")).to_have_text("paused")
    assert handle(shop.conn, shop.biller) == 0
    page.click("text=Resume")
    expect(page.locator(".head .pill")).to_have_text("running")
    assert handle(shop.conn, shop.biller) == 4
    scalar(shop.conn, "select kirby.end_rewinds()")

    expect(page.locator(".head .pill")).to_have_text("done")  # without a reload
    expect(page.locator(".progress.whole")).to_contain_text("100 %")
    page.goto("/topics/invoices")
    expect(page.locator(".tag.replay")).to_have_count(4)
    assert too_wide(page) == 0


def test_a_rewind_is_aborted_with_the_keyboard_alone(page, shop):
    log_in(page, "/topics/orders/rewind?to=1h&only=biller")
    page.focus("[name=reason]")
    page.keyboard.type("too hasty")
    page.keyboard.press("Enter")
    page.wait_for_url("**/rewinds/*")
    page.focus("summary.danger")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("not now")
    page.keyboard.press("Enter")

    expect(page.locator(".head .pill")).to_have_text("aborted")
    assert "not now" in scalar(
        shop.conn, "select reason from kirby.audit_event order by position desc limit 1"
    )


@pytest.fixture
def aged(house, dsn):
    """The state `totals` as if it had begun a day ago; the position before its last change."""
    with connected(dsn) as conn:
        before = scalar(conn, "select last_value from kirby.position")
        set_keys(conn, "totals", AA={"flights": 7})
        conn.execute("update kirby.state set created_at = kirby.now() - interval '1 day'")
    return before


def test_the_slider_says_where_it_stands_and_goes_there(aged, page):
    log_in(page, "/states/totals")
    expect(page.locator(".payload, td code").first).to_be_visible()
    track = page.locator("[data-slider]").bounding_box()
    page.mouse.move(track["x"] + track["width"] - 8, track["y"] + track["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] / 2, track["y"] + track["height"] / 2)
    expect(page.locator(".slide output")).to_contain_text("UTC")
    page.mouse.up()
    page.wait_for_url("**/states/totals?at=*")
    expect(page.locator(".then")).to_contain_text("12 h ago")
    expect(page.locator(".empty-title")).to_contain_text("The state was empty then")

    page.focus("[data-slider]")
    page.keyboard.press("End")
    page.click("text=Go there")
    expect(page.locator(".then")).to_have_count(0)


def test_the_past_works_without_javascript_on_a_phone(browser, served, people, aged):
    secret = people("operator")
    context = browser.new_context(
        base_url=served.url, java_script_enabled=False, viewport={"width": 390, "height": 844}
    )
    context.add_cookies([{"name": "kirby_session", "value": secret, "url": served.url}])
    phone = context.new_page()
    phone.goto("/states/totals")
    phone.click("text=yesterday")
    expect(phone.locator(".empty-title")).to_contain_text("The state was empty then")
    phone.fill(".at [name=at]", str(aged))
    phone.click(".at button")
    expect(phone.locator("tbody tr")).to_have_count(2)
    phone.click("text=What changed since")
    expect(phone.locator("tbody .pill")).to_have_text("added")
    phone.go_back()
    phone.click("text=Set back to it…")
    phone.fill("[name=reason]", "AA does not fly")
    phone.click("text=Set back in dev")
    expect(phone.locator(".done")).to_contain_text("1 key set back")
    expect(phone.locator("tbody tr")).to_have_count(2)
    context.close()


def test_a_page_of_a_rewind_follows_a_worker(page, shop):
    log_in(page, "/topics/orders/rewind?to=1h&only=biller")
    page.fill("[name=reason]", "watch it")
    page.click("button[value=start]")
    page.wait_for_url("**/rewinds/*")
    handle(shop.conn, shop.biller, limit=1)
    expect(page.locator(".progress.whole")).to_contain_text("25 %")

    assert handle(shop.conn, shop.biller) == 3

    expect(page.locator(".progress.whole")).to_contain_text("100 %")

"""The pages in a real browser: the policy refuses nothing, a run is seen as it happens."""

from fix_browser import log_in, seen, too_wide
from fix_packages import NAME, wheel
from fix_web import connected, record, say
from playwright.sync_api import expect


def test_a_run_is_seen_as_it_happens(page, house, dsn):
    log_in(page, f"/runs/{house.live}")
    expect(page.locator(".log .line")).to_have_count(1)
    expect(page.locator("[data-live-mark]")).to_be_visible()

    with connected(dsn) as conn:
        say(conn, house.live, "hello <b>world</b>", "it went wrong", level="error", stream="stderr")
        expect(page.locator(".log .line")).to_have_count(3)
        expect(page.locator(".log")).to_contain_text("hello <b>world</b>")
        expect(page.locator(".l-error").last).to_contain_text("it went wrong")

        record(conn, house.live, "run_succeeded", exit_code=0)
        conn.execute("select pg_notify('kirby_job', %s)", [str(house.live)])

    expect(page.locator(".head .pill")).to_contain_text("succeeded")
    expect(page.locator("[data-live-mark]")).to_be_hidden()
    expect(page.locator("text=Run again")).to_be_visible()


def test_the_log_stays_at_the_bottom_until_somebody_scrolls_up(page, house, dsn):
    with connected(dsn) as conn:
        say(conn, house.live, *[f"line {n}" for n in range(200)])
        log_in(page, f"/runs/{house.live}")
        say(conn, house.live, "the newest")
        expect(page.locator("text=the newest")).to_be_in_viewport()

        page.locator("#log").evaluate("log => log.scrollTop = 0")
        expect(page.locator("[data-follow]")).to_have_attribute("aria-pressed", "false")
        say(conn, house.live, "one more")
        expect(page.locator("text=one more")).to_be_attached()
        expect(page.locator("text=one more")).not_to_be_in_viewport()

        page.click("[data-follow]")
        expect(page.locator("text=one more")).to_be_in_viewport()


def test_every_page_is_clean_in_a_browser_and_refreshes_itself(page, house, dsn):
    log_in(page)
    for path in (
        "/jobs",
        "/jobs/nightly",
        "/runs",
        "/topics",
        "/topics/orders",
        "/states",
        "/states/totals",
        "/states/totals/key?key=EV",
        "/health",
        "/",
    ):
        page.goto(path)
        assert too_wide(page) == 0, path
    with connected(dsn) as conn:
        record(conn, house.live, "run_failed", reason="seen without a reload", exit_code=1)

    expect(page.locator("text=seen without a reload").first).to_be_visible(timeout=15_000)


def test_dark_and_light_are_a_choice_that_stays(page, house):
    log_in(page)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = seen(page, background)

    page.click("button[value=dark]")

    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert seen(page, background) != light
    page.goto("/jobs")
    assert page.get_attribute("html", "data-theme") == "dark"


def test_a_message_is_published_from_its_form(page, house):
    log_in(page, "/topics/orders")
    page.fill("[name=payload]", '{"by": "hand"')
    page.click("#publish button")
    expect(page.locator(".problem")).to_contain_text("not JSON")

    page.fill("[name=payload]", '{"by": "hand"}')
    page.click("#publish button")

    expect(page.locator(".done")).to_contain_text("Published at position")
    expect(page.locator(".messages")).to_contain_text('"by": "hand"')


def test_pages_work_without_javascript_on_a_phone(browser, served, people, house):
    secret = people("operator")
    context = browser.new_context(
        base_url=served.url, java_script_enabled=False, viewport={"width": 390, "height": 844}
    )
    context.add_cookies([{"name": "kirby_session", "value": secret, "url": served.url}])
    page = context.new_page()

    page.goto(f"/runs/{house.live}")
    expect(page.locator(".log")).to_contain_text("at work")
    page.click(".burger")
    page.click("nav >> text=Topics")
    page.click("text=orders >> nth=0")
    expect(page.locator("h1")).to_have_text("orders")
    page.click(".pick summary")
    page.click(".menu >> text=prod")
    expect(page.locator(".pick summary")).to_contain_text("prod")
    context.close()


def test_a_package_is_published_in_a_browser_and_fits_on_a_phone(page, tmp_path):
    (tmp_path / "bad").mkdir()
    good, bad = tmp_path / NAME, tmp_path / "bad" / NAME
    good.write_bytes(wheel("acme", "1.0", "Requires-Dist: psycopg[binary]>=3.2"))
    bad.write_bytes(b"x")
    page.set_viewport_size({"width": 390, "height": 844})
    log_in(page, "/packages")

    for path, shown in ((bad, "[role=alert]"), (good, "[role=status]")):
        page.set_input_files("[name=content]", path)
        page.click("#publish button.primary")
        page.wait_for_selector(shown)
        assert too_wide(page) == 0
    assert page.url.endswith(f"/packages/acme?published={NAME}&new=yes")
    page.click("text=Take it back")
    page.fill("[name=reason]", "It counts twice")
    page.click("button.danger")
    page.wait_for_selector("text=It counts twice.")

import pytest
from test_web_browser import browser, log_in, page  # noqa: F401
from fix_web import connected, deploy

@pytest.mark.parametrize("scheme", ["light","dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_shots(width, scheme, page, dsn):  # noqa: F811
    with connected(dsn) as conn:
        d = deploy(conn, "hourly", "scheduled", schedules=["0 * * * *"])
        from kirby.server.ticks import Planner
        conn.execute("select kirby.add_exception(%s, 'ann')", ['{"environment_id":1,"scope":"job","target":"hourly","effect":"pause","reason":"the source is down","until_at":"%s"}' % conn.execute("select (now()+interval '3 hours')::text").fetchone()[0]])
        Planner().plan(conn)
        conn.execute("select kirby.queue_run(%s,'manual','bob')",[d])
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    log_in(page, "/jobs/hourly")
    page.screenshot(path=f"/tmp/when/j_{scheme}_{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width

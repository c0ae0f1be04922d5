"""A state in time on its pages: as it was, what differs, who is to blame, set back."""

import re

import pytest
from fix_web import connected, scalar, set_keys

from kirby.core.states import Column
from kirby.server import database, environments, query, states


@pytest.fixture
def past(house, dsn):
    """Positions of the log: when totals was first set, and now; EV changed in between."""
    with connected(dsn) as conn:
        query = "select min(position), max(position) from kirby.state_mutation where state_id ="
        query += " (select id from kirby.state where name = 'totals')"
        first, _ = conn.execute(query).fetchone()
        both = scalar(conn, "select min(position) from kirby.state_mutation where key = 'UA'")
        set_keys(conn, "totals", AA={"flights": 7, "new": True})
    return {"first": max(first, both), "now": scalar_position(dsn)}


def scalar_position(dsn):
    with connected(dsn) as conn:
        return scalar(conn, "select last_value from kirby.position")


def rows(page):
    """The keys of the table of a page."""
    return re.findall(r'<td><a class="strong"[^>]*><code>(\w+)</code>', page)


def test_a_state_as_it_was_at_a_position(past, admin):
    then = admin.get(f"/states/totals?at={past['first']}").text
    today = admin.get("/states/totals").text

    assert rows(then) == ["EV", "UA"]
    assert rows(today) == ["AA", "EV", "UA"]
    assert ">9</td>" not in then
    assert ">9</td>" in today
    assert "As it was at <b>position" in then
    assert "As it was" not in today
    assert "Set back to it" in then


def test_a_state_as_it_was_at_a_moment(past, admin, dsn):
    with connected(dsn) as conn:
        moment = scalar(
            conn, "select recorded_at from kirby.state_mutation where position = %s", past["first"]
        )
    then = admin.get("/states/totals", params={"at": moment.isoformat()}).text

    assert rows(then) == ["EV", "UA"]
    assert "The state was empty then" in admin.get("/states/totals?at=1d").text


def test_a_moment_that_is_none_comes_back_as_it_was_typed(past, admin):
    answer = admin.get("/states/totals", params={"at": 'tea "time"'})

    assert answer.status_code == 400
    assert 'value="tea &#34;time&#34;"' in answer.text
    assert "is no time and no position" in answer.text
    assert 'role="alert"' in answer.text
    assert rows(answer.text) == ["AA", "EV", "UA"]


def test_the_pages_of_an_old_moment_go_on_at_that_moment(house, admin, dsn):
    with connected(dsn) as conn:
        set_keys(conn, "many", **{f"k{n:03}": n for n in range(60)})
        position = scalar(conn, "select last_value from kirby.position")
        set_keys(conn, "many", **{f"k{n:03}": -n for n in range(1, 60)})
    first = admin.get(f"/states/many?at={position}").text
    [following] = re.findall(r'href="([^"]+)">Next page', first)
    second = admin.get(following.replace("&amp;", "&")).text

    assert len(rows(first)) == 50
    assert len(rows(second)) == 10
    assert '<span class="j-number">59</span>' in second


def test_the_slider_goes_to_a_moment_of_its_stretch(past, admin):
    given = {"first": "2027-01-01T00:00:00+00:00", "last": "2027-01-02T00:00:00+00:00"}
    ask = lambda step: admin.get("/states/totals/slide", params={**given, "step": step})  # noqa: E731

    assert "at=2027-01-01T12%3A00%3A00Z" in ask("500").headers["location"]
    assert "at=" not in ask("1000").headers["location"]
    assert ask("x").status_code == 400
    assert admin.get("/states/totals/slide?step=3&first=1&last=now").status_code == 400


def test_the_slider_stands_where_the_page_is(past, admin, dsn):
    page = admin.get("/states/totals").text
    early = admin.get("/states/totals?at=1w").text

    assert 'value="1000" data-slider' in page
    assert 'value="0" data-slider' in early


def test_the_columns_of_its_views_are_named(house, admin, engine):
    with database.unit(engine) as conn:
        dev = environments.get(conn, "dev")
        query.value(conn, "select set_config('kirby.environment', 'dev', true)")
        states.put(conn, dev, "sums", "EV", {"worst": {"minutes": 5}}, actor="test")
    assert "Columns of its SQL views" not in admin.get("/states/sums").text
    with database.unit(engine) as conn:
        state = states.get(conn, dev, "sums")
        column = Column("worst_minutes", "integer", ("worst", "minutes"), True)
        states.set_columns(conn, state, [column], actor="test")

    page = admin.get("/states/sums").text

    assert "Columns of its SQL views" in page
    assert "worst_minutes" in page
    assert "<code>worst.minutes</code>" in page


def test_the_differences_of_two_moments(past, admin):
    page = admin.get(f"/states/totals/diff?from={past['first']}&to={past['now']}").text

    assert rows(page) == ["AA", "EV"]
    assert "added" in page
    assert "changed" in page
    assert "<del>1</del>" in page
    assert "<ins>9</ins>" in page
    back = admin.get("/states/totals/diff?from=1w&prefix=U").text
    assert rows(back) == ["UA"]
    assert ">added<" in back


def test_differences_that_cannot_be_are_refused_on_the_form(past, admin):
    turned = admin.get(f"/states/totals/diff?from={past['now']}&to={past['first']}")
    odd = admin.get("/states/totals/diff?from=1h&to=tea")

    assert turned.status_code == 400
    assert "exchange them" in turned.text
    assert odd.status_code == 400
    assert 'value="tea"' in odd.text
    assert 'value="1h"' in odd.text
    assert "Nothing differs" in admin.get(f"/states/totals/diff?from={past['now']}").text
    assert admin.get("/states/totals/diff").status_code == 200


def test_a_key_says_who_is_to_blame(past, admin, dsn):
    page = admin.get("/states/totals/key?key=EV").text

    assert "$.flights" in page
    assert "$.worst.minutes" in page
    blamed = page[page.index("Who is to blame") : page.index("History")]
    assert re.findall(r'class="right num nowrap">(\d+)</td>', blamed) == ["2", "1"]


def test_a_key_that_was_deleted_blames_nobody(house, admin, dsn):
    with connected(dsn) as conn:
        changes = '{"totals": [{"k": "EV", "o": "delete"}]}'
        conn.execute("select kirby.append_mutations(1::smallint, null, %s)", [changes])

    page = admin.get("/states/totals/key?key=EV").text

    assert "Who is to blame" not in page
    assert "deleted" in page


def test_a_key_is_set_back_to_a_version(past, admin, dsn):
    key = admin.get("/states/totals/key?key=EV").text
    [form] = re.findall(r'href="(/states/totals/restore[^"]+)"', key)
    asked = admin.get(form.replace("&amp;", "&")).text
    assert "What it would change" in asked
    assert "<del>9</del>" in asked
    assert "<ins>1</ins>" in asked
    to = re.search(r'name="to" value="(\d+)"', asked)[1]

    sent = {"key": "EV", "to": to, "reason": "counted twice"}
    answer = admin.post("/states/totals/restore", data=sent)

    assert answer.status_code == 303
    page = admin.get(answer.headers["location"]).text
    assert "1 key set back." in page
    assert "back to version 1" in page
    assert stored(dsn, "EV") == (3, {"flights": 1, "worst": {"minutes": 5}})
    assert stored(dsn, "AA") == (1, {"flights": 7, "new": True})
    with connected(dsn) as conn:
        query = "select actor, reason from kirby.audit_event order by position desc limit 1"
        assert conn.execute(query).fetchone() == ("a-admin", "counted twice")


def test_the_whole_state_is_set_back_and_a_new_key_is_deleted(past, admin, dsn):
    page = admin.get(f"/states/totals/restore?to={past['first']}").text
    assert rows(page) == ["AA", "EV"]
    assert ">removed<" in page

    sent = {"to": past["first"], "reason": "a bad day"}
    answer = admin.post("/states/totals/restore", data=sent)

    assert "2+keys+set+back" in answer.headers["location"]
    assert rows(admin.get("/states/totals").text) == ["EV", "UA"]
    again = admin.post("/states/totals/restore", data=sent)
    assert "it+was+like+that+already" in again.headers["location"]


def stored(dsn, key):
    with connected(dsn) as conn:
        query = "select version, value from kirby.state_entry where key = %s"
        return conn.execute(query, [key]).fetchone()


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"to": "tea", "reason": "because"}, "is no time"),
        ({"to": "", "reason": "because"}, "ay to which moment"),
        ({"to": "1h", "reason": " "}, "Say why"),
        ({"to": "1h", "reason": "b" * 2000}, "characters"),
    ],
)
def test_setting_back_that_is_refused_loses_nothing_that_was_typed(sent, why, past, admin, dsn):
    before = stored(dsn, "EV")

    answer = admin.post("/states/totals/restore", data=sent | {"key": "EV"})

    assert answer.status_code == 400
    assert why in answer.text
    assert 'role="alert"' in answer.text
    assert f'name="reason" value="{sent["reason"]}"' in answer.text
    assert 'name="key" value="EV"' in answer.text
    assert stored(dsn, "EV") == before


def test_a_viewer_sees_the_past_and_sets_nothing_back(past, viewer, admin):
    page = viewer.get(f"/states/totals?at={past['first']}").text
    sent = {"to": past["first"], "reason": "x"}

    assert "As it was" in page
    assert "Set back" not in page
    assert "Set back" not in viewer.get("/states/totals/key?key=EV").text
    assert viewer.get("/states/totals/restore?to=1h").status_code == 403
    assert viewer.post("/states/totals/restore", data=sent).status_code == 403
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert admin.post("/states/totals/restore", data=sent, headers=headers).status_code == 403


def test_another_moment_is_looked_at_before_anything_is_set_back(past, admin, dsn):
    asked = {"to": past["now"], "key": "EV", "reason": "as it was typed"}
    answer = admin.get("/states/totals/restore", params=asked)

    assert 'formmethod="get"' in answer.text
    assert 'name="reason" value="as it was typed"' in answer.text
    assert ">Nothing</p>" in answer.text
    assert stored(dsn, "EV")[0] == 2

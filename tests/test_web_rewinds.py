"""The pages of rewinds: the plan, the way from it to the end, and what other pages say of one."""

import json
import re

import pytest
from fix_rewind_pages import handle, shop_fixture  # noqa: F401
from fix_web import scalar

from kirby.core import subscriptions

PLAN = "/topics/orders/rewind"
LISTED = '{"odd": [{"v": 1, "h": ["no object"]}]}'


def tiles(page):
    """The numbers of the tiles of a page, by their names."""
    found = r'tile-name">([^<]+)</span><span class="tile-value[^"]*">([^<]+)<'
    return dict(re.findall(found, page))


def start(admin, **given):
    """Start the rewind of a form as a person does; the path of its page."""
    sent = {"to": "1h", "only": "biller", "reason": "a bug", "do": "start"} | given
    answer = admin.post(PLAN, data=sent)
    assert answer.status_code == 303, re.findall(r'role="alert">.*?</p>', answer.text)
    return answer.headers["location"]


def test_a_topic_leads_to_the_form_of_its_rewind(shop, admin, viewer):
    topic = admin.get("/topics/orders").text
    form = admin.get(PLAN).text

    assert f'href="{PLAN}?env=dev"' in topic
    assert 'name="only" value="archive"' in form
    assert "Show the plan" in form
    assert "Derived from them" not in form
    assert viewer.get(PLAN).status_code == 200


def test_the_plan_counts_exactly(shop, admin):
    page = admin.get(PLAN, params={"to": "1h", "only": "biller"}).text

    assert tiles(page)["Delivered again"] == "4"
    assert tiles(page)["Derived from them"] == "4"
    assert tiles(page)["States touched"] == "2"
    assert '<a class="strong" href="/topics/invoices?env=dev">invoices</a>' in page
    assert "will count these messages twice" in page
    assert "The earliest position that orders can go back to" in page
    assert f'from position <span class="num">{shop.orders[0]}</span>' in page


def test_the_plan_of_some_keys_from_a_position_until_another(shop, admin):
    asked = {"to": shop.orders[1], "until": shop.orders[2], "keys": "A\n\n", "states": "yes"}
    page = admin.get(PLAN, params=asked | {"only": "biller", "rate": "2"}).text

    assert tiles(page)["Delivered again"] == "1"
    assert "key <code>A</code>" in page
    assert "set back before anything is delivered" in page
    assert "at 2 a second" in page
    assert 'name="states" value="yes" checked' in page


def test_a_plan_moves_nothing(shop, admin):
    before = scalar(shop.conn, "select array_agg(position order by lane) from kirby.cursor")
    admin.get(PLAN, params={"to": "1h"})

    query = "select array_agg(position order by lane) from kirby.cursor"
    assert scalar(shop.conn, query) == before
    assert scalar(shop.conn, "select count(*) from kirby.rewind") == 0


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"to": "tea"}, "is no time and no position"),
        ({"to": "1h", "until": "soon"}, "is no time and no position"),
        ({"to": "1h", "rate": "fast"}, "is no rate"),
        ({"to": "1h", "rate": "-1"}, "is no rate"),
        ({"to": "1h", "rate": "nan"}, "is no rate"),
        ({"to": "1h", "only": "bilbo"}, "bilbo"),
        ({"to": "1h", "keys": "\n".join(map(str, range(501)))}, "501 keys"),
    ],
)
def test_a_plan_that_cannot_be_comes_back_as_it_was_typed(given, why, shop, admin):
    answer = admin.get(PLAN, params=given)

    assert answer.status_code in (400, 404)
    assert why in answer.text
    assert 'role="alert"' in answer.text
    for name in ("to", "until", "rate"):
        assert f'name="{name}" value="{given.get(name, "")}"' in answer.text
    assert admin.post(PLAN, data=given | {"reason": "x"}).status_code == answer.status_code
    assert scalar(shop.conn, "select count(*) from kirby.rewind") == 0


def test_a_rewind_needs_a_reason_and_loses_nothing_without_one(shop, admin):
    answer = admin.post(PLAN, data={"to": "1h", "only": "biller", "states": "yes", "reason": " "})

    assert answer.status_code == 400
    assert "Say why" in answer.text
    assert tiles(answer.text)["Delivered again"] == "4"
    assert 'name="states" value="yes" checked' in answer.text
    assert 'value="biller" checked' in answer.text


def test_from_the_plan_to_the_end(shop, admin):
    page = start(admin)
    begun = admin.get(page).text
    assert tiles(begun)["Delivered again"] == "0"
    assert "of 4, planned 4" in begun
    assert 'hx-trigger="every 2s"' in begun
    assert "a bug" in begun

    assert handle(shop.conn, shop.biller) == 4
    scalar(shop.conn, "select kirby.end_rewinds()")

    ended = admin.get(page, headers={"HX-Request": "true"}).text
    assert tiles(ended)["Delivered again"] == "4"
    assert "Took" in ended
    assert "Abort" not in ended
    assert "<html" not in ended
    assert "hx-trigger" not in admin.get(page).text
    query = "select actor, reason from kirby.audit_event where verb = 'rewind_planned'"
    assert shop.conn.execute(query).fetchone() == ("a-admin", "a bug")


def test_replays_have_a_badge_that_leads_to_their_rewind(shop, admin):
    page = start(admin)
    assert "replay" not in admin.get("/topics/invoices").text
    handle(shop.conn, shop.biller)

    invoices = admin.get("/topics/invoices").text
    assert invoices.count('class="tag replay"') == 4
    assert f'href="{page}"' in invoices
    newest = scalar(shop.conn, "select max(position) from kirby.message")
    assert 'class="tag replay"' in admin.get(f"/messages/{newest}").text


@pytest.mark.parametrize("path", ["/", "/topics", "/topics/orders"])
def test_other_pages_say_that_a_rewind_is_going_on_until_it_is_over(path, shop, admin):
    page = start(admin)
    said = admin.get(path).text
    assert 'class="replaying"' in said
    assert f'href="{page}"' in said
    assert "again to biller" in said

    handle(shop.conn, shop.biller)
    scalar(shop.conn, "select kirby.end_rewinds()")

    assert 'class="replaying"' not in admin.get(path).text
    assert 'class="replaying"' not in admin.get("/topics/invoices").text


def test_a_rewind_is_paused_resumed_and_aborted(shop, admin):
    page = start(admin)
    admin.post(page, data={"do": "pause"})
    assert "Resume" in admin.get(page).text
    assert handle(shop.conn, shop.biller) == 0

    again = admin.post(page, data={"do": "pause"})
    assert again.status_code == 409
    assert 'role="alert"' in again.text

    admin.post(page, data={"do": "resume"})
    assert handle(shop.conn, shop.biller, limit=1) == 1
    answer = admin.post(page, data={"do": "abort", "reason": "not this one"})
    assert answer.status_code == 303
    assert ">aborted</span>" in admin.get(page).text
    assert handle(shop.conn, shop.biller) == 0
    assert "not this one" in scalar(
        shop.conn, "select string_agg(reason, ' ') from kirby.audit_event"
    )


def test_a_rewind_is_proposed_and_approved_by_another(shop, admin, client, people):
    page = start(admin, do="propose")
    assert scalar(shop.conn, "select status from kirby.rewind") == "planned"
    assert handle(shop.conn, shop.biller) == 0
    assert "Approve and start" in admin.get(page).text

    operator = client(people("operator"))
    assert operator.post(page, data={"do": "approve"}).status_code == 303

    assert handle(shop.conn, shop.biller) == 4
    assert operator.post(page, data={"do": "approve"}).status_code == 409


def test_rewinds_are_listed_newest_first(shop, admin):
    assert "Nothing was rewound in dev" in admin.get("/rewinds").text
    first, second = start(admin, do="propose"), start(admin)

    listed = re.findall(r'class="strong num" href="([^"]+)"', admin.get("/rewinds").text)

    assert listed == [second, first]
    assert "<html" not in admin.get("/rewinds", headers={"HX-Request": "true"}).text


def test_states_are_set_back_by_a_rewind_and_their_versions_lead_to_it(shop, admin):
    page = start(admin, states="yes")
    scalar(shop.conn, "select kirby.end_rewinds()")

    key = admin.get("/states/totals/key?key=A").text

    assert "back to none" in key
    assert f'href="{page}"' in key
    assert "states set back" in admin.get(page).text


def test_a_viewer_looks_and_moves_nothing(shop, admin, viewer):
    page = start(admin)

    assert "Pause" not in viewer.get(page).text
    assert 'id="start"' not in viewer.get(PLAN, params={"to": "1h", "only": "biller"}).text
    assert viewer.post(page, data={"do": "pause"}).status_code == 403
    assert viewer.post(PLAN, data={"to": "1h", "reason": "x"}).status_code == 403
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert admin.post(page, data={"do": "abort"}, headers=headers).status_code == 403
    assert admin.post(PLAN, data={"to": "1h", "reason": "x"}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("/rewinds/999", 404), ("/rewinds/99999999999999999999", 404), ("/topics/no/rewind", 404)],
)
def test_what_is_not_there(path, status, shop, admin):
    assert admin.get(path).status_code == status


def test_a_rewind_of_keys_that_set_states_back_can_be_aborted(shop, admin):
    plan = admin.get(PLAN, params={"to": "1h", "only": "biller", "keys": "A", "states": "yes"})
    assert "It can be paused and aborted" in plan.text
    page = start(admin, keys="A", states="yes")
    scalar(shop.conn, "select kirby.end_rewinds()")

    assert "Abort" in admin.get(page).text
    assert admin.post(page, data={"do": "abort", "reason": "yet"}).status_code == 303
    assert ">aborted</span>" in admin.get(page).text


def test_what_is_not_exact_from_here_is_said_and_can_be_planned_from_there(shop, admin):
    """The totals of A and of B were made of two orders each, by one batch."""
    middle = {"to": str(shop.orders[2]), "only": "biller", "states": "yes"}
    page = admin.get(PLAN, params=middle).text
    assert "States would not be exact" in page
    assert 'value="exact">' in page
    assert 'name="do" value="start"' not in page
    answer = admin.post(PLAN, data={**middle, "reason": "a bug", "do": "start"})
    assert answer.status_code == 400
    assert "Not exact from here: 2 versions" in answer.text

    page = admin.get(PLAN, params={**middle, "point": "exact"}).text
    assert tiles(page)["Delivered again"] == "4"
    assert '<input type="hidden" name="point" value="exact">' in page
    here = admin.get(PLAN, params={**middle, "point": "inexact"}).text
    assert tiles(here)["Delivered again"] == "2"
    start(admin, **middle, point="exact")
    assert scalar(shop.conn, "select after from kirby.rewind") == shop.orders[0] - 1


def test_what_a_rewind_waits_for_is_said(shop, admin):
    tally, _ = subscriptions.subscribe(shop.conn, "invoices", "tally")
    batch = subscriptions.claim(shop.conn, tally, 1)
    key = batch.positions[0]
    change = {"k": "all", "o": "set", "v": 1, "p": [key], "h": {"via": [["tally"]]}}
    subscriptions.settle(shop.conn, batch, mutations=json.dumps({"sums": [change]}))
    page = start(admin, states="yes")

    waiting = admin.get(page).text
    assert ">preparing</span>" in waiting
    assert "It waits until tally of invoices" in waiting
    while batch := subscriptions.claim(shop.conn, tally, 9):
        subscriptions.settle(shop.conn, batch)
    scalar(shop.conn, "select kirby.end_rewinds()")
    assert ">running</span>" in admin.get(page).text


def test_headers_that_only_look_like_those_of_a_rewind_break_no_page(shop, admin):
    for number, replay in enumerate((-3, 10**30, "x", True, [1])):
        odd = json.dumps({"odd": [{"v": number, "h": {"replay": replay}}]})
        restored = {"restored": {"version": replay, "rewind": replay}, "replay": replay}
        change = [{"k": "odd", "o": "set", "v": number, "h": restored}]
        scalar(shop.conn, "select kirby.append_messages(1::smallint, null, %s)", odd)
        query = "select kirby.append_mutations(1::smallint, null, %s)"
        scalar(shop.conn, query, json.dumps({"totals": change}))

    scalar(shop.conn, "select kirby.append_messages(1::smallint, null, %s)", LISTED)
    assert admin.get("/topics/odd").status_code == 200
    assert admin.get("/states/totals/key?key=odd").status_code == 200

"""The page of effects: what is in doubt, and a person's word about it."""

import pytest
from fix_web import connected, publish, scalar

BEGUN = """
    insert into kirby.effect (environment_id, name, key, subscription_id, position, status,
                              idempotent, attempt, begun_at, confirmed_at)
    select 1, %(name)s, %(key)s, s.id, %(position)s, %(status)s, false, gen_random_uuid(),
           kirby.now(), case when %(status)s = 'confirmed' then kirby.now() end
      from kirby.subscription s
    returning id
"""


@pytest.fixture
def effects(dsn):
    """One effect that is confirmed and one in doubt, of two messages; the latter's id."""
    with connected(dsn) as conn:
        position = publish(conn, "orders", {"amount": 3})
        conn.execute("select kirby.subscribe('orders', 'biller')")
        given = {"name": "charge", "key": "k-1", "position": position, "status": "confirmed"}
        conn.execute(BEGUN, given)
        given |= {"key": "k-2", "status": "begun"}
        return conn.execute(BEGUN, given).fetchone()[0]


def test_effects_are_listed_with_what_became_of_them(effects, admin):
    page = admin.get("/effects").text

    assert "k-1" in page
    assert "k-2" in page
    assert "confirmed" in page
    assert "in doubt" in page
    assert "biller" in page


def test_those_in_doubt_alone(effects, admin):
    page = admin.get("/effects?show=doubt").text

    assert "k-1" not in page
    assert "k-2" in page
    assert "Nothing is in doubt" in admin.get("/effects?show=doubt&name=mail").text


@pytest.mark.parametrize(("do", "status"), [("done", "confirmed"), ("again", "again")])
def test_a_person_says_what_happened(do, status, effects, admin, dsn):
    answer = admin.post(f"/effects/{effects}", data={"do": do})

    assert answer.status_code == 303
    with connected(dsn) as conn:
        query = "select status, resolved_by from kirby.effect where id = %s"
        assert conn.execute(query, [effects]).fetchone() == (status, "a-admin")
        assert scalar(conn, "select count(*) from kirby.audit_event where verb like '%%effect%%'")
    assert "Nothing is in doubt" in admin.get(answer.headers["location"]).text


def test_what_cannot_be_said_comes_back_in_one_line(effects, admin, viewer):
    assert admin.post(f"/effects/{effects}", data={"do": "perhaps"}).status_code == 400
    assert admin.post("/effects/999", data={"do": "done"}).status_code == 404
    admin.post(f"/effects/{effects}", data={"do": "done"})
    again = admin.post(f"/effects/{effects}", data={"do": "done"})
    assert again.status_code == 409
    assert 'role="alert"' in again.text
    assert viewer.post(f"/effects/{effects}", data={"do": "done"}).status_code == 403
    assert "It happened" not in viewer.get("/effects").text


def test_another_site_cannot_say_it(effects, admin):
    headers = {"Sec-Fetch-Site": "cross-site"}

    assert (
        admin.post(f"/effects/{effects}", data={"do": "done"}, headers=headers).status_code == 403
    )

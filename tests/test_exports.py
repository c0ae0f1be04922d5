"""Exports: by SQL, by the API and kirby topic export/import; never back to where they came from."""

import json

import httpx2
import psycopg
import pytest
from fix_pull import far_fixture, far_web_fixture, lines  # noqa: F401
from fix_web import connected
from test_api import bearer


def read(conn, plan, topic, limit=None, actor="me"):
    """Every page of an export: its lines, and how many pages there were."""
    found, after, pages = [], 0, 0
    while True:
        text, messages, after, done = conn.execute(
            "select lines, messages, position, done from kirby.export_messages(%s, %s, %s, %s, %s)",
            [plan["export"], topic, after, limit, actor],
        ).fetchone()
        page = [json.loads(line) for line in (text or "").splitlines()]
        assert len(page) == messages
        found += page
        pages += 1
        if done or limit is not None:
            return found, pages


def begin(conn, actor="me", **asked):
    return conn.execute("select kirby.begin_export(%s, %s)", [json.dumps(asked), actor]).fetchone()[
        0
    ]


# By SQL


def test_every_message_leaves_once_in_order_in_pages(far):
    far.fill("orders", 12_345)
    far.ask("select kirby.change_lanes(id, 32, 'test') from kirby.topic")
    far.fill("orders", 3_000)

    found, pages = read(far.conn, begin(far.conn, topics=["orders"]), "orders")

    there = far.ask("select position, key, payload from kirby.message order by position")
    assert [(m["position"], m["key"], m["value"]) for m in found] == there
    assert pages > 5


def test_a_page_is_small_even_if_messages_are_large(far):
    for n in range(6):
        far.publish("orders", {"n": n, "text": "".join(chr(97 + (n * i) % 26) for i in range(9))})
    far.ask("insert into kirby.mask (topic_id) select id from kirby.topic")
    [(size,)] = far.ask("select max(length(payload::text)) from kirby.message")
    assert size < 100
    blob = {"blob": [hash((n, 7)) for n in range(60_000)]}
    for _ in range(4):
        far.publish("large", blob)

    found, pages = read(far.conn, begin(far.conn, topics=["large"]), "large")

    assert len(found) == 4
    assert pages == 4


def test_what_comes_later_is_not_in_it(far):
    far.fill("orders", 100)
    plan = begin(far.conn, topics=["orders"])
    far.fill("orders", 100)

    assert len(read(far.conn, plan, "orders")[0]) == 100


def test_keys_a_position_and_a_limit(far):
    far.fill("orders", 700)
    [(middle,)] = far.ask("select position from kirby.message order by position offset 349 limit 1")

    keys = read(far.conn, begin(far.conn, topics=["orders"], keys=["K1", "K2"]), "orders")[0]
    after = read(far.conn, begin(far.conn, topics=["orders"], after=middle), "orders")[0]
    some = read(far.conn, begin(far.conn, topics=["orders"], limit=10), "orders", limit=10)[0]

    assert [m["value"]["n"] for m in keys] == [n for n in range(700) if n % 7 in (1, 2)]
    assert [m["value"]["n"] for m in after] == list(range(350, 700))
    assert [m["value"]["n"] for m in some] == list(range(10))


@pytest.mark.parametrize("counted", [True, False])
def test_since_and_until_bound_the_time_of_recording(far, counted):
    for n in range(30):
        far.publish("orders", n)
        if n == 9:
            since = far.value("select clock_timestamp()")
        if n == 19:
            until = far.value("select clock_timestamp()")
    if counted:
        while far.value("select kirby.count_messages()"):
            pass
    far.fill("orders", 50)

    plan = begin(far.conn, topics=["orders"], since=since.isoformat(), until=until.isoformat())

    assert [m["value"] for m in read(far.conn, plan, "orders")[0]] == list(range(10, 20))


def test_how_long_ago_is_by_the_clock_of_the_database(far):
    far.publish("orders", 1)

    plan = begin(far.conn, topics=["orders"], since_ago=3600, until_ago=0)
    old = begin(far.conn, topics=["orders"], until_ago=3600)

    assert len(read(far.conn, plan, "orders")[0]) == 1
    assert read(far.conn, old, "orders")[0] == []


def test_each_message_says_where_it_comes_from(far):
    position = far.publish("orders", 1, "A", {"trace": "t"})
    plan = begin(far.conn, topics=["orders"])

    [message] = read(far.conn, plan, "orders")[0]

    assert message["headers"] == {
        "trace": "t",
        "origin": {
            "installation": far.value("select id::text from kirby.installation"),
            "environment": "dev",
            "topic": "orders",
            "position": position,
            "exported": plan["exported"],
            "by": "me",
        },
    }
    assert message["position"] == position


def test_the_audit_log_has_filters_masks_and_counts(far):
    far.fill("orders", 20)
    far.ask(
        "insert into kirby.mask (topic_id, rules) select id, %s from kirby.topic",
        json.dumps({"in": {"value": {"in": {"who": {"rule": "drop"}}}}}),
    )
    plan = begin(far.conn, topics=["orders"], keys=["K1"])
    found = read(far.conn, plan, "orders")[0]
    sent = far.value("select kirby.end_export(%s, 'me')", plan["export"])

    [begun], [ended] = far.audits("export_begun"), far.audits("export_ended")
    assert begun["keys"] == ["K1"]
    assert begun["topics"]["orders"]["masks"] == {
        "in": {"value": {"in": {"who": {"rule": "drop"}}}}
    }
    assert ended == {"sent": {"orders": 3}} == {"sent": sent}
    assert all("who" not in m["value"] for m in found)
    assert far.value("select salt is null and ended_at is not null from kirby.export")


def test_what_an_export_hashes_stays_the_same_and_another_hashes_otherwise(far):
    far.publish("orders", {"who": "anna"}, "anna")
    far.publish("other", {"who": "anna"}, "anna")
    rules = json.dumps({"in": {"key": {"rule": "hash"}, "value": {"rule": "fake"}}})
    far.ask("insert into kirby.mask (topic_id, rules) select id, %s from kirby.topic", rules)

    plan, next_plan = (begin(far.conn, topics=["orders", "other"]) for _ in range(2))
    first, again = (read(far.conn, plan, "orders")[0] for _ in range(2))
    other, later = read(far.conn, plan, "other")[0], read(far.conn, next_plan, "orders")[0]

    assert first == again
    assert first[0]["key"] == other[0]["key"] != later[0]["key"]
    assert first[0]["value"] == other[0]["value"]


def test_an_export_ends_when_its_masks_change(far):
    far.publish("orders", 1)
    plan = begin(far.conn, topics=["orders"])
    far.ask("insert into kirby.mask (topic_id, deny) select id, true from kirby.topic")

    with pytest.raises(psycopg.Error, match="the masks of orders have changed since export"):
        read(far.conn, plan, "orders")


def test_an_export_is_its_beginners_and_ends(far):
    far.publish("orders", 1)
    plan = begin(far.conn, topics=["orders"])

    with pytest.raises(psycopg.Error, match="was begun by me"):
        read(far.conn, plan, "orders", actor="you")
    with pytest.raises(psycopg.Error, match="topic other is not part of export"):
        read(far.conn, plan, "other")
    far.value("select kirby.end_export(%s, 'me')", plan["export"])
    with pytest.raises(psycopg.Error, match="has ended: begin a new one"):
        read(far.conn, plan, "orders")


def test_a_state_leaves_as_it_was_before_the_first_message(far):
    far.set("totals", A=1, B=1)
    far.fill("orders", 10)
    first = far.value("select min(position) from kirby.message")
    far.set("totals", A=2, C=1)

    for asked, wanted in (
        ({"topics": ["orders"], "after": first - 1}, {"A": 1, "B": 1}),
        ({}, {"A": 2, "B": 1, "C": 1}),
    ):
        plan = begin(far.conn, states=["totals"], **asked)
        [(text,)] = far.ask(
            "select lines from kirby.export_entries(%s, 'totals', null, 100, 'me')", plan["export"]
        )
        found = [json.loads(line) for line in text.splitlines()]
        assert {each["key"]: each["value"] for each in found} == wanted


def test_a_handler_that_was_late_is_in_the_state_before_a_slice(far):
    """What became of earlier messages is in it, whenever; nothing that became of later ones."""
    far.set("totals", B=0, D=1)
    old = [far.publish("orders", n) for n in range(3)]
    new = [far.publish("orders", n) for n in range(3, 6)]
    steps = [
        ("A", 1, [old[0]]),
        ("A", 2, [old[0], -old[2]]),
        ("A", 3, [new[0]]),
        ("A", 4, [old[1]]),
    ]
    steps += [("B", 1, [new[1]]), ("C", 1, [old[2], new[0]]), ("E", 1, None), ("D", None, [old[1]])]
    for key, value, parents in steps:
        change = {"k": key, "o": "delete" if value is None else "set", "v": value, "p": parents}
        far.ask("select kirby.write('{}', %s)", json.dumps({"totals": [change]}))

    plan = begin(far.conn, topics=["orders"], after=old[-1], states=["totals"])
    for size in (100, 1):
        found, after = [], None
        while True:
            text, _, after = far.ask(
                "select * from kirby.export_entries(%s, 'totals', %s, %s, 'me')",
                plan["export"], after, size,
            )[0]  # fmt: skip
            found += [json.loads(line) for line in (text or "").splitlines()]
            if after is None:
                break
        assert found == [{"key": "A", "value": 2}, {"key": "B", "value": 0}]


@pytest.mark.parametrize(
    ("role", "said"),
    [("viewer", "may not export"), ("operator", "may not export"), ("developer", None)],
)
def test_a_worker_exports_with_a_developers_token_only(far, as_role, role, said):
    far.publish("orders", {"who": "anna"})
    far.ask("insert into kirby.mask (topic_id, deny) select id, true from kirby.topic")
    with psycopg.connect(as_role(far.dsn, "kirby_worker"), autocommit=True) as conn:
        conn.execute("select set_config('kirby.token', %s, false)", [far.token(role)])
        if said:
            with pytest.raises(psycopg.Error, match=said):
                begin(conn, topics=["orders"])
            return
        plan = begin(conn, topics=["orders"], actor="somebody else")
        [message] = read(conn, plan, "orders")[0]
    assert plan["by"] == "token ci"
    assert message["value"] is None


# Never back


BACK = {"installation": "?", "environment": "dev", "position": 7}


@pytest.mark.parametrize("way", ["publish", "write", "many", "id", "within", "lanes"])
def test_a_message_does_not_come_back_in_any_way(db, way):
    own = db.execute("select id::text from kirby.installation").fetchone()[0]
    headers = {"origin": {**BACK, "installation": own}, "x": 1}
    if way == "lanes":
        db.execute("select kirby.open_topic('orders', 16, 2)")
    one = {"v": 1, "h": headers}
    calls = {
        "publish": ("select kirby.publish('orders', '1', headers => %s)", headers),
        "write": ("select kirby.write(%s)", {"orders": [one]}),
        "many": ("select kirby.write(%s)", {"orders": [{"v": 1}, one, {"v": 2}]}),
        "id": ("select kirby.write(%s)", {"orders": {"m": [{**one, "i": "a"}]}}),
        "within": ("select kirby.publish_within(%s)", {"orders": [one]}),
        "lanes": ("select kirby.write(%s)", {"orders": [one]}),
    }
    statement, document = calls[way]

    refused = pytest.raises(psycopg.Error, match="does not come back to it")
    with refused as refusal, db.transaction():
        db.execute(statement, [json.dumps(document)])

    assert refusal.value.sqlstate == "KB003"
    assert db.execute("select count(*) from kirby.message").fetchone() == (0,)


def test_a_message_that_went_through_another_installation_does_not_come_back_either(db):
    own = db.execute("select id::text from kirby.installation").fetchone()[0]
    origin = {
        "installation": "elsewhere",
        "environment": "dev",
        "from": {**BACK, "installation": own},
    }

    with pytest.raises(psycopg.Error, match="does not come back"):
        db.execute(
            "select kirby.publish('o', '1', headers => %s)", [json.dumps({"origin": origin})]
        )


@pytest.mark.parametrize(
    "origin", ["by hand", 7, None, [], {"installation": "x"}, {**BACK, "installation": "x"}]
)
def test_any_other_origin_passes(db, origin):
    db.execute("select kirby.publish('o', '1', headers => %s)", [json.dumps({"origin": origin})])

    assert db.execute("select headers from kirby.message").fetchone() == ({"origin": origin},)


def test_the_same_installation_takes_it_in_another_environment(db):
    own = db.execute("select id::text from kirby.installation").fetchone()[0]
    headers = json.dumps({"origin": {**BACK, "installation": own}})
    db.execute("select set_config('kirby.environment', 'preprod', true)")

    db.execute("select kirby.publish('o', '1', headers => %s)", [headers])


def test_the_origin_of_what_came_from_elsewhere_is_kept_within_the_new_one(far):
    far.publish("orders", 1, headers={"origin": {"installation": "first", "environment": "prod"}})

    [message] = read(far.conn, begin(far.conn, topics=["orders"]), "orders")[0]

    assert message["headers"]["origin"]["from"] == {
        "installation": "first",
        "environment": "prod",
    }


# By the API


def test_a_stream_of_messages_is_lines_of_json(far, far_web):
    far.fill("orders", 5_000)
    headers = bearer(far.token())

    answer = httpx2.get(f"{far_web.url}/api/v1/topics/orders/messages", headers=headers)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [m["value"]["n"] for m in found] == list(range(5_000))
    assert found[0]["headers"]["origin"]["by"] == "token ci"
    assert far.audits("export_ended") == [{"sent": {"orders": 5_000}}]


def test_a_stream_goes_on_after_a_position_with_filters(far, far_web):
    far.fill("orders", 700)
    url = f"{far_web.url}/api/v1/topics/orders/messages"
    headers = bearer(far.token())
    first = httpx2.get(url, params={"key": ["K1", "K3"], "limit": 3}, headers=headers)
    messages = [json.loads(line) for line in first.text.splitlines()]

    rest = httpx2.get(
        url, params={"key": ["K1", "K3"], "after": messages[-1]["position"]}, headers=headers
    )

    assert [m["value"]["n"] for m in messages] == [1, 3, 8]
    assert json.loads(rest.text.splitlines()[0])["value"]["n"] == 10
    assert len(rest.text.splitlines()) == 197


@pytest.mark.parametrize(
    ("role", "path", "status", "said"),
    [
        (None, "topics/orders/messages", 401, "a token is needed here"),
        ("operator", "topics/orders/messages", 403, "this needs the role developer"),
        ("developer", "topics/order/messages", 404, "there is no topic order in dev"),
        ("developer", "states/none/entries", 404, "there is no state none in dev"),
        ("developer", "topics/orders/messages?since=x", 400, "'x' is no time"),
        ("developer", "topics/orders/messages?export=99", 404, "there is no export 99 in dev"),
        ("developer", "topics/orders/messages?env=prod", 404, "there is no topic orders in prod"),
    ],
)
def test_what_is_wrong_is_said_before_the_stream(far, far_web, role, path, status, said):
    far.publish("orders", 1)
    headers = bearer(far.token(role)) if role else {}

    answer = httpx2.get(f"{far_web.url}/api/v1/{path}", headers=headers)

    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "nothing to export"),
        ({"topics": "orders"}, "topics must be a list of texts"),
        ({"topics": ["orders"], "limit": "7"}, "limit must be a whole number"),
        ({"topics": ["orders"], "since": 7}, "since must be a text"),
        ({"topics": ["orders"], "all_states": 1}, "all_states must be true or false"),
        ({"topics": ["orders"], "masks": {}}, "masks is nothing that an export knows"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused(far, far_web, body, said):
    far.publish("orders", 1)

    answer = httpx2.post(f"{far_web.url}/api/v1/exports", json=body, headers=bearer(far.token()))

    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_a_token_of_an_environment_exports_from_it_alone(far, far_web):
    far.environment("prod")
    far.publish("orders", 1)
    headers = bearer(far.token(environment="prod"))

    inside = httpx2.get(f"{far_web.url}/api/v1/topics/orders/messages", headers=headers)
    outside = httpx2.get(f"{far_web.url}/api/v1/topics/orders/messages?env=dev", headers=headers)

    assert len(inside.text.splitlines()) == 1
    assert outside.status_code == 403


# The commands


def test_a_file_is_exported_and_imported_whole(kirby, far, dsn, tmp_path, monkeypatch):
    exact = '{"n": 1.10, "big": 12345678901234567890.5}'
    far.value("select kirby.publish('orders', %s, 'A', '{\"h\": [1]}')", exact)
    far.publish("orders", None)
    monkeypatch.setenv("KIRBY_DSN", far.login)
    done = kirby("topic", "export", "orders", "--to", "orders.jsonl")
    assert (done.code, done.out) == (0, "exported 2 messages of orders to orders.jsonl\n"), done.err
    assert kirby("topic", "import", "orders.jsonl").err == (
        "kirby: a message that was exported from dev of this installation does not"
        f" come back to it (position {lines(tmp_path / 'orders.jsonl')[0]['position']} there)\n"
    )

    monkeypatch.setenv("KIRBY_DSN", dsn)
    first, second = (kirby("topic", "import", "orders.jsonl", "--topic", "copy") for _ in "12")

    assert first.out == "imported 2 of copy\n"
    assert second.out == "imported 0 of copy; 2 were here already\n"
    with connected(dsn) as conn:
        rows = conn.execute(
            "select key, payload::text, headers from kirby.message order by position"
        ).fetchall()
    there = far.ask("select key, payload::text from kirby.message order by position")
    assert [(key, value) for key, value, _ in rows] == there  # to the last digit
    assert rows[0][2]["h"] == [1]
    assert rows[0][2]["origin"]["topic"] == "orders"


def test_standard_output_and_input(kirby, dsn, tmp_path):
    lines_ = b'{"value": 1, "key": "A"}\n\n{"value": {"a": [1]}}'

    assert kirby("topic", "import", "-", "--topic", "orders", stdin=lines_).code == 0
    done = kirby("topic", "read", "orders")

    assert [json.loads(line)["value"] for line in done.out.splitlines()] == [1, {"a": [1]}]
    assert kirby("topic", "import", "-").code == 2


def test_lines_without_an_origin_are_known_by_their_file(kirby, tmp_path):
    (tmp_path / "orders.jsonl").write_text('{"value": 1}\n{"value": 2}\n')

    assert kirby("topic", "import", "orders.jsonl").out == "imported 2 of orders\n"
    assert kirby("topic", "import", "orders.jsonl").out == (
        "imported 0 of orders; 2 were here already\n"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 3 is not JSON"),
        (b'{"a": 1}', "line 3 is no envelope"),
        (b"7", "line 3 is no envelope"),
        (b'{"value": 1, "key": 7}', "line 3 has a key that is no text"),
        (b'{"value": 1, "headers": []}', "line 3 has headers that are no object"),
        (b'{"value": "\\u0000"}', "line 3 cannot be stored"),
        (b'{"value": "\xff"}', "line 3 is not JSON"),
        (b'{"value": NaN}', "line 3 cannot be stored"),
    ],
)
def test_a_line_that_cannot_be_imported_is_named_and_nothing_comes_in(
    kirby, dsn, tmp_path, line, said
):
    good = b'{"value": 1}\n{"value": 2}\n'
    (tmp_path / "orders.jsonl").write_bytes(good + line + b"\n" + good)

    done = kirby("topic", "import", "orders.jsonl")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(f"kirby: orders.jsonl: {said}")
    with connected(dsn) as conn:
        assert conn.execute("select count(*) from kirby.message").fetchone() == (0,)

"""Every page: it shows, it is for people who are logged in, and looking at it changes nothing."""

import re

import pytest
from fix_web import connected, count, deploy, publish, record, scalar, set_keys, start

PAGES = {
    "/": ("Overview", "hello", "Nothing is wrong"),
    "/jobs": ("Jobs", "nightly", "0 2 * * *"),
    "/jobs/hello": ("hello", "Run now", "DAYS"),
    "/jobs/nightly": ("nightly", "0 2 * * *", "2026-01-01 02:00"),
    "/jobs/mailer": ("mailer", "1 of 2 running", "host-1"),
    "/jobs/hello/source": ("hello.py", "print(&#34;hello&#34;)", "deployed"),
    "/runs": ("Runs", "it ended with exit code 3", "running"),
    "/runs?status=bad": ("Runs", "it ended with exit code 3", "failed"),
    "/runs?job=hello": ("Runs", "hello", "running"),
    "/runs/{failed}": ("#{failed}", "&lt;b&gt;not bold&lt;/b&gt;", "東京"),
    "/runs/{live}": ("#{live}", "at work", "Cancel"),
    "/runs/{replica}": ("#{replica}", "Restart replica", "No line yet"),
    "/topics": ("Topics", "orders", "behind"),
    "/topics/orders": ("orders", "12.5", "Publish a message"),
    "/topics/orders?key=A": ("orders", "12.5", "Messages with key"),
    "/topics/orders?key=B": ("orders", "No message with this key", "Looked at 0 messages"),
    "/messages/{position}": ("orders", "&lt;Ærø&gt;", "no run"),
    "/states": ("States", "totals", "state_dev.rates"),
    "/states/totals": ("totals", "flights", "EV"),
    "/states/totals?prefix=E": ("totals", "flights", "EV"),
    "/states/rates": ("rates", "1.08", "usd"),
    "/states/totals/key?key=EV": ("EV", "<del>1</del>", "first value"),
    "/states/totals?at=1h": ("totals", "As it was on", "The state was empty then"),
    "/states/totals/diff?from=1h": ("Differences", "added", "UA"),
    "/topics/orders/rewind": ("Rewind", "Show the plan", "Set states back first"),
    "/rewinds": ("Rewinds", "Nothing was rewound", "--plan"),
    "/effects": ("Effects", "No effect yet", "In doubt"),
    "/health": ("Health", "host-1", "job_event"),
}
EMPTY = {
    "/": "kirby deploy script.py --env prod",
    "/jobs": "kirby deploy script.py --env prod",
    "/runs": "kirby job trigger NAME --env prod",
    "/topics": "kirby topic publish orders",
    "/states": "There is no state in prod",
    "/rewinds": "kirby rewind TOPIC --to 2h --plan --env prod",
}
MISSING = [
    "/jobs/nothing",
    "/jobs/nothing/source",
    "/jobs/hello/source?version=9",
    "/runs/999999",
    "/runs/999999/log.txt",
    "/topics/nothing",
    "/messages/999999",
    "/states/nothing",
    "/states/totals/key?key=nothing",
    "/?env=nothing",
    "/nothing",
    "/runs/99999999999999999999999",
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows(page, house, admin):
    response = admin.get(page.format(**vars(house)))

    assert response.status_code == 200
    for text in PAGES[page]:
        if text != "Nothing is wrong":
            assert text.format(**vars(house)) in response.text, text


@pytest.mark.parametrize("page", PAGES)
def test_a_viewer_may_look_at_a_page(page, house, viewer):
    response = viewer.get(page.format(**vars(house)))

    assert response.status_code == 200
    assert 'action="/runs/' not in response.text
    assert "Publish a message" not in response.text
    assert "Run now" not in response.text


@pytest.mark.parametrize("page", PAGES)
def test_a_stranger_is_sent_to_the_login_and_comes_back_to_the_page(page, house, stranger):
    address = page.format(**vars(house))

    response = stranger.get(address)

    assert response.status_code == 303
    assert response.headers["location"].startswith("/login?next=/")
    assert "orders" not in response.text


@pytest.mark.parametrize("page", PAGES)
def test_looking_at_a_page_changes_nothing(page, house, admin, dsn):
    tables = ("audit_event", "job_event", "message", "run", "login_failure", "session")
    before = [count(dsn, table) for table in tables]

    admin.get(page.format(**vars(house)))

    assert [count(dsn, table) for table in tables] == before


@pytest.mark.parametrize("page", EMPTY)
def test_an_empty_page_says_what_to_do_next(page, house, admin):
    response = admin.get(page, params={"env": "prod"})

    assert EMPTY[page] in response.text


@pytest.mark.parametrize("page", MISSING)
def test_what_does_not_exist_is_a_page_that_says_so(page, house, admin):
    response = admin.get(page)

    assert response.status_code == 404
    assert "Not found" in response.text
    assert "Traceback" not in response.text


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(house, admin):
    assert "did you mean orders?" in admin.get("/topics/order").text
    assert "did you mean nightly?" in admin.get("/jobs/nigthly").text
    assert "did you mean totals?" in admin.get("/states/total").text
    assert "did you mean prod?" in admin.get("/?env=prd").text


@pytest.mark.parametrize(
    "page",
    ["/runs?before=x", "/runs?status=odd", "/topics/orders?before=-1", "/jobs/%00", "/?a=%00"],
)
def test_a_bad_address_is_refused_in_one_line(page, house, admin):
    assert admin.get(page).status_code == 400


def test_an_address_that_does_not_take_a_post_says_so(house, admin):
    assert admin.post("/jobs").status_code == 405


def test_an_error_that_nobody_expected_shows_no_stack(house, admin, dsn):
    with connected(dsn) as conn:
        conn.execute("alter table kirby.state_entry rename column version to versions")

    response = admin.get("/states/totals")

    assert response.status_code == 500
    assert "Something broke" in response.text
    assert "psycopg" not in response.text
    assert "versions" not in response.text


def test_a_database_that_is_away_is_said_on_the_page(house, admin, dsn, databases):
    databases.drop(dsn)

    response = admin.get("/")

    assert response.status_code == 503
    assert "Not available" in response.text


def test_htmx_gets_the_changing_part_alone(house, admin):
    for page in (
        "/",
        "/jobs",
        "/jobs/hello",
        "/runs",
        "/topics",
        "/topics/orders",
        "/states",
        "/states/totals",
        "/health",
        f"/runs/{house.failed}",
    ):
        response = admin.get(page, headers={"HX-Request": "true"})

        assert response.status_code == 200
        assert "<html" not in response.text
        assert "HX-Request" in response.headers["vary"]


def test_an_environment_is_chosen_once_and_stays(house, admin):
    assert ">nightly<" not in admin.get("/jobs?env=prod").text
    assert admin.cookies["kirby_env"] == "prod"
    assert ">nightly<" not in admin.get("/jobs").text
    assert ">nightly<" in admin.get("/jobs?env=dev").text


def test_a_run_is_shown_in_its_own_environment(house, admin):
    admin.get("/jobs?env=prod")

    assert "/jobs/hello?env=dev" in admin.get(f"/runs/{house.live}").text


def test_every_link_of_every_page_leads_somewhere(house, admin):
    seen, waiting = set(), ["/"]
    while waiting:
        page = waiting.pop()
        response = admin.get(page)
        assert response.status_code == 200, page
        if not response.headers["content-type"].startswith("text/html"):
            continue
        for link in re.findall(r'href="(/[^"#]*)', response.text):
            link = link.replace("&amp;", "&")
            if link not in seen and not link.startswith("/static") and "env=pr" not in link:
                seen.add(link)
                waiting.append(link)
    assert len(seen) > 20


def test_the_log_of_a_run_is_a_file_to_keep(house, admin):
    response = admin.get(f"/runs/{house.failed}/log.txt")

    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["content-disposition"] == (
        f'attachment; filename="hello-{house.failed}.log"'
    )
    assert response.text.splitlines()[1].endswith("stdout <b>not bold</b>")


def test_terminal_colours_become_classes_and_nothing_else(house, admin):
    text = admin.get(f"/runs/{house.failed}").text

    assert '<span class="a-31">red</span> and 東京' in text
    assert "\x1b" not in text


def test_a_run_s_page_begins_with_its_last_lines_and_leads_to_earlier_ones(house, admin, dsn):
    with connected(dsn) as conn:
        conn.execute(
            "insert into kirby.log_line select nextval('kirby.position'), %s, 'stdout', 'info',"
            " 'line ' || n, now() from generate_series(1, 620) n",
            [house.live],
        )

    text = admin.get(f"/runs/{house.live}").text
    earlier = re.search(r'href="(/runs/\d+\?before=\d+)"', text).group(1)

    assert "line 620<" in text
    assert "line 100<" not in text
    assert "line 100<" in admin.get(earlier).text


def test_states_are_paged_by_key(house, admin, dsn):
    with connected(dsn) as conn:
        set_keys(conn, "many", **{f"k{n:03}": n for n in range(120)})

    first = admin.get("/states/many").text
    following = re.search(r'href="([^"]*after=[^"]*)"', first).group(1).replace("&amp;", "&")
    second = admin.get(following).text

    assert "k049" in first
    assert "k050" not in first
    assert "k050" in second
    assert "k099" in second


def test_a_prefix_is_no_pattern(house, admin, dsn):
    with connected(dsn) as conn:
        set_keys(conn, "odd", **{"100%": 1, "100x": 2})

    text = admin.get("/states/odd", params={"prefix": "100%"}).text

    assert "100%</code>" in text
    assert "100x" not in text


def test_a_deleted_key_keeps_its_history(house, admin, dsn):
    with connected(dsn) as conn:
        conn.execute(
            "select kirby.append_mutations(1::smallint, null, %s)",
            ['{"totals": [{"k": "UA", "o": "delete"}]}'],
        )

    text = admin.get("/states/totals/key?key=UA").text

    assert "The key was deleted" in text
    assert "flights" in text
    assert "key=UA" not in admin.get("/states/totals").text


def test_messages_are_paged_from_the_newest_back(house, admin, dsn):
    with connected(dsn) as conn:
        for n in range(40):
            publish(conn, "many", {"n": n}, key=f"k{n % 5}")

    first = admin.get("/topics/many").text
    older = re.search(r'href="([^"]*before=[^"]*)"', first).group(1).replace("&amp;", "&")
    second = admin.get(older).text

    numbers = [int(n) for n in re.findall(r'n&#34;</span>: <span class="j-number">(\d+)', first)]
    assert numbers[0] == 39
    assert min(numbers) == 10
    assert 'j-number">9<' in second


def test_what_is_wrong_is_on_the_overview(house, admin, dsn):
    with connected(dsn) as conn:
        failing = start(conn, deploy(conn, "failing"))
        record(conn, failing, "run_failed", exit_code=1, reason="it hurt")

    text = admin.get("/").text

    assert "it hurt" in text
    assert "1 of 2 replicas running" in text


def test_without_a_supervisor_the_overview_says_that_nothing_will_start(admin):
    assert "no supervisor is alive" in admin.get("/").text


def test_a_calm_house_says_so(admin, dsn):
    with connected(dsn) as conn:
        start(conn, deploy(conn, "hello"))

    assert "Nothing is wrong in dev" in admin.get("/").text


def test_lag_is_told_in_messages_and_seconds(house, admin, dsn):
    with connected(dsn) as conn:
        conn.execute("select kirby.subscribe('orders', 'slow')")
        for n in range(3):
            publish(conn, "orders", n)

    assert '<span class="num">4</span> behind' in admin.get("/topics").text


def test_machines_are_told_whether_all_is_well(stranger, dsn):
    assert stranger.get("/healthz").text == "ok\n"
    assert stranger.get("/readyz").text == "ok\n"
    with connected(dsn) as conn:
        conn.execute("update kirby.alembic_version set version_num = '0000'")

    response = stranger.get("/readyz")

    assert response.status_code == 503
    assert response.text == f"the schema is 0000, this Kirby needs {newest()}\n"


def newest():
    from kirby.server import schema

    return schema.head()


def test_a_topic_of_many_messages_is_estimated_not_counted(admin, dsn):
    with connected(dsn) as conn:
        publish(conn, "big", 0)
        conn.execute(
            "insert into kirby.message (position, topic_id, lane, payload)"
            " select nextval('kirby.position'), 1, n % 8, to_jsonb(n)"
            " from generate_series(1, 30000) n"
        )
        conn.execute("analyze kirby.message")

    text = admin.get("/topics").text

    assert re.search(r"≈ (29|30|31),\d{3}", text)
    assert scalar_of(dsn) == 30_001


def scalar_of(dsn):
    with connected(dsn) as conn:
        return scalar(conn, "select count(*) from kirby.message")

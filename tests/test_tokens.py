"""Tokens: shown once, kept as a hash, good for what their role may, until they are removed."""

import json

import psycopg
import pytest
from fix_web import connected, scalar

from kirby.core.errors import Denied, Invalid, NotFound, Taken
from kirby.server import database, tokens

WORKER = "kirby_worker"


@pytest.fixture
def add(engine):
    def make(name="ci", role="developer", **options):
        with database.unit(engine) as conn:
            return tokens.add(conn, name, role=role, actor="test", **options)

    return make


@pytest.fixture
def recognise(engine):
    def ask(secret):
        with database.unit(engine) as conn:
            return tokens.recognise(conn, secret)

    return ask


@pytest.fixture
def as_worker(dsn, as_role):
    """`as_worker(token)`: what an application is that presents it."""

    def connect(token, environment=""):
        conn = psycopg.connect(as_role(dsn, WORKER), autocommit=True)
        conn.execute("select set_config('kirby.token', %s, false)", [token])
        conn.execute("select set_config('kirby.environment', %s, false)", [environment])
        return conn

    return connect


def test_a_token_is_recognised_and_only_its_hash_is_kept(add, recognise, dsn):
    given = add("ci", "operator", environment="prod")

    assert given.token.startswith("kirby_")
    assert len(given.token) > 40
    assert recognise(given.token) == tokens.Bearer("ci", "operator", "prod")
    with connected(dsn) as conn:
        rows = conn.execute("select t::text from kirby.token t").fetchall()
        audit = conn.execute("select verb, object, after::text from kirby.audit_event").fetchall()
    assert given.token not in str(rows + audit)
    assert audit[-1][:2] == ("token_added", "token/ci")


def test_the_use_of_a_token_is_noted_once_a_minute(add, recognise, dsn):
    secret = add().token
    recognise(secret)
    with connected(dsn) as conn:
        first = scalar(conn, "select last_used_at from kirby.token")
        recognise(secret)
        assert scalar(conn, "select last_used_at from kirby.token") == first
        conn.execute("update kirby.token set last_used_at = last_used_at - interval '2 minutes'")
        recognise(secret)
        assert scalar(conn, "select last_used_at from kirby.token") > first


def test_an_unknown_token_opens_nothing(recognise):
    for secret in ("kirby_nothing", "", "\ud800", "x" * 100_000):
        with pytest.raises(Denied, match="not known here"):
            recognise(secret)


def test_a_removed_token_opens_nothing_and_its_name_is_free_again(add, recognise, engine):
    secret = add("ci").token
    with database.unit(engine) as conn:
        tokens.remove(conn, "ci", actor="test")

    with pytest.raises(Denied, match="the token ci was removed"):
        recognise(secret)
    assert recognise(add("ci").token).name == "ci"


def test_an_expired_token_opens_nothing_and_its_name_is_free_again(add, recognise, dsn):
    secret = add("ci", expires=tokens.timedelta(days=1)).token
    assert recognise(secret).name == "ci"
    with connected(dsn) as conn:
        conn.execute("update kirby.token set expires_at = now() - interval '1 second'")

    with pytest.raises(Denied, match="the token ci has expired"):
        recognise(secret)
    assert recognise(add("ci").token).name == "ci"


def test_two_tokens_may_not_have_one_name(add):
    add("ci")

    with pytest.raises(Taken, match="there is a token ci already"):
        add("ci")


def test_what_cannot_be_a_token_is_said(add, engine):
    with pytest.raises(Invalid, match="no name of a token"):
        add("not a name")
    with pytest.raises(Invalid, match="'king' is not a role"):
        add("ci", "king")
    with pytest.raises(NotFound, match="did you mean preprod"):
        add("ci", environment="preprd")
    with database.unit(engine) as conn, pytest.raises(NotFound, match="there is no token cj"):
        tokens.remove(conn, "cj", actor="test")


def test_a_runs_own_token_is_none_of_the_index(dsn, recognise):
    with connected(dsn) as conn:
        conn.execute(
            "insert into kirby.token (hash, environment_id, name) values (sha256('s'), 1, 'run 1')"
        )

    with pytest.raises(Denied, match="not known here"):
        recognise("s")


def test_an_application_publishes_in_the_environment_of_its_token(add, as_worker):
    token = add("app", environment="preprod").token
    with as_worker(token) as conn:
        assert scalar(conn, "select environment from kirby.hello()") == "preprod"
        assert scalar(conn, "select kirby.publish('orders', '1')") > 0
    with as_worker(token, "prod") as conn, pytest.raises(psycopg.Error, match="belongs to") as no:
        conn.execute("select kirby.publish('orders', '1')")
    assert no.value.sqlstate == "KB003"


def test_the_greeting_of_an_application_is_a_use_of_its_token(add, as_worker, dsn):
    token = add("app").token
    with as_worker(token) as conn:
        conn.execute("set default_transaction_read_only = on")
        conn.execute("select kirby.hello()")  # as on a standby: nothing can be noted there
        conn.execute("set default_transaction_read_only = off")
        with connected(dsn) as other:
            assert scalar(other, "select last_used_at from kirby.token") is None
            conn.execute("select kirby.hello()")
            assert scalar(other, "select last_used_at from kirby.token") is not None


def test_a_token_for_all_environments_takes_the_one_that_is_named(add, as_worker):
    token = add("app").token
    with as_worker(token) as conn:
        assert scalar(conn, "select environment from kirby.hello()") == "dev"
    with as_worker(token, "prod") as conn:
        assert scalar(conn, "select environment from kirby.hello()") == "prod"
    with as_worker(token, "moon") as conn, pytest.raises(psycopg.Error) as no:
        conn.execute("select kirby.hello()")
    assert no.value.sqlstate == "KB002"


def test_what_an_application_did_says_whose_token_it_was(add, as_worker, dsn):
    with as_worker(add("app").token) as conn:
        conn.execute("select kirby.publish('orders', '1')")
    with connected(dsn) as conn:
        conn.execute("select set_config('kirby.token', %s, false)", [add("other").token])
        assert scalar(conn, "select actor from kirby.principal()") == "token other"


def test_a_viewers_token_reads_and_changes_nothing(add, as_worker, dsn):
    with as_worker(add("app", "operator").token) as conn:
        conn.execute("select kirby.publish('orders', '1')")

    with as_worker(add("screen", "viewer").token) as conn:
        assert scalar(conn, "select environment from kirby.hello()") == "dev"
        assert scalar(conn, "select count(*) from kirby.read('orders')") == 1
        for change in (
            "select kirby.publish('orders', '2')",
            "select kirby.publish('new', '2')",
            "select kirby.subscribe('orders', 'spy')",
            "select kirby.open_topic('new')",
            "select kirby.write('[]', '{}')",
        ):
            with pytest.raises(psycopg.Error, match="screen is a viewer") as no:
                conn.execute(change)
            assert no.value.sqlstate == "KB003"
    with connected(dsn) as conn:
        assert scalar(conn, "select count(*) from kirby.message") == 1


@pytest.mark.parametrize("end", ["revoked_at = now()", "expires_at = now()"])
def test_a_token_that_ended_is_refused_by_the_protocol(add, as_worker, dsn, end):
    token = add().token
    with connected(dsn) as conn:
        conn.execute(f"update kirby.token set {end}")

    with as_worker(token) as conn, pytest.raises(psycopg.Error, match="not valid") as no:
        conn.execute("select kirby.hello()")
    assert no.value.sqlstate == "KB003"


def test_the_command_prints_a_token_once(kirby, dsn, recognise):
    made = kirby("token", "add", "ci", "--role", "developer", "--expires", "30d", "--json")
    given = json.loads(made.out)

    assert recognise(given["token"]).role == "developer"
    assert given["expires_at"]
    plain = kirby("token", "add", "other", "--env", "prod")
    assert recognise(plain.out.strip()).environment == "prod"
    assert "shown this once" in plain.err

    listed = kirby("token", "list", "--json")
    assert [each["name"] for each in json.loads(listed.out)] == ["ci", "other"]
    assert given["token"] not in listed.out + kirby("token", "list").out

    assert kirby("token", "remove", "ci").code == 0
    assert "ci" not in [each["name"] for each in json.loads(kirby("token", "list", "--json").out)]
    again = kirby("token", "remove", "ci")
    assert (again.code, again.err) == (1, "kirby: there is no token ci\n")

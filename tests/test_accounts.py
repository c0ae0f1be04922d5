"""Accounts: passwords that nobody can read, sessions that end, guesses that become slow."""

import pytest

from kirby.core.errors import Denied, Invalid, Taken
from kirby.server import accounts, database

PASSWORD = "bidom-faket-lusan"


@pytest.fixture
def unit(dsn, as_role):
    """`with unit() as conn`: a unit of work of the server's own role."""
    engine = database.engine(as_role(dsn, "kirby_server"))
    yield lambda: database.unit(engine)
    engine.dispose()


@pytest.fixture
def maria(unit):
    with unit() as conn:
        accounts.add(conn, "maria", PASSWORD, "operator", actor="test")


def log_in(unit, login, password, address="10.0.0.1"):
    """A login as the web does it; the session's secret, or Denied."""
    with unit() as conn:
        begun = accounts.attempt(conn, login, address)
    account = accounts.verify(begun, password)
    with unit() as conn:
        if account:
            return accounts.admit(conn, begun, account, password)
        refusal = accounts.refuse(conn, begun)
    raise refusal


def audited(db_conn):
    rows = database.driver(db_conn).execute(
        "select actor, verb, object from kirby.audit_event order by position"
    )
    return [row for row in rows if row[1] != "environment_added"]


def pass_time(unit, seconds):
    with unit() as conn:
        database.driver(conn).execute(
            "update kirby.login_failure set at = at - make_interval(secs => %s)", [seconds]
        )


def test_the_first_account_is_made_once_and_its_password_works(unit):
    with unit() as conn:
        password = accounts.ensure_admin(conn)
    with unit() as conn:
        assert accounts.ensure_admin(conn) is None

    with unit() as conn:
        account = accounts.recognise(conn, log_in_again(unit, password))
    assert (account.login, account.role) == ("admin", "admin")


def log_in_again(unit, password):
    return log_in(unit, "admin", password)


def test_no_password_is_readable_in_the_database(unit, maria, dsn):
    with unit() as conn:
        stored = database.driver(conn).execute("select password_hash from kirby.account").fetchone()

    assert stored[0].startswith("$argon2id$")
    assert PASSWORD not in stored[0]


@pytest.mark.parametrize(
    ("login", "password", "role", "message"),
    [
        ("Maria", PASSWORD, "admin", "is not a login"),
        ("", PASSWORD, "admin", "is not a login"),
        ("maria", "short", "admin", "too short: at least 10"),
        ("maria", "x" * 1025, "admin", "too long: at most 1024"),
        ("maria", PASSWORD, "root", "'root' is not a role: viewer, operator, developer, admin"),
    ],
)
def test_an_account_that_cannot_be_is_refused(unit, login, password, role, message):
    with unit() as conn, pytest.raises(Invalid, match=message):
        accounts.add(conn, login, password, role, actor="test")


def test_a_login_belongs_to_one_account(unit, maria):
    with unit() as conn, pytest.raises(Taken, match="there is an account maria already"):
        accounts.add(conn, "maria", PASSWORD, "admin", actor="test")


def test_a_right_password_opens_a_session_and_logging_out_ends_it(unit, maria):
    secret = log_in(unit, "  Maria ", PASSWORD)

    with unit() as conn:
        account = accounts.recognise(conn, secret)
        accounts.log_out(conn, account, secret)
        assert accounts.recognise(conn, secret) is None
        assert audited(conn) == [
            ("test", "account_added", "account/maria"),
            ("maria", "logged_in", "account/maria"),
            ("maria", "logged_out", "account/maria"),
        ]


def test_the_database_does_not_hold_the_secret_of_a_session(unit, maria):
    secret = log_in(unit, "maria", PASSWORD)

    with unit() as conn:
        rows = database.driver(conn).execute("select session::text from kirby.session").fetchall()
    assert len(rows) == 1
    assert secret not in rows[0][0]


def test_a_session_ends_after_twelve_hours(unit, maria):
    secret = log_in(unit, "maria", PASSWORD)
    with unit() as conn:
        database.driver(conn).execute(
            "update kirby.session set expires_at = expires_at - interval '12 hours'"
        )

    with unit() as conn:
        assert accounts.recognise(conn, secret) is None


def test_a_disabled_account_is_not_recognised_and_cannot_log_in(unit, maria):
    secret = log_in(unit, "maria", PASSWORD)
    with unit() as conn:
        database.driver(conn).execute("update kirby.account set disabled_at = now()")

    with unit() as conn:
        assert accounts.recognise(conn, secret) is None
    with pytest.raises(Denied, match="wrong name or password"):
        log_in(unit, "maria", PASSWORD)


@pytest.mark.parametrize("login", ["maria", "nobody", "x" * 500, "a\udc80"])
def test_a_wrong_name_and_a_wrong_password_say_the_same(unit, maria, login):
    with pytest.raises(Denied, match=r"^wrong name or password$"):
        log_in(unit, login, "wrong-password")


def test_after_five_failures_a_login_has_to_wait_even_with_the_right_password(unit, maria):
    for _ in range(accounts.FREE_PER_LOGIN):
        with pytest.raises(Denied, match="wrong name"):
            log_in(unit, "maria", "wrong-password")

    with pytest.raises(accounts.TooManyAttempts, match="too many failed logins: try again in 2 s"):
        log_in(unit, "maria", PASSWORD, address="10.9.9.9")


def test_the_wait_ends_and_a_right_password_ends_the_counting(unit, maria):
    for _ in range(accounts.FREE_PER_LOGIN):
        with pytest.raises(Denied):
            log_in(unit, "maria", "wrong-password")
    pass_time(unit, 3)

    assert log_in(unit, "maria", PASSWORD)
    with pytest.raises(Denied, match="wrong name"):
        log_in(unit, "maria", "wrong-password")


def test_an_address_that_tries_many_names_has_to_wait(unit, maria):
    for number in range(accounts.FREE_PER_ADDRESS):
        with unit() as conn:
            accounts.attempt(conn, f"somebody-{number}", "10.0.0.9")

    with pytest.raises(accounts.TooManyAttempts), unit() as conn:
        accounts.attempt(conn, "maria", "10.0.0.9")
    with unit() as conn:
        accounts.attempt(conn, "maria", "10.0.0.10")


def test_guesses_under_way_are_counted_before_they_are_answered(unit, maria):
    for _ in range(accounts.FREE_PER_LOGIN):
        with unit() as conn:
            accounts.attempt(conn, "maria", "10.0.0.1")

    with pytest.raises(accounts.TooManyAttempts), unit() as conn:
        accounts.attempt(conn, "maria", "10.0.0.1")


def test_a_password_typed_as_a_name_is_not_kept(unit, maria):
    with pytest.raises(Denied):
        log_in(unit, PASSWORD, "maria")

    with unit() as conn:
        failure = database.driver(conn).execute("select login from kirby.login_failure").fetchone()
        assert PASSWORD not in failure[0]
        assert not any(PASSWORD in str(row) for row in audited(conn))

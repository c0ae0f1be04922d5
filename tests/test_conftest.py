"""The fixtures that every other test stands on."""

import psycopg
import pytest
from fix_postgres import ROLES


def test_db_is_migrated_and_in_a_transaction(db):
    assert db.execute("select to_regclass('kirby.message') is not null").fetchone() == (True,)
    assert db.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS


@pytest.mark.parametrize("time", [1, 2])
def test_what_db_writes_is_rolled_back(db, time):
    with db.transaction():
        db.execute("create table public.left_over ()")


@pytest.mark.parametrize("time", [1, 2])
def test_dsn_is_a_database_of_its_own(dsn, time):
    with psycopg.connect(dsn) as conn:
        conn.execute("create table public.left_over ()")


@pytest.mark.parametrize("role", ROLES)
def test_every_role_can_log_in(dsn, as_role, role):
    with psycopg.connect(as_role(dsn, role)) as conn:
        assert conn.execute("select current_user").fetchone() == (role,)


def test_an_empty_database_is_empty(empty_dsn):
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("select to_regnamespace('kirby')").fetchone() == (None,)


def test_until_returns_the_answer_and_gives_up_at_its_deadline(until):
    answers = iter([0, "", "yes"])

    assert until(lambda: next(answers)) == "yes"
    with pytest.raises(pytest.fail.Exception, match=r"not true within 0\.05 s"):
        until(lambda: False, timeout=0.05)

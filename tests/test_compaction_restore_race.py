"""A restore and a piece of compaction at the same time: one waits for the other."""

import threading

import psycopg
import pytest
from fix_compaction import COMPACT, HOUR, state_fixture  # noqa: F401
from fix_states import moment

RESTORE = "select kirby.restore_state(%s, null, %s, %s, '', 'ann', 'why')"
WAITING = """
    select count(*) from pg_locks where locktype = 'advisory' and objid = 4711 and not granted
"""


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_no_piece_goes_between_the_check_of_a_restore_and_its_reading(when, state, dsn, until):
    """Else the key would be deleted: the version that it is set back to is not there any more."""
    for hour in range(4):
        state.mutate("a", hour, hour * HOUR)
    if when == "before":
        state.policy("90 days")
    state.count()
    pause_after_the_check(state, dsn)
    restored = []

    def restore():
        with psycopg.connect(dsn, autocommit=True) as conn:
            restored.extend(conn.execute(RESTORE, [state.id, moment(HOUR + 60), ["a"]]).fetchone())

    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pg_advisory_lock(4711)")
        thread = threading.Thread(target=restore)
        thread.start()
        until(lambda: state.value(WAITING) == 1)
        if when == "meanwhile":
            state.policy("90 days")
        try:
            removed = conn.execute(COMPACT, [state.id, 5000]).fetchone()
        except psycopg.errors.LockNotAvailable:
            removed = None
        conn.execute("select pg_advisory_unlock(4711)")
        thread.join()
    assert (removed, restored, state.at()["a"]) == (None, [1], (5, 1))
    assert state.compact() == 3
    assert state.wrong() == []


def pause_after_the_check(state, dsn):
    source = state.value("select pg_get_functiondef('kirby.check_known'::regproc)")
    paused = source.replace(
        "    return;", "    perform pg_advisory_xact_lock(4711);\n    return;", 1
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(paused.encode())

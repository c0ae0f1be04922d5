"""What incidents are made of: fingerprints, counting, storms and what they have in common."""

import random
import threading

import psycopg
import pytest
from fix_incidents import House, house_fixture  # noqa: F401


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'a1b2c3d4e5'", "KeyError: 'ffeeddccbb11'"),
        ("no order 17 at 2026-11-23 01:02:03.5", "no order 4711 at 2027-01-01 10:00:00"),
        ("<Order object at 0x7f3b2c10>", "<Order object at 0x7f00aa>"),
        ("id 11111111-2222-4333-8444-555555555555", "id 99999999-2222-4333-8444-aaaaaaaaaaaa"),
        ("[Errno 2] No such file: '/tmp/abc_x/y.csv'", "[Errno 2] No such file: '/tmp/q8/z.csv'"),
        ("line 12, in main", "line 999, in main"),
        ("10.0.0.1:5432 refused", "10.0.0.17:6432 refused"),
    ],
)
def test_what_differs_each_time_is_not_in_a_fingerprint(house, one, other):
    of = "select kirby.fingerprint(%s)"
    assert house.value(of, one) == house.value(of, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'price'", "KeyError: 'amount'"),
        ("ValueError: no orders", "TypeError: no orders"),
        ("added", "faded"),  # words of the letters a to f are words
    ],
)
def test_what_is_another_error_has_another_one(house, one, other):
    of = "select kirby.fingerprint(%s)"
    assert house.value(of, one) != house.value(of, other)


def test_the_last_exception_is_found_behind_what_follows_it(house):
    job = house.scheduled("report")
    run_id = house.trigger(job)
    house.start(house.at_work)
    house.fail(
        run_id, "Traceback (most recent call last):", '  File "x.py", line 3', "KeyError: 'a'",
        "During handling of the above exception …", "acme.errors.OrderError: no price for x",
        "", "closing 3 connections",
    )  # fmt: skip
    [incident] = house.incidents()
    assert incident["details"]["error"] == "acme.errors.OrderError: no price for x"


def test_a_program_without_exceptions_has_its_last_words(house):
    job = house.scheduled("backup")
    run_id = house.trigger(job)
    house.start(house.at_work)
    house.fail(run_id, "tar: /data: Cannot open", "tar: exiting now", reason="exit code 2")
    [incident] = house.incidents()
    assert incident["title"] == "exit code 2: tar: exiting now"


def test_beyond_three_errors_beside_each_other_they_count_with_the_newest(house):
    job = house.scheduled("report")
    for word in ("apple", "pear", "plum", "fig", "kiwi"):
        house.ran(job, fails=f"ValueError: {word}")
    assert [each["count"] for each in house.incidents()] == [1, 1, 3]


def test_a_success_that_meets_no_failure_writes_nothing(house):
    job = house.scheduled("report")
    house.ran(job)
    assert house.value("select count(*) from kirby.streak") == 0
    house.ran(job, fails="ValueError: x")
    house.ran(job)
    house.ran(job)
    assert house.ask("select failures, successes from kirby.streak") == [
        {"failures": 0, "successes": 1}
    ]


def test_shadows_and_what_people_stop_do_not_count(house):
    job = house.scheduled("report")
    run_id = house.trigger(job)
    house.start(house.at_work)
    house.conn.execute("select kirby.cancel_run(%s, 'enough', 'ana')", [run_id])
    house.fail(run_id, "KeyboardInterrupt")
    assert house.incidents() == []


def test_a_lost_run_that_is_run_again_is_no_failure_and_the_fourth_is(house):
    job = house.scheduled("report")
    house.trigger(job)
    for _ in range(3):
        [run_id] = house.start(house.at_work)
        house.record(run_id, "run_lost", reason="its supervisor stopped answering")
        assert house.incidents() == []
    [run_id] = house.start(house.at_work)
    house.record(run_id, "run_lost", reason="its supervisor stopped answering")
    assert [each["kind"] for each in house.incidents()] == ["failing"]


def test_two_ends_at_the_same_moment_are_one_incident(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        house = House(conn)
        job = house.scheduled("report")
        runs = [house.trigger(job) for _ in range(12)]
        house.start(house.at_work)

        def end(run_id):
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("select kirby.record_run(%s, 'run_failed', %s)",
                              [run_id, '{"reason": "exit code 1"}'])  # fmt: skip

        ends = [threading.Thread(target=end, args=[run_id]) for run_id in runs]
        for each in ends:
            each.start()
        for each in ends:
            each.join()
        [incident] = house.incidents()
        assert incident["count"] == 12
        assert house.value("select failures from kirby.streak") == 12


def storm(house):
    house.later("11 s")
    [found] = [each for each in house.incidents() if each["kind"] == "storm"]
    return found["title"]


def test_ten_are_told_each_and_eleven_are_a_storm(house):
    house.channel()
    for number in range(10):
        house.ran(house.scheduled(f"job-{number}"), fails="OSError: disk full")
    house.later("11 s")
    assert len(house.told()) == 10

    house.ran(house.scheduled("one-more"), fails="OSError: disk full")
    house.later("11 s")
    house.later("11 s")
    [notice] = house.told()
    assert (notice["kind"], notice["told"]) == ("storm", 1)


def test_a_storm_names_the_host(house):
    sick = house.supervisor("sick")
    house.supervisor("well", labels=["x"])
    for number in range(12):
        house.ran(house.scheduled(f"job-{number}"), fails=f"Error{'abcdefghijkl'[number]}: x",
                  supervisor=sick)  # fmt: skip
    assert storm(house) == "12 incidents at once: all on host sick"


def test_a_storm_names_what_they_wait_for(house):
    for number in range(12):
        house.tick(house.scheduled(f"job-{number}", labels=["gpu"]))
    house.supervisor("plain")
    house.round()
    house.later("11 minutes")
    assert storm(house) == "12 incidents at once: no living supervisor has the label gpu"


def test_a_storm_names_the_topic_that_they_read(house):
    for number in range(12):
        job = house.scheduled(f"job-{number}", needs={"reads": ["prices", f"own-{number}"]})
        house.ran(job, fails=f"Error{'abcdefghijkl'[number]}: x")
    assert storm(house) == "12 incidents at once: all read the topic prices"


def test_a_storm_without_anything_in_common_says_so(house):
    for number in range(12):
        house.ran(house.scheduled(f"job-{number}"), fails=f"Error{'abcdefghijkl'[number]}: x")
    assert storm(house) == "12 incidents at once: they have nothing in common"


def test_another_environment_is_another_sky(house):
    for number in range(12):
        where = "dev" if number % 2 else "prod"
        house.ran(house.scheduled(f"job-{number}", environment=where), fails="OSError: full")
    house.later("11 s")
    assert {each["kind"] for each in house.incidents()} == {"failing"}


def test_a_storm_is_over_with_the_last_of_its_incidents(house):
    house.channel()
    jobs = [house.scheduled(f"job-{number}") for number in range(12)]
    for job in jobs:
        house.ran(job, fails="OSError: disk full")
    house.later("11 s")
    house.later("11 s")
    for job in jobs[:-1]:
        house.ran(job)
    house.later("1 s")
    assert [notice["event"] for notice in house.told()] == ["opened"]
    house.ran(jobs[-1])
    house.later("1 s")
    assert [notice["event"] for notice in house.told()] == ["resolved"]


def test_a_storm_that_somebody_ends_takes_all_in_it_along(house):
    house.channel()
    for number in range(12):
        house.ran(house.scheduled(f"job-{number}"), fails="OSError: disk full")
    house.later("11 s")
    house.later("11 s")
    [found] = [each for each in house.incidents() if each["kind"] == "storm"]
    house.conn.execute("select kirby.resolve_incident(%s, 'ana', 'the disk is larger now')",
                       [found["id"]])  # fmt: skip
    house.later("1 s")

    assert house.incidents() == []
    assert {each["resolution"] for each in house.incidents("resolved")} == {
        "the disk is larger now"
    }
    assert [notice["event"] for notice in house.told()] == ["opened", "resolved"]


def test_later_incidents_do_not_drown_in_an_old_storm(house):
    house.channel()
    for number in range(12):
        house.ran(house.scheduled(f"job-{number}"), fails="OSError: disk full")
    house.later("11 s")
    house.later("11 s")
    house.told()
    house.later("5 minutes")
    house.ran(house.scheduled("another"), fails="ValueError: x")
    house.later("11 s")
    assert [notice["job"] for notice in house.told()] == ["another"]


def test_what_cannot_be_told_holds_nobody_up_and_is_told_later(house):
    house.channel()
    sick = house.ran(house.scheduled("sick"), fails="ValueError: x")
    house.ran(house.scheduled("well"), fails="ValueError: y")
    house.conn.execute(
        "create or replace function kirby.send_notice(p_incident_id bigint, p_event text,"
        " p_document jsonb default '{}') returns integer language plpgsql as $$ begin"
        " if (select run_id from kirby.incident where id = p_incident_id)"
        " = (select value from kirby.sick) then"
        " raise 'no room'; end if;"
        " insert into kirby.heard values (p_incident_id); return 1; end $$;"
        " create table kirby.heard (id bigint); create table kirby.sick (value bigint);"
        " grant all on kirby.heard, kirby.sick to public"
    )
    house.conn.execute("insert into kirby.sick values (%s)", [sick])
    house.later("11 s")
    assert house.value("select count(*) from kirby.heard") == 1
    house.conn.execute("delete from kirby.sick")
    house.later("61 s")
    assert house.value("select count(*) from kirby.heard") == 2


def test_what_is_over_within_ten_seconds_is_told_to_nobody(house):
    house.channel()
    job = house.scheduled("report")
    house.ran(job, fails="ValueError: x")
    house.later("5 s")
    house.ran(job)
    house.later("1 minute")
    assert house.told() == []


def test_incidents_are_what_the_log_says_of_them(house):
    job = house.scheduled("report")
    for number in range(12):
        house.ran(house.scheduled(f"job-{number}"), fails="OSError: disk full")
    house.ran(job, fails="ValueError: x")
    house.ran(job, fails="ValueError: x")
    house.later("11 s")
    house.ran(job)
    house.ran(job, fails="ValueError: x")
    differing = "select key from kirby.verify_incidents()"
    assert house.ask(differing) == []

    [open_one] = [each for each in house.incidents() if each["job"] == "report"]
    house.conn.execute("update kirby.incident set count = 7 where id = %s", [open_one["id"]])
    assert house.ask(differing) == [{"key": f"incident {open_one['id']}"}]


def test_ends_of_runs_and_two_leaders_do_not_get_into_each_others_way(dsn):
    """Storms gather, are told and end, while runs fail and succeed: nobody waits in a circle."""
    wrong = []
    working = threading.Event()
    working.set()
    with psycopg.connect(dsn, autocommit=True) as conn:
        house = House(conn)
        house.channel()
        jobs = [house.scheduled(f"job-{number}") for number in range(24)]
        supervisor = house.supervisor(slots=1000)

        def work(part):
            with psycopg.connect(dsn, autocommit=True) as mine:
                for turn in range(16):
                    for job in jobs[part::4]:
                        step = ["run_failed", "run_succeeded"][(turn + part) % 2]
                        end_run(mine, supervisor, job, step)

        def lead():
            with psycopg.connect(dsn, autocommit=True) as mine:
                while working.is_set():
                    mine.execute("update kirby.test_clock set shift = shift + interval '2 s'")
                    mine.execute("select kirby.watch_deadlines()")
                    mine.execute("select kirby.announce_incidents()")

        def guarded(what, *args):
            try:
                what(*args)
            except psycopg.Error as error:
                wrong.append(error)

        workers = [threading.Thread(target=guarded, args=[work, part]) for part in range(4)]
        leaders = [threading.Thread(target=guarded, args=[lead]) for _ in range(2)]
        for each in workers + leaders:
            each.start()
        for each in workers:
            each.join()
        working.clear()
        for each in leaders:
            each.join()
        assert wrong == []
        assert house.ask("select * from kirby.verify_incidents()") == []
        for job in jobs:
            house.ran(job)
        house.later("2 hours")
        house.later("11 s")
        assert house.incidents() == []


def end_run(conn, supervisor, job, step):
    """A run of it from its beginning to that end, without the queue."""
    [run_id] = conn.execute("select kirby.queue_run(%s, 'manual', 'test')", [job]).fetchone()
    for type, data in (
        ("run_claimed", f'{{"supervisor_id": "{supervisor}"}}'),
        ("run_started", '{"pid": 1}'),
        (step, '{"reason": "exit code 1"}'),
    ):
        conn.execute("select kirby.record_run(%s, %s, %s)", [run_id, type, data])


@pytest.mark.parametrize("seed", range(8))
def test_any_row_of_ends_is_told_as_a_naive_ledger_says(house, seed):
    """Failures in a row and successes in a row, an hour apart, whatever the thresholds."""
    chance = random.Random(seed)
    alert_after, recover_after = chance.randint(1, 3), chance.randint(1, 3)
    house.channel(events=["opened", "resolved"])
    job = house.scheduled("report", alert_after=alert_after, recover_after=recover_after)
    failures, successes, is_open = 0, 0, False
    for _ in range(30):
        if chance.random() < 0.5:
            house.ran(job, fails="ValueError: x")
            failures, successes = failures + 1, 0
            expected = ["opened"] if failures >= alert_after and not is_open else []
            is_open = is_open or failures >= alert_after
        else:
            house.ran(job)
            failures, successes = 0, successes + 1
            expected = ["resolved"] if is_open and successes >= recover_after else []
            is_open = is_open and successes < recover_after
        house.later("61 minutes")
        assert [notice["event"] for notice in house.told()] == expected
        assert bool(house.incidents()) == is_open

"""A pool of processes and threads: what each does, and what becomes of it when one dies."""

import collections
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import psycopg
import pytest
from fix_sdk import PRELUDE, Script, house_fixture, scripts_fixture, sdk_fixture  # noqa: F401

import kirby

NO_PAUSE = """
    create or replace function kirby.retry_pause(p_attempt integer) returns interval
      language sql as $$ select interval '0' $$
"""
SHOP = """
    def say(*words):  # of several threads
        os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

    @kirby.task
    def add(a, b):
        return a + b

    @kirby.task(result=False)
    def effect(number):
        until = time.monotonic() + 0.003  # so that it can be interrupted
        while time.monotonic() < until:
            pass
        kirby.topic("effects").publish([number, kirby.current_task().attempt])

    @kirby.task
    def who(seconds):
        time.sleep(seconds)
        return [os.getpid(), threading.get_ident()]

    @kirby.task
    def at(value):
        say("at", value)
        stop, told = signal.getsignal(signal.SIGTERM), False
        while not os.path.exists(f"go-{value}"):
            time.sleep(0.01)
            if stop.asked and not told:
                say("told to stop")
                told = True
        return value

    @kirby.task(max_attempts=2)
    def deadly(how):
        os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else os.abort()

    @kirby.task(time_limit=0.4, max_attempts=2)
    def limited(how):
        if how == "hold":  # as an extension that never lets another thread run
            ctypes.PyDLL(None).sleep(30)
        elif how != "quick":
            time.sleep(30)
        kirby.topic("effects").publish([how, kirby.current_task().attempt])
        return how

    @kirby.task(soft_time_limit=0.2)
    def soft():
        until = time.monotonic() + 30
        try:
            while time.monotonic() < until:
                pass
        except kirby.SoftTimeLimit:
            return "stopped"

    @kirby.stream("orders", to="invoices")
    def order(value):
        time.sleep(random.random() * 0.002)
        return [value, os.getpid(), threading.get_ident()]
"""


class Worker(Script):
    """`kirby worker` on a module of the test."""

    def __init__(self, folder, environ, *options, module="shop", command="kirby.sdk.pool"):
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command.split(), module, *map(str, options)],
            cwd=folder,
            env={**os.environ, **environ, "KIRBY_JOB": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.folder = folder

    def children(self):
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def tell(self, value):
        """Let the task `at` with this value go on."""
        (self.folder / f"go-{value}").touch()


@pytest.fixture
def folder(tmp_path):
    """Where the module `shop` is."""
    source = "import ctypes, random, threading, time\n" + PRELUDE + textwrap.dedent(SHOP)
    (tmp_path / "shop.py").write_text(source)
    return tmp_path


@pytest.fixture
def worker(house, folder):
    """Start a pool: `worker("--processes", 2)`; it is ready."""
    started = []

    def start(*options, ready=True, **how):
        started.append(Worker(folder, house.environ, *options, **how))
        if ready:
            assert started[-1].line().startswith("the worker is at work: ")
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            children = each.children()
            each.process.kill()
            for pid in children:
                kill(pid)
            each.process.wait()
        for stream in (each.process.stdin, each.process.stdout, each.process.stderr):
            stream.close()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture
def shop(sdk):
    """`shop("add")`: the task of the module, as somebody sends it who does not have the module."""

    def find(name, **options):
        return kirby.task(name=f"shop.{name}", **options)(anything)

    return find


def anything(*args):
    raise AssertionError("it is done elsewhere")


# Who does it


def test_processes_and_threads_share_the_work(house, worker, shop):
    each = worker("--processes", 2, "--threads", 2)
    assert len(each.children()) == 2

    sent = shop("who").starmap([(0.05,)] * 40)
    did = {tuple(answer.get(timeout=20)) for answer in sent}

    assert {pid for pid, _ in did} == set(each.children())
    assert len(did) == 4
    assert shop("add").delay(1, 2).get(timeout=20) == 3
    each.signal()
    assert each.end() == (0, "")


def test_it_says_what_it_serves_and_how(worker):
    line = worker("--processes", 2, "--threads", 3, ready=False).line()

    assert line == "the worker is at work: 2 processes of 3 threads, 1 stream and 7 tasks"


def test_only_what_is_named_is_served(worker, shop, until):
    line = worker(module="shop:add,order", ready=False).line()
    assert line == "the worker is at work: 1 process of 1 thread, 1 stream and 1 task"

    sent = shop("add").delay(1, 2)

    assert sent.get(timeout=20) == 3
    assert shop("who").delay(0).status == "pending"


@pytest.mark.parametrize("module", ["shop.py", "./shop.py"])
def test_a_script_is_served_under_the_names_it_has(house, worker, shop, module):
    worker(module=module)

    assert shop("add").delay(1, 2).get(timeout=20) == 3
    assert house.ask("select name from kirby.subscription where mode = 'ordered'") == [("shop",)]


def test_the_command_serves_an_environment(house, worker, monkeypatch, folder):
    environ = {"KIRBY_DSN": house.dsn, "KIRBY_ENVIRONMENT": "dev", "KIRBY_TOKEN": ""}
    each = Worker(folder, environ, "--env", "preprod", "--processes", 2, command="kirby worker")
    assert "2 processes of 1 thread" in each.line()

    where = house.ask(
        "select distinct e.name from kirby.subscription s join kirby.topic t on t.id = s.topic_id"
        " join kirby.environment e on e.id = t.environment_id"
    )
    each.signal()

    assert each.end() == (0, "")
    assert where == [("preprod",)]


def test_each_thread_has_a_connection_and_one_listens(house, worker, until):
    worker("--processes", 2, "--threads", 3)

    until(lambda: connections(house) == 2 * (3 + 1))


def connections(house):
    return house.value(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and usename = 'kirby_worker'"
    )


def test_the_order_of_keys_holds_over_threads_and_processes(house, worker, until):
    count, keys = 1200, 24
    worker("--processes", 2, "--threads", 3)
    until(lambda: connections(house) == 2 * (3 + 1))  # all are at work: none drains it alone
    with psycopg.connect(house.dsn) as conn:
        for number in range(count):
            conn.execute("select kirby.publish('orders', to_jsonb(%s::int), key => %s)",
                         [number, str(number % keys)])  # fmt: skip

    until(lambda: len(house.values("invoices")) >= count, timeout=60)

    done = house.values("invoices")
    for key in range(keys):
        mine = [number for number, *_ in done if number % keys == key]
        assert mine == list(range(key, count, keys))
    shares = collections.Counter((pid, thread) for _, pid, thread in done)
    assert len(shares) > 3, shares


def test_a_script_with_threads_keeps_the_order_of_keys(house, scripts, until):
    house.publish("orders", *range(100), key="a")
    house.publish("orders", *range(100), key="b")
    script = scripts("""
        import threading
        loop.FIRST_LIMIT = loop.MAX_LIMIT = 5
        @kirby.stream("orders", to="invoices")
        def handle(value):
            return [value, threading.current_thread().name]
        kirby.run(threads=4)
        say("done")
    """)

    until(lambda: len(house.values("invoices")) >= 200)
    script.signal()

    assert script.line() == "done"
    assert script.end() == (0, "")
    done = [value for value, _ in house.values("invoices")]
    assert sorted(done) == sorted([*range(100)] * 2)
    rows = house.ask(
        "select m.key, m.payload -> 0 from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name = 'invoices' order by position"
    )
    for key in "ab":
        assert [value for mine, value in rows if mine == key] == list(range(100))


@pytest.mark.parametrize("threads", [0, -1, 10_000])
def test_so_many_threads_are_refused(sdk, threads):
    with pytest.raises(kirby.Invalid, match=f"threads is {threads}: from 1 to 1000"):
        kirby.run(threads=threads)


def test_a_waiting_pool_is_woken_by_a_publish(house, worker, shop, until):
    each = worker("--threads", 2)
    until(lambda: house.value(
        "select count(*) from pg_stat_activity where query like '%%kirby.next_due(%%'"
    ) == 2)  # fmt: skip

    started = time.monotonic()
    for number in range(5):
        assert shop("add").delay(number, 1).get(timeout=20) == number + 1

    assert time.monotonic() - started < 2  # five polls would take more
    assert each.process.poll() is None


# Leases, connections


def test_a_long_task_keeps_its_claim_in_a_thread(house, folder, worker, shop, until):
    source = (folder / "shop.py").read_text()
    (folder / "shop.py").write_text(source.replace('"LEASE", "15"', '"LEASE", "0.6"'))
    each = worker("--threads", 2)
    sent = shop("at").delay("long")
    assert each.line() == "at long"
    leases = set()

    def renewed():
        leases.update(house.ask("select lease_until, fence from kirby.claim"))
        return len(leases) >= 5  # more than a whole lease later

    until(renewed)
    assert len({fence for _, fence in leases}) == 1
    each.tell("long")

    assert sent.get(timeout=20) == "long"


def test_threads_go_on_after_lost_connections(house, worker, shop, until):
    each = worker("--threads", 2)
    assert shop("add").delay(1, 2).get(timeout=20) == 3
    waiting = shop("at").delay("held")
    assert each.line() == "at held"

    house.terminate()
    each.tell("held")

    assert shop("add").apply_async([3, 4]).get(timeout=20) == 7
    assert waiting.get(timeout=20) == "held"
    each.signal()
    code, errors = each.end()
    assert code == 0
    assert "Traceback" not in errors


# The end


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_at_hand_and_gives_back_the_rest(
    house, worker, shop, number, threads
):
    each = worker("--threads", threads)
    sent = shop("at").map(range(4))
    begun = [int(each.line().split()[1]) for _ in range(threads)]

    each.signal(number)
    assert {each.line() for _ in begun} == {"told to stop"}
    for value in begun:
        each.tell(value)

    assert each.end() == (0, "")
    assert [sent[index].get(timeout=0) for index in begun] == begun
    assert {sent[index].status for index in range(4) if index not in begun} == {"pending"}
    assert house.ask("select from kirby.claim where lease_until > '-infinity'") == []
    assert len(house.values("task.shop.at.results")) == threads


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_breaks_off_what_is_at_hand(house, worker, shop, until, number, code):
    each = worker("--threads", 2)
    sent = shop("at").delay("held")
    assert each.line() == "at held"
    children = each.children()

    each.signal(number)
    assert each.line() == "told to stop"
    each.signal(number)

    assert each.end() == (code, "")
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
    assert house.ask("select suspect, lease_until = '-infinity' from kirby.claim") == [
        (False, True)
    ]
    again = worker(ready=False)
    assert {again.line()[:2], again.line()[:2]} == {"at", "th"}  # at held, the worker is at work
    again.tell("held")
    assert sent.get(timeout=20) == "held"


def test_the_children_end_with_their_parent(worker, shop, until):
    each = worker("--processes", 2)
    children = each.children()

    each.process.kill()

    until(lambda: not any(running(pid) for pid in children))


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Deaths


def test_killed_children_lose_nothing_and_double_nothing(house, worker, shop, until):
    house.conn.execute(NO_PAUSE)
    count, chance = 600, random.Random(4)
    each = worker("--processes", 2, "--threads", 2)
    effect = shop("effect", result=False)
    sent = effect.map(range(count))
    house.publish("orders", *range(100), key="a")

    for quota in (50, 150, 250, 350, 450):
        until(lambda quota=quota: len(house.values("effects")) >= quota)
        until(each.children)
        os.kill(chance.choice(each.children()), signal.SIGKILL)
    # Sooner than the lease of 15 s ends: whoever saw the death has given everything back.
    started = time.monotonic()
    until(lambda: len({number for number, _ in house.values("effects")}) == count, timeout=60)
    until(lambda: len(house.values("invoices")) == 100)
    assert time.monotonic() - started < 12

    each.signal()
    code, errors = each.end()
    assert (code, errors.count("was ended by signal SIGKILL")) == (0, 5)
    done = collections.Counter(number for number, _ in house.values("effects"))
    assert set(done) == set(range(count))
    assert set(done.values()) == {1}
    assert [value for value, *_ in house.values("invoices")] == list(range(100))
    assert {answer.status for answer in sent} == {"succeeded"}


def test_what_the_database_hands_out_to_the_dead_is_given_back_too(house, worker, shop, until):
    each = worker()
    house.conn.execute(
        """
        create function public.linger() returns trigger language plpgsql as $$
        begin perform pg_sleep(0.5); return new; end $$;
        create trigger linger before insert on kirby.claim
          for each row execute function public.linger();
        """
    )
    sent = shop("add").delay(1, 2)
    until(lambda: house.ask(
        "select from pg_stat_activity where query like '%%kirby.claim(%%' and state = 'active'"
        " and usename = 'kirby_worker'"
    ))  # fmt: skip
    os.kill(each.children()[0], signal.SIGKILL)
    assert sent.get(timeout=10) == 3  # the lease would be 15 s


@pytest.mark.parametrize("how", ["kill", "abort"])
def test_a_task_that_kills_its_process_is_parked_and_the_others_are_done(
    house, worker, shop, how, until
):
    bad = shop("deadly").delay(how)  # it kills the first child before anybody looked
    good = [shop("effect").delay(number) for number in range(50)]
    worker("--processes", 1, "--threads", 2)

    with pytest.raises(kirby.TaskFailed, match="the process that handled it died 2 times"):
        bad.get(timeout=30)
    until(lambda: len(house.values("effects")) == 50)

    assert {answer.status for answer in good} == {"succeeded"}
    [answer] = house.values("task.shop.deadly.results")
    assert (answer["id"], answer["error"]["type"]) == (bad.id, "Killed")


@pytest.mark.parametrize("how", ["sleep", "hold"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_hard_limit_ends_the_process_and_counts_for_its_message_alone(
    house, worker, shop, how, threads
):
    house.conn.execute(NO_PAUSE)
    limited = shop("limited")
    sent = limited.map(["quick"] * 5 + [how] + ["quick"] * 5)
    each = worker("--threads", threads)

    with pytest.raises(kirby.TaskFailed, match=r"ran longer than its time limit of 0.4 s, and its"):
        sent[5].get(timeout=20)
    assert {answer.get(timeout=20) for answer in sent if answer != sent[5]} == {"quick"}

    # Its neighbours never failed, and each had its effect once.
    assert house.values("effects") == [["quick", 1]] * 10
    assert house.ask("select attempt, reason from kirby.due") == [(2, "failed")]
    [failed] = [row for row in house.values("task.shop.limited.results") if "error" in row]
    assert (failed["id"], failed["error"]["type"]) == (sent[5].id, "Killed")
    each.signal()
    code, errors = each.end()
    assert code == 0
    assert errors.count("it ran longer than its time limit of 0.4 s") == 2


def test_without_a_pool_a_hard_limit_ends_the_process_itself(house, scripts, sdk):
    house.conn.execute(NO_PAUSE)
    source = """
        import time
        @kirby.task(name="limited", time_limit=0.3, max_attempts=2)
        def limited(seconds):
            time.sleep(seconds)
            return kirby.current_task().attempt
        kirby.run()
    """
    limited = kirby.task(name="limited")(anything)
    slow, quick = limited.map([30, 0])

    for _ in range(2):
        code, errors = scripts(source).end()
        assert code == -signal.SIGKILL
        assert "it ran longer than its time limit of 0.3 s" in errors
    with pytest.raises(kirby.TaskFailed, match="Killed: it ran longer"):
        slow.get(timeout=0)
    scripts(source)

    assert quick.get(timeout=20) == 1


def test_a_soft_limit_reaches_the_threads_of_a_pool(worker, shop):
    worker("--threads", 2)

    assert [each.get(timeout=20) for each in shop("soft").starmap([()] * 3)] == ["stopped"] * 3


def test_a_child_that_leaves_is_replaced(worker, shop, until):
    each = worker("--processes", 2)
    first = set(each.children())

    os.kill(min(first), signal.SIGTERM)

    until(lambda: len(set(each.children()) - first) == 1 and len(each.children()) == 2)
    assert shop("add").delay(1, 2).get(timeout=20) == 3


# What cannot be served

ERRORS = {
    "nothing": ("", "nothing has nothing to serve: decorate a function with @kirby.stream or"),
    "broken": ("import nowhere", "broken cannot be imported: ModuleNotFoundError: No module nam"),
    "syntax": ("x = (", "syntax cannot be imported: SyntaxError: '(' was never closed"),
    "leaves": ("import sys; sys.exit('no')", "leaves cannot be imported: SystemExit: no"),
    "aborts": ("import os; os.abort()", "the process that imports aborts was ended by signal SI"),
    "serves": ("import kirby; kirby.run()", "calls kirby.run() when it is imported: put the ca"),
    "double": (
        "import kirby\n@kirby.stream('a')\ndef f(v): pass\n@kirby.stream('a')\ndef g(v): pass",
        "f and g both read topic a as double: name one",
    ),
}


@pytest.mark.parametrize("module", ERRORS)
def test_a_module_that_cannot_be_served_is_told_in_one_line(worker, folder, module):
    source, complaint = ERRORS[module]
    (folder / f"{module}.py").write_text(source)

    code, errors = worker("--processes", 2, module=module, ready=False).end()

    assert code == 1
    assert complaint in errors
    assert len([line for line in errors.splitlines() if line.startswith("kirby: ")]) == 1
    if module != "aborts":  # which Python itself says something of
        assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("missing", "missing cannot be imported: ModuleNotFoundError: No module named 'missing'"),
        ("missing.py", "missing.py cannot be imported: FileNotFoundError"),
        ("shop:nobody", "'nobody' in shop is neither a stream nor a task"),
        ("shop:add,os", "'os' in shop is neither a stream nor a task"),
        ("shop:", "at work"),
    ],
)
def test_a_module_that_is_not_there_is_told_in_one_line(worker, module, complaint):
    each = worker(module=module, ready=False)
    if module == "shop:":
        assert complaint in each.line()
        return

    code, errors = each.end()

    assert code == 1
    assert complaint in errors
    assert errors.count("\n") == 1


def test_a_database_that_refuses_is_told_in_one_line(house, folder, worker):
    house.environ["KIRBY_TOKEN"] = "wrong"

    code, errors = worker(ready=False).end()

    assert code == 1
    assert errors == (
        "kirby: the token in kirby.token is not valid: it was revoked, has expired, its run has"
        " ended, or it was never given\n"
    )


@pytest.mark.parametrize("option", ["--processes", "--threads"])
def test_wrong_usage(worker, option):
    code, errors = worker(option, "0", ready=False).end()

    assert code == 2
    assert f"argument {option}" in errors

"""Effects: what is done in the outside world is done once, whatever dies in between."""

import contextlib

import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture, stop_after  # noqa: F401

import kirby
from kirby.core.errors import Invalid, NotFound
from kirby.sdk import session

orders = kirby.Topic("orders")


def effects(house):
    return house.ask("select name, status, times, position from kirby.effect order by id")


@pytest.fixture(name="bank")
def bank_fixture(tmp_path):
    """The outside world: what was done there, line by line."""
    return Bank(tmp_path / "bank")


class Bank:
    def __init__(self, path):
        self.path = path
        path.touch()

    def pay(self, key):
        with self.path.open("a") as file:
            file.write(f"{key}\n")

    @property
    def paid(self):
        return self.path.read_text().split()


def serve(function, count=1, **options):
    seen = stop_after(count)

    @kirby.stream("orders", **options)
    def handler(message: kirby.Message):
        try:
            return function(message)
        finally:
            seen()

    kirby.run()
    kirby.sdk.streams.REGISTERED.clear()


def charge(bank, **options):
    def handler(message):
        for effect in kirby.effect("charge", **options):
            bank.pay(effect.key)

    return handler


def test_an_effect_runs_and_is_confirmed(sdk, bank):
    position = orders.publish(1)

    serve(charge(bank))

    assert len(bank.paid) == 1
    assert effects(sdk) == [("charge", "confirmed", 1, position)]


def test_after_an_error_behind_it_an_effect_is_not_done_again(sdk, bank):
    orders.publish(1)

    def handler(message):
        charge(bank)(message)
        if message.attempt == 1:
            raise kirby.Retry(countdown=0)

    serve(handler, 2)

    assert len(bank.paid) == 1
    assert sdk.backlog() == 0


def test_after_an_error_inside_it_is_tried_again_under_the_same_key(sdk, bank):
    orders.publish(1)

    def handler(message):
        for effect in kirby.effect("charge"):
            bank.pay(effect.key)
            if message.attempt == 1:
                raise kirby.Retry(countdown=0)

    serve(handler, 2)

    first, second = bank.paid
    assert first == second
    assert effects(sdk)[0][1:3] == ("confirmed", 2)


def test_every_effect_of_a_message_has_a_key_of_its_own(sdk, bank):
    orders.publish_many([1, 2])

    def handler(message):
        for name in ("charge", "charge", "mail"):
            for effect in kirby.effect(name):
                bank.pay(effect.key)

    serve(handler, 2)

    assert len(bank.paid) == len(set(bank.paid)) == 6


def test_the_key_is_of_the_subscription_too(sdk, bank):
    orders.publish(1)

    serve(charge(bank), name="one")
    serve(charge(bank), name="two")

    assert len(set(bank.paid)) == 2


def test_a_key_of_its_own_counts_wherever_it_comes_from(sdk, bank):
    orders.publish_many([1, 2])

    serve(charge(bank, key="order/17"), 2)
    for effect in kirby.effect("charge", key="order/17"):
        bank.pay(effect.key)
    for effect in kirby.effect("mail", key="order/17"):
        bank.pay(effect.key)

    assert bank.paid == ["order/17", "order/17"]


def test_a_replay_has_no_effects(sdk, bank):
    orders.publish(1, headers={"replay": 7})

    serve(charge(bank))

    assert bank.paid == []
    assert effects(sdk) == []


def test_a_replay_has_effects_if_it_is_told_so_and_none_that_was_confirmed(sdk, bank):
    orders.publish(1)
    serve(charge(bank))
    # What a rewind does: the same message again, as a replay.
    sdk.conn.execute("update kirby.cursor set position = 0, delivered = 0")
    sdk.conn.execute("alter table kirby.message disable trigger all")
    sdk.conn.execute("update kirby.message set headers = '{\"replay\": 7}'")

    def handler(message):
        assert message.replay
        for name in ("charge", "mail"):
            for effect in kirby.effect(name, on_replay="do"):
                bank.pay(effect.name)

    serve(handler)

    assert bank.paid[1:] == ["mail"]


def test_a_dry_run_has_no_effects(sdk, bank):
    orders.publish(1, headers={"replay": 7})

    serve(charge(bank, on_replay="do"), on_replay="dry_run")

    assert bank.paid == []


SCRIPT = """
    import os
    bank = kirby.sdk.session.Path(os.environ["BANK"])

    @kirby.stream("orders")
    def handler(value):
        for effect in kirby.effect("charge", idempotent=os.environ["IDEMPOTENT"] == "yes"):
            with bank.open("a") as file:
                file.write(effect.key + chr(10))
            if os.environ.get("DIE"):
                os.kill(os.getpid(), signal.SIGKILL)
        say("done")

    kirby.run()
"""


def died_in_between(sdk, scripts, bank, idempotent):
    orders.publish(1)
    script = scripts(SCRIPT, BANK=str(bank.path), IDEMPOTENT=idempotent, DIE="1", LEASE="1")
    assert script.end()[0] == -9
    assert len(bank.paid) == 1
    assert effects(sdk)[0][1] == "begun"


def test_killed_in_between_it_is_done_again_under_the_same_key(sdk, scripts, bank):
    died_in_between(sdk, scripts, bank, "yes")

    script = scripts(SCRIPT, BANK=str(bank.path), IDEMPOTENT="yes", LEASE="1")
    assert script.line() == "done"

    first, second = bank.paid
    assert first == second
    assert effects(sdk)[0][1:3] == ("confirmed", 2)


@pytest.mark.parametrize("answer", ["--done", "--again"])
def test_what_cannot_be_repeated_is_parked_until_a_person_looked(
    sdk, scripts, bank, kirby, until, answer
):
    died_in_between(sdk, scripts, bank, "no")

    script = scripts(SCRIPT, BANK=str(bank.path), IDEMPOTENT="no", LEASE="1")
    until(lambda: sdk.value("select count(*) from kirby.due where parked_at is not null"))
    assert len(bank.paid) == 1
    error = sdk.value("select error from kirby.due")
    id = sdk.value("select id from kirby.effect")
    assert f"kirby effect resolve {id} --done" in error

    listed = kirby("effect", "list", "--in-doubt")
    assert "charge" in listed.out
    assert "in doubt" in listed.out
    resolved = kirby("effect", "resolve", str(id), answer)
    assert resolved.code == 0, resolved.err
    assert "its message is delivered again" in resolved.out

    assert script.line() == "done"
    assert len(bank.paid) == (1 if answer == "--done" else 2)
    assert len(set(bank.paid)) == 1
    assert effects(sdk)[0][1] == "confirmed"
    assert kirby("effect", "list", "--in-doubt").out.startswith("no effect is in doubt")
    again = kirby("effect", "resolve", str(id), answer)
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "is not in doubt" in again.err
    assert sdk.value(
        "select count(*) from kirby.audit_event where verb = 'effect_resolved'"
    ) == 1  # fmt: skip


def test_in_doubt_is_parked_whatever_the_handler_ignores(sdk, bank):
    orders.publish(1)

    def broken(message):
        for effect in kirby.effect("charge", idempotent=False):
            bank.pay(effect.key)
            raise kirby.Retry(countdown=0)

    serve(broken, 2, ignore=(Exception,), max_attempts=5)

    assert len(bank.paid) == 1
    assert sdk.value("select parked_at is not null from kirby.due")


def test_in_doubt_parks_a_task_at_once(sdk, bank):
    seen = stop_after(2)

    @kirby.task(name="pay")
    def pay():
        try:
            for effect in kirby.effect("charge", idempotent=False):
                bank.pay(effect.key)
                raise kirby.Retry(countdown=0)
        finally:
            seen()

    result = pay.delay()
    kirby.run()

    assert len(bank.paid) == 1
    assert result.status == "failed"
    with pytest.raises(kirby.TaskFailed, match="InDoubt"):
        result.get(0)


def test_a_lost_answer_is_no_doubt(sdk, bank, monkeypatch):
    """The database noted that it began, and the connection broke: it has not been done yet."""
    orders.publish(1)
    begin, lost = kirby.sdk.effects.effects.begin, []

    def loses(conn, *args, **more):
        found = begin(conn, *args, **more)
        if not lost:
            lost.append(found)
            raise kirby.Unavailable("lost")
        return found

    monkeypatch.setattr(kirby.sdk.effects.effects, "begin", loses)

    serve(charge(bank, idempotent=False))

    assert len(lost) == len(bank.paid) == 1
    assert effects(sdk)[0][1:3] == ("confirmed", 1)


def test_without_a_message_an_effect_needs_a_key(sdk):
    with pytest.raises(Invalid, match="outside of a handler"):
        kirby.effect("charge")
    with kirby.transaction(), pytest.raises(Invalid, match="outside of a handler"):
        kirby.effect("charge")


def test_in_a_list_an_effect_needs_a_key(sdk, bank):
    orders.publish(1)
    seen, said = stop_after(1), []

    @kirby.stream("orders", batch=10)
    def handler(values):
        seen()
        try:
            kirby.effect("charge")
        except Invalid as error:
            said.append(str(error))
        for effect in kirby.effect("charge", key="mine"):
            bank.pay(effect.key)

    kirby.run()

    assert "handler of lists" in said[0]
    assert bank.paid == ["mine"]


@pytest.mark.parametrize(
    "given",
    [("",), ("x" * 201,), (5,), ("charge", ""), ("charge", "x" * 201), ("charge", 5)],
)
def test_names_and_keys_are_short_texts(sdk, given):
    with pytest.raises(Invalid):
        kirby.effect(*given)


def test_on_replay_is_skip_or_do(sdk):
    with pytest.raises(Invalid, match="skip or do"):
        kirby.effect("charge", "k", on_replay="process")


def test_an_effect_of_another_environment_is_none_of_ours(sdk):
    list(kirby.effect("charge", "k"))
    sdk.give_token("other", "preprod")
    with session_of(sdk, "other", "preprod") as conn, pytest.raises(NotFound):
        kirby.core.effects.confirm(conn, sdk.value("select id from kirby.effect"))


@contextlib.contextmanager
def session_of(house, token, environment):
    environ = {**house.environ, "KIRBY_TOKEN": token, "KIRBY_ENVIRONMENT": environment}
    other = session.Session(environ)
    yield other.connection
    other.close()


def test_the_command_wants_one_answer(sdk, kirby):
    for given in ([], ["--done", "--again"]):
        refused = kirby("effect", "resolve", "1", *given)
        assert (refused.code, "either --done" in refused.err) == (1, True)
    missing = kirby("effect", "resolve", "1", "--done")
    assert (missing.code, "there is no effect 1" in missing.err) == (1, True)
    assert kirby("effect", "list").out.startswith("no effects in dev")


def test_what_is_over_is_forgotten_with_its_message(sdk, bank):
    """One in doubt stays, one with a key of its own too, and all while the message is there."""
    old, doubt = orders.publish(1), orders.publish(2)

    def handler(message):
        charge(bank)(message)
        charge(bank, key=f"own-{message.value}")(message)

    serve(handler, 2)
    kept = orders.publish(3)
    serve(handler, 1)
    sdk.ask("update kirby.effect set status = 'begun' where position = %s returning 1", doubt)
    sdk.ask("update kirby.effect set confirmed_at = confirmed_at - interval '2 days' returning 1")
    forget = "select kirby.forget_effects()"
    assert sdk.ask(forget) == [(0,)]
    sdk.ask(
        "insert into kirby.topic_retention (topic_id, gone_to, gone_at)"
        " select id, %s, now() from kirby.topic where name = 'orders' returning 1", doubt,
    )  # fmt: skip

    assert sdk.ask("select kirby.forget_effects(0)") == [(0,)]
    assert sdk.ask(forget) == [(1,)]
    left = sdk.ask(
        "select position, of_message from kirby.effect order by position, of_message desc"
    )
    assert left == [(old, False), (doubt, True), (doubt, False), (kept, True), (kept, False)]

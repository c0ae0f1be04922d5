"""What the tests of claims are worth: wrong functions, laid into the database, and who notices.

Each has one mistake of the kind that looks right. `machine` is tests/test_claims_machine.py, the
others are single tests; each must fail.
"""

import inspect

import psycopg
import pytest
import test_claim_races
import test_claims_machine
import test_delays
import test_limits
import test_ranges
import test_retries
import test_rewind_exact
import test_rewind_keys
import test_rewind_states
import test_rewinds
from fix_rewind import rewinder_fixture  # noqa: F401
from test_rewind_states import house_fixture  # noqa: F401

from kirby.server.paths import MIGRATIONS

MACHINE = None
MUTANTS = {
    # Whose claim is it
    "a settle that does not look whose claim it is": (
        "settle",
        {"c.fence = p_fence for update": "true for update", "c.fence = p_fence;": "true;"},
        test_claim_races.test_who_comes_back_late_changes_nothing,
    ),
    "a renewal that does not look whose claim it is": (
        "renew",
        {"and c.fence = p_fence": ""},
        test_claim_races.test_who_comes_back_late_changes_nothing,
    ),
    "a release that does not look whose claim it is": (
        "release",
        {"and c.fence = p_fence": ""},
        test_claim_races.test_who_comes_back_late_changes_nothing,
    ),
    "a release that leaves the fence as it is": (
        "release",
        {", fence = default": ""},
        test_claim_races.test_what_was_given_back_is_not_settled,
    ),
    "the fence of the one before": (
        "take_expired",
        {"fence = default": "fence = c.fence"},
        test_claim_races.test_who_comes_back_late_changes_nothing,
    ),
    "a lease that is not waited for": (
        "take_expired",
        {"e.lease_until <= kirby.now()": "true"},
        MACHINE,
    ),
    "an expired claim that is dropped": (
        "take_expired",
        {
            "begin\n": "begin\n  delete from kirby.claim e"
            " where e.subscription_id = p_subscription.id and e.lease_until <= kirby.now();\n"
        },
        MACHINE,
    ),
    "two ranges of a lane at once": (
        "take_range",
        {"p_subscription.mode = 'ordered' and exists (": "false and exists ("},
        test_claim_races.test_one_range_of_a_lane_at_a_time,
    ),
    "a floor above a claim": (
        "raise_claim_floor",
        {"min(c.id)": "max(c.id) + 1"},
        test_claim_races.test_a_floor_is_below_every_claim,
    ),
    "a session that is back and forgets what it has": (
        "resume",
        {"c.id <> all (p_keep)": "true"},
        test_ranges.test_a_session_that_is_back_gives_back_what_it_does_not_know_of,
    ),
    "a session that is back and keeps what it does not know of": (
        "resume",
        {"c.id <> all (p_keep)": "false"},
        test_ranges.test_a_session_that_is_back_gives_back_what_it_does_not_know_of,
    ),
    # Attempts
    "an attempt that is counted after the delivery": (
        "open_claim",
        {"attempt = v_claim.attempt + 1": "attempt = v_claim.attempt"},
        MACHINE,
    ),
    "a second attempt that is not counted": (
        "open_claim",
        {"set attempt = attempt + 1": "set attempt = attempt"},
        test_claim_races.test_every_delivery_of_a_message_by_itself_counts,
    ),
    "one death too many": (
        "open_claim",
        {"v_claim.attempt < p_subscription": "v_claim.attempt <= p_subscription"},
        test_retries.test_a_message_that_kills_is_parked_and_the_others_are_done,
    ),
    "one failure too many": (
        "file_failures",
        {"p_claim.attempt >= p_subscription": "p_claim.attempt > p_subscription"},
        test_retries.test_after_its_last_attempt_it_is_parked_and_holds_its_key,
    ),
    "attempts of a message that is gone": (
        "open_claim",
        {"v_claim.attempt := 1;": "null;"},
        test_claim_races.test_attempts_are_those_of_the_message_that_comes,
    ),
    "a dead holder that is not suspected": (
        "take_expired",
        {"suspect = c.suspect or (": "suspect = false and ("},
        MACHINE,
    ),
    "a release that forgets the suspicion": (
        "release",
        {"suspect = c.suspect or p_suspect": "suspect = p_suspect"},
        test_claim_races.test_giving_back_is_no_attempt_of_a_message_that_comes_alone,
    ),
    "a release that counts as an attempt": (
        "release",
        {"c.attempt - (c.suspect and not p_suspect)::integer": "c.attempt"},
        test_claim_races.test_giving_back_is_no_attempt_of_a_message_that_comes_alone,
    ),
    "an unparked message without another try": ("unpark", {"attempt = 0,": ""}, MACHINE),
    # What is done by itself
    "done without a note": (
        "close_due",
        {"if found or exists (": "if false and exists ("},
        test_retries.test_what_was_done_by_itself_does_not_come_again_with_a_range_that_covers_it,
    ),
    "a note that is forgotten while a range covers it": (
        "forget_done",
        {"not exists (": "true or not exists ("},
        MACHINE,
    ),
    "more that is forgotten than the notes": (
        "forget_done",
        {"and d.reason = 'done'": ""},
        MACHINE,
    ),
    "what comes by itself and with its range too": (
        "batch_of",
        {"not v_apart or not exists (": "true or not exists ("},
        MACHINE,
    ),
    "an edited message as it was": (
        "batch_of",
        {"coalesce(d.payload, m.payload)": "m.payload"},
        test_ranges.test_a_parked_message_is_edited_and_tried_again,
    ),
    # Keys
    "two of a key that are freed at once": (
        "free_key",
        {"limit v_room": "limit v_room + 1"},
        test_claim_races.test_one_of_a_key_is_freed_at_a_time,
    ),
    "a key that is freed while it is held": (
        "free_key",
        {"    if found then\n      return;": "    if false then\n      return;"},
        test_claim_races.test_one_of_a_key_is_freed_at_a_time,
    ),
    "a key that is freed without its locks": (
        "free_key",
        {"        for share;": "        ;"},
        test_claim_races.test_a_message_is_filed_as_waiting_while_its_holder_is_being_finished,
    ),
    "what is in hands is freed again": (
        "free_key",
        {"     and reason = 'waiting';": ";"},
        test_claim_races.test_what_was_freed_and_claimed_meanwhile_is_not_freed_again,
    ),
    "a parked message that frees nobody": (
        "park",
        {"perform kirby.free_key(p_subscription, v_key);": "null;"},
        test_claim_races.test_a_killer_that_is_parked_lets_its_key_go_on,
    ),
    "a finished message that frees nobody": (
        "close_due",
        {"  perform kirby.free_key(p_subscription, v_due.key);\n": ""},
        test_retries.test_only_the_key_of_a_failed_message_waits,
    ),
    "a dropped message that frees nobody": (
        "drop_parked",
        {
            "perform kirby.close_due(v_subscription, v_position);": "delete from kirby.due d"
            " where d.subscription_id = p_subscription_id and d.position = v_position;"
        },
        test_retries.test_dropped_it_is_gone_and_its_key_goes_on,
    ),
    "a change of the policy that frees nobody": (
        "subscribe",
        {"if found and p_on_failure = 'park'": "if false and p_on_failure = 'park'"},
        test_claim_races.test_what_waits_goes_on_when_the_policy_becomes_park,
    ),
    "nobody is held back": (
        "hold_back",
        {"p_subscription.mode <> 'ordered' or": "true or"},
        test_retries.test_only_the_key_of_a_failed_message_waits,
    ),
    "held back without a lock": (
        "hold_back",
        {"      for update;\n": "      ;\n"},
        test_claim_races.test_a_delayed_message_that_is_being_claimed_holds_its_key,
    ),
    "a retry that loses its key": (
        "file_failures",
        {"v_failure.lane, v_failure.key,": "v_failure.lane, null,"},
        test_retries.test_only_the_key_of_a_failed_message_waits,
    ),
    "nobody is put off": (
        "put_off",
        {"begin\n": "begin\n  return false;\n"},
        test_delays.test_one_that_is_due_waits_for_what_holds_its_key,
    ),
    "who is put off does not look at ranges in hands": (
        "put_off",
        {"c.kind = 'range'": "false"},
        test_delays.test_one_that_is_due_waits_for_its_key_in_somebodys_hands,
    ),
    "who is put off does not look who else is at it": (
        "put_off",
        {"not pg_try_advisory_xact_lock(hashtextextended(p_due.key, p_subscription.id)) or": ""},
        test_claim_races.test_two_delayed_messages_of_a_key_that_are_claimed_at_once,
    ),
    "who is put off does not lock whom it waits for": (
        "put_off",
        {"for share skip locked": ""},
        test_claim_races.test_a_delayed_message_that_is_put_off_while_its_holder_is_being_finished,
    ),
    "what is unparked comes beside its key": (
        "unpark",
        {"then 'delayed' else 'queued'": "then 'ready' else 'ready'"},
        test_ranges.test_unparked_out_of_turn_it_waits_for_its_key_in_hands,
    ),
    "what is over the rate of its key does not wait for the one before": (
        "put_off",
        {"('delayed', 'queued', 'limited')": "('delayed', 'queued')"},
        test_claim_races.test_what_is_over_the_rate_of_its_key_waits_for_the_one_before,
    ),
    # Ranges
    "a cursor that goes back": (
        "take_range",
        {"set position = v_range.last": "set position = v_range.first"},
        MACHINE,
    ),
    "a cursor that does not count": (
        "take_range",
        {"delivered + v_range.messages": "delivered"},
        MACHINE,
    ),
    "a part that comes again": ("finish", {"set first = p_upto + 1, upto": "set upto"}, MACHINE),
    "what is not committed is passed over": (
        "take_lane",
        {
            "v_reach   bigint := kirby.horizon(p_subscription.topic_id);": "v_reach bigint :="
            " (select last_value from kirby.position);"
        },
        test_claim_races.test_what_is_not_committed_is_not_passed_over,
    ),
    "one look that does not go on": (
        "take_range",
        {"v_passed >= v_most": "true"},
        test_claim_races.test_one_look_passes_over_all_that_is_not_to_be_had,
    ),
    "a barrier that does not wait": (
        "barrier",
        {"return v_change;": "return p_horizon;"},
        test_ranges.test_every_key_stays_in_order_when_lanes_are_added,
    ),
    "a barrier that waits for locks": (
        "barrier",
        {"for no key update skip locked": "for no key update"},
        test_claim_races.test_a_change_of_lanes_that_is_passed_while_a_lane_is_being_claimed,
    ),
    # Times, and what is taken back
    "an expired message that is handed out": (
        "sift",
        {"coalesce(m.expires_at <= kirby.now(), false)": "false"},
        test_delays.test_an_expired_message_is_never_handed_out,
    ),
    "a delayed message that is handed out": (
        "sift",
        {"s.gone or m.deliver_at > kirby.now()": "s.gone"},
        test_delays.test_a_delayed_message_comes_when_it_is_due,
    ),
    "a retracted message that is handed out": (
        "sift",
        {"or exists (": "or false and exists ("},
        test_delays.test_taken_back_before_it_is_handed_out,
    ),
    "a retry without its pause": (
        "take_due",
        {"n.due_at <= kirby.now()": "n.due_at < 'infinity'"},
        test_retries.test_a_failed_message_comes_again_after_its_pause,
    ),
    "a parked message that is handed out": (
        "take_due",
        {"n.parked_at is null and n.due_at <= kirby.now()": "n.reason <> 'waiting'"},
        test_claim_races.test_a_parked_message_stays_where_it_is,
    ),
    "what is in hands is taken back": (
        "retract",
        {"or exists (": "or false and exists ("},
        test_claim_races.test_what_is_being_handed_out_cannot_be_taken_back,
    ),
    "what one has in hands is taken back from the other": (
        "retract",
        {"      return false;": "      continue;"},
        test_claim_races.test_what_cannot_be_taken_back_from_all_is_taken_back_from_nobody,
    ),
    # Limits
    "one more than allowed": (
        "allowance",
        {"p_subscription.max_in_flight - ": "p_subscription.max_in_flight + 1 - "},
        test_limits.test_so_many_in_hands_at_once,
    ),
    "a rate that is not booked": (
        "count_rate",
        {"+ make_interval(secs => p_messages / rate)": ""},
        test_limits.test_so_many_a_second,
    ),
    "one more of a key than allowed": (
        "limit_keys",
        {"v_room <= 0": "v_room < 0"},
        test_limits.test_so_many_of_a_key_in_hands,
    ),
    "retries beside the limit of their key": (
        "put_off",
        {">= p_subscription.key_in_flight": "> p_subscription.key_in_flight"},
        test_claim_races.test_a_retry_counts_on_the_limit_of_its_key,
    ),
    "a limit that is looked at before it is locked": (
        "settle",
        {"    v_own := kirby.own_subscription(v_claim.subscription_id);\n    perform":
         "    perform",
         "c.fence = p_fence for update;":
         "c.fence = p_fence for update;\n    v_own :="
         " kirby.own_subscription(v_claim.subscription_id);"},
        test_claim_races.test_the_limits_of_a_subscription_and_what_expires,
    ),
    # Rewinds
    "a batch beyond the end of what comes again": (
        "take_range",
        {"v_horizon := least(p_horizon, v_part.until)": "v_horizon := p_horizon"},
        test_rewinds.test_a_batch_is_all_replay_or_all_live,
    ),
    "a rewind that leaves what is in hands": (
        "move_lane",
        {"delete from kirby.claim c\n   where": "delete from kirby.claim c\n   where false and"},
        test_rewinds.test_what_is_in_hands_is_fenced_off_and_has_no_effect,
    ),
    "what comes for the first time is marked": (
        "replay_headers",
        {"f.position is not null": "false"},
        test_rewinds.test_what_was_never_settled_comes_unflagged,
    ),
    "a failed replay that is not marked": (
        "file_failures",
        {"if p_claim.rewind_id is not null then": "if false then"},
        test_rewinds.test_a_failure_of_a_replay_stays_flagged_and_one_of_a_first_delivery_does_not,
    ),
    "what waits for a replay is not marked": (
        "open_claim",
        {"if v_claim.rewind_id is not null then": "if false then"},
        test_rewinds.test_what_waits_for_a_failed_replay_is_a_replay_too,
    ),
    "done by itself, and comes again with its lane": (
        "close_due",
        {"n.position < p_position": "false"},
        test_rewinds.test_a_delayed_message_comes_when_it_is_due_and_once,
    ),
    "a lane that does not go on where it was": (
        "leave_part",
        {"greatest(position, v_part.upto)": "position"},
        test_rewinds.test_until_it_comes_again_and_then_the_lane_goes_on_where_it_was,
    ),
    "an abort that forgets what was never settled": (
        "drop_parts",
        {"perform kirby.file_fresh(": "perform kirby.file_fresh(s, 0::smallint, null) from kirby."
         "subscription s where false; perform ("},
        test_rewinds.test_aborted_it_goes_on_where_it_was_and_loses_nothing,
    ),
    "a pause that hands out": (
        "replay_room",
        {"'preparing', 'paused', 'aborting'": "'preparing', 'aborting'"},
        test_rewinds.test_paused_and_resumed,
    ),
    "a range at the end of the part that is cut": (
        "rewind_parts",
        {"greatest(v_part.until, max(c.last)": "least(v_part.until, max(c.last)"},
        test_rewinds.test_until_within_what_is_in_hands_keeps_the_order_of_a_key,
    ),
    "states that are set back before all has arrived": (
        "note_waits",
        {"return v_waits.newest is not null": "return false"},
        test_rewind_states.test_it_waits_for_what_is_on_its_way_downstream,
    ),
    "states that are set back to the wrong version": (
        "set_keys_back",
        {"m.position < c.position": "m.position <= c.position"},
        test_rewind_states.test_what_was_there_before_the_point_stays,
    ),
    "an abort that leaves the states": (
        "take_back",
        {"array_agg(p_rewind.position))": "array_agg(9223372036854775807::bigint))"},
        test_rewind_states.test_aborted_with_live_messages_the_figures_are_exact,
    ),
    "live messages that do not come again on top": (
        "take_back",
        {"if v_part.messages > 0 then": "if false then"},
        test_rewind_states.test_aborted_with_live_messages_the_figures_are_exact,
    ),
    "a version that a restore has set aside counts": (
        "standing_since",
        {"where c.version is null\n": ""},
        test_rewind_exact.test_after_a_fix_a_second_rewind_does_not_bring_the_old_figures_back,
    ),
    "a point that is not moved while it is prepared": (
        "prepare_rewind",
        {"elsif v_note is not null then": "elsif false then"},
        test_rewind_exact.test_what_settled_while_it_was_prepared_moves_the_point,
    ),
    "a rewind that is taken back to where it was asked for": (
        "prepare_rewind",
        {", position = nextval('kirby.position')": ""},
        test_rewind_exact.test_what_was_on_its_way_when_it_began_is_not_lost_if_it_is_aborted,
    ),
    "a look that computes all while nothing moved": (
        "look_after",
        {"where kirby.is_unsettled(w.s, w.l, w.p)": "where false"},
        test_rewind_exact.test_while_it_waits_a_look_computes_nothing,
    ),
    "other keys of a figure that are forgotten by an abort": (
        "touched_since",
        {"exit when v_more is null": "exit"},
        test_rewind_keys.test_aborted_live_messages_of_other_keys_count_too,
    ),
    "keys whose holder keeps its fence": (
        "file_replays",
        {"fence = default, ": ""},
        test_rewind_keys.test_what_is_in_hands_of_the_key_is_given_back_with_another_fence,
    ),
    "keys that come out of turn": (
        "file_replays",
        {"case when v_ordered and m.key is not null then 'waiting' else 'ready' end": "'ready'",
         "case when v_ordered and m.key is not null then 'infinity' else kirby.now() end":
         "kirby.now()",
         "set reason = 'waiting', due_at = 'infinity', parked_at = null": "set parked_at = null"},
        test_rewind_keys.test_other_keys_never_wait,
    ),
}  # fmt: skip


def mutated(name, changes):
    function = (MIGRATIONS / "functions" / f"{name}.sql").read_text()
    for old, new in changes.items():
        assert old in function, f"{name} has changed: {old!r}"
        function = function.replace(old, new)
    return function


def notice(request, dsn, test):
    """Run a test, or a few examples of the machine, where the function is wrong."""
    if test is MACHINE:
        house = test_claims_machine.House(dsn)
        request.addfinalizer(house.close)
        test_claims_machine.run(house, test_claims_machine.FEW)
        return
    given = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters
             if name != "why"}  # fmt: skip
    test(**given, **({"why": "expired"} if "why" in inspect.signature(test).parameters else {}))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_would_be_noticed(request, dsn, mutant):
    name, changes, test = MUTANTS[mutant]
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(mutated(name, changes))

    # Not any Exception: a mistake in a test would be one as well.
    with pytest.raises(BaseException) as noticed:  # noqa: PT011
        notice(request, dsn, test)
    assert not isinstance(noticed.value, TypeError | NameError | psycopg.errors.SyntaxError)

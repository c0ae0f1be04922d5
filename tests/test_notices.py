"""What people read of an incident: subject, text, HTML, Markdown; of each event and kind."""

import copy

import pytest

from kirby.core.errors import Invalid
from kirby.server import notices

NOTICE = {
    "event": "opened", "kind": "failing", "title": "it fails: exit code 3", "status": "open",
    "environment": "prod", "job": "nightly", "job_description": "Prices of the day",
    "details": {"stage": "running too long", "since_at": "2027-01-02T03:04:05+00:00"},
    "count": 3, "flapping": False, "run": 12, "opened_at": "2027-01-02T03:00:00+00:00",
    "updated_at": "2027-01-02T03:00:00+00:00", "resolved_at": None, "resolved_by": None,
    "acknowledged_by": None, "at": "2027-01-02T05:05:00+00:00", "log": ["Traceback", "KeyError"],
    "told": [], "told_count": 0, "more": {}, "incident": 7, "channel": "ops", "channel_id": 1,
}  # fmt: skip


def letter(url="https://k.test/", **changed):
    return notices.letter({**copy.deepcopy(NOTICE), **changed}, 99, url)


def test_what_has_begun_is_told_with_all_that_is_known():
    told = letter()
    assert told.title == "[prod] FAILING nightly: it fails: exit code 3"
    assert (told.kind, told.key) == ("failure", "kirby-notice-99")
    for form in (told.text, told.html, told.markdown):
        for text in (
            "Prices of the day", "2027-01-02 03:00:00 UTC, 2 h 5 min", "running too long",
            "2027-01-02 03:04:05 UTC", "Traceback", "/incidents/7?env=prod", "/runs/12?env=prod",
            "/jobs/nightly?env=prod", "kirby incident ack 7",
        ):  # fmt: skip
            assert text in form


def test_what_is_over_says_how_long_it_was_and_no_more():
    told = letter(event="resolved", status="resolved", resolved_at="2027-01-02T03:12:30+00:00")
    assert told.title == "[prod] RESOLVED nightly: it fails: exit code 3"
    assert told.kind == "success"
    assert "12 min long" in told.text
    assert "Traceback" not in told.text
    assert "incident ack" not in told.text


@pytest.mark.parametrize(
    ("event", "kind", "subject"),
    [
        ("updated", "missed", "[prod] STILL MISSED nightly: it fails: exit code 3"),
        ("retried", "retrying", "[prod] RETRYING nightly: it fails: exit code 3"),
        ("opened", "channel", "[prod] CHANNEL nightly: it fails: exit code 3"),
        ("opened", "platform", "[prod] KIRBY nightly: it fails: exit code 3"),
    ],
)
def test_the_subject_says_what_it_is(event, kind, subject):
    assert letter(event=event, kind=kind).title == subject


def test_every_kind_has_words():
    assert set(notices.KINDS) == set(notices.WORDS) == set(notices.SAID)


def test_every_kind_that_the_database_knows_can_be_told(db):
    [[check]] = db.execute(
        "select pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = 'kirby.incident'::regclass and conname = 'incident_kind_check'"
    ).fetchall()
    assert all(f"'{kind}'" in check for kind in notices.KINDS)
    assert check.count("::text") >= len(notices.KINDS)
    assert set(notices.KINDS) == {part for part in check.split("'")[1::2]}


def test_a_name_in_the_title_is_not_said_twice_and_a_long_one_is_cut():
    assert letter(title="nightly fails").title == "[prod] FAILING nightly fails"
    assert len(letter(title="x" * 500).title) == notices.LONGEST_TITLE
    assert "\n" not in letter(title="a\nb").title


def test_what_a_script_wrote_is_text_and_never_markup():
    nasty = "<script>alert(1)</script> [x](http://evil) ``` `rm`"
    told = letter(title=nasty, log=[nasty], details={"reason": nasty})
    assert "<script>" not in told.html
    assert "[x](" not in told.markdown.split("```")[0]
    assert told.markdown.count("```") == 2
    assert nasty in told.text


def test_a_storm_names_what_is_in_it():
    told = letter(
        kind="storm", job=None, title="60 incidents at once: release 7", told_count=60,
        told=[{"incident": n, "title": f"job-{n} fails", "kind": "failing"} for n in range(50)],
    )  # fmt: skip
    assert told.title == "[prod] STORM 60 incidents at once: release 7"
    assert "- job-49 fails" in told.text
    assert "and 10 more" in told.text


def test_without_an_address_of_the_pages_there_are_no_links():
    told = letter(url="")
    assert "http" not in told.text
    assert "kirby incident ack 7" in told.text


def test_a_test_says_who_asked():
    told = notices.letter(
        {"event": "test", "channel": "ops", "channel_id": 1, "by": "ann", "environment": None}, 5
    )
    assert told.title == "Kirby: a test of the channel ops"
    assert "asked for by ann" in told.text
    assert told.kind == "info"


@pytest.mark.parametrize(
    "notice", [{}, {"event": "opened"}, {**NOTICE, "opened_at": "soon"}, 7, None]
)
def test_what_is_no_notice_is_refused(notice):
    with pytest.raises(Invalid, match="this is no notice of Kirby"):
        notices.letter(notice, 1)

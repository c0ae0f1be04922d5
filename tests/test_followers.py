"""Jobs that run after others: circles are refused, jobs that are not there are told."""

import pytest
from fix_web import connected


@pytest.fixture
def deploy(cli, tmp_path):
    """`deploy("a", "b")`: the job a, which runs after b."""
    (tmp_path / "job.py").write_text("print(1)\n")

    def deploy(name, *after, env="dev"):
        lines = [part for job in after for part in ("--schedule", f"after: {job}")]
        return cli("deploy", "job.py", "--as", name, "--env", env, *lines)

    return deploy


def test_a_circle_is_refused_and_named(deploy, dsn):
    for name, after in (("load", ()), ("clean", ("load",)), ("report", ("clean", "load"))):
        assert deploy(name, *after).code == 0
    closed = deploy("extra", "report")
    assert closed.code == 0

    # A scheduled job may change what it follows; load is manual, so the circle goes through clean.
    circle = deploy("clean", "extra")

    assert circle.code == 1
    assert circle.err == ("kirby: clean would run after itself: clean → report → extra → clean\n")
    with connected(dsn) as conn:
        [(lines,)] = conn.execute(
            "select v.schedules from kirby.deployment_version v"
            " join kirby.deployment d on d.id = v.deployment_id and d.version = v.version"
            " join kirby.job j on j.id = d.job_id where j.name = 'clean'"
        ).fetchall()
    assert lines == ["after: load"]


def test_a_job_that_follows_itself_is_the_smallest_circle(deploy):
    done = deploy("alone", "alone")

    assert done.err == "kirby: alone would run after itself: alone → alone\n"


def test_other_environments_are_other_graphs(deploy):
    deploy("load", env="preprod")
    assert deploy("clean", "load", env="preprod").code == 0
    deploy("load", "clean", env="prod")

    assert deploy("clean", "load", env="dev").code == 0


def test_a_job_that_is_not_there_is_told_and_no_error(deploy):
    first = deploy("clean", "load")
    again = deploy("clean", "load")

    assert first.code == 0
    assert first.err == (
        "note: there is no job load in dev yet: until there is, nothing runs after it\n"
    )
    assert again.err == ""
    deploy("load")
    assert deploy("report", "load").err == ""

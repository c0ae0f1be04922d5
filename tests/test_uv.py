import os
import stat
from pathlib import Path

import pytest

from kirby.core.errors import Invalid, KirbyError
from kirby.server import uv


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (
            "error: No solution found when resolving dependencies\n"
            "  cause: Because there is no version of six==99 and you require six==99, we can\n"
            "         conclude that your requirements are unsatisfiable.\n",
            "there is no version of six==99 and you require six==99",
        ),
        (
            "  \u00d7 No solution found when resolving dependencies:\n"
            "  ╰─▶ Because six was not found in the package registry and you require six, we can\n"
            "      conclude that your requirements are unsatisfiable.\n",
            "six was not found in the package registry and you require six",
        ),
        (
            "error: No solution found when resolving dependencies\n"
            "  cause: Because a==1 depends on b<2 and c was yanked, we can conclude that all of:\n"
            "             a==1\n"
            "         depend on b<2.\n"
            "         And because you require a and b>=2, we can conclude that your requirements\n"
            "         are unsatisfiable.\n\n"
            "hint: something because of something else\n",
            "a==1 depends on b<2 and c was yanked; you require a and b>=2",
        ),
        (
            "error: Request failed after 3 retries in 6.0s\n"
            "  cause: Failed to fetch: https://me:secret@index.example/simple/six/\n"
            "  cause: tcp connect error\n"
            "  cause: Connection refused (os error 111)\n",
            "Failed to fetch: https://index.example/simple/six/: Connection refused (os error 111)",
        ),
        (
            "error: Failed to download `six==1.17.0`\n"
            "  cause: Hash mismatch for `six==1.17.0`\n\n"
            "         Expected:\n           sha256:47\n",
            "Failed to download `six==1.17.0`: Hash mismatch for `six==1.17.0`",
        ),
        (
            "error: Failed to build `x==1.0`\n"
            "  cause: The build backend returned an error\n"
            "  cause: Call to `backend` failed (exit status: 1)\n\n"
            "         [stdout]\n         chatter\n\n"
            "         [stderr]\n         Traceback\n           File\n"
            "         ModuleNotFoundError: No module named 'y'\n\n"
            "hint: several\nlines\n",
            "Failed to build `x==1.0`: ModuleNotFoundError: No module named 'y'",
        ),
        (
            "Building wheel...\n  chatter\nValueError: no compiler\n\n"
            "error: Failed to build `/tmp/x`\n"
            "  cause: The build backend returned an error\n"
            "  cause: Call to `backend.build_wheel` failed (exit status: 1)\n",
            "ValueError: no compiler",
        ),
        (
            "Building wheel...\n"
            "error: Failed to build `/tmp/x`\n"
            "  cause: The build backend returned an error\n"
            "  cause: Call to `backend.build_wheel` failed (exit status: 1)\n",
            "Failed to build `/tmp/x`: Call to `backend.build_wheel` failed (exit status: 1)",
        ),
        ("", "uv gave no reason"),
    ],
)
def test_the_complaint_of_uv_becomes_its_essential_sentence(written, line):
    assert uv.complaint(written) == line


def test_secrets_of_the_server_are_not_handed_to_a_build():
    given = {
        "KIRBY_DSN": "x",
        "PGPASSWORD": "x",
        "PYTHONPATH": "x",
        "VIRTUAL_ENV": "x",
        "UV_PUBLISH_TOKEN": "x",
        "DATABASE_URL": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HTTPS_PROXY": "proxy",
        "SSL_CERT_FILE": "certificates",
        "UV_HTTP_TIMEOUT": "5",
        "PATH": "path",
    }

    kept = uv.environment(given, cache=Path("/cache"), index_url="https://index.example/simple")

    assert kept == {
        "HTTPS_PROXY": "proxy",
        "SSL_CERT_FILE": "certificates",
        "UV_HTTP_TIMEOUT": "5",
        "PATH": "path",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": "/cache",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "SOURCE_DATE_EPOCH": uv.EPOCH,
    }


def test_what_the_user_set_for_uv_comes_first():
    given = {"UV_CACHE_DIR": "/mine", "UV_CONFIG_FILE": "/uv.toml"}

    kept = uv.environment(given, cache=Path("/cache"), index_url=None)

    assert kept == {**given, "UV_PYTHON_DOWNLOADS": "never", "SOURCE_DATE_EPOCH": uv.EPOCH}


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Put a shell script in the place of uv."""

    def fake(script):
        program = tmp_path / "fake-uv"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(uv, "binary", lambda: str(program))

    return fake


def run(tmp_path, seconds=60):
    return uv.run("pip", "sync", cwd=tmp_path, cache=None, index_url=None, seconds=seconds)


def test_uv_that_takes_too_long_is_killed_with_all_that_it_started(fake, tmp_path):
    os.mkfifo(tmp_path / "alive")
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    fake("exec 3>alive; echo begun >&3; sleep 600 & sleep 600")

    with pytest.raises(KirbyError, match="uv pip sync took over 2 s"):
        run(tmp_path, seconds=2)

    os.set_blocking(alive, True)
    with os.fdopen(alive) as lines:
        assert lines.read() == "begun\n"  # to its end: the last process that held it is gone


def test_a_long_complaint_is_cut_at_a_word(fake, tmp_path):
    fake(f"echo 'error: {'word ' * 500}' >&2; exit 2")

    with pytest.raises(Invalid) as failed:
        run(tmp_path)

    assert len(str(failed.value)) <= uv.LONGEST + 2
    assert str(failed.value).endswith("word …")


@pytest.mark.parametrize(
    ("written", "kind", "message"),
    [
        ("error: No space left on device (os error 28)", KirbyError, "uv cannot write"),
        ("error: dns error", KirbyError, "the package index cannot be reached"),
        (
            "error: HTTP status server error (503)",
            KirbyError,
            "the package index cannot be reached",
        ),
        ("error: nothing fits", Invalid, "the dependencies cannot be installed: nothing fits"),
    ],
)
def test_each_kind_of_failure_has_its_own_error(fake, tmp_path, written, kind, message):
    fake(f"echo '{written}' >&2; exit 2")

    with pytest.raises(KirbyError, match=message) as failed:
        run(tmp_path)

    assert type(failed.value) is kind


def test_a_uv_that_crashes_is_no_fault_of_the_script(fake, tmp_path):
    fake("kill -SEGV $$")

    with pytest.raises(KirbyError, match="uv was ended by signal 11") as failed:
        run(tmp_path)

    assert type(failed.value) is KirbyError

import contextlib
import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kirby.core.errors import Invalid, KirbyError
from kirby.server import locks, sdk_wheel
from kirby.server.locks import Lock

NOWHERE = "http://someone:secret@127.0.0.1:9/simple"  # the discard port: nothing listens


@pytest.fixture(scope="module")
def sdk():
    return sdk_wheel.build()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No index answers, and uv's cache is empty."""
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty-cache"))
    return NOWHERE


def a_wheel(name, version, *needs):
    info = f"{name}-{version}.dist-info"
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as opened:
        opened.writestr(f"{name}.py", "")
        said = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        opened.writestr(f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", *said, ""]))
        opened.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        opened.writestr(f"{info}/RECORD", "")
    return f"{name}-{version}-py3-none-any.whl", stored.getvalue()


@contextlib.contextmanager
def an_index(*wheels):
    """A package index that serves these wheels: its URL, and the paths that it is asked for."""
    asked, files = [], dict(wheels)

    class Index(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            last = self.path.rstrip("/").rpartition("/")[2]
            page = "".join(
                f'<a href="/files/{f}#sha256={hashlib.sha256(files[f]).hexdigest()}">{f}</a>'
                for f in files
                if f.split("-")[0].replace("_", "-") == last
            ).encode()
            content = files.get(last, page)
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html" if content == page else "application/zip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple", asked
        finally:
            server.shutdown()
            thread.join()


def names(lock):
    return [
        line.split("==")[0] for line in lock.requirements.splitlines() if not line.startswith(" ")
    ]


def test_dependencies_are_pinned_with_hashes_in_a_stable_text(sdk):
    lock = locks.resolve(["six==1.17.0"], sdk=sdk)

    assert lock.requirements == (
        "six==1.17.0 \\\n"
        "    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274 \\\n"
        "    --hash=sha256:ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81\n"
    )
    assert (lock.sdk_sha256, lock.python) == (None, f"3.{sys.version_info[1]}")


def test_the_same_dependencies_in_another_order_give_the_same_lock(sdk):
    one = locks.resolve(["six", "idna>=3"], sdk=sdk)
    other = locks.resolve(["idna >= 3", "six"], sdk=sdk)

    assert one == other
    assert one.hash == other.hash


def test_nothing_listed_needs_no_network(sdk, offline):
    lock = locks.resolve([], sdk=sdk, index_url=offline)

    assert (lock.requirements, lock.sdk_sha256) == ("", None)


def test_a_dependency_for_another_system_is_left_out(sdk, offline):
    lock = locks.resolve(
        ["six; sys_platform == 'win32'", "kirby; python_version < '3'"], sdk=sdk, index_url=offline
    )

    assert (lock.requirements, lock.sdk_sha256) == ("", None)


@pytest.mark.parametrize(
    "spelt", ["kirby", "Kirby[server]>=3.0.0.dev0", "kirby<100; os_name != ''"]
)
def test_a_script_that_lists_kirby_gets_this_servers_own(sdk, spelt):
    lock = locks.resolve([spelt], sdk=sdk)

    assert lock.sdk_sha256 == sdk.sha256
    assert "psycopg" in names(lock)
    assert "kirby" not in lock.requirements
    assert "file:" not in lock.requirements


def test_no_index_is_ever_asked_for_kirby(sdk, monkeypatch, tmp_path):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    served = [
        a_wheel("kirby", "99.0"),
        a_wheel("needs_kirby", "1.0", "kirby[extra]>=50", "six"),
        a_wheel("six", "1.0"),
        a_wheel("psycopg", "9.0"),
        a_wheel("psycopg_binary", "9.0"),
    ]

    with an_index(*served) as (url, asked):
        direct = locks.resolve(["kirby"], sdk=sdk, index_url=url)
        indirect = locks.resolve(["needs-kirby"], sdk=sdk, index_url=url)

    assert direct.sdk_sha256 == indirect.sdk_sha256 == sdk.sha256
    assert {"needs-kirby", "six", "psycopg"} <= set(names(indirect))
    assert "kirby==" not in direct.requirements.replace("needs-kirby==", "")
    assert "/simple/six/" in asked
    assert "/simple/kirby/" not in asked


def test_the_lock_holds_no_path_no_index_and_no_comment(sdk, monkeypatch, tmp_path):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    with an_index(a_wheel("six", "1.0")) as (url, _):
        lock = locks.resolve(["six"], sdk=sdk, index_url=url)

    assert "127.0.0.1" not in lock.requirements
    assert "#" not in lock.requirements
    assert str(tmp_path) not in lock.requirements


@pytest.mark.parametrize(
    ("dependency", "message"),
    [
        ("kirby>=99", "'kirby>=99' does not fit: this server's own SDK is"),
        ("kirby==0.1.0", "does not fit"),
        ("kirby @ https://example.com/kirby-1-py3-none-any.whl", "it takes no URL"),
        ("not valid!", "dependency 'not valid!' is not valid"),
        ("x @ git+https://example.com/x", "only https URLs of archives"),
        ("x @ file:///etc/passwd", "only https URLs of archives"),
        ("x @ https://example.com/${HOME}/x.whl", "a line break, or a variable"),
        ("x @ https://example.com/x.whl\n--index-url=https://example.com", "a line break"),
    ],
)
def test_a_dependency_that_cannot_be_locked_is_refused(sdk, offline, dependency, message):
    with pytest.raises(Invalid) as refused:
        locks.resolve([dependency], sdk=sdk, index_url=offline)

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        (["six==99"], "there is no version of six==99"),
        (["six<1.17", "six>=1.17"], "six<1.17"),
        (["kirby-has-no-such-package-as-this"], "was not found in the package registry"),
    ],
)
def test_what_cannot_be_resolved_is_refused_in_one_sentence(sdk, dependencies, message):
    with pytest.raises(Invalid) as refused:
        locks.resolve(dependencies, sdk=sdk)

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert "hint" not in str(refused.value)


def test_an_index_that_does_not_answer_is_no_fault_of_the_script(sdk, offline):
    with pytest.raises(KirbyError) as failed:
        locks.resolve(["six"], sdk=sdk, index_url=offline)

    assert not isinstance(failed.value, Invalid)
    assert "the package index cannot be reached" in str(failed.value)
    assert "secret" not in str(failed.value)


def test_a_cache_that_cannot_be_written_is_said_to_be(sdk, monkeypatch, tmp_path):
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()

    with pytest.raises(KirbyError, match="uv cannot write to this disk"):
        locks.resolve(["six"], sdk=sdk, cache=tmp_path / "file" / "cache")


def test_another_interpreter_is_asked_for_its_version(sdk, tmp_path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)

    assert locks.resolve([], sdk=sdk, python=python) == locks.resolve([], sdk=sdk)


@pytest.mark.parametrize("program", ["/bin/false", "/no/such/python"])
def test_what_is_not_an_interpreter_is_refused(sdk, program):
    with pytest.raises(KirbyError, match="is not a Python that runs"):
        locks.resolve([], sdk=sdk, python=Path(program))


def test_everything_that_decides_what_is_installed_is_in_the_hash():
    lock = Lock("six==1.17.0\n", "aa", "3.11")
    others = [
        Lock("six==1.16.0\n", "aa", "3.11"),
        Lock("six==1.17.0\n", "bb", "3.11"),
        Lock("six==1.17.0\n", None, "3.11"),
        Lock("six==1.17.0\n", "aa", "3.12"),
    ]

    assert len({lock.hash, *(other.hash for other in others)}) == 5
    assert lock.hash == Lock("six==1.17.0\n", "aa", "3.11").hash


def test_a_package_that_fails_to_build_is_refused_with_its_last_word(sdk, monkeypatch, tmp_path):
    source = tmp_path / "broken-1.0"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('no compiler on this machine')\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: broken\nVersion: 1.0\n")
    archive = tmp_path / "broken-1.0.tar.gz"
    subprocess.run(["tar", "czf", archive, "-C", tmp_path, "broken-1.0"], check=True)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))

    with pytest.raises(Invalid) as refused:
        locks.resolve(["broken"], sdk=sdk, cache=tmp_path / "cache")

    assert "Failed to build `broken==1.0`: no compiler on this machine" in str(refused.value)

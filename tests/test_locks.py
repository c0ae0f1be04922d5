import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fix_index import Shelf, a_wheel, an_index, an_sdist

from kirby.core.errors import Invalid, KirbyError
from kirby.server import downloads, locks, pythons, uv
from kirby.server.locks import Lock
from kirby.server.sources import Sources

NOWHERE = "http://someone:secret@127.0.0.1:9/simple"  # the discard port: nothing listens


@pytest.fixture
def public(sdk):
    """The index that this machine uses."""
    return Sources(sdk)


@pytest.fixture
def offline(monkeypatch, tmp_path, sdk):
    """No index answers, and uv's cache is empty."""
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty-cache"))
    return Sources(sdk, index_url=NOWHERE)


def names(lock):
    return [
        line.split("==")[0] for line in lock.requirements.splitlines() if not line.startswith(" ")
    ]


def test_dependencies_are_pinned_with_hashes_in_a_stable_text(public):
    lock = locks.resolve(["six==1.17.0"], public)

    assert lock.requirements == (
        "six==1.17.0 \\\n"
        "    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274 \\\n"
        "    --hash=sha256:ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81\n"
    )
    assert (lock.sdk_sha256, lock.python) == (None, f"3.{sys.version_info[1]}")


def test_the_same_dependencies_in_another_order_give_the_same_lock(public):
    one = locks.resolve(["six", "idna>=3"], public)
    other = locks.resolve(["idna >= 3", "six"], public)

    assert one == other
    assert one.hash == other.hash


def test_nothing_listed_needs_no_network(offline):
    lock = locks.resolve([], offline)

    assert (lock.requirements, lock.sdk_sha256) == ("", None)


def test_a_dependency_for_another_system_is_left_out(offline):
    lock = locks.resolve(["six; sys_platform == 'win32'", "kirby; python_version < '3'"], offline)

    assert (lock.requirements, lock.sdk_sha256) == ("", None)


@pytest.mark.parametrize(
    "spelt", ["kirby", "Kirby[server]>=3.0.0.dev0", "kirby<100; os_name != ''"]
)
def test_a_script_that_lists_kirby_gets_this_servers_own(public, sdk, spelt):
    lock = locks.resolve([spelt], public)

    assert lock.sdk_sha256 == sdk.sha256
    assert "psycopg" in names(lock)
    assert "kirby" not in lock.requirements
    assert "file:" not in lock.requirements


def test_no_index_is_ever_asked_for_kirby(sources, sdk, upstream):
    upstream.add(
        a_wheel("kirby", "99.0"),
        a_wheel("needs_kirby", "1.0", "kirby[extra]>=50", "six"),
        a_wheel("six", "1.0"),
        a_wheel("psycopg", "9.0"),
        a_wheel("psycopg_binary", "9.0"),
    )

    direct = locks.resolve(["kirby"], sources)
    indirect = locks.resolve(["needs-kirby"], sources)

    assert direct.sdk_sha256 == indirect.sdk_sha256 == sdk.sha256
    assert {"needs-kirby", "six", "psycopg"} <= set(names(indirect))
    assert "kirby==" not in direct.requirements.replace("needs-kirby==", "")
    assert upstream.asked_for("six")
    assert not upstream.asked_for("kirby")


def test_the_lock_holds_no_path_no_index_and_no_comment(sources, upstream, tmp_path):
    upstream.add(a_wheel("six", "1.0"))

    lock = locks.resolve(["six"], sources)

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
def test_a_dependency_that_cannot_be_locked_is_refused(offline, dependency, message):
    with pytest.raises(Invalid) as refused:
        locks.resolve([dependency], offline)

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
def test_what_cannot_be_resolved_is_refused_in_one_sentence(public, dependencies, message):
    with pytest.raises(Invalid) as refused:
        locks.resolve(dependencies, public)

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert "hint" not in str(refused.value)


def test_an_index_that_does_not_answer_is_no_fault_of_the_script(offline):
    with pytest.raises(KirbyError) as failed:
        locks.resolve(["six"], offline)

    assert not isinstance(failed.value, Invalid)
    assert "the package index cannot be reached" in str(failed.value)
    assert "secret" not in str(failed.value)


def test_a_cache_that_cannot_be_written_is_said_to_be(sdk, monkeypatch, tmp_path):
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()

    with pytest.raises(KirbyError, match="uv cannot write to this disk"):
        locks.resolve(["six"], Sources(sdk, cache=tmp_path / "file" / "cache"))


def test_another_interpreter_is_asked_for_its_version(public, tmp_path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)

    assert locks.resolve([], public, pythons.of(python)) == locks.resolve([], public)


@pytest.mark.parametrize("program", ["/bin/false", "/no/such/python"])
def test_what_is_not_an_interpreter_is_refused(program):
    with pytest.raises(KirbyError, match="is not a Python that runs"):
        pythons.of(Path(program))


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


def test_a_package_that_fails_to_build_is_refused_with_its_last_word(sources, upstream):
    upstream.add(an_sdist("broken", fail="no compiler on this machine", dynamic=True))

    with pytest.raises(Invalid) as refused:
        locks.resolve(["broken"], sources)

    assert "Failed to build `broken==1.0`: no compiler on this machine" in str(refused.value)


# Names that are hosted here: an index upstream that offers more of them must never be heard


@pytest.fixture
def hosting(sources):
    """Sources where these files are hosted as well."""
    return lambda *named: replace(sources, hosted=Shelf(*named))


def test_a_hosted_name_is_never_looked_up_upstream(hosting, upstream):
    upstream.add(a_wheel("acme", "99.0"), a_wheel("six", "1.0"))

    lock = locks.resolve(["acme", "six"], hosting(a_wheel("acme", "1.0", "six")))

    assert "acme==1.0 " in lock.requirements
    assert upstream.asked_for("six")
    assert not upstream.asked_for("acme")


def test_a_hosted_name_below_what_comes_from_upstream_is_ours_too(hosting, upstream):
    """Dependency confusion: a public package drags in a private name, at a higher version."""
    upstream.add(a_wheel("public", "1.0", "middle"), a_wheel("middle", "1.0", "acme-core>=0.5"))
    upstream.add(a_wheel("acme_core", "99.0"))

    lock = locks.resolve(["public"], hosting(a_wheel("acme_core", "1.0")))

    assert {"acme-core", "middle", "public"} == set(names(lock))
    assert "acme-core==1.0 " in lock.requirements
    assert not upstream.asked_for("acme-core")


def test_a_hosted_name_that_does_not_fit_is_refused_and_not_sought_elsewhere(hosting, upstream):
    upstream.add(a_wheel("acme", "99.0"))

    with pytest.raises(Invalid, match="acme") as refused:
        locks.resolve(["acme>=2"], hosting(a_wheel("acme", "1.0")))

    assert len(str(refused.value).splitlines()) == 1
    assert not upstream.asked_for("acme")


def test_a_hosted_name_without_any_file_is_not_sought_elsewhere(sources, upstream):
    upstream.add(a_wheel("acme", "99.0"))

    class Empty(Shelf):
        def names(self):
            return {"acme"}

    with pytest.raises(Invalid, match="acme"):
        locks.resolve(["acme"], replace(sources, hosted=Empty()))

    assert not upstream.asked_for("acme")


def test_what_is_hosted_but_cannot_be_read_is_not_sought_elsewhere(sources, upstream):
    upstream.add(a_wheel("acme", "99.0"))

    class Broken(Shelf):
        def names(self):
            return {"acme"}

        def files(self, name):
            raise KirbyError("the database does not answer")

    with pytest.raises(KirbyError, match="cannot be read: the database does not answer"):
        locks.resolve(["acme"], replace(sources, hosted=Broken()))

    assert not upstream.asked_for("acme")


@pytest.mark.parametrize("variable", ["UV_INDEX", "UV_EXTRA_INDEX_URL"])
def test_whatever_indexes_uv_is_told_of_a_hosted_name_is_ours(
    hosting, upstream, monkeypatch, variable
):
    with an_index(a_wheel("acme", "99.0")) as other:
        monkeypatch.setenv(variable, other.url)
        monkeypatch.setenv("UV_INDEX_STRATEGY", "unsafe-best-match")

        lock = locks.resolve(["acme"], hosting(a_wheel("acme", "1.0")))

        assert "acme==1.0 " in lock.requirements
        assert not other.asked_for("acme")


def test_a_folder_that_uv_is_told_of_cannot_replace_a_hosted_name(hosting, monkeypatch, tmp_path):
    filename, content = a_wheel("acme", "99.0")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / filename).write_bytes(content)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "links"))

    with pytest.raises(Invalid, match="acme is published here, but was resolved from"):
        locks.resolve(["acme"], hosting(a_wheel("acme", "1.0")))


def test_a_hosted_name_takes_no_url(hosting, upstream):
    url = f"{upstream.url}/acme-99.0-py3-none-any.whl"

    with pytest.raises(Invalid, match="acme is published here, so it takes no URL"):
        locks.resolve([f"acme @ {url}"], hosting(a_wheel("acme", "1.0")))


def test_what_a_build_needs_is_never_looked_up_upstream_if_it_is_hosted(hosting, upstream):
    filename, content = an_sdist("source")
    content = _requiring(content, "acme-build")
    upstream.add((filename, content), a_wheel("acme_build", "99.0"))

    locks.resolve(["source"], hosting(a_wheel("acme_build", "1.0")))

    assert not upstream.asked_for("acme-build")


def _requiring(sdist, name):
    """The same sdist with a requirement of its build."""
    import io
    import tarfile

    changed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sdist)) as old,
        tarfile.open(fileobj=changed, mode="w:gz") as new,
    ):
        for member in old:
            content = old.extractfile(member).read()
            content = content.replace(b"requires = []", f'requires = ["{name}"]'.encode())
            if member.name.endswith("PKG-INFO"):
                content = content.replace(b"2.1", b"1.0")  # dynamic: it has to be built
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return changed.getvalue()


# Files


def fetched(lock, sources, tmp_path):
    return locks.fetch(lock, tmp_path / "files", sources)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_the_wheel_that_fits_is_fetched_and_no_other(sources, upstream, tmp_path):
    mine, others = a_wheel("six", "1.0"), a_wheel("six", "1.0", tag="cp27-cp27m-win32")
    upstream.add(mine, others, an_sdist("six"))

    lock = fetched(locks.resolve(["six"], sources), sources, tmp_path)

    assert [path.name for path in (tmp_path / "files").iterdir()] == [mine[0]]
    assert (tmp_path / "files" / mine[0]).read_bytes() == mine[1]
    assert [(file.filename, file.sha256) for file in lock.files] == [(mine[0], sha256(mine[1]))]


def test_the_best_of_several_wheels_is_taken(sources, upstream, tmp_path):
    version = "".join(map(str, sys.version_info[:2]))
    upstream.add(a_wheel("six"), a_wheel("six", tag=f"cp{version}-none-any"))
    upstream.add(a_wheel("six", tag=f"cp{version}-none-any", build="-2"))

    lock = fetched(locks.resolve(["six"], sources), sources, tmp_path)

    assert [file.filename for file in lock.files] == [f"six-1.0-2-cp{version}-none-any.whl"]


def test_what_is_source_only_is_built_and_its_wheel_is_locked(sources, upstream, tmp_path):
    upstream.add(an_sdist("source", "1.0", "six"), a_wheel("six"))

    resolved = locks.resolve(["source"], sources)
    lock = fetched(resolved, sources, tmp_path)

    built = tmp_path / "files" / "source-1.0-py3-none-any.whl"
    digest = sha256(built.read_bytes())
    assert f"source==1.0 \\\n    --hash=sha256:{digest}\n" in lock.requirements
    assert ("source-1.0-py3-none-any.whl", digest) in [
        (file.filename, file.sha256) for file in lock.files
    ]
    assert lock.hash != resolved.hash


def test_building_the_same_source_again_makes_the_same_lock(sources, upstream, tmp_path):
    upstream.add(an_sdist("source"))
    resolved = locks.resolve(["source"], sources)

    one = locks.fetch(resolved, tmp_path / "one", sources)
    other = locks.fetch(resolved, tmp_path / "other", sources)

    assert one.hash == other.hash


def test_a_build_sees_none_of_the_servers_secrets(sources, upstream, tmp_path, monkeypatch):
    for name in ("KIRBY_DSN", "KIRBY_TOKEN", "PGPASSWORD", "DATABASE_URL", "AWS_SECRET_KEY"):
        monkeypatch.setenv(name, "a-secret-of-the-server")
    upstream.add(an_sdist("source", dump=True))
    with an_index(*upstream.files.items(), login="me:a-secret-of-the-index") as private:
        sources = replace(sources, index_url=private.url)
        lock = fetched(locks.resolve(["source"], sources), sources, tmp_path)

    [file] = lock.files
    assert b"PATH" in (content := (tmp_path / "files" / file.filename).read_bytes())
    assert b"a-secret" not in content
    assert b"KIRBY_" not in content


def test_an_index_with_a_password_is_asked_with_it(sources, tmp_path):
    with an_index(a_wheel("six"), login="me:pass%20word".replace("%20", "")) as private:
        mine = replace(sources, index_url=private.url)
        lock = fetched(locks.resolve(["six"], mine), mine, tmp_path)
        stranger = replace(sources, index_url=private.url.replace("me:password@", ""))

        with pytest.raises(KirbyError):
            locks.resolve(["six"], stranger)

    assert (tmp_path / "files" / "six-1.0-py3-none-any.whl").exists()
    assert "password" not in repr(lock)


def test_a_password_does_not_follow_to_another_place(sources, tmp_path):
    with an_index(a_wheel("six")) as other, an_index(a_wheel("six"), login="me:word") as private:
        private.elsewhere = other.url.removesuffix("/simple")
        mine = replace(sources, index_url=private.url)
        lock = locks.resolve(["six"], mine)
        other.logins.clear()

        fetched(lock, mine, tmp_path)

    assert (tmp_path / "files" / "six-1.0-py3-none-any.whl").exists()
    assert other.logins == [None]


def test_files_that_are_stored_are_not_downloaded(sources, upstream, hosting, tmp_path):
    upstream.add(a_wheel("six"))
    lock = locks.resolve(["six"], sources)
    upstream.asked.clear()

    again = locks.fetch(lock, tmp_path / "files", hosting(a_wheel("six")))

    assert upstream.asked == []
    assert again.hash == lock.hash
    assert len(again.files) == 1


def test_bytes_that_are_not_the_locked_ones_are_refused(sources, upstream, tmp_path):
    upstream.add(a_wheel("six"))
    lock = locks.resolve(["six"], sources)
    upstream.add((a_wheel("six")[0], b"something else"))

    with pytest.raises(Invalid, match=r"six-1\.0-py3-none-any\.whl is not what was locked"):
        fetched(lock, sources, tmp_path)

    assert list((tmp_path / "files").iterdir()) == []


def test_a_file_that_is_gone_is_one_line(sources, upstream, tmp_path):
    upstream.add(a_wheel("six"))
    lock = locks.resolve(["six"], sources)
    upstream.files.clear()

    with pytest.raises(KirbyError, match=r"six-1\.0-py3-none-any\.whl cannot be fetched: .* 404"):
        fetched(lock, sources, tmp_path)


@pytest.mark.parametrize(("fails", "tries"), [(2, 3), (9, 3)])
def test_a_file_that_does_not_come_at_once_is_asked_for_again(
    sources, upstream, tmp_path, monkeypatch, fails, tries
):
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    upstream.add(a_wheel("six"))
    lock = locks.resolve(["six"], sources)
    upstream.asked.clear()
    upstream.fails = fails

    if fails < tries:
        fetched(lock, sources, tmp_path)
    else:
        with pytest.raises(KirbyError, match="cannot be fetched: the index answers 503"):
            fetched(lock, sources, tmp_path)

    assert len(upstream.asked) == tries


def test_a_folder_of_files_does_instead_of_an_index(offline, tmp_path, monkeypatch):
    """On a server without any network."""
    (tmp_path / "links").mkdir()
    for filename, content in (a_wheel("six", "1.0", "source"), an_sdist("source")):
        (tmp_path / "links" / filename).write_bytes(content)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("UV_OFFLINE", "1")

    lock = fetched(locks.resolve(["six"], offline), offline, tmp_path)

    assert names(lock) == ["six", "source"]
    assert len(list((tmp_path / "files").glob("*.whl"))) == 2


def test_a_url_is_locked_by_name_version_and_hash(sources, upstream, tmp_path):
    filename, content = a_wheel("six", "2.0")
    upstream.add((filename, content))
    url = upstream.url.replace("/simple", f"/files/{filename}")

    lock = fetched(locks.resolve([f"six @ {url}"], sources), sources, tmp_path)

    assert lock.requirements == f"six==2.0 \\\n    --hash=sha256:{sha256(content)}\n"
    assert (tmp_path / "files" / filename).read_bytes() == content


def listed(place):
    """What uv would say of an index that has a file at this place."""
    return f"""
[[packages]]
name = "six"
version = "1.0"
sdist = {{ url = "https://index.example/{place}", hashes = {{ sha256 = "{"0" * 64}" }} }}
"""


@pytest.mark.parametrize("place", ["..", "%2e%2e", "a%20b", ".hidden", "x%2f..", ""])
def test_no_file_gets_a_name_that_leads_elsewhere(place):
    with pytest.raises(Invalid, match="is no name of a package's file"):
        list(locks._packages(listed(place), None))


def test_of_a_place_the_last_part_is_the_name():
    [package] = locks._packages(listed("..%2f..%2fsix-1.0%2Bmine.tar.gz"), None)

    assert package.files[0].filename == "six-1.0+mine.tar.gz"


def test_a_package_without_a_wheel_for_this_platform_is_refused(sources, upstream, tmp_path):
    upstream.add(a_wheel("six", tag="cp27-cp27m-win32"))

    with pytest.raises(Invalid, match="six") as refused:
        fetched(locks.resolve(["six"], sources), sources, tmp_path)

    assert len(str(refused.value).splitlines()) == 1


def test_other_versions_of_python_are_found_by_uv(sources, upstream, other_python):
    upstream.add(a_wheel("six", "2.0", tag="cp27-none-any"), a_wheel("six", "1.0"))

    python = pythons.find(f"=={other_python}.*")
    lock = locks.resolve(["six"], sources, python)

    assert lock.python == python.version == other_python
    assert pythons.find(None, other_python).full == python.full
    assert any(tag.interpreter == f"cp{other_python.replace('.', '')}" for tag in python.tags())


@pytest.mark.parametrize(
    ("requires", "chosen", "message"),
    [
        (">=4", None, "needs Python >=4: this server runs"),
        (None, "3.2", "this host has no Python 3.2"),
        (None, "2.7", "'2.7' is no version of Python"),
        (None, "latest", "'latest' is no version of Python"),
        (">=3.99", f"3.{sys.version_info[1]}", "needs Python >=3.99, but Python 3."),
    ],
)
def test_a_python_that_is_not_there_is_refused(requires, chosen, message):
    with pytest.raises(Invalid) as refused:
        pythons.find(requires, chosen)

    assert message in str(refused.value)


def test_passwords_of_indexes_are_in_no_environment_of_a_build(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_INDEX", "mine=https://me:secret@index.example/simple")
    variables = uv.environment(
        dict(UV_INDEX="mine=https://me:secret@one.example/simple", PATH="x"),
        cache=None,
        index_url="https://me:secret@two.example/simple",
        hosted_url="http://127.0.0.1:1/simple",
    )

    [_, config] = uv._hide_passwords(variables, tmp_path)

    assert "secret" not in str(variables)
    text = Path(config).read_text()
    places = [text.index(each) for each in ("127.0.0.1", "one.example", "two.example")]
    assert places == sorted(places)
    assert Path(config).stat().st_mode & 0o077 == 0

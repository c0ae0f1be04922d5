import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fix_index import a_wheel, an_sdist

from kirby.core.errors import Invalid, KirbyError
from kirby.server import locks, pythons, uv, virtualenvs
from kirby.server.locks import Lock
from kirby.server.sources import Sources
from kirby.server.virtualenvs import Virtualenvs

EMPTY = Lock("", None, f"3.{sys.version_info[1]}")

# A process that builds one lock; it writes down every virtualenv that it makes, and with `stop`
# it stops midway, after making the virtualenv and before filling it.
BUILDER = """
import json, sys
from pathlib import Path
from kirby.server import uv
from kirby.server.locks import Lock
from kirby.server.virtualenvs import Virtualenvs

root, lock, log, stop = json.loads(sys.argv[1])
run = uv.run

def noted(*arguments, **options):
    output = run(*arguments, **options)
    if arguments[0] == "venv":
        with open(log, "a") as file:
            file.write("made\\n")
        if stop:
            print("midway", flush=True)
            sys.stdin.read()
    return output

uv.run = noted
print("ready", flush=True)
sys.stdin.readline()
print(Virtualenvs(Path(root)).ensure(Lock(**lock), None), flush=True)
"""


@pytest.fixture
def root(tmp_path):
    return tmp_path / "virtualenvs"


@pytest.fixture(scope="module")
def idna(sdk):
    """A lock whose files are not given: of a release of before they were stored."""
    return replace(locks.resolve(["idna"], Sources(sdk)), packages=())


def given(*paths):
    """What gets files that are there already."""
    return lambda to: list(paths)


@pytest.fixture
def sdk_file(sdk, tmp_path):
    path = tmp_path / "sdk" / sdk.filename
    path.parent.mkdir()
    path.write_bytes(sdk.content)
    return path


@pytest.fixture
def start(root, tmp_path):
    """Start a builder process for a lock; it waits for a line before it begins."""
    started = []

    def start(lock, *, stop=False):
        order = json.dumps([str(root), asdict(lock), str(tmp_path / "log"), stop])
        builder = subprocess.Popen(
            [sys.executable, "-c", BUILDER, order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(builder)
        assert builder.stdout.readline() == "ready\n"
        return builder

    yield start
    for builder in started:
        builder.kill()
        builder.communicate()


def go(builder):
    builder.stdin.write("\n")
    builder.stdin.flush()


def python(folder, code):
    """What a script of this virtualenv prints, away from the checkout and its packages."""
    command = [folder / "bin" / "python", "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def left_over(root):
    return list((root / "tmp").iterdir())


def test_a_package_can_be_imported_after_the_rename(root, idna):
    folder = Virtualenvs(root).ensure(idna, None)

    assert folder == root / idna.hash
    assert python(folder, "import idna; print(idna.__file__)").startswith(str(folder))
    assert python(folder, "import sys; print(sys.prefix)") == str(folder)
    assert left_over(root) == []


def test_the_program_of_a_dependency_works_after_the_rename(root, sdk):
    lock = locks.resolve(["markdown-it-py"], Sources(sdk))

    folder = Virtualenvs(root).ensure(lock, None)
    program = folder / "bin" / "markdown-it"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)

    assert "markdown-it-py" in done.stdout
    assert ".".join([lock.hash, str(os.getpid())]) not in program.read_text()


def test_packages_are_compiled_when_the_virtualenv_is_built(root, idna):
    folder = Virtualenvs(root).ensure(idna, None)

    assert python(folder, "import idna, os; print(os.path.exists(idna.__cached__))") == "True"


def test_an_empty_lock_gives_a_bare_virtualenv(root):
    folder = Virtualenvs(root).ensure(EMPTY, None)

    code = "import importlib.util as u; print(*map(u.find_spec, ['kirby', 'pip', 'starlette']))"
    assert python(folder, code) == "None None None"


def test_the_sdk_is_that_of_this_server(root, sdk, sdk_file):
    lock = locks.resolve(["kirby"], Sources(sdk))

    folder = Virtualenvs(root).ensure(lock, given(sdk_file))

    code = "import kirby, importlib.metadata as m; print(kirby.__file__, m.version('kirby'))"
    file, version = python(folder, code).split()
    assert file.startswith(str(folder))
    assert version == sdk.version
    code = (
        "import importlib.util as u; print(u.find_spec('psycopg') and u.find_spec('kirby.server'))"
    )
    assert python(folder, code) == "None"


def test_the_marker_tells_what_was_installed(root, idna):
    folder = Virtualenvs(root).ensure(idna, None)

    assert json.loads((folder / "kirby-lock.json").read_text()) == {
        "hash": idna.hash,
        "python": idna.python,
        "sdk_sha256": None,
        "requirements": idna.requirements,
    }


def test_a_second_call_builds_nothing(root, idna, monkeypatch):
    folder = Virtualenvs(root).ensure(idna, None)
    monkeypatch.setattr(uv, "run", None)

    assert Virtualenvs(root).ensure(idna, None) == folder


def test_two_processes_that_ask_at_once_build_once(root, idna, start, tmp_path):
    builders = [start(idna), start(idna)]
    for builder in builders:
        go(builder)

    outcomes = [builder.communicate(timeout=120)[0].strip() for builder in builders]

    assert outcomes == [str(root / idna.hash)] * 2
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_builder_that_is_killed_midway_is_followed_by_the_next(root, idna, start):
    builder = start(idna, stop=True)
    go(builder)
    assert builder.stdout.readline() == "midway\n"

    builder.kill()
    builder.wait()
    assert left_over(root) != []
    assert not (root / idna.hash).exists()

    folder = Virtualenvs(root).ensure(idna, None)
    assert python(folder, "import idna; print('works')") == "works"
    assert left_over(root) == []


def test_forgetting_removes_the_dead_and_leaves_the_living(root, idna, start):
    dead, living = start(idna, stop=True), start(EMPTY, stop=True)
    for builder in (dead, living):
        go(builder)
        assert builder.stdout.readline() == "midway\n"
    dead.kill()
    dead.wait()

    removed = Virtualenvs(root).forget_half_built()

    assert removed > 0
    assert {path.name.split(".")[0] for path in left_over(root)} == {EMPTY.hash}
    assert living.communicate("", timeout=120)[0].strip() == str(root / EMPTY.hash)


def test_forgetting_in_a_folder_that_is_not_there_does_nothing(root):
    assert Virtualenvs(root).forget_half_built() == 0


def test_a_virtualenv_whose_interpreter_is_gone_is_built_again(root):
    folder = Virtualenvs(root).ensure(EMPTY, None)
    (folder / "bin" / "python").unlink()

    assert Virtualenvs(root).ensure(EMPTY, None) == folder
    assert python(folder, "print('works')") == "works"
    assert left_over(root) == []


def test_uv_keeps_its_cache_beside_the_virtualenvs_so_that_files_are_shared(
    root, monkeypatch, idna
):
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)

    folder = Virtualenvs(root).ensure(idna, None)

    (core,) = folder.rglob("idna/core.py")
    assert (root / "uv-cache").is_dir()
    assert core.stat().st_nlink > 1


def test_a_cache_that_the_user_set_is_used(root, monkeypatch, tmp_path, idna):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "mine"))

    Virtualenvs(root).ensure(idna, None)

    assert (tmp_path / "mine").is_dir()
    assert not (root / "uv-cache").exists()


def test_bytes_that_are_not_the_locked_ones_are_refused(root):
    lock = Lock(f"six==1.17.0 --hash=sha256:{'0' * 64}\n", None, EMPTY.python)

    with pytest.raises(Invalid, match="Hash mismatch"):
        Virtualenvs(root).ensure(lock, None)

    assert left_over(root) == []
    assert not (root / lock.hash).exists()


def test_an_sdk_that_is_not_the_locked_one_is_refused(root, sdk_file):
    lock = Lock("", "0" * 64, EMPTY.python)

    with pytest.raises(Invalid, match="the lock asks for SDK wheel 0000"):
        Virtualenvs(root).ensure(lock, given(sdk_file))
    with pytest.raises(Invalid, match="none is given"):
        Virtualenvs(root).ensure(lock, None)


def test_a_python_that_this_host_does_not_have_is_named(root):
    with pytest.raises(KirbyError, match=r"this host has no Python 3\.2, which the lock needs"):
        Virtualenvs(root).ensure(Lock("", None, "3.2"), None)

    assert left_over(root) == []


def test_a_root_that_cannot_be_a_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(KirbyError, match=r"virtualenvs cannot be kept in .*: Not a directory"):
        Virtualenvs(tmp_path / "file" / "root").ensure(EMPTY, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_that_may_not_be_written_is_refused_in_one_line(root):
    root.mkdir()
    root.chmod(0o500)

    with pytest.raises(KirbyError, match=r"virtualenvs cannot be kept in .*: Permission denied"):
        Virtualenvs(root).ensure(EMPTY, None)


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 400 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", place]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a filesystem")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(small_disk, tmp_path, monkeypatch, sdk):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    lock = locks.resolve(["markdown-it-py"], Sources(sdk))

    with pytest.raises(KirbyError) as failed:
        Virtualenvs(small_disk / "root").ensure(lock, None)

    assert "No space left on device" in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    assert left_over(small_disk / "root") == []
    assert not (small_disk / "root" / lock.hash).exists()


def test_a_read_only_disk_is_one_clear_line(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with pytest.raises(KirbyError, match="Read-only file system"):
        Virtualenvs(small_disk / "root").ensure(EMPTY, None)


def test_without_uv_one_line_says_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "uv", None)

    with pytest.raises(KirbyError, match=r"uv is missing: pip install 'kirby\[server\]'"):
        Virtualenvs(root).ensure(EMPTY, None)

    assert left_over(root) == []


def test_an_interruption_leaves_nothing_half_built(root, idna, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(virtualenvs, "_sync", interrupted)

    with pytest.raises(KeyboardInterrupt):
        Virtualenvs(root).ensure(idna, None)

    assert left_over(root) == []
    assert not (root / idna.hash).exists()


def test_a_relative_root_is_taken_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert Virtualenvs(Path("here")).ensure(EMPTY, None) == tmp_path / "here" / EMPTY.hash


# From stored files


@pytest.fixture
def stored(sources, upstream, tmp_path):
    """`stored("six")`: a lock of these packages, and what gets its files; then nothing answers."""

    def stored(*names, name="files"):
        lock = locks.fetch(locks.resolve(names, sources), tmp_path / name, sources)
        upstream.files.clear()
        upstream.asked.clear()
        return lock, fetch

    def fetch(to):
        fetch.calls += 1
        paths = []
        for path in sorted(tmp_path.glob("files*/*.whl")):
            kept = to / path.stem / path.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            if not kept.exists():
                shutil.copy(path, kept)
            paths.append(kept)
        return paths

    fetch.calls = 0
    return stored


@pytest.fixture
def own_cache(stored, monkeypatch):
    """uv's cache is beside the virtualenvs, as it is on a host."""

    def own_cache(*names):
        made = stored(*names)
        monkeypatch.delenv("UV_CACHE_DIR")
        return made

    return own_cache


def test_a_virtualenv_is_built_from_stored_files_without_any_index(root, upstream, own_cache):
    upstream.add(a_wheel("six", "1.0", "middle"), a_wheel("middle", "2.0"), an_sdist("source"))
    lock, fetch = own_cache("six", "source")

    folder = Virtualenvs(root, index_url=upstream.url).ensure(lock, fetch)

    code = "import six, middle, source; print(six.version, middle.version)"
    assert python(folder, code) == "1.0 2.0"
    assert upstream.asked == []


def test_a_lost_file_is_refused_and_not_sought_on_an_index(root, upstream, own_cache):
    wheels = a_wheel("six", "1.0", "middle"), a_wheel("middle", "2.0")
    upstream.add(*wheels)
    lock, fetch = own_cache("six")
    upstream.add(*wheels)

    with pytest.raises(KirbyError) as refused:
        Virtualenvs(root, index_url=upstream.url).ensure(lock, lambda to: fetch(to)[:1])

    assert len(str(refused.value).splitlines()) == 1
    assert upstream.asked == []
    assert left_over(root) == []


def test_a_stored_file_with_other_bytes_is_refused(root, upstream, own_cache, tmp_path):
    upstream.add(a_wheel("six", "1.0"))
    lock, fetch = own_cache("six")
    filename, content = a_wheel("six", "1.0", files={"six/evil.py": ""})
    (tmp_path / "files" / filename).write_bytes(content)

    with pytest.raises(Invalid, match="Hash mismatch"):
        Virtualenvs(root).ensure(lock, fetch)

    assert not (root / lock.hash).exists()


def test_files_are_fetched_only_when_they_are_needed(root, upstream, own_cache):
    upstream.add(a_wheel("six", "1.0"))
    lock, fetch = own_cache("six")

    for _ in range(3):
        Virtualenvs(root).ensure(lock, fetch)

    assert fetch.calls == 1


def test_two_virtualenvs_share_the_files_of_a_package(root, upstream, stored, monkeypatch):
    upstream.add(a_wheel("six", "1.0"), a_wheel("other", "1.0"))
    served = dict(upstream.files)
    one, fetch = stored("six", name="files")
    upstream.add(*served.items())
    two, fetch = stored("six", "other", name="files2")
    monkeypatch.delenv("UV_CACHE_DIR")

    folders = [Virtualenvs(root).ensure(lock, fetch) for lock in (one, two)]

    [first], [second] = (list(folder.rglob("six/__init__.py")) for folder in folders)
    assert first.stat().st_ino == second.stat().st_ino


def test_another_version_of_python_is_used_where_there_is_one(root, other_python):
    folder = Virtualenvs(root).ensure(Lock("", None, other_python), None)

    assert python(folder, "import sys; print('%d.%d' % sys.version_info[:2])") == other_python
    assert pythons.locked(other_python).version == other_python


# Room on the disk


@pytest.fixture
def several(root, monkeypatch):
    """Virtualenvs that were used one after the other, the oldest first."""
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    kept = Virtualenvs(root)
    found = []
    for number in range(3):
        lock = Lock(f"# {number}\n", None, EMPTY.python)
        monkeypatch.setattr(virtualenvs, "_only", lambda files: ["--no-index"])
        folder = kept.ensure(lock, None)
        (folder / "weight").write_bytes(os.urandom(2_000_000))
        kept.hold(lock).close()
        os.utime(root / "locks" / f"{lock.hash}.use", (number, number))
        found.append(lock)
    return kept, found


def there(kept, found):
    return [kept.is_ready(lock) for lock in found]


def test_the_least_recently_used_goes_first(several):
    kept, found = several

    removed = kept.prune(kept.size() - 1_000_000)

    assert removed == [found[0].hash]
    assert there(kept, found) == [False, True, True]
    assert left_over(kept.root) == []


def test_nothing_goes_while_there_is_room(several):
    kept, found = several

    assert kept.prune(kept.size()) == []
    assert there(kept, found) == [True, True, True]


def test_one_that_is_used_now_came_back(several):
    kept, found = several
    kept.hold(found[0]).close()

    assert kept.prune(kept.size() - 1_000_000) == [found[1].hash]


def test_one_that_is_held_stays_even_if_there_is_no_room(several):
    kept, found = several

    with kept.hold(found[0]), kept.hold(found[0]):
        assert set(kept.prune(0)) == {found[1].hash, found[2].hash}
        assert there(kept, found) == [True, False, False]
    assert kept.prune(0) == [found[0].hash]


def test_one_that_another_process_holds_stays_until_that_is_killed(several):
    kept, found = several
    code = (
        "import sys; from pathlib import Path; from kirby.server.locks import Lock;"
        "from kirby.server.virtualenvs import Virtualenvs;"
        "held = Virtualenvs(Path(sys.argv[1])).hold(Lock(sys.argv[2], None, sys.argv[3]));"
        "print('holds', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, kept.root, found[0].requirements, found[0].python],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "holds\n"
        assert found[0].hash not in kept.prune(0)
        holder.kill()

    assert kept.prune(0) == [found[0].hash]


def test_those_of_the_last_deployed_versions_stay(several):
    kept, found = several

    assert kept.prune(0, keep={found[0].hash, found[1].hash}) == [found[2].hash]
    assert there(kept, found) == [True, True, False]


def test_one_that_was_removed_is_built_again(several):
    kept, found = several
    kept.prune(0)

    assert kept.ensure(found[0], None) == kept.root / found[0].hash
    assert there(kept, found) == [True, False, False]


def test_what_can_be_made_again_goes_first(root, upstream, own_cache):
    upstream.add(a_wheel("six", "1.0", files={"six/large.py": "#" * 3_000_000}))
    lock, fetch = own_cache("six")
    kept = Virtualenvs(root)
    folder = kept.ensure(lock, fetch)
    before = kept.size()

    assert kept.prune(before - 1_000_000) == []

    assert kept.size() < before - 1_000_000
    assert python(folder, "import six; print(six.version)") == "1.0"


def test_a_folder_that_is_not_there_has_nothing_to_remove(root):
    assert Virtualenvs(root).prune(0) == []

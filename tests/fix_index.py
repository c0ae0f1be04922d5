"""What tests of packages are made of: wheels and sdists built in code, and a small real index."""

import base64
import contextlib
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kirby.server import releases, sdk_wheel
from kirby.server.sources import HostedFile, Nothing, Sources

# A build backend of one file: what it makes says so, and it writes down what it was given.
BACKEND = """
import json, os, sys
sys.path.insert(0, os.path.dirname(__file__))

def build_wheel(into, config_settings=None, metadata_directory=None):
    import zipfile
    if os.path.exists("fail"):
        print("chatter", file=sys.stderr)
        raise SystemExit(open("fail").read())
    with open("written-by-the-build", "w") as file:
        file.write("x")
    name = "%(name)s-%(version)s-py3-none-any.whl"
    info = "%(name)s-%(version)s.dist-info"
    files = {
        "%(name)s/__init__.py": repr(json.dumps(dict(os.environ))) if %(dump)r else "",
        "%(name)s/main.py": %(main)r,
        info + "/METADATA": %(metadata)r,
        info + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    if %(points)r:
        files[info + "/entry_points.txt"] = %(points)r
    files[info + "/RECORD"] = "".join(each + ",,\\n" for each in [*files, info + "/RECORD"])
    with zipfile.ZipFile(os.path.join(into, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(zipfile.ZipInfo(path), text)
    return name

def build_sdist(into, config_settings=None):
    raise NotImplementedError
"""


def a_wheel(
    name, version="1.0", *needs, files=None, points=None, tag="py3-none-any", build="", said=()
):
    """A wheel with a correct RECORD: its file name and its bytes. `said`: more of its metadata."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    needs = [f"Requires-Dist: {need}" for need in needs]
    said = [f"Name: {name}", f"Version: {version}", *needs, *said]
    contents = {f"{module}/__init__.py": f"version = {version!r}\n", **(files or {})}
    contents[f"{info}/METADATA"] = "\n".join(["Metadata-Version: 2.1", *said, ""])
    contents[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if points:
        contents[f"{info}/entry_points.txt"] = points
    rows = [f"{path},{_hash(text)},{len(text.encode())}\n" for path, text in contents.items()]
    contents[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"])
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as opened:
        for path, text in contents.items():
            opened.writestr(zipfile.ZipInfo(path), text)
    return f"{module}-{version}{build}-{tag}.whl", stored.getvalue()


def _hash(text):
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def a_project(name, version="1.0", *needs, toml="", fail=None, dynamic=False, **made):
    """The files of a project folder that is built by a backend of its own, without any index.

    `made`: the `main` module of its wheel, its entry `points`, and whether to `dump` what the
    backend sees of the environment.
    """
    said = "".join(f"Requires-Dist: {need}\n" for need in needs)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{said}"
    values = {"name": name, "version": version, "metadata": metadata}
    made = {"main": "", "points": "", "dump": False, **made}
    lines = [
        "[project]",
        f'name = "{name}"',
        f'version = "{version}"',
        *(["dynamic = ['dependencies']"] if dynamic else []),
        "[build-system]",
        "requires = []",
        'build-backend = "backend"',
        'backend-path = ["."]',
        toml,
    ]
    files = {"pyproject.toml": "\n".join(lines), "backend.py": BACKEND % {**values, **made}}
    return {**files, "fail": fail} if fail else files


def lay(files, folder):
    """Write a project's files into a folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def an_sdist(name, version="1.0", *needs, **options):
    """The same project as an sdist: its file name and its bytes."""
    files = a_project(name, version, *needs, **options)
    said = "".join(f"Requires-Dist: {need}\n" for need in needs)
    # An old version of the metadata, so that uv has to build it to learn what it needs.
    files["PKG-INFO"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{said}"
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return f"{name}-{version}.tar.gz", stored.getvalue()


class Index:
    """A package index on a port of this machine, what it is asked for, and what it wants to see."""

    def __init__(self, login=None):
        self.files, self.asked, self.login = {}, [], login
        self.elsewhere = ""  # where its files are
        self.fails = 0  # how many of the next files are answered 503
        self.logins = []  # what came with each question
        self.url = ""

    def add(self, *named):
        self.files |= dict(named)
        return self

    def asked_for(self, name):
        return [path for path in self.asked if path.startswith(f"/simple/{name}/")]

    def page(self, name):
        """The links of a project."""
        found = {f: c for f, c in self.files.items() if _project(f) == name}
        return "".join(
            f'<a href="/files/{f}#sha256={hashlib.sha256(c).hexdigest()}">{f}</a>\n'
            for f, c in found.items()
        ).encode()


def _project(filename):
    return filename.split("-")[0].replace("_", "-").lower()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        index = self.server.index
        index.asked.append(self.path)
        index.logins.append(self.headers.get("Authorization"))
        wanted = index.login and "Basic " + base64.b64encode(index.login.encode()).decode()
        last = self.path.rstrip("/").rpartition("/")[2]
        if wanted and self.headers.get("Authorization") != wanted:
            self._send(401, b"", "text/plain")
        elif last in index.files and index.fails:
            index.fails -= 1
            self._send(503, b"", "text/plain")
        elif last in index.files and index.elsewhere:
            self.send_response(302)
            self.send_header("Location", f"{index.elsewhere}/files/{last}")
            self.end_headers()
        elif last in index.files:
            self._send(200, index.files[last], "application/octet-stream")
        else:
            page = index.page(last)
            self._send(200 if page else 404, page, "text/html")

    do_HEAD = do_GET

    def _send(self, status, content, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def an_index(*named, login=None):
    """An index that serves these files."""
    index = Index(login).add(*named)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        server.index = index
        at = f"{login}@" if login else ""
        index.url = f"http://{at}127.0.0.1:{server.server_port}/simple"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


class Shelf(Nothing):
    """Hosted packages without a database."""

    def __init__(self, *named):
        self.contents = dict(named)

    def names(self):
        return {_project(filename) for filename in self.contents}

    def files(self, name):
        return [
            HostedFile(filename, hashlib.sha256(content).hexdigest())
            for filename, content in self.contents.items()
            if _project(filename) == name
        ]

    def stored(self, sha256s):
        known = {hashlib.sha256(content).hexdigest() for content in self.contents.values()}
        return known & set(sha256s)

    def read(self, sha256):
        for content in self.contents.values():
            if hashlib.sha256(content).hexdigest() == sha256:
                yield content


@pytest.fixture(scope="session", name="sdk")
def sdk_fixture():
    """This server's own SDK wheel."""
    return sdk_wheel.build()


@pytest.fixture(name="upstream")
def upstream_fixture(monkeypatch, tmp_path):
    """An index that nothing else is asked beside, with a cache of its own."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with an_index() as index:
        yield index


@pytest.fixture(name="sources")
def sources_fixture(sdk, upstream):
    """Nothing hosted, and that index."""
    return Sources(sdk, index_url=upstream.url)


def stored(engine):
    """What a database holds, as a deploy sees it."""
    return releases.Stored(engine.begin)


@pytest.fixture(name="other_python")
def other_python_fixture(monkeypatch):
    """Another version of Python ("3.12") that uv finds, of pyenv's or of the system's."""
    from kirby.server import pythons

    folders = sorted(Path.home().glob(".pyenv/versions/3.*/bin"), reverse=True)
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    mine = pythons.own().version
    for version in ("3.13", "3.12", "3.10", "3.11"):
        if version != mine and pythons._asked(version):
            yield version
            break
    else:
        pytest.skip("there is no other Python on this host")

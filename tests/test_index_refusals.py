"""What does not get into the package index: one line each, the right status, nothing stored."""

import hashlib
import tempfile

import httpx2
import pytest
from fix_packages import (
    NAME,
    contents,
    kirby_web,
    large,
    link,
    metadata,
    recorded,
    rows,
    sources,
    tarred,
    upload,
    wheel,
    wheel_name,
    zipped,
)
from fix_web import connected, count

from kirby.server import files

SDIST = "acme-1.0.tar.gz"
INFO = "acme-1.0.dist-info"


def evil(name):
    return lambda: zipped(recorded(contents()) | {name: "x"})


def bomb():
    return zipped(recorded(contents() | {"acme/zeros": b"\0" * (70 << 20)}))


SHA = hashlib.sha256(b"other").hexdigest()
BAD = {
    "damaged": (400, "damaged", {"content": lambda: wheel()[:-40]}),
    "no zip": (400, "not a zip file", {"content": lambda: b"MZ\x90"}),
    "empty": (400, "not a zip file", {"content": lambda: b""}),
    "wrong sha256": (400, "the sha256 digest is not", {"sha256_digest": SHA}),
    "wrong blake2": (400, "the blake2_256 digest is not", {"blake2_256_digest": SHA}),
    "wrong md5": (400, "the md5 digest is not", {"md5_digest": "0" * 32}),
    "path traversal": (400, "lead out of the archive", {"content": evil("../../evil.py")}),
    "absolute path": (400, "lead out of the archive", {"content": evil("/etc/evil")}),
    "path in the file name": (400, "no name of a package", {"name_": "../../" + NAME}),
    "zip bomb": (400, "looks like a zip bomb", {"content": bomb}),
    "another name": (400, "was sent as other", {"name": "other"}),
    "another version": (400, "was sent as 2.0", {"version": "2.0"}),
    "another kind": (400, "is no sdist", {"filetype": "sdist"}),
    "name and metadata differ": (
        400,
        "does not belong to",
        {"content": lambda: wheel("other")},
    ),
    "bad file name": (400, "a package is a wheel", {"name_": "acme.whl"}),
    "an egg": (400, "a package is a wheel", {"name_": "acme-1.0.egg"}),
    "bad metadata": (
        400,
        "the metadata is not valid",
        {"content": lambda: wheel("acme", "1.0", "Requires-Dist: !")},
    ),
    "NUL in the metadata": (
        400,
        "holds a NUL",
        {"content": lambda: wheel("acme", "1.0", "Keywords: a\0b")},
    ),
    "NUL in the file name": (400, "no name of a package", {"name_": "acme\0-1.0-py3-none-any.whl"}),
    "hash not as in RECORD": (
        400,
        "not what RECORD says",
        {"content": lambda: zipped(recorded(contents()) | {"acme/__init__.py": "evil"})},
    ),
    "sdist with a link out": (
        400,
        "leads out of the archive",
        {"name_": SDIST, "content": lambda: tarred(sources(), link("acme-1.0/x", "/etc"))},
    ),
    "sdist of another version": (
        400,
        "the metadata is of version 2.0",
        {
            "name_": SDIST,
            "content": lambda: tarred(sources() | {"acme-1.0/PKG-INFO": metadata("acme", "2.0")}),
        },
    ),
    "the SDK's own name": (
        400,
        "no package here may be called kirby",
        {"name_": wheel_name("kirby"), "name": "kirby", "content": lambda: wheel("kirby")},
    ),
    "the index's own name": (
        400,
        "no package here may be called simple",
        {"name_": wheel_name("simple"), "name": "simple", "content": lambda: wheel("simple")},
    ),
    "another action": (400, "file_upload", {":action": "submit"}),
    "another protocol": (400, "file_upload", {"protocol_version": "9"}),
    "texts without an end": (400, "the form cannot be read", {"description": "x" * (9 << 20)}),
    "fields without an end": (400, "the form cannot be read", {f"f{n}": "" for n in range(1100)}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_upload_is_one_line_and_nothing_is_stored(case, served, give, dsn):
    status, message, given = BAD[case]
    given = dict(given)
    token, before = give(), rows(dsn)
    before[-1] += 1  # the token
    content = given.pop("content", wheel)()

    answer = upload(served.url, token, content, given.pop("name_", NAME), **given)

    assert (answer.status_code, answer.text.count("\n")) == (status, 1), answer.text
    assert message in answer.text
    assert rows(dsn)[:-1] == before[:-1]


def test_what_is_no_form_is_one_line(served, give, dsn):
    auth = ("__token__", give())
    before = rows(dsn)

    for options in (
        {"content": b"nothing"},
        {"json": {}},
        {"data": {":action": "file_upload"}},
        {"data": {":action": "file_upload"}, "files": {"other": ("x.whl", b"x")}},
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ):
        answer = httpx2.post(f"{served.url}/index/", auth=auth, **options)
        assert (answer.status_code, answer.text.count("\n")) == (400, 1), answer.text
    assert rows(dsn) == before


@pytest.mark.parametrize(
    ("who", "status", "message"),
    [
        ("nobody", 401, "a token is needed here"),
        ("unknown", 401, "not known here"),
        ("viewer", 403, "is a viewer"),
        ("operator", 403, "this needs the role developer"),
        ("revoked", 401, "was removed"),
        ("expired", 401, "has expired"),
        ("a password", 401, "a token is needed here"),
    ],
)
def test_who_may_not_publish_stores_nothing(who, status, message, served, give, people, dsn):
    people("admin")
    token = give(who if who in ("viewer", "operator") else "developer")
    ended = {"revoked": "revoked_at = now()", "expired": "expires_at = now()"}
    if who in ended:
        with connected(dsn) as conn:
            conn.execute(f"update kirby.token set {ended[who]}")
    before = rows(dsn)

    if who == "a password":
        answer = httpx2.post(f"{served.url}/index/", auth=("a-admin", "bidom-faket-lusan"))
    else:
        token = {"nobody": None, "unknown": "kirby_x"}.get(who, token)
        answer = upload(served.url, token)

    assert (answer.status_code, answer.text.count("\n")) == (status, 1)
    assert message in answer.text
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Basic realm="Kirby"'
    assert rows(dsn) == before


def test_other_bytes_under_the_same_name_or_another_spelling_are_409(served, give, dsn):
    token = give()
    assert upload(served.url, token).status_code == 200
    before = rows(dsn)

    for name, content in (
        (NAME, wheel("acme", "1.0", "Keywords: other")),
        ("Acme-1.0-py3-none-any.whl", wheel()),
        ("acme-1.0.0-py3-none-any.whl", None),
    ):
        if content is None:
            files_ = contents("acme", "1.0.0")
            content = zipped(recorded(files_))
        answer = upload(served.url, token, content, name, version=None)
        assert answer.status_code in (400, 409), answer.text
        assert answer.text.count("\n") == 1
    assert rows(dsn) == before


def test_what_is_too_large_is_413_and_the_answer_arrives(server_dsn, give, dsn):
    with kirby_web(server_dsn, KIRBY_MAX_UPLOAD="1MB") as served:
        token = give()
        before = rows(dsn)
        little = upload(served.url, token, large(2), wheel_name("big"), name="big")
        much = upload(served.url, token, large(30), wheel_name("big"), name="big")

    for answer in (little, much):
        assert (answer.status_code, answer.text.count("\n")) == (413, 1)
        assert "too large: at most" in answer.text
    assert rows(dsn) == before


def test_a_connection_that_breaks_leaves_nothing(served, give, dsn, until):
    import socket
    from urllib.parse import urlsplit

    token = give()
    before = rows(dsn)
    request = httpx2.Request("POST", f"{served.url}/index/", files={"content": (NAME, wheel())})
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((urlsplit(served.url).hostname, urlsplit(served.url).port)) as s:
        s.sendall(f"POST /index/ HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{head}\r\n".encode())
        s.sendall(body[:200])
    until(lambda: httpx2.get(f"{served.url}/healthz").status_code == 200)
    assert rows(dsn) == before


def test_no_room_for_an_upload_is_said(served, give, dsn, monkeypatch):
    token = give()
    before = rows(dsn)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")

    answer = upload(served.url, token, large(2), wheel_name("big"), name="big")

    assert (answer.status_code, answer.text) == (
        503, "the upload cannot be kept in /nowhere/at/all: No such file or directory\n",
    )  # fmt: skip
    assert rows(dsn) == before


def test_two_who_upload_one_file_at_a_time_store_it_once(served, give, dsn):
    from concurrent.futures import ThreadPoolExecutor

    token = give()
    content = large(2)

    def send(_):
        return upload(served.url, token, content, wheel_name("big"), name="big").status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(send, range(8))) == [200] * 8
    assert count(dsn, "package_file") == 1
    assert count(dsn, "file_chunk") == len(content) // files.PIECE + 1

"""The package index: publishers and installers work with it unmodified."""

import hashlib
import html.parser
import re

import httpx2
import pytest
from fix_packages import NAME, large, rows, sdist, simple, upload, wheel, wheel_name
from fix_web import connected, count

from kirby.server.web.index import HTML, JSON, PLAIN_HTML, negotiated

SDIST = "acme-1.0.tar.gz"


@pytest.fixture
def dist(tmp_path):
    """`dist(content, name)`: a file to publish."""

    def write(content=None, name=NAME):
        path = tmp_path / "dist" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wheel() if content is None else content)
        return path

    return write


@pytest.fixture
def twine(tool, served):
    def upload(token, *paths, **options):
        return tool(
            "twine", "upload", "--verbose", "--disable-progress-bar",
            "--repository-url", f"{served.url}/index/", "-u", "__token__", "-p", token, *paths,
        )  # fmt: skip

    return upload


@pytest.fixture
def publish(tool, served):
    def upload(token, *paths):
        return tool(
            "uv", "publish", "--publish-url", f"{served.url}/index/", "--token", token, *paths
        )

    return upload


# Publishers


def test_twine_uploads_a_wheel_and_an_sdist(twine, dist, give, dsn):
    token = give()
    done = twine(token, dist(), dist(sdist(), SDIST))

    assert done.code == 0, done.out
    with connected(dsn) as conn:
        stored = conn.execute(
            "select filename, kind, version, sha256, uploaded_by from kirby.package_file order by 1"
        ).fetchall()
    digests = {name: hashlib.sha256(dist(content, name).read_bytes()).hexdigest()
               for name, content in ((NAME, None), (SDIST, sdist()))}  # fmt: skip
    assert stored == [
        (NAME, "wheel", "1.0", digests[NAME], "token a-developer"),
        (SDIST, "sdist", "1.0", digests[SDIST], "token a-developer"),
    ]


def test_uv_uploads_a_wheel_and_an_sdist(publish, dist, give, dsn):
    done = publish(give(), dist(), dist(sdist(), SDIST))

    assert done.code == 0, done.out
    assert count(dsn, "package_file") == 2


def test_the_same_bytes_again_are_fine_and_stored_once(twine, publish, dist, give, dsn):
    token = give()
    assert twine(token, dist()).code == 0
    before = rows(dsn)

    assert twine(token, dist()).code == 0
    assert publish(token, dist()).code == 0
    assert rows(dsn) == before


def test_uv_sees_what_is_here_already_before_it_sends_it(tool, served, dist, give):
    token = give()
    url = f"{served.url}/index/"
    asking = ("uv", "publish", "--publish-url", url, "--check-url", simple(served, token))
    assert tool(*asking, "--token", token, dist()).code == 0

    again = tool(*asking, "--token", token, dist())
    other = tool(*asking, "--token", token, dist(wheel("acme", "1.0", "Keywords: other")))

    assert again.code == 0
    assert "already exists" in again.out
    assert other.code != 0


def test_other_bytes_under_the_same_name_are_refused(twine, publish, dist, give, dsn):
    token = give()
    assert twine(token, dist()).code == 0
    before = rows(dsn)
    other = dist(wheel("acme", "1.0", "Keywords: other"))

    by_twine, by_uv = twine(token, other), publish(token, other)

    assert by_twine.code == 1
    assert "409 Conflict" in by_twine.out
    assert "with other content: files never change" in by_twine.out
    assert by_uv.code != 0
    assert "with other content: files never change" in " ".join(by_uv.out.split())
    assert rows(dsn) == before


def test_tools_say_why_a_token_does_not_do(twine, publish, dist, give, dsn):
    viewer = give("viewer")
    before = rows(dsn)

    for tool_ in (twine, publish):
        refused, unknown = tool_(viewer, dist()), tool_("kirby_wrong", dist())
        assert refused.code != 0
        assert "a-viewer is a viewer" in " ".join(refused.out.split())
        assert unknown.code != 0
        assert "401" in unknown.out
    assert rows(dsn) == before


# Installers


@pytest.fixture
def published(served, give):
    """Two versions of acme, and one that needs it, published by hand."""
    token = give()
    for name, version, *lines in (
        ("acme", "1.0"),
        ("acme", "2.0", "Requires-Python: >=3.11"),
        ("acme", "3.0", "Requires-Python: >=9"),
        ("acme", "4.0rc1"),
        ("needs-acme", "1.0", "Requires-Dist: acme>=1"),
    ):
        answer = upload(
            served.url, token, wheel(name, version, *lines), wheel_name(name, version),
            name=name, version=version,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
    return give("viewer")


@pytest.mark.parametrize("path", ["/index/simple/", "/index/"])
def test_pip_installs_what_fits_with_what_it_needs(tool, served, published, tmp_path, path):
    index = simple(served, published, path)
    done = tool("pip", "install", "--index-url", index, "--target", "here", "Needs_Acme", "-v")

    assert done.code == 0, done.out
    assert (tmp_path / "here/acme-2.0.dist-info").is_dir()  # 3.0 is for another Python
    assert (tmp_path / "here/needs_acme-1.0.dist-info").is_dir()
    assert "acme-2.0-py3-none-any.whl.metadata" in done.out


def test_pip_downloads_an_older_version_with_its_hash(tool, served, published, tmp_path):
    digest = hashlib.sha256(wheel()).hexdigest()
    for wanted, code in (("0" * 64, 1), (digest, 0)):
        (tmp_path / "lock.txt").write_text(f"acme==1.0 --hash=sha256:{wanted}\n")
        done = tool("pip", "download", "--index-url", simple(served, published),
                    "--require-hashes", "-r", "lock.txt", "-d", "there")  # fmt: skip
        assert done.code == code, done.out
    assert (tmp_path / "there" / NAME).read_bytes() == wheel()


def test_uv_installs_locks_and_knows_what_is_not_there(tool, served, published, tmp_path):
    index = simple(served, published)
    done = tool("uv", "pip", "install", "--default-index", index, "--target", "here", "needs-acme")
    assert done.code == 0, done.out
    assert (tmp_path / "here/acme-2.0.dist-info").is_dir()

    (tmp_path / "in.txt").write_text("needs-acme\n")
    lock = tool("uv", "pip", "compile", "--generate-hashes", "--default-index", index, "in.txt")
    assert lock.code == 0, lock.out
    digest = hashlib.sha256(wheel("acme", "2.0", "Requires-Python: >=3.11")).hexdigest()
    assert f"--hash=sha256:{digest}" in lock.out

    none = tool("uv", "pip", "install", "--default-index", index, "--target", "here", "nothing")
    assert none.code == 1
    assert "nothing was not found" in " ".join(none.out.split())


def test_installers_leave_out_what_was_yanked_unless_it_is_pinned(
    tool, served, published, give, tmp_path
):
    answer = httpx2.post(
        f"{served.url}/api/v1/packages/acme/2.0/yank",
        json={"reason": "it <loses> money"},
        headers={"Authorization": f"Bearer {give('admin')}"},
    )
    assert answer.status_code == 200, answer.text
    index = simple(served, published)

    for name, *arguments in (
        ("pip", "install", "--index-url", index),
        ("uv", "pip", "install", "--default-index", index),
    ):
        free, pinned = tmp_path / f"{name}-free", tmp_path / f"{name}-pinned"
        assert tool(name, *arguments, "--target", free, "acme").code == 0
        assert (free / "acme-1.0.dist-info").is_dir()
        done = tool(name, *arguments, "--target", pinned, "acme==2.0")
        assert done.code == 0, done.out
        assert (pinned / "acme-2.0.dist-info").is_dir()
        assert "it <loses> money" in " ".join(done.out.split())


def test_an_installer_without_a_token_is_told(tool, served, published):
    done = tool(
        "pip", "download", "--no-input", "--index-url", f"{served.url}/index/simple/", "acme"
    )

    assert done.code == 1
    assert "401" in done.out or "No matching distribution" in done.out


# The simple index itself


@pytest.fixture
def get(served, published):
    def ask(path, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        auth = ("__token__", published)
        return httpx2.get(f"{served.url}{path}", headers=headers, auth=auth)

    return ask


class Links(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.found.append(dict(attributes))


def test_the_json_says_all_that_the_format_has(get):
    answer = get("/index/simple/acme/", Accept=JSON)

    assert answer.headers["content-type"] == JSON
    page = answer.json()
    assert page["meta"] == {"api-version": "1.1"}
    assert (page["name"], page["versions"]) == ("acme", ["4.0rc1", "3.0", "2.0", "1.0"])
    file = page["files"][2]
    content = wheel("acme", "2.0", "Requires-Python: >=3.11")
    assert file["filename"] == "acme-2.0-py3-none-any.whl"
    assert file["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert (file["size"], file["requires-python"]) == (len(content), ">=3.11")
    assert file["yanked"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", file["upload-time"])
    assert get(file["url"]).content == content
    text = get(file["url"] + ".metadata")
    assert file["core-metadata"] == {"sha256": hashlib.sha256(text.content).hexdigest()}
    assert "Requires-Python: >=3.11" in text.text


def test_the_html_says_the_same(get):
    answer = get("/index/simple/acme/", Accept="text/html")
    [_, _, link, _] = Links(answer.text).found

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert '<meta name="pypi:repository-version" content="1.1">' in answer.text
    address, _, digest = link["href"].partition("#sha256=")
    assert hashlib.sha256(get(address).content).hexdigest() == digest
    assert link["data-requires-python"] == ">=3.11"
    said = link["data-core-metadata"].removeprefix("sha256=")
    assert hashlib.sha256(get(address + ".metadata").content).hexdigest() == said


def test_the_names_are_listed_and_any_spelling_leads_to_the_page(get):
    names = get("/index/simple/", Accept=JSON).json()["projects"]
    assert names == [{"name": "acme"}, {"name": "needs-acme"}]
    assert [link["href"] for link in Links(get("/index/").text).found] == [
        "/index/simple/acme/",
        "/index/simple/needs-acme/",
    ]
    for path in ("/index/simple/", "/index/"):
        moved = get(f"{path}Needs._Acme/")
        assert (moved.status_code, moved.headers["location"]) == (301, f"{path}needs-acme/")


def test_what_is_not_here_is_404_in_one_line(get):
    digest = hashlib.sha256(wheel()).hexdigest()
    for path in (
        "/index/simple/acne/",
        f"/index/files/{digest}/nothing.whl",
        f"/index/files/{'0' * 64}/{NAME}",
        f"/index/files/{'0' * 64}/{NAME}.metadata",
        "/index/a/b/c/d",
    ):
        answer = get(path)
        assert answer.status_code == 404
        assert answer.text.count("\n") == 1
    assert "did you mean acme?" in get("/index/simple/acne/").text


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("*/*", PLAIN_HTML),
        ("text/html,application/xhtml+xml,*/*;q=0.8", PLAIN_HTML),
        (f"{JSON}, {HTML};q=0.2, text/html;q=0.01", JSON),
        (f"{HTML};q=0.2, text/html;q=0.01", HTML),
        ("application/vnd.pypi.simple.latest+json", JSON),
        (f"{JSON};q=0, text/*", PLAIN_HTML),
        ("application/json", None),
        (f"{JSON};q=0", None),
        ("", None),
        (";;,,q=", None),
    ],
)
def test_the_format_is_the_one_that_is_wanted_most(accept, wanted):
    assert negotiated(accept) == wanted


def test_a_format_that_the_index_has_not_is_406(get):
    assert get("/index/simple/", Accept="application/json").status_code == 406


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=0-99999999", 0, None),
        ("bytes=1048570-1048580", 1048570, 1048580),
        ("bytes=-99999999", 0, None),
    ],
)
def test_a_part_of_a_file(get, served, give, asked, first, last):
    content = large(3)
    upload(served.url, give("admin"), content, wheel_name("big"), name="big")
    path = f"/index/files/{hashlib.sha256(content).hexdigest()}/{wheel_name('big')}"

    answer = get(path, Range=asked)

    assert answer.status_code == 206
    assert answer.content == content[first : None if last is None else last + 1]
    start, end = re.match(r"bytes (\d+)-(\d+)/", answer.headers["content-range"]).groups()
    assert content[int(start) : int(end) + 1] == answer.content
    assert answer.headers["content-range"].endswith(f"/{len(content)}")


def test_asking_about_a_file_sends_none_of_it(get, served, published):
    path = f"/index/files/{hashlib.sha256(wheel()).hexdigest()}/{NAME}"
    answer = httpx2.head(f"{served.url}{path}", auth=("__token__", published))

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(wheel()))
    assert answer.headers["accept-ranges"] == "bytes"
    assert "immutable" in answer.headers["cache-control"]


def test_a_part_that_is_not_there_and_parts_that_are_not_served(get):
    path = f"/index/files/{hashlib.sha256(wheel()).hexdigest()}/{NAME}"

    for beyond in ("bytes=999999-", "bytes=-0"):
        answer = get(path, Range=beyond)
        assert (answer.status_code, answer.headers["content-range"]) == (
            416, f"bytes */{len(wheel())}",
        )  # fmt: skip
    for other in ("bytes=0-1,3-4", "lines=1-2", "bytes=-"):
        answer = get(path, Range=other)
        assert (answer.status_code, answer.content) == (200, wheel())

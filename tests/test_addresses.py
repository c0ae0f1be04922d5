"""Addresses of channels: what may stand in one, where secrets are taken from, what is said."""

import pytest

from kirby.core.errors import Invalid, NotFound
from kirby.server import addresses
from kirby.server.addresses import Letter

pytest_plugins = ("fix_channels",)

LETTER = Letter("subject", "text", "<p>html</p>", "**md**", "failure", "key-1", "<i-1@kirby>")


@pytest.mark.parametrize(
    "address",
    [
        "json://127.0.0.1:8080/hook",
        "json://kirby:${PW}@h/p",
        "jsons://h/p?+Authorization=Bearer%20${TOKEN}",
        "mailtos://me:${PW}@smtp.example.com?to=a@b.test",
        "mailto://127.0.0.1:2525?from=a@x.test&to=b@x.test&mode=insecure",
        "slack://${SLACK}/#general",
        "slack://${A}/${B}/${C}",
        "tgram://${BOT}/12315544/",
        "discord://${ID}/${TOKEN}",
        "ntfy://topic",
        "ntfys://${T}@ntfy.example.com/topic",
        "pagerduty://${A}@${B}",
        "workflows://h/${W}/${S}",
    ],
)
def test_an_address_whose_secrets_stand_elsewhere_is_taken(address):
    assert addresses.check(f" {address} ") == address


@pytest.mark.parametrize(
    "address",
    [
        "json://kirby:sesame@h/p",
        "json://h/p?+Authorization=Bearer%20sesame",
        "jsons://h/p?token=sesame",
        "mailtos://me:sesame@smtp.example.com?to=a@b.test",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
        "slack://${A}/${B}/TIiajkdnlazkcOXrIdevi7FQ",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
        "discord://${ID}/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "ntfys://tk_sesame@ntfy.example.com/topic",
        "gotify://h/sesame",
    ],
)
def test_a_secret_in_plain_is_refused_and_not_repeated(address):
    with pytest.raises(Invalid, match="there is a secret in this") as refused:
        addresses.check(address)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "an address looks like"),
        ("hello", "an address looks like"),
        ("foo://x", "no service foo://"),
        ("syslog://", "no service syslog://"),  # on this machine: nobody hears it
        ("dbus://", "no service dbus://"),
        ("json://", "cannot be used"),
        ("slack://x", "cannot be used"),
        ("json://${a b}/", "is no name of a secret"),
        ("json://h/" + "x" * 2000, "at most 2000"),
        ("json://h/\x00", "printable"),
    ],
)
def test_what_is_no_address_is_one_line(address, said):
    with pytest.raises(Invalid, match=said):
        addresses.check(address)


@pytest.mark.parametrize(
    ("address", "filled"),
    [
        ("json://u:${S}@h/p", "json://u:a%2Fb%40c@h/p"),
        ("slack://${S}/#x", "slack://a/b%40c/#x"),
        ("json://h/p?+X=${S}", "json://h/p?+X=a%2Fb%40c"),
    ],
)
def test_a_secret_is_written_as_its_place_wants_it(address, filled):
    assert addresses.fill(address, {"S": "a/b@c"}) == filled


def test_secrets_come_from_variables_or_files(tmp_path):
    (tmp_path / "b").write_text("two\n")
    environ = {"KIRBY_CHANNEL_A": "one", "KIRBY_CHANNEL_B_FILE": str(tmp_path / "b")}
    assert addresses.secrets_of("json://${A}:${B}@h/${A}", environ) == {"A": "one", "B": "two"}
    with pytest.raises(NotFound, match="KIRBY_CHANNEL_C is not set"):
        addresses.secrets_of("json://${C}@h", environ)
    with pytest.raises(NotFound, match="KIRBY_CHANNEL_D_FILE names cannot be read"):
        addresses.secrets_of("json://${D}@h", {"KIRBY_CHANNEL_D_FILE": str(tmp_path / "none")})


def test_what_went_wrong_is_said_in_one_line_without_the_secrets(hook):
    environ = {"KIRBY_CHANNEL_PW": "sesame-open", "KIRBY_CHANNEL_HOST": "sesame.invalid"}
    hook.broken = {"/sesame-open"}
    said = addresses.send(f"json://{hook.host}/${{PW}}", LETTER, environ, 5.0)
    assert not said.delivered
    assert said.answer.endswith("error=500. no such room")
    assert "\n" not in said.answer
    gone = addresses.send("json://u:${PW}@${HOST}/", LETTER, environ, 5.0)
    assert not gone.delivered
    assert "sesame" not in gone.answer
    nothing = addresses.send("json://${PW}:x:y", LETTER, environ, 5.0)
    assert "cannot be used" in nothing.answer
    assert "sesame" not in nothing.answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: / (Caused by"
         " NewConnectionError('<urllib3.connection.HTTPConnection object at 0x7f>: Failed to"
         " establish a new connection: [Errno 111] Connection refused'))", "Connection refused"),
        ("HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: / (Caused by"
         " NameResolutionError(\"HTTPSConnection(host='h', port=443): Failed to resolve 'h' ([Errno"
         " -2] Name or service not known)\"))", "Name or service not known"),
        ("HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: / (Caused by"
         " SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate"
         " verify failed: self-signed certificate (_ssl.c:1006)')))",
         "certificate verify failed: self-signed certificate"),
        ("HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: / (Caused by"
         " ConnectTimeoutError(<urllib3.connection object at 0x7f>, 'Connection to h timed out.'))",
         "Connection to h timed out."),
        ("no such room", "no such room"),
    ],
)  # fmt: skip
def test_of_a_connection_that_failed_only_the_cause_is_said(text, said):
    assert addresses._cause(text) == said


def test_nobody_at_home_is_one_short_line():
    said = addresses.send("json://127.0.0.1:1/", LETTER, {}, 5.0).answer
    assert said.endswith("Connection refused")
    assert len(said) < 100


def test_each_service_gets_the_form_that_it_takes(hook, mail):
    assert addresses.send(hook.url, LETTER, {}, 5.0).delivered
    assert hook.got[0].body["message"] == "text"
    assert addresses.send(f"{hook.url}?format=markdown", LETTER, {}, 5.0).delivered
    assert addresses.send(mail.url, LETTER, {}, 5.0).delivered
    [got] = mail.got
    assert got.get_body(("html",)).get_content().strip() == "<p>html</p>"
    assert got["idempotency-key"] == "key-1"


def test_a_mail_server_that_says_no_is_quoted(mail):
    mail.refuse = "554 not in this house"
    said = addresses.send(mail.url, LETTER, {}, 5.0)
    assert not said.delivered
    assert "not in this house" in said.answer

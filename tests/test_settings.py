"""Settings are read once from KIRBY_* variables, and a mistake stops the start with one line."""

from pathlib import Path

import pytest

from kirby.core.errors import Invalid
from kirby.server.settings import Settings


def test_without_variables_everything_has_a_default():
    settings = Settings.from_env({"PATH": "/bin"})

    assert settings == Settings()
    assert (settings.host, settings.port, settings.environment) == ("127.0.0.1", 8700, "dev")


def test_every_variable_reaches_its_field():
    settings = Settings.from_env(
        {
            "KIRBY_DSN": "dbname=a",
            "KIRBY_HOST": "0.0.0.0",
            "KIRBY_PORT": "0",
            "KIRBY_ENVIRONMENT": "prod",
            "KIRBY_SLOTS": "3",
            "KIRBY_LABELS": "gpu, eu,gpu",
            "KIRBY_INDEX_URL": "https://index.test/simple",
            "KIRBY_DATA": "/data",
            "KIRBY_WORKER_DSN": "dbname=b",
            "KIRBY_SECURE_COOKIES": "Yes",
        }
    )

    assert settings == Settings(
        dsn="dbname=a",
        host="0.0.0.0",
        port=0,
        environment="prod",
        slots=3,
        labels=("eu", "gpu"),
        index_url="https://index.test/simple",
        data=Path("/data"),
        worker_dsn="dbname=b",
        secure_cookies=True,
    )


def test_an_empty_variable_is_no_value():
    assert Settings.from_env({"KIRBY_DSN": "", "KIRBY_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KIRBY_PORT", "http", "KIRBY_PORT must be a whole number from 0 to 65535, not 'http'"),
        ("KIRBY_PORT", "65536", "from 0 to 65535"),
        ("KIRBY_PORT", "-1", "from 0 to 65535"),
        ("KIRBY_SLOTS", "0", "KIRBY_SLOTS must be a whole number from 1"),
        ("KIRBY_SLOTS", "²", "KIRBY_SLOTS must be a whole number"),
        ("KIRBY_LABELS", "eu,Big One", "'Big One' is not a label: small letters, digits"),
        ("KIRBY_SECURE_COOKIES", "maybe", "KIRBY_SECURE_COOKIES must be true or false"),
        ("KIRBY_MAX_UPLOAD", "1TB", "KIRBY_MAX_UPLOAD must be a size like 500MB or 2GB"),
        ("KIRBY_MAX_UPLOAD", "0", "KIRBY_MAX_UPLOAD must be a size"),
        ("KIRBY_URL", "kirby.example.com", "KIRBY_URL must be an address like https://"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(name, value, message):
    with pytest.raises(Invalid, match=message):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2 gb", 2_000_000_000), ("64kb", 64_000), ("7", 7)]
)
def test_a_size_has_a_unit_or_is_bytes(text, size):
    assert Settings.from_env({"KIRBY_MAX_UPLOAD": text}).max_upload == size


def test_an_unknown_name_is_refused_with_the_closest_one():
    with pytest.raises(Invalid, match=r"KIRBY_PROT is not a setting; did you mean KIRBY_PORT?"):
        Settings.from_env({"KIRBY_PROT": "1"})


@pytest.mark.parametrize(
    "name", ["KIRBY_TOKEN", "KIRBY_RUN", "KIRBY_JOB", "KIRBY_PG_BINDIR", "KIRBY_TEST_STRICT"]
)
def test_what_scripts_and_tests_are_given_is_no_mistake(name):
    assert Settings.from_env({name: "x"}) == Settings()


def test_a_secret_may_be_in_a_file(tmp_path):
    secret = tmp_path / "dsn"
    secret.write_text("dbname=secret\n")

    assert Settings.from_env({"KIRBY_DSN_FILE": str(secret)}).dsn == "dbname=secret"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(Invalid, match=r"KIRBY_DSN_FILE: .*nothing cannot be read: No such file"):
        Settings.from_env({"KIRBY_DSN_FILE": str(tmp_path / "nothing")})


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "dsn").write_text("\n")

    with pytest.raises(Invalid, match="is empty"):
        Settings.from_env({"KIRBY_DSN_FILE": str(tmp_path / "dsn")})


def test_a_value_and_a_file_for_it_are_one_too_many(tmp_path):
    (tmp_path / "dsn").write_text("dbname=b")

    with pytest.raises(Invalid, match="KIRBY_DSN and KIRBY_DSN_FILE are both given"):
        Settings.from_env({"KIRBY_DSN": "dbname=a", "KIRBY_DSN_FILE": str(tmp_path / "dsn")})


def test_secrets_of_channels_are_no_settings_and_no_mistakes():
    given = {"KIRBY_CHANNEL_SMTP": "x", "KIRBY_CHANNEL_HOOK_FILE": "/run/secrets/hook"}
    assert Settings.from_env({**given, "KIRBY_URL": "https://k.test/a"}).url == "https://k.test/a"

from pathlib import Path

import pytest

from rsocket_broker.errors import BrokerError, ConfigurationError
from rsocket_broker.settings import (
    CONFIG_LIMIT,
    Config,
    ListenSettings,
    Wanted,
    check_table,
    is_loopback,
    nearest,
    read_config,
)

KNOWN = {
    "secure-port": Wanted(int, "a whole number"),
    "host": Wanted(str, "a string"),
    "plugin": Wanted(list, "a list (a string each)"),
    "insecure": Wanted(bool, "true or false"),
    "seconds": Wanted(float, "a number"),
    "http-port": Wanted(int, 'a whole number or "off"', also=("off",)),
    "duplicate": Wanted(str, 'one of "replace", "refuse"', choices=("replace", "refuse")),
}


def written(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BrokerError) as caught:
        read_config(path)
    return caught.value.public


def test_a_home_without_a_config_sets_nothing(tmp_path: Path) -> None:
    assert read_config(tmp_path / "config.toml").options(("serve",)) == {}


def test_tables_are_found_by_the_path_of_their_command(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, "[serve]\nsecure-port = 9000\n[clients.list]\njson = true\n"))
    assert config.options(("serve",)) == {"secure-port": 9000}
    assert config.options(("clients", "list")) == {"json": True}
    assert config.options(("clients", "show")) == {}


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_table({"secure_port": 1}, KNOWN, "config.toml [serve]")
    assert caught.value.public == 'config.toml [serve]: unknown key "secure_port". Did you mean "secure-port"?'


def test_where_nothing_is_near_all_names_are_listed() -> None:
    assert nearest("zzz", ["serve", "demo"]) == "Known: demo, serve."
    assert nearest("zzz", []) == "Nothing can be set here."


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("secure-port", "9000", "\"secure-port\" must be a whole number, not a string ('9000')"),
        ("secure-port", True, '"secure-port" must be a whole number, not true or false (True)'),
        ("secure-port", 1.5, '"secure-port" must be a whole number, not a number (1.5)'),
        ("host", 1, '"host" must be a string, not a whole number (1)'),
        ("plugin", "echo", "must be a list (a string each), not a string"),
        ("plugin", ["echo", 1], "must be a list (a string each), not a list with a whole number (1)."),
        ("insecure", 1, "must be true or false, not a whole number (1)"),
        ("duplicate", "often", 'must be one of "replace", "refuse", not a string'),
        ("http-port", "on", 'must be a whole number or "off", not a string'),
        ("host", {}, "must be a string, not a table"),
    ],
)
def test_a_wrong_type_names_the_key_and_the_wanted_type(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_table({key: value}, KNOWN, "[serve]")
    assert words in caught.value.public


def test_right_types_pass() -> None:
    right = {"secure-port": 1, "host": "::", "plugin": ["a"], "insecure": False, "seconds": 1, "duplicate": "refuse"}
    check_table(right, KNOWN, "[serve]")
    check_table({"http-port": 9000}, KNOWN, "[serve]")
    check_table({"http-port": "off"}, KNOWN, "[serve]")


def test_an_unknown_table_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, "[server]\nsecure-port = 9000\n"))
    with pytest.raises(ConfigurationError, match=r'unknown table "server"\. Did you mean "serve"\?'):
        config.check_names((), ["serve", "demo"])


def test_a_value_where_a_table_belongs_is_refused(tmp_path: Path) -> None:
    config = Config(tmp_path / "config.toml", {"serve": 5, "clients": {"list": 5}})
    with pytest.raises(ConfigurationError, match="must be a table"):
        config.check_names((), ["serve", "clients"])
    with pytest.raises(ConfigurationError, match=r"\[clients\.list\] must be a table, not a whole number"):
        config.options(("clients", "list"))
    with pytest.raises(ConfigurationError, match=r"\[serve\] must be a table"):
        config.options(("serve",))


def test_bad_toml_names_the_line(tmp_path: Path) -> None:
    assert "line 2" in refusal(written(tmp_path, "[serve]\nport = \n"))


def test_a_file_that_is_no_text_or_far_too_large_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refusal(path)
    path.write_bytes(b"#" * (CONFIG_LIMIT + 1))
    assert "larger than" in refusal(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_config_that_others_can_write_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    text = refusal(written(tmp_path, "", mode))
    assert f"mode {mode:04o}" in text
    assert "chmod 644" in text


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    assert "not a regular file" in refusal(tmp_path / "config.toml")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_what_only_this_machine_can_reach(host: str) -> None:
    assert is_loopback(host)
    listen = ListenSettings(host=host)
    assert (listen.plain_host, listen.certificate_hosts, listen.on_loopback) == (host, (), True)


@pytest.mark.row("A-12")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "broker.example", "localhost.example"])
def test_enrolment_stays_on_this_machine_unless_a_host_is_named_for_it(host: str) -> None:
    assert not is_loopback(host)
    assert ListenSettings(host=host).plain_host == "localhost"
    assert ListenSettings(host=host, insecure_host=host).plain_host == host


@pytest.mark.parametrize(("secure", "web"), [(8088, 9088), (0, 0), (9000, 0)])
def test_only_the_broker_on_the_well_known_port_takes_the_other_one(secure: int, web: int) -> None:
    assert ListenSettings(secure_port=secure).ws_secure_port == web
    assert ListenSettings(secure_port=secure, ws_secure_port=1).ws_secure_port == 1
    assert ListenSettings(secure_port=secure, ws_secure_port=None).ws_secure_port is None


def test_the_certificate_carries_the_names_that_clients_use() -> None:
    listen = ListenSettings(host="192.0.2.1", names=("broker.example", "192.0.2.1"))
    assert listen.certificate_hosts == ("192.0.2.1", "broker.example")
    assert not listen.on_loopback
    assert ListenSettings(host="0.0.0.0", names=("broker.example",)).certificate_hosts == ("broker.example",)

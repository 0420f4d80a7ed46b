"""Settings from options, environment and file: precedence, refusals in one line, one table behind all of them."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway import config
from dsmgateway.config import Loaded
from dsmgateway.errors import ConfigError
from dsmgateway.kinds import CIPHERS, FILE, FLAG, FOLDER, NETWORKS, PORT, SIZE, TIME, Kind, choice, count
from dsmgateway.settings import OPTIONS, Settings

ROOT = Path(__file__).parent.parent
HERE = Path("/srv/cameras")
FAMILIES = "dsm, adas, dualcam, dashcam, unknown"


def load(
    options: dict[str, list[str]] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> Loaded:
    return config.load(options or {}, environ or {}, HERE, None if file is None else str(file))


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "gateway.toml"


def refusal(**sources: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**sources)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_means_the_defaults_with_the_data_folder_where_we_are() -> None:
    assert load().settings == Settings(data=HERE / "dsm-data")


def test_the_example_file_is_made_from_the_table() -> None:
    assert (ROOT / "etc" / "dsmgateway.toml").read_text() == config.example()


def test_the_example_file_is_exactly_the_defaults() -> None:
    loaded = load(file=ROOT / "etc" / "dsmgateway.toml")
    assert loaded.settings == load().settings
    assert set(loaded.sources) == {option.name for option in OPTIONS if option.has_default}


def test_what_has_no_default_is_shown_in_the_example_file_as_it_may_be_written(toml: Path) -> None:
    example = (ROOT / "etc" / "dsmgateway.toml").read_text()
    toml.write_text(
        "\n".join(line.removeprefix("# ") for line in example.splitlines() if re.match(r"# [a-z-]+ = ", line))
    )
    assert set(load(file=toml).sources) == {option.name for option in OPTIONS if not option.has_default}


def test_an_option_goes_before_the_environment_before_the_file_before_the_default(toml: Path) -> None:
    toml.write_text("init-timeout = 1\nanswer-timeout = 1\nsync-timeout = 1\n")
    environ = {"DSMGATEWAY_INIT_TIMEOUT": "2", "DSMGATEWAY_ANSWER_TIMEOUT": "2"}
    loaded = load({"init-timeout": ["3"]}, environ, toml)
    settings = loaded.settings
    assert (settings.init_timeout, settings.answer_timeout, settings.sync_timeout) == (3, 2, 1)
    assert settings.data_timeout == Settings().data_timeout
    assert loaded.sources == {
        "init-timeout": "option --init-timeout",
        "answer-timeout": "environment variable DSMGATEWAY_ANSWER_TIMEOUT",
        "sync-timeout": f"file {toml}, key sync-timeout",
    }


#: What is given of the settings that have no default, and what else they need to mean anything.
WITHOUT_DEFAULT = {PORT: "10015", NETWORKS: "192.0.2.0/24,2001:db8::1/128", CIPHERS: "ECDHE+AESGCM"}
NEEDED = {
    "tls-port": "tls-cert = 'x'",
    "tls-key": "tls-cert = 'x'",
    "tls-client-ca": "tls-port = '1'\ntls-cert = 'x'",
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_setting_can_be_given_in_all_three_ways(option: config.Option, toml: Path) -> None:
    text = option.shown_default or WITHOUT_DEFAULT.get(option.kind, "elsewhere")
    values = text.split(",") if option.repeatable else [text]
    quoted = text if option.kind.toml_types in ((int,), (bool,)) else repr(text)
    toml.write_text(f"{option.name} = {quoted}\n" + NEEDED.get(option.name, ""))
    needed = {key: [value.strip("'")] for key, value in tomllib.loads(NEEDED.get(option.name, "")).items()}
    variables = {f"DSMGATEWAY_{key.upper().replace('-', '_')}": value for key, (value,) in needed.items()}
    answers = [
        load({option.name: values, **needed}).settings,
        load(environ={option.variable: text, **variables}).settings,
        load(file=toml).settings,
    ]
    assert answers == [answers[0]] * 3
    answer = getattr(answers[0], option.field_name)
    if option.has_default:
        assert answer == answers_default(option)
    elif option.kind in (FILE, FOLDER):
        assert answer == HERE / text
    else:
        assert answer == ((text,) if option.repeatable else option.kind.read(text))


def answers_default(option: config.Option) -> object:
    return getattr(load().settings, option.field_name)


def test_families_are_words_with_commas(toml: Path) -> None:
    toml.write_text('families = "dsm, dualcam"\n')
    assert load(file=toml).settings.families == ("dsm", "dualcam")
    assert load({"families": ["dualcam,dsm,dualcam"]}).settings.families == ("dualcam", "dsm")
    with pytest.raises(
        ConfigError, match="option --families: 'dms' is not one of dsm, adas, dualcam, dashcam, unknown"
    ):
        load({"families": ["dsm,dms"]})
    with pytest.raises(ConfigError, match="option --families: '' is not one of"):
        load({"families": ["dsm,"]})


def test_families_are_a_list_in_a_file(toml: Path) -> None:
    toml.write_text('families = ["dualcam", "dsm", "dualcam"]\n')
    assert load(file=toml).settings.families == ("dualcam", "dsm")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("families = []", f"at least one of {FAMILIES}"),
        ("families = ['']", f"at least one of {FAMILIES}"),
        ("families = ''", f"at least one of {FAMILIES}"),
        ("families = ['dsm', 'dms']", f"'dms' is not one of {FAMILIES}"),
        ("families = ['dsm', 1]", f"1 is not some of {FAMILIES}, with commas between them"),
        ("families = [['dsm']]", f"['dsm'] is not some of {FAMILIES}, with commas between them"),
        ("families = true", f"True is not some of {FAMILIES}, with commas between them"),
        ("data = ['here']", "['here'] is not a folder's path"),
    ],
)
def test_a_wrong_list_in_a_file_is_refused(line: str, problem: str, toml: Path) -> None:
    toml.write_text(line + "\n")
    assert refusal(file=toml) == f"file {toml}, key {line.partition(' ')[0]}: {problem}"


def test_no_families_are_refused_wherever_they_are_given() -> None:
    problem = f"at least one of {FAMILIES}"
    assert refusal(options={"families": [""]}) == f"option --families: {problem}"
    assert refusal(environ={"DSMGATEWAY_FAMILIES": " , "}).endswith(f"_FAMILIES: {problem}")
    for families, complaint in (((), problem), ("dsm", f"'dsm' is not a tuple of some of {FAMILIES}")):
        with pytest.raises(ConfigError) as caught:
            Settings(families=families)  # type: ignore[arg-type]
        assert str(caught.value) == f"families: {complaint}"


def test_a_file_may_list_ports_and_the_environment_separates_them_with_commas(toml: Path) -> None:
    toml.write_text('port = [10014, "unix:/run/gateway.sock"]\n')
    ports = ("10014", "unix:/run/gateway.sock")
    assert load(file=toml).settings.ports == ports
    assert load(environ={"DSMGATEWAY_PORT": "10014, unix:/run/gateway.sock"}).settings.ports == ports
    assert load({"port": ["10014", "unix:/run/gateway.sock"]}).settings.ports == ports


def test_metadata_is_switched_off_in_all_three_ways(toml: Path) -> None:
    toml.write_text("metadata = false\n")
    assert not load({"metadata": ["false"]}).settings.metadata
    assert not load(environ={"DSMGATEWAY_METADATA": "false"}).settings.metadata
    assert not load(file=toml).settings.metadata


def test_the_environment_may_name_the_file_and_the_option_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("backlog = 1\n")
    (tmp_path / "b.toml").write_text("backlog = 2\n")
    environ = {"DSMGATEWAY_CONFIG": "a.toml"}
    assert config.load({}, environ, tmp_path).settings.backlog == 1
    assert config.load({}, environ, tmp_path, "b.toml").settings.backlog == 2


def test_paths_are_absolute_and_count_from_where_the_gateway_was_started(toml: Path) -> None:
    toml.write_text('data = "files"\ntrace = "/var/trace"\n')
    settings = load(file=toml).settings
    assert (settings.data, settings.trace) == (HERE / "files", Path("/var/trace"))


def test_other_peoples_variables_are_not_ours() -> None:
    assert load(environ={"HOME": "/root", "DSMGATEWAYS": "x", "dsmgateway_port": "1"}) == load()


def test_an_unknown_key_is_refused_with_its_file_and_a_guess(toml: Path) -> None:
    toml.write_text("init_timeout = 3\n")
    assert refusal(file=toml) == f"file {toml}: unknown key 'init_timeout' (did you mean init-timeout?)"


def test_an_unknown_table_is_refused(toml: Path) -> None:
    toml.write_text("[limits]\ndata-timeout = 3\n")
    assert refusal(file=toml) == f"file {toml}: unknown key 'limits'"


def test_an_unknown_variable_is_refused_with_a_guess() -> None:
    message = refusal(environ={"DSMGATEWAY_PORTS": "1"})
    assert message == "environment: unknown variable 'DSMGATEWAY_PORTS' (did you mean DSMGATEWAY_PORT?)"


@pytest.mark.parametrize(
    ("sources", "where"),
    [
        ({"options": {"init-timeout": ["soon"]}}, "option --init-timeout: 'soon' is not a time"),
        ({"options": {"init-timeout": ["0"]}}, "option --init-timeout: 0s is out of range: 0.001s to 3650d"),
        ({"options": {"port": ["10014", "70000"]}}, "option --port: 70000 is out of range: 0 to 65535"),
        ({"options": {"port": ["-1"]}}, "option --port: '-1' is not a port number"),
        ({"options": {"log-format": ["xml"]}}, "option --log-format: 'xml' is not one of text or json"),
        ({"options": {"data": [""]}}, "option --data: '' is not a folder's path"),
        (
            {"environ": {"DSMGATEWAY_METADATA": "maybe"}},
            "environment variable DSMGATEWAY_METADATA: 'maybe' is not true",
        ),
        ({"environ": {"DSMGATEWAY_PORT": ""}}, "environment variable DSMGATEWAY_PORT: '' is not a port"),
        (
            {"environ": {"DSMGATEWAY_BACKLOG": "1\n2"}},
            r"environment variable DSMGATEWAY_BACKLOG: '1\n2' is not a whole",
        ),
        ({"environ": {"DSMGATEWAY_CONFIG": ""}}, "environment variable DSMGATEWAY_CONFIG: '' is not a file's path"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_the_place_it_stands_in(sources: dict[str, object], where: str) -> None:
    assert refusal(**sources).startswith(where)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("init-timeout = true", "True is not a time"),
        ("init-timeout = nan", "'nan' is not a time"),
        ("max-file-size = 1.5", "1.5 is not a size"),
        ("max-file-size = '2TiB'", "'2TiB' is not a size"),
        ("metadata = 1", "1 is not true or false"),
        ("data = 5", "5 is not a folder's path"),
        ("port = []", "[] is not a port number"),
        ("port = [10014, [1]]", "[1] is not a port number"),
        ("backlog = '10'", "'10' is not a whole number"),
        (f"backlog = 0x{'f' * 5000}", "a number of too many digits"),
        (f"port = ['1', [0x{'f' * 5000}]]", "a number of too many digits"),
        ("log-level = 'loud'", "'loud' is not one of critical, error, warn, info, debug or trace"),
    ],
)
def test_a_wrong_value_in_a_file_is_refused_with_file_and_key(line: str, problem: str, toml: Path) -> None:
    toml.write_text(line + "\n")
    key = line.partition(" ")[0]
    assert refusal(file=toml).startswith(f"file {toml}, key {key}: {problem}")


def test_a_number_of_too_many_digits_to_be_read_is_refused(toml: Path) -> None:
    toml.write_text(f"backlog = {'1' * 5000}")
    assert refusal(file=toml).startswith(f"file {toml}: not TOML: Exceeds the limit")


def test_a_wrong_value_is_refused_even_where_another_source_goes_before_it(toml: Path) -> None:
    toml.write_text("backlog = 0\n")
    assert "key backlog" in refusal(options={"backlog": ["5"]}, file=toml)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"backlog = = 5\n", "not TOML: Invalid value (at line 1, column 11)"),
        (b"backlog = 5\nbacklog = 6\n", "not TOML: Cannot overwrite a value"),
        (b"a = " + b"[" * 5000, "not TOML: "),
        (b"data = '\xff'\n", "not UTF-8"),
        (b"#" * (1 << 20) + b"\n", "too large to be a configuration file"),
    ],
    ids=["syntax", "twice", "deep", "encoding", "size"],
)
def test_a_file_that_is_no_toml_is_refused_with_the_spot(content: bytes, problem: str, toml: Path) -> None:
    toml.write_bytes(content)
    assert refusal(file=toml).startswith(f"file {toml}: {problem}")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(file=tmp_path / "none") == f"file {tmp_path / 'none'}: No such file or directory"
    assert refusal(file=tmp_path) == f"file {tmp_path}: Is a directory"


def test_settings_made_in_code_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^init-timeout: -1s is out of range"):
        Settings(init_timeout=-1)
    with pytest.raises(ConfigError, match=r"^port: 65536 is out of range"):
        Settings(ports=("1", "65536"))
    with pytest.raises(ConfigError, match=r"^data-timeout: inf is not a time"):
        Settings(data_timeout=float("inf"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tls-port": ["1"]}, "a TLS port needs tls-cert"),
        ({"port": ["tls:1"]}, "a TLS port needs tls-cert"),
        ({"tls-key": ["key"]}, "tls-key needs tls-cert"),
        ({"tls-match-imei": ["true"]}, "tls-match-imei needs tls-client-ca"),
        ({"tls-client-ca": ["ca"]}, "tls-client-ca needs a TLS port"),
        ({"tls-port": ["ssl:1"], "tls-cert": ["x"]}, "endpoint 'ssl:1' has a TLS of its own, which knows no tls-"),
        ({"port": ["ssl:1"], "proxy-protocol": ["::1"]}, "endpoint 'ssl:1' has a TLS of its own, which knows no tls-"),
        ({"port": ["haproxy:tcp:1"]}, "endpoint 'haproxy:tcp:1' would have anybody say who they are"),
        ({"port": ["HAProxy:ssl:1"]}, "endpoint 'haproxy:ssl:1' would have anybody say who they are"),
        (
            {"proxy-protocol": ["10.0.0.1/8"]},
            "option --proxy-protocol: '10.0.0.1/8' is not networks with commas between them, such as",
        ),
        ({"proxy-protocol": [""]}, "option --proxy-protocol: '' is not networks"),
        (
            {"proxy-protocol": ["::ffff:192.0.2.0/120"]},
            "option --proxy-protocol: '::ffff:192.0.2.0/120' is not networks",
        ),
        ({"tls-minimum": ["1.1"]}, "option --tls-minimum: '1.1' is not one of 1.2 or 1.3"),
        ({"tls-ciphers": ["\n"]}, "option --tls-ciphers: '\\n' is not a list of ciphers"),
        ({"tls-match-imei": ["yes"]}, "option --tls-match-imei: 'yes' is not true or false"),
    ],
    ids=str,
)
def test_what_would_leave_tls_less_strict_than_it_looks_is_refused(options: dict[str, list[str]], problem: str) -> None:
    assert refusal(options=options).startswith(problem)


def test_the_oldest_tls_may_be_a_number_in_a_file(toml: Path) -> None:
    toml.write_text("tls-minimum = 1.3\n")
    assert load(file=toml).settings.tls_minimum == "1.3"


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().backlog = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (TIME, "20", 20.0),
        (TIME, "1.5", 1.5),
        (TIME, "30s", 30.0),
        (TIME, "2m", 120.0),
        (TIME, "1 h", 3600.0),
        (TIME, "30d", 2592000.0),
        (SIZE, "4096", 4096),
        (SIZE, "100B", 100),
        (SIZE, "4KiB", 4096),
        (SIZE, "256 MiB", 256 << 20),
        (SIZE, "1GiB", 1 << 30),
        (PORT, "010", "10"),
        (PORT, "0", "0"),
        (PORT, "ssl:443:privateKey=key.pem", "ssl:443:privateKey=key.pem"),
        (PORT, "TLS:443:interface=A", "tls:443:interface=A"),
        (FLAG, "True", True),
        (NETWORKS, "192.0.2.1, 10.0.0.0/8", (ip_network("192.0.2.1"), ip_network("10.0.0.0/8"))),
    ],
)
def test_values_are_written_as_people_write_them(kind: Kind[object], text: str, value: object) -> None:
    assert kind.read(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (TIME, ""),
        (TIME, "s"),
        (TIME, "1e3"),
        (TIME, "-5"),
        (TIME, "inf"),
        (TIME, "5 minutes"),
        (TIME, "٣"),
        (TIME, "9" * 13),
        (SIZE, "4kb"),
        (SIZE, "4.5MiB"),
        (SIZE, "9" * 5000),
        (PORT, "camera"),
        (PORT, "::1"),
        (FLAG, "yes"),
        (count(10), "11"),
        (count(10), "0"),
        (count(10), "²"),
    ],
)
def test_other_spellings_are_refused_in_one_line(kind: Kind[object], text: str) -> None:
    with pytest.raises(ValueError, match=re.compile(r"\A[^\n]+\Z")):
        kind.read(text)


@given(st.floats(min_value=0.001, max_value=3650 * 86400.0))
def test_a_time_is_read_back_as_it_was_shown(seconds: float) -> None:
    assert TIME.read(TIME.show(round(seconds, 9))) == round(seconds, 9)


def test_a_time_with_more_digits_than_can_be_shown_is_one_to_the_nanosecond() -> None:
    seconds = TIME.read("1.123456789h")
    assert seconds == 4044.4444404 and TIME.read(TIME.show(seconds)) == seconds


@given(st.integers(min_value=1, max_value=1 << 40))
def test_a_size_is_read_back_as_it_was_shown(size_bytes: int) -> None:
    assert SIZE.read(SIZE.show(size_bytes)) == size_bytes


@given(st.sampled_from([TIME, SIZE, PORT, FLAG, NETWORKS, CIPHERS, count(9), choice("a", "b")]), st.text())
def test_any_text_is_a_value_or_refused_in_one_line(kind: Kind[object], text: str) -> None:
    try:
        value = kind.read(text)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert kind.read(kind.show(value)) == value

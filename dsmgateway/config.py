"""The settings of a gateway from wherever they were given, and the example file.

An option goes before the environment, that before the TOML file, that before the default. Knows nothing of Twisted.
"""

from __future__ import annotations

import difflib
import sys
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsmgateway.errors import ConfigError
from dsmgateway.kinds import FILE, FLAG, FOLDER
from dsmgateway.settings import ENVIRONMENT_PREFIX, OPTIONS, Option, Settings

#: The one name that is an option and an environment variable, but no setting: where the TOML file is.
CONFIG = "config"
#: Largest configuration file: a thousand times the example; keeps a slip such as /dev/zero from eating the memory.
_MAX_FILE_BYTES = 1 << 20
_BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each setting that is not at its default the place it came from, for error messages."""

    settings: Settings
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    source: str


def _read(option: Option, texts: Sequence[str], source: str) -> _Given:
    try:
        values = tuple(option.kind.read(text) for text in texts)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
    return _Given(values if option.repeatable else values[-1], source)


def _unknown(what: str, name: str, known: Sequence[str], source: str) -> ConfigError:
    close = difflib.get_close_matches(name, known, 1)
    return ConfigError(f"{source}: unknown {what} {name!r}{f' (did you mean {close[0]}?)' if close else ''}")


def _from_command_line(given: Mapping[str, Sequence[str]]) -> dict[str, _Given]:
    found = {}
    for name, texts in given.items():
        written = f"--no-{name}" if _BY_NAME[name].default is True else f"--{name}"
        found[name] = _read(_BY_NAME[name], texts, f"option {written}")
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    variables = {option.variable: option for option in OPTIONS}
    found = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == ENVIRONMENT_PREFIX + CONFIG.upper():
            continue
        if variable not in variables:
            raise _unknown("variable", variable, list(variables), "environment")
        option = variables[variable]
        texts = text.split(",") if option.repeatable else [text]
        found[option.name] = _read(option, texts, f"environment variable {variable}")
    return found


def _toml_texts(option: Option, value: object, source: str) -> list[str]:
    may_be_list = option.kind.toml_list or (option.repeatable and value)
    values = value if may_be_list and isinstance(value, list) else [value]
    for one in values:
        if type(one) not in option.kind.toml_types:
            raise ConfigError(f"{source}: {one!r} is not {option.kind.expects}")
    texts = [FLAG.show(one) if isinstance(one, bool) else str(one) for one in values]
    return [",".join(texts)] if option.kind.toml_list else texts


def _from_file(path: Path) -> dict[str, _Given]:
    found = {}
    for key, value in _read_toml(path).items():
        if key not in _BY_NAME:
            raise _unknown("key", key, list(_BY_NAME), f"file {path}")
        source = f"file {path}, key {key}"
        try:
            texts = _toml_texts(_BY_NAME[key], value, source)
        except ValueError:  # Python writes no number of more than 4300 digits
            raise ConfigError(f"{source}: a number of too many digits") from None
        found[key] = _read(_BY_NAME[key], texts, source)
    return found


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"file {path}: {error.strerror}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"file {path}: too large to be a configuration file")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"file {path}: not UTF-8") from None
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or a number of too many digits
        raise ConfigError(f"file {path}: not TOML: {error}") from None


def _config_file(given: str | None, environ: Mapping[str, str], folder: Path) -> Path | None:
    text = environ.get(ENVIRONMENT_PREFIX + CONFIG.upper()) if given is None else given
    if text is None:
        return None
    if not text or "\0" in text:
        where = f"environment variable {ENVIRONMENT_PREFIX}{CONFIG.upper()}" if given is None else f"option --{CONFIG}"
        raise ConfigError(f"{where}: {text!r} is not a file's path")
    return folder / text


def load(
    given: Mapping[str, Sequence[str]], environ: Mapping[str, str], folder: Path, config: str | None = None
) -> Loaded:
    """Settings from all sources; every wrong value is refused, also one that another source goes before.

    Args:
        given: What the command line gave: texts by option name (``metadata``: ``["false"]`` for ``--no-metadata``).
        environ: The environment.
        folder: Where the gateway was started; relative paths count from here.
        config: The TOML file, when the command line named one.

    Raises:
        ConfigError: One line that says what is wrong, and in which option, variable, or key of which file.
    """
    path = _config_file(config, environ, folder)
    found = {} if path is None else _from_file(path)
    found |= _from_environment(environ)
    found |= _from_command_line(given)
    settings = Settings(**{_BY_NAME[name].field_name: one.value for name, one in found.items()})  # type: ignore[arg-type]
    return Loaded(_absolute(settings, folder), {name: one.source for name, one in found.items()})


def _absolute(settings: Settings, folder: Path) -> Settings:
    """The settings with every path counted from ``folder``."""
    names = [option.field_name for option in OPTIONS if option.kind in (FILE, FOLDER)]
    paths = {name: getattr(settings, name) for name in names}
    return replace(settings, **{name: folder / path for name, path in paths.items() if path is not None})


_EXAMPLE_HEAD = """\
# dsmgateway: the settings with their defaults.
#
# Each can also be given as an option (--init-timeout 20) or in the environment (DSMGATEWAY_INIT_TIMEOUT=20);
# an option goes before the environment, the environment before this file. Unknown keys are refused.
# Times are seconds, or a number with s, m, h or d ("30s"); sizes are bytes, or a number with KiB, MiB or GiB.
"""


def _example_value(option: Option) -> str:
    is_list = option.repeatable or option.kind.toml_list
    show = str if option.kind.toml_list else option.kind.show
    shown = [show(value) for value in (option.default if is_list else (option.default,))]
    quoted = [f'"{text}"' if option.kind.toml_quoted and not text.isdecimal() else text for text in shown]
    return f"[{', '.join(quoted)}]" if is_list else quoted[0]


def example() -> str:
    """The text of `etc/dsmgateway.toml`: every setting with its help and its default."""
    lines = [_EXAMPLE_HEAD]
    for option in OPTIONS:
        text = f"{option.help_text[0].upper()}{option.help_text[1:]} ({option.kind.unit})."
        lines += [f"# {line}" for line in textwrap.wrap(text, 110)]
        shown = _example_value(option) if option.has_default else option.example
        lines += [f"{'' if option.has_default else '# '}{option.name} = {shown}", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(example())

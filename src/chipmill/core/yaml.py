"""A strict YAML reader: files of at most 1 MiB, no aliases, no doubled keys, and strings that stay strings.

PyYAML's safe loader takes doubled keys, reads NO as False and 12:30 as 750, and expands alias bombs; this one does not.
"""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from chipmill.core.errors import RegionFileError

_MAX_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 50
"""Levels of nesting; a region file has six."""


class _StrictLoader(yaml.SafeLoader):
    """Only true/false, plain integers, floats, null and ISO dates are resolved; all else is text."""


_StrictLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$",
        "-+.0123456789",
    ),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be text or a number", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_yaml(text: str, name: str) -> Any:
    """Return the plain values of a YAML text; ``name`` is used in errors.

    Raises RegionFileError for aliases, doubled keys, other tags, deep nests and what is not YAML, with the line.
    """
    if len(text.encode()) > _MAX_BYTES:
        raise RegionFileError(f"{name} is larger than {_MAX_BYTES:,} bytes: a region file is a page of text")
    try:
        _refuse_bombs(text, name)
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader with fewer types
    except RegionFileError:
        raise
    except yaml.YAMLError as error:
        raise RegionFileError(
            f"{name}{_line(getattr(error, 'problem_mark', None))}: {getattr(error, 'problem', None) or error}: mend the file"
        ) from error
    except ValueError as error:  # a tag that its text contradicts, or a number of thousands of digits
        raise RegionFileError(f"{name} holds a value that cannot be read ({error}): mend it") from error


def _refuse_bombs(text: str, name: str) -> None:
    """Raise RegionFileError where a text would grow or nest without measure when it is loaded."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RegionFileError(
                f"{name}{_line(event.start_mark)} uses an anchor or alias: write the value out"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise RegionFileError(
                f"{name}{_line(event.start_mark)} nests deeper than {_MAX_DEPTH} levels: mend the brackets"
            )


def _line(mark: Any) -> str:
    return f" line {mark.line + 1}" if mark is not None else ""


def read_yaml(path: Path) -> Any:
    """Return the plain values of a YAML file; raises RegionFileError when it is missing or not a file of ours."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RegionFileError(f"{path} cannot be read ({error.strerror}): check the path") from error
    try:
        return parse_yaml(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise RegionFileError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


def dump_yaml(value: Any) -> str:
    """Return YAML of plain values in the order of their keys."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)

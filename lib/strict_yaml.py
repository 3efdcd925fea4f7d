"""YAML as studies are written: text, numbers, yes or no, lists, and keys with values.

What YAML would read otherwise than it was meant, or not at all, is refused: a key that is there
twice, dates and other types, values that contain themselves. Numbers may be written as 3e-4, and
what stands in quotes is text.
"""

import math
import re
from typing import Any

import yaml

from lib.errors import UserError

LONGEST = 200_000  # characters of a file
MOST = 50_000  # values, each counted wherever an alias stands for it
TAG = "tag:yaml.org,2002:"
KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
# Numbers as people mean them: to YAML 1.1, 010 is 8 and 1:30 is 90, while 3e-4 is text.
INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$")
FLOAT = re.compile(
    r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?[0-9]+[eE][-+]?[0-9]+$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, with fewer types."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError):  # such as of !!int ""
            words = f"'{node.value[:40]}' is no {node.tag.removeprefix(TAG)}"
            raise yaml.constructor.ConstructorError(None, None, words, node.start_mark) from None

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float | str:
        found = super().construct_yaml_float(node)
        # Too large for a number, as a commit's 12e4567 is.
        return found if math.isfinite(found) else node.value


_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(TAG) in KINDS
}
_Loader.add_constructor(f"{TAG}float", _Loader.construct_yaml_float)
_Loader.yaml_implicit_resolvers = {
    first: [one for one in found if one[0].removeprefix(TAG) in ("null", "bool", "merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in (("int", INT), ("float", FLOAT)):
    _Loader.add_implicit_resolver(f"{TAG}{_tag}", _pattern, list("-+.0123456789"))


def load(text: str) -> Any:
    """What the text says, of the kinds above.

    Raises UserError, one line with the key or the line, for what cannot be read or has another
    meaning than it seems to have."""
    if len(text) > LONGEST:
        raise UserError(f"is longer than {LONGEST:,} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, (), {}, ())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).replace(' in "<unicode string>",', "").split())
        raise UserError(f"not readable as YAML: {reason}") from None
    except RecursionError:
        raise UserError("not readable as YAML: nested too deeply") from None


def _check(
    node: yaml.Node, key: tuple[str, ...], sizes: dict[yaml.Node, int], above: tuple[yaml.Node, ...]
) -> int:
    """The number of values in a node. key: where it stands; sizes: of those seen before; above:
    those that it stands in.

    Raises UserError for a key twice, a key that is no text, text that no file can hold, a number
    that is not finite, and values that contain themselves or are too many."""
    if node in above:
        raise _mistake(key, "contains itself")
    if node not in sizes:
        inner = {}
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node, key)
        elif isinstance(node, yaml.SequenceNode):
            inner = {(*key, str(i)): one for i, one in enumerate(node.value)}
        else:
            inner = _values(node, key)
        sizes[node] = 1 + sum(
            _check(one, where, sizes, (*above, node)) for where, one in inner.items()
        )
        if sizes[node] > MOST:
            raise _mistake(key, f"has more than {MOST:,} values")
    return sizes[node]


def _check_scalar(node: yaml.ScalarNode, key: tuple[str, ...]) -> None:
    if node.tag == f"{TAG}float" and node.value.lower().lstrip("+-") in (".inf", ".nan"):
        raise _mistake(key, f"a number must be finite, not {node.value}")
    try:
        node.value.encode()
    except UnicodeEncodeError:
        raise _mistake(key, f"holds half a character, {node.value!r}") from None
    if "\0" in node.value:
        raise _mistake(key, f"holds the character NUL, {node.value!r}")


def _values(node: yaml.MappingNode, key: tuple[str, ...]) -> dict[tuple[str, ...], yaml.Node]:
    """The values of a mapping by where they stand."""
    found: dict[tuple[str, ...], yaml.Node] = {}
    lines: dict[tuple[str, ...], int] = {}
    for name, value in node.value:
        where = (*key, str(name.value)[:40])
        if name.tag not in (f"{TAG}str", f"{TAG}merge"):
            raise _mistake(where, "keys must be text")
        _check_scalar(name, where)
        line = name.start_mark.line + 1
        if where in found:
            raise _mistake(where, f"is there twice, lines {lines[where]} and {line}", "")
        found[where], lines[where] = value, line
    return found


def _mistake(key: tuple[str, ...], words: str, after: str = ":") -> UserError:
    return UserError(f"key '{'.'.join(key)}'{after} {words}")

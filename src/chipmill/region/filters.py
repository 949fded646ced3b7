"""The language of ``imagery.filter``: CQL2 text, parsed when the region file is read.

The parser is the cql2 package's. It is compiled code without a limit of its own, in which a long chain of brackets or
operators ends the process, so its input is limited here. How items are compared: :mod:`chipmill.imagery.filtering`.
"""

import re
from functools import lru_cache
from typing import Any, Final

MAX_CHARS: Final = 16_000
MAX_SIGNS: Final = 1000
"""Characters outside of quoted texts: chains of a few thousand overflow the parser's stack."""
MAX_DEPTH: Final = 32
"""Of brackets within brackets, and of conditions within conditions."""
_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*\"""")
_LOGIC: Final = frozenset({"and", "or", "not"})
_COMPARISONS: Final = frozenset({"=", "<>", "<", "<=", ">", ">=", "isNull", "like", "between", "in"})
_TERMS: Final = frozenset({"+", "-", "*", "/", "%", "^", "div", "casei", "accenti"})
_PLACES: Final = frozenset(
    f"s_{name}"
    for name in (
        "intersects", "equals", "disjoint", "touches", "within", "overlaps", "crosses", "contains",
    )
)  # fmt: skip
_TIMES: Final = frozenset(
    f"t_{name}"
    for name in (
        "after", "before", "contains", "disjoint", "during", "equals", "finishedBy", "finishes", "intersects", "meets",
        "metBy", "overlappedBy", "overlaps", "startedBy", "starts",
    )
)  # fmt: skip
_ARRAYS: Final = frozenset({"a_contains", "a_containedBy", "a_equals", "a_overlaps"})
_KNOWN: Final = {name.lower() for name in _LOGIC | _COMPARISONS | _TERMS | _PLACES | _TIMES | _ARRAYS}
_CONDITIONS: Final = {name.lower() for name in _LOGIC | _COMPARISONS | _PLACES | _TIMES | _ARRAYS}


@lru_cache(maxsize=64)
def parse_filter(text: str) -> Any:
    """Return CQL2 text as its JSON form: nested ``{"op": name, "args": [...]}``.

    Raises ValueError, in one sentence, for what is no CQL2, too long or too deep, no condition, or a function that no
    item could be compared by.
    """
    import cql2

    bare = _QUOTED.sub("", text)
    if len(text) > MAX_CHARS or len(bare) > MAX_SIGNS or _depth(bare) > MAX_DEPTH:
        raise ValueError(
            f"is longer than {MAX_CHARS:,} characters, {MAX_SIGNS:,} of them outside of quotes, or has more than "
            f"{MAX_DEPTH} brackets within each other: shorten it"
        )
    try:
        found: Any = cql2.parse_text(text).to_json()
    except cql2.ParseError as error:
        place = str(error).split("-->")[-1].split()[:1]
        raise ValueError(
            f"is no CQL2 text at line:column {''.join(place)}: write for example "
            "eo:cloud_cover < 60 AND platform = 'sentinel-2a'"
        ) from error
    _check(found)
    if not isinstance(found, dict) or str(found.get("op")).lower() not in _CONDITIONS:
        raise ValueError("is no condition: compare a property, as in eo:cloud_cover < 60")
    return found


def _depth(text: str) -> int:
    deepest = depth = 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        deepest = max(deepest, depth)
    return deepest


def _check(node: Any) -> None:
    """Refuse what is too deep, and operators that are not CQL2's own: unknown for every item, they leave all out."""
    todo = [(node, 0)]
    while todo:
        one, depth = todo.pop()
        if depth > 2 * MAX_DEPTH:  # an operator and its list of arguments
            raise ValueError(f"has more than {MAX_DEPTH} conditions within each other: shorten it")
        if isinstance(one, list):
            todo += [(part, depth + 1) for part in one]
        elif isinstance(one, dict):
            if "op" in one and str(one["op"]).lower() not in _KNOWN:
                raise ValueError(f"{one['op']!r} is no function that items can be compared by: leave it out")
            todo.append((one.get("args", []), depth + 1))

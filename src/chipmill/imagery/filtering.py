"""Which items meet a condition in CQL2, decided here: what a server says of it is never the last word.

The language is that of :mod:`chipmill.region.filters`. As in SQL a comparison with a property that an item lacks, or
that is of another type, is neither true nor false: such an item does not meet the condition, and is counted apart.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from chipmill.region.filters import parse_filter

_COMPARED: Final = ("type", "id", "collection", "geometry", "bbox", "properties")
"""What a condition can speak of: assets and links are not turned into what the evaluator needs."""


def meets(text: str, raw: Mapping[str, Any]) -> bool | None:
    """Tell whether a raw item meets a condition; None where that is unknown.

    Args:
        text: CQL2 text; ValueError as :func:`parse_filter` raises it.
        raw: the item as parsed JSON. Numbers are compared as numbers, texts as texts, times as instants.
    """
    expression = _expression(text)
    item = {key: raw[key] for key in _COMPARED if key in raw}
    try:
        found = expression.reduce(item).to_json()
    except Exception:  # noqa: BLE001 - the compiled evaluator raises nothing finer, for what no item should hold
        return None
    return found if isinstance(found, bool) else None


@lru_cache(maxsize=64)
def _expression(text: str) -> Any:
    import cql2

    parse_filter(text)
    return cql2.parse_text(text)

"""Asking a STAC API: one search, paged to its end, retried where that helps, and held to what it said it has.

pystac-client by itself retries no POST and has no timeout, stops at an empty page, and follows a page that links to
itself for ever; so the paging is done here, over its transport. What of a condition is sent: :mod:`.pushdown`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from chipmill.core.errors import ItemSearchError
from chipmill.core.redact import redact
from chipmill.imagery.items import links_of
from chipmill.imagery.pushdown import Mode, pushed

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

TIMEOUT_S: Final = (10.0, 60.0)
"""Seconds to connect, and between two bytes of an answer."""
RETRY: Final[Mapping[str, Any]] = {
    "total": 6,
    "backoff_factor": 1,
    "backoff_jitter": 1,
    "status_forcelist": [429, 500, 502, 503, 504],
    "allowed_methods": None,  # also POST, which is how a search is asked
    "retry_after_max": 300,
}
PAGE_ITEMS: Final = 250
_REFUSALS: Final = frozenset({400, 404, 405, 415, 422, 501})
"""Statuses with which servers answer to a condition that they do not take."""


def search_api(
    url: str,
    *,
    collection: str | None,
    datetime: str,
    bbox: Sequence[float] | None = None,
    intersects: Mapping[str, Any] | None = None,
    condition: Mapping[str, Any] | None = None,
    pushdown: Mode = "auto",
    tell: Callable[[str], object] = lambda _: None,
) -> list[Mapping[str, Any]]:
    """Return the raw items of one search, duplicates of overlapping pages included.

    Args:
        url: base URL of the API; as a Root it knows where it may lead and who asks.
        collection: its id; None asks all collections.
        datetime: RFC 3339 interval with closed ends, as servers understand it: filter again.
        bbox: west, south, east, north in degrees, or
        intersects: a GeoJSON geometry.
        condition: CQL2 JSON; what the API understands of it is sent, and nothing where it refuses that, or then finds
            nothing at all. The answer may hold items that do not meet it: filter again.
        pushdown: which of its extensions is used.
        tell: is called with what was sent of the condition, one sentence.

    Raises:
        ItemSearchError: no answer, an answer that is no FeatureCollection, a page that comes twice, a next link to
            another host, or fewer items than the API said it has.
    """
    import warnings

    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.warnings import PystacClientWarning

    transport = _transport(url)
    area = {"intersects": intersects} if intersects is not None else {"bbox": bbox}
    try:
        with warnings.catch_warnings():
            # What an API fails to conform to is found out by what it answers, which is checked below.
            warnings.simplefilter("ignore", PystacClientWarning)
            # Client.open overwrites the transport's timeout, so it is said here again.
            client = Client.open(url, stac_io=transport, timeout=TIMEOUT_S)
            # Else it asks for the landing page again, where that spells the link to itself otherwise than the region.
            client.set_root(client)
            search = client.search(
                collections=[collection] if collection else None, datetime=datetime, limit=PAGE_ITEMS, **area
            )

        def ask(more: Mapping[str, Any]) -> list[Mapping[str, Any]]:
            parameters = {**search.get_parameters(), **more}
            return _gather(_pages(transport, search.url, search.method or "POST", parameters), redact(url))

        classes = client.extra_fields.get("conformsTo")
        sent = pushed(condition, map(str, classes) if isinstance(classes, list) else (), pushdown)
        if not sent.body:
            return ask({})
        try:
            found = ask(sent.body)
        except APIError as error:
            if getattr(error, "status_code", None) not in _REFUSALS:
                raise
            tell(
                "the server refused the conditions that it was sent: asked again without, all evaluated here"
            )
            return ask({})
        # Some servers silently answer with nothing to a condition that they do not understand.
        tell(sent.told if found else f"{sent.told}: it found nothing, and was asked again without")
        return found or ask({})
    except (APIError, ValueError, KeyError, NotImplementedError, PystacClientWarning) as error:
        raise ItemSearchError(
            f"{redact(url)} did not answer a search ({redact(' '.join(str(error).split()))[:300]}): "
            "check the URL and whether it is a STAC API with item search, and try again later"
        ) from error


def collection_boxes(url: str, collection: str | None) -> list[tuple[float, float, float, float]]:
    """Return the boxes (west, south, east, north in degrees) that a collection says it covers; none where it says none.

    ``url`` is that of :func:`search_api`. Raises ItemSearchError when the API does not have the collection, or does
    not answer.
    """
    from pystac_client.exceptions import APIError

    if collection is None:
        return []
    transport = _transport(url)
    try:
        found = transport.read_json(f"{url.rstrip('/')}/collections/{quote(collection, safe='')}")
        boxes = found["extent"]["spatial"]["bbox"]
        # of six numbers the third and the last are heights
        flat = [(*box[:2], *(box[3:5] if len(box) == 6 else box[2:4])) for box in boxes]
        return [(float(west), float(south), float(east), float(north)) for west, south, east, north in flat]
    except (KeyError, TypeError, IndexError):
        return []
    except (APIError, ValueError) as error:
        raise ItemSearchError(
            f"{redact(url)} does not have the collection {collection} "
            f"({redact(' '.join(str(error).split()))[:300]}): check source.collection"
        ) from error


def fetch_item(root: str, url: str) -> Mapping[str, Any]:
    """Return the item at a URL on the host of an API; ``root`` is that of :func:`search_api`.

    Raises ItemSearchError when it leads elsewhere, does not answer, or is no item.
    """
    from pystac_client.exceptions import APIError

    transport = _transport(root)
    try:
        found: Any = transport.read_json(url)
    except (APIError, ValueError, TypeError) as error:
        raise ItemSearchError(
            f"{redact(url)} cannot be read ({redact(' '.join(str(error).split()))[:300]}): mend the link, or try again later"
        ) from error
    if not isinstance(found, Mapping) or found.get("type") != "Feature":
        raise ItemSearchError(f"{redact(url)} is no STAC item: expected a Feature: mend the link")
    return found


def _transport(root: str) -> "StacApiIO":
    """Return what asks an API, and nobody else, with our waits and retries."""
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.util import Retry

    from chipmill.imagery.session import source_session

    transport = StacApiIO(timeout=TIMEOUT_S)
    source_session(transport.session, root, Retry(**RETRY))
    return transport


def _pages(transport: Any, url: str, method: str, parameters: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield page after page, also beyond an empty one, as long as there is a next link."""
    from pystac import Link

    page = transport.read_json(url, method=method, parameters=parameters)
    while True:
        yield page
        links = links_of(page, redact(url))
        following = next((link for link in links if link.get("rel") == "next"), None)
        if following is None:
            return
        target = str(following.get("href") or "")
        if (urlsplit(target).scheme, urlsplit(target).netloc) != (urlsplit(url).scheme, urlsplit(url).netloc):
            raise ItemSearchError(
                f"{redact(url)} sends its next page to {redact(target)}: "
                "another host is not followed: use the URL that the API itself names"
            )
        page = transport.read_json(Link.from_dict(dict(following)), parameters=parameters)


def _gather(pages: Iterator[Any], name: str) -> list[Mapping[str, Any]]:
    items: list[Mapping[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    matched: int | None = None
    for number, page in enumerate(pages, 1):
        features = page.get("features") if isinstance(page, Mapping) else None
        if not isinstance(features, list):
            raise ItemSearchError(
                f"{name} answered page {number} without features: expected a FeatureCollection"
            )
        if matched is None:
            matched = _matched(page)
        ids = tuple(
            f"{one.get('collection')}/{one.get('id')}" for one in features if isinstance(one, Mapping)
        )
        mark = ids or (json.dumps(page.get("links"), sort_keys=True),)
        if mark in seen:
            raise ItemSearchError(
                f"{name} repeats page {number} ({len(ids)} items): its paging does not end: ask its operator, "
                "or save the items to a file and use that as source"
            )
        seen.add(mark)
        items += [one for one in features if isinstance(one, Mapping)]
    if matched is not None and len(items) < matched:
        raise ItemSearchError(
            f"{name} said that {matched} items match and gave {len(items)}: try again, or narrow the search"
        )
    return items


def _matched(page: Mapping[str, Any]) -> int | None:
    context = page.get("context")
    value = page.get("numberMatched", context.get("matched") if isinstance(context, Mapping) else None)
    return value if isinstance(value, int) else None

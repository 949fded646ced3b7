"""How a run ends when units failed: the product may stand, but the run is never shown or reported as a success."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from chipmill.core.errors import TilesFailedError

if TYPE_CHECKING:
    from pathlib import Path


class Committed(Protocol):
    """A product that knows how many of its units failed."""

    @property
    def path(self) -> "Path":
        """Its directory."""

    @property
    def failed(self) -> int:
        """Units that are not in it."""


class CommittedWithFailuresError(TilesFailedError):
    """Units failed and ``on_failed`` is commit: the product stands, with the list of them inside, and the run fails."""

    def __init__(self, message: str, product: Any) -> None:
        super().__init__(message)
        self.product = product

    def __reduce__(self) -> tuple[type, tuple[str, Any]]:
        return type(self), (str(self), self.product)


def whole[T: Committed](product: T, redo: str) -> T:
    """Return a committed product; raises CommittedWithFailuresError, which carries it, where units failed."""
    if product.failed:
        raise CommittedWithFailuresError(
            f"{product.failed} units failed, all others are committed in {product.path}, with the list inside: redo "
            f"only the failed ones with: {redo}",
            product,
        )
    return product


def conclude[T](value: T, lost: Iterable[CommittedWithFailuresError | None]) -> T:
    """End a flow of flows: return ``value``, or raise the first failure that one of its products is committed with."""
    first = next((one for one in lost if one is not None), None)
    if first is not None:
        raise CommittedWithFailuresError(str(first), value)
    return value

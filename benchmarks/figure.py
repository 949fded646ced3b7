"""One measured figure, and how it is printed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its goal; `holds` says whether the goal is met, None where there is none."""

    name: str
    value: float
    unit: str
    goal: str = ""
    holds: bool | None = None
    context: dict[str, object] = field(default_factory=dict)

    def line(self, *, as_json: bool) -> str:
        """Return the figure as one line, for machines or for people."""
        if as_json:
            return json.dumps(asdict(self), sort_keys=True)
        verdict = {True: "holds", False: "MISSED", None: ""}[self.holds]
        goal = f"  goal {self.goal}: {verdict}" if self.goal else ""
        return f"{self.name:48} {self.value:10.4g} {self.unit}{goal}"

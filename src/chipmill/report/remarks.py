"""What the sidecars of composites note for people: values that did not fit the stored type, offsets that are doubted."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from chipmill.core.store import read_sidecar
from chipmill.report.blocks import Text
from chipmill.report.numbers import count, percent


def composite_remarks(version: Path, sources: Iterable[str]) -> tuple[Text, ...]:
    """Return one sentence for each kind of remark that the composites of a version bear.

    Args:
        version: directory of the version.
        sources: paths of the rasters that its stacks name, relative to it; those without a note add nothing.
    """
    saturated: Counter[str] = Counter()
    doubtful: dict[str, float] = {}
    for name in sorted(set(sources)):
        sidecar = read_sidecar(Path(os.path.normpath(version / name)))
        noted = {} if sidecar is None else sidecar.extra
        if isinstance(cut_px := noted.get("saturated_px"), dict):  # a number is that of a static layer
            saturated.update(cut_px)
        for acquisition, share in noted.get("offset_doubtful", {}).items():
            doubtful[acquisition] = max(share, doubtful.get(acquisition, 0.0))
    texts = [
        Text(
            f"The offset of {acquisition} is doubted: after it up to {percent(share)} of its pixels in a tile are "
            "negative. See offset_override and offset_check.",
            "bad",
        )
        for acquisition, share in sorted(doubtful.items())
    ]
    if cut := {band: number for band, number in sorted(saturated.items()) if number}:
        bands = ", ".join(f"{band} {count(number)} px" for band, number in cut.items())
        texts.append(
            Text(
                f"Beyond the range of the stored type, and cut there: {bands}. See out of the imagery.", "bad"
            )
        )
    return tuple(texts)

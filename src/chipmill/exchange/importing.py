"""The end of every import: a cell directory with one version, which `open_dataset`, torch and verify take.

The file to change for where an imported dataset lies in its folder.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from chipmill.exchange.chips import Converted, ImportOptions, LabelCodes, usable
from chipmill.exchange.imported import write_dataset
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip, ImportFacts
from chipmill.exchange.origin import Origin
from chipmill.exchange.staging import new_folder


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What the chips of a source mean: all that an import needs beside them."""

    format: str
    bands: tuple[ImportedBand, ...]
    codes: LabelCodes
    sources: tuple[tuple[str, str], ...]
    """(relative name, sha256) of every file that was read."""
    origin: Origin | None = None
    """What the exported dataset says of itself, if it was one of ours."""


def commit_import(
    source: Path, out: Path, chips: Iterable[ImportedChip], meaning: Meaning, options: ImportOptions
) -> Converted:
    """Write chips as version 1, in force, of a new cell directory at ``out``.

    ``chips`` come split by split; what they raise passes, and what :func:`write_dataset` and :func:`new_folder` raise.
    """
    origin = meaning.origin
    own = [tuple(map(str, values)) for _, _, values in meaning.codes.classes]
    values = [one.values for one in origin.classes] if origin else own
    facts = ImportFacts(
        name=usable(options.name or (origin.name if origin else source.name), "imported"),
        format=meaning.format,
        bands=meaning.bands,
        classes=tuple((*one[:2], texts) for one, texts in zip(meaning.codes.classes, values, strict=True)),
        sources=meaning.sources,
        slots=origin.slots if origin else (),
    )
    with new_folder(out) as staging:
        manifest = write_dataset(staging / "versions" / "1", chips, facts)
        (staging / "CURRENT").write_text("1\n")
    told = manifest.certificate.warning if manifest.certificate else ""
    return Converted(out, manifest.counts.written, (told,) if told else ())

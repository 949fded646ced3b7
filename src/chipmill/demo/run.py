"""`chipmill demo`: the embedded world, served by the local STAC API, through dataset, model and map to the reports.

A second call finds everything in place, says so and does nothing. To try other parameters, edit the YAML files that
the demo leaves behind and give them to `chipmill run`; to change what a size means, change SIZES here.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

from chipmill.core.store import write_text
from chipmill.demo.api import serve
from chipmill.demo.world import World, make_world
from chipmill.orchestration.jobs import Job
from chipmill.orchestration.progress import Listener, Stopwatch, listening
from chipmill.orchestration.run import RunSummary, run_job
from chipmill.region.config import Region
from chipmill.region.fields import Source
from chipmill.region.load import load_predict, load_region, load_train

SIZES: Final[dict[str, dict[str, Any]]] = {
    "small": {
        "slots": "n: 2", "tile_px": 256, "stride_px": 32, "block_px": 128, "buffer_px": 0, "shard_mb": 4,
        "preset": "small", "epochs": 6, "batch_size": 8,
    },
    "medium": {
        "slots": "every: P3M", "tile_px": 512, "stride_px": 64, "block_px": 256, "buffer_px": 0, "shard_mb": 16,
        "preset": "small", "epochs": 24, "batch_size": 16,
    },
    "large": {
        "slots": "every: P3M", "tile_px": 1024, "stride_px": 64, "block_px": 512, "buffer_px": 64, "shard_mb": 64,
        "preset": "small", "epochs": 20, "batch_size": 32,
    },
}  # fmt: skip
"""Parameters of the region and of the training for each size of the world."""

_TEMPLATES: Final = Path(__file__).parent / "templates"
_FILES: Final = ("region.yaml", "train.yaml", "predict.yaml")

type Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What the demo starts from."""

    world: World
    region: Path
    train: Path
    predict: Path


def prepare(out: Path, size: str, seed: int, say: Say) -> DemoFiles:
    """Make the world and the three parameter files in ``out``; files beside an unchanged world stay as they are.

    Raises BadInputError for an unknown size, or where ``out`` holds another world that is not the demo's.
    """
    stamp = out / "world" / "world.json"
    before = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    if not before:
        say(f"making a simulated region ({size}, seed {seed}) in {stamp.parent}")
    world = make_world(stamp.parent, size, seed)
    same = stamp.read_text(encoding="utf-8") == before
    values = SIZES[size] | {
        "side": world.shape[0],
        "seed": seed,
        "file": "region.yaml",
        "collection": world.collection,
        "mask": world.mask,
        "classes": ", ".join(f"{value}: {name}" for value, name in world.classes.items()),
    }
    for name in _FILES:
        if not (same and (out / name).exists()):
            write_text(
                out / name, Template((_TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)
            )
    return DemoFiles(world, *(out / name for name in _FILES))


def through_api(region: Region, url: str) -> Region:
    """Return the region with its imagery asked from a STAC API; the endpoint is in no fingerprint."""
    return region.model_copy(
        update={
            "imagery": tuple(
                one.model_copy(update={"source": Source(stac=url, collection=one.source.collection)})
                for one in region.imagery
            )
        }
    )


@dataclass(frozen=True, slots=True)
class Demo:
    """How the demo ended."""

    files: DemoFiles
    summary: RunSummary
    seconds: Mapping[str, float]
    """Wall time of the world and of each step of the flow."""

    def story(self) -> list[str]:
        """Return what was made and where to look, line by line."""
        data, model, mapped = self.summary.dataset, self.summary.model, self.summary.map
        lines = [
            f"world    {len(self.files.world.dates)} passes over {self.files.world.shape[0]} px in {self.files.world.root}"
        ]
        if data is not None:
            lines.append(f"dataset  {data.chips:,} chips in {data.shards} shards in {data.path}")
        if model is not None:
            score = "" if model.miou is None else f", mIoU {model.miou:.3f} on held-out blocks"
            lines.append(f"model    {model.name}@{model.version}{score} in {model.path}")
        if mapped is not None:
            lines.append(f"map      of {mapped.region} in {mapped.path}")
        return [line.replace(f"{Path.cwd()}/", "") for line in lines]


def make_demo(out: Path, size: str, seed: int, say: Say, listener: Listener | None = None) -> Demo:
    """Make the world, serve it from the local STAC API on the loopback interface, and run everything over it.

    Raises what the library raises; failed units end in a summary with exit code 3.
    """
    began = time.monotonic()
    files = prepare(out, size, seed, say)
    seconds = {"world": time.monotonic() - began}
    watch = Stopwatch()
    with serve([files.world.catalog]) as api, listening(watch):
        region = through_api(load_region(files.region), api.url)
        job = Job("refresh", region, load_train(files.train), load_predict(files.predict))
        summary = run_job(job, load_refresh, on_progress=listener)
    seconds |= {step.step: taken for step, taken in watch.rows()}
    return Demo(files, summary, seconds)


def load_refresh() -> Any:
    """Return the flow that does everything; importing it imports Prefect."""
    from chipmill.flows.refresh_region import refresh_region

    return refresh_region

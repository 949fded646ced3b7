"""The commands that lead from a region to a dataset, a model and a map; each is thin."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from chipmill.cli.application import app
from chipmill.cli.console import Json, terminal

RegionFile = Annotated[Path, typer.Argument(help="Region file (YAML).", metavar="REGION")]
TrainOption = Annotated[
    Path | None, typer.Option("--train", help="Train file: also train this model.", metavar="FILE")
]
PredictOption = Annotated[
    Path | None, typer.Option("--predict", help="Predict file: also make the map.", metavar="FILE")
]
New = Annotated[
    bool, typer.Option("--new", help="Give up an open attempt and take a new answer of the search.")
]


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the region, e.g. savinja.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: NAME.yaml].", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented region file: every field with its default; five are to be filled in."""
    with terminal(as_json) as view:
        from chipmill.cli.template import write_template

        path = write_template(name, out or Path(f"{name}.yaml"), force=force)
        view.say(f"wrote {path}: fill in the five fields marked FILL IN, then: chipmill plan {path}")
        view.result({"ok": True, "path": str(path)})


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of the archive.", metavar="DIR")],
    pattern: Annotated[
        str,
        typer.Option(
            help="Where its files are below DIR, e.g. {date:%Y%m%d}_{tile}_{band}.tif", metavar="TEXT"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: DIR/items.parquet].", metavar="FILE")
    ] = None,
    collection: Annotated[str | None, typer.Option(help="Collection of the items [default: files].")] = None,
    checksums: Annotated[
        bool,
        typer.Option("--checksums", help="Hash every file: one changed at the same size is then noticed."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List an archive without STAC as stac-geoparquet, by the names and headers of its files; no pixel is read."""
    with terminal(as_json) as view:
        from chipmill.cli.index import write_index

        write_index(view, folder, pattern, out, collection, checksums=checksums)


@app.command()
def plan(region: RegionFile, as_json: Json = False) -> None:
    """Say what a run would read, make and take, from geometry and one search; no pixel is read."""
    with terminal(as_json) as view:
        from chipmill.cli.work import show_plan

        show_plan(view, region)


@app.command()
def run(
    region: RegionFile,
    train: TrainOption = None,
    predict: PredictOption = None,
    new: New = False,
    as_json: Json = False,
) -> None:
    """Bring a region up to date: dataset, then model and map where asked. Only what is missing or changed is made."""
    with terminal(as_json) as view:
        from chipmill.cli.work import run_region

        run_region(view, "refresh", region, train, predict, new=new)


@app.command()
def build(region: RegionFile, new: New = False, as_json: Json = False) -> None:
    """Build the dataset of a region: composites, stacks, chips, shards. A second call redoes only what failed."""
    with terminal(as_json) as view:
        from chipmill.cli.work import run_region

        run_region(view, "build", region, None, None, new=new)


@app.command()
def select(
    region: RegionFile,
    redeal: Annotated[
        bool,
        typer.Option(
            "--redeal",
            help="Deal the split blocks of the region anew: places that a model was trained on may become its test.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Re-cut or re-split the dataset in force by the rules `dataset` of its file, as a new version; no imagery is read."""
    with terminal(as_json) as view:
        from chipmill.cli.select import run_select

        run_select(view, region, redeal=redeal)


@app.command()
def train(
    file: Annotated[Path, typer.Argument(help="Train file (YAML).", metavar="TRAIN")], as_json: Json = False
) -> None:
    """Train a model on the datasets in force of its regions, and evaluate it on their held-out blocks."""
    with terminal(as_json) as view:
        from chipmill.cli.work import run_training

        run_training(view, file)


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="Predict file (YAML).", metavar="PREDICT")],
    as_json: Json = False,
) -> None:
    """Map the regions of a predict file with the model that it names."""
    with terminal(as_json) as view:
        from chipmill.cli.work import run_prediction

        run_prediction(view, file)


@app.command()
def backfill(  # noqa: PLR0913, PLR0917 - the options of a command
    flow: Annotated[
        Literal["build_dataset", "predict_map", "refresh_region"],
        typer.Argument(help="What is run for each cell.", metavar="FLOW"),
    ],
    regions: Annotated[list[Path], typer.Argument(help="Region files (YAML).", metavar="REGION...")],
    time_range: Annotated[
        list[str] | None,
        typer.Option(
            help="Period of the cells, the end excluded, as 2019-01-01--2020-01-01; repeatable. Without it: as in the files.",
            metavar="START--END",
        ),
    ] = None,
    train: TrainOption = None,
    predict: PredictOption = None,
    at_once: Annotated[int, typer.Option(help="Most cells at the same time.")] = 1,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Pass over cells that did not fail before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate each cell; nothing is started, no pixel is read.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring many cells up to date, region files x periods; one that fails never stops the others."""
    with terminal(as_json) as view:
        from chipmill.cli.backfill import Asked, run_backfill

        spans = tuple(time_range or ())
        run_backfill(view, Asked(flow, tuple(regions), spans, train, predict, at_once, only_failed, dry_run))


@app.command()
def demo(
    size: Annotated[
        Literal["small", "medium", "large"], typer.Option(help="Side of the region: 512, 1536, 4096 px.")
    ] = "medium",
    out: Annotated[Path, typer.Option(help="Directory to work in.", metavar="DIR")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the simulated region.")] = 8,
    as_json: Json = False,
) -> None:
    """Simulate a region, serve it from a local STAC API, and make dataset, model, map and reports from it."""
    with terminal(as_json) as view:
        from chipmill.cli.work import run_demo

        run_demo(view, out, size, seed)

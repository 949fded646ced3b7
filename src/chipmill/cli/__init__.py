"""The command line: one thin function per command; what a command shows is in the files beside this one.

- console   errors as one sentence, ``--json``, tables
- progress  bars and lines while a job works
- work      the commands that run a flow: run, build, train, predict, demo
- places    what a path on the command line means
- index     `index`
- standing  `status`
- backfill  many cells
- up        the service in the foreground
- template  the file that `init` writes

Exit codes: 0 done, 1 failed, 2 bad input, 3 finished with failed units; `verify`: 0 good, 1 bad, 10 not a dataset,
11 locked. Heavy imports stand inside the commands: `chipmill --help` must answer at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from chipmill.cli.console import Json, terminal

_HELP = """From satellite archives to chips, a trained segmentation model and a map.

A region file says where, when and from what. Begin with `chipmill demo`, or with `chipmill init NAME` and
`chipmill plan NAME.yaml`; `chipmill run NAME.yaml` then makes what is missing, and only that.
"""

app = typer.Typer(
    name="chipmill",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # the traceback of a defect is shown as it is
    context_settings={"help_option_names": ["-h", "--help"]},
)

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


@app.callback()
def _keep_secrets() -> None:
    from chipmill.core.redact import install

    install()


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
def verify(
    path: Annotated[Path, typer.Argument(help="Region file, version or cell of a dataset.")],
    data: Annotated[bool, typer.Option("--data", help="Read and hash every file.")] = False,
    subset: Annotated[
        str | None,
        typer.Option("--data-subset", help="Hash so much of the files, drawn anew each time, e.g. 5%."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a dataset against its manifest; nothing is repaired. Exit 0 good, 1 bad, 10 not a dataset, 11 locked."""
    with terminal(as_json) as view:
        from chipmill.cli.checks import check_dataset

        raise typer.Exit(check_dataset(view, path, data=data, subset=subset))


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="Region file, or version of a dataset, a model or a map.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.", metavar="FILE")] = Path("report.html"),
    dataset: Annotated[
        list[Path] | None,
        typer.Option(help="For a model: a dataset to show its predictions on.", metavar="PATH"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the page of a dataset, a model or a map anew, outside its version, which is never touched."""
    with terminal(as_json) as view:
        from chipmill.cli.checks import draw_report

        draw_report(view, path, out, dataset or [])


@app.command()
def status(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Region files, or output directories. Without any: out.", metavar="PATH..."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show where each cell stands, region by period: version in force, open attempt, units failed, who works on it."""
    with terminal(as_json) as view:
        from chipmill.cli.checks import show_status

        show_status(view, paths or [Path("out")])


@app.command()
def up(
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1 [default: a free one].", show_default=False)
    ] = 0,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Directory below which the paths of runs may lie; repeatable, relative paths begin in the first "
            "[default: CHIPMILL_ROOTS, else the working directory].",
            metavar="DIR",
        ),
    ] = None,
    deployments: Annotated[
        Path | None,
        typer.Option(help="File of deployments [default: deployments/prefect.yaml].", metavar="FILE"),
    ] = None,
    at_once: Annotated[int, typer.Option(help="Runs at the same time; each takes the whole machine.")] = 1,
    as_json: Json = False,
) -> None:
    """Start the workflow server with its screen, deployments and workers, and keep them until Ctrl-C."""
    with terminal(as_json) as view:
        from chipmill.cli.up import run_service

        run_service(view, port, root or [], deployments, at_once)


@app.command()
def doctor(
    output: Annotated[
        Path | None, typer.Option(help="Directory that runs shall write to.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at this machine: Python, GDAL, PROJ, ports, disk. Exit 1 where runs would fail or lie."""
    with terminal(as_json) as view:
        from chipmill.cli.checks import show_checks

        raise typer.Exit(show_checks(view, output))


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

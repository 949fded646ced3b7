"""The commands for what stands: check it, show it, and keep the service up; each is thin."""

from pathlib import Path
from typing import Annotated

import typer

from chipmill.cli.application import app
from chipmill.cli.console import Json, terminal


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

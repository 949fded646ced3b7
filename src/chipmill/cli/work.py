"""The commands that work: they read the files, name the flow, and show how the job goes and ends."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from chipmill.cli.console import Terminal
from chipmill.cli.places import shown
from chipmill.cli.progress import bars
from chipmill.core.errors import BadInputError
from chipmill.region.load import load_predict, load_region, load_train

if TYPE_CHECKING:
    from chipmill.orchestration.jobs import Job, Kind
    from chipmill.orchestration.run import RunSummary

TILE_KINDS: Final = {
    "lattice": "of the grid, touching the area",
    "label-items": "one for each label item",
    "file": "one for each polygon of the file",
    "points": "of the grid, below the chips of the points",
}
"""What tiles are, by where they come from."""


def show_plan(view: Terminal, file: Path) -> None:
    """Show the bill of a region: bounds from its geometry and from one search; then refuse what a run would refuse."""
    from chipmill.dataset.outlook import look_ahead
    from chipmill.dataset.preflight import check_region
    from chipmill.imagery.bill import bill_of
    from chipmill.imagery.catalog import find_items
    from chipmill.imagery.planning import place_tiles
    from chipmill.report.numbers import count, duration, size

    region, tiles = place_tiles(load_region(file))
    answer = find_items(region, tiles)
    bill = bill_of(region, tiles, answer)
    rows = [
        ("tiles", count(bill.tiles), TILE_KINDS[region.tiles.from_]),
        ("items", count(bill.items), "found by one search"),
        ("to read", size(bill.read_bytes), "at most, uncompressed"),
        ("chips", count(bill.chips), f"at most; {count(bill.windows)} windows are looked at"),
        ("shards", count(bill.shards), f"of about {region.dataset.shards.target_mb:g} MB"),
        ("to write", size(bill.write_bytes), "at most, uncompressed"),
        ("time", duration(60 * bill.minutes), "at the planning rate of two cores"),
    ]
    view.table(("What", ">Bound", "How it is meant"), rows, f"{region.name}: nothing was read or written")
    remarks = check_region(region, tiles, answer)
    for remark in remarks:
        view.say(remark, "yellow")
    splits = look_ahead(region, tiles) if region.labels is not None else None
    if splits is not None:
        view.say(f"{region.name}: {splits.told(region.dataset.splits.by)}")
    facts = {**asdict(bill), "splits": splits and asdict(splits), "remarks": remarks}
    view.result({"ok": True, "region": region.name, **facts})


def run_region(
    view: Terminal, kind: "Kind", file: Path, train: Path | None, predict: Path | None, *, new: bool
) -> None:
    """Bring a region up to date, or only build its dataset; exits with 3 where units failed."""
    from chipmill.orchestration.jobs import Job

    job = Job(
        kind,
        load_region(file),
        load_train(train) if train else None,
        load_predict(predict) if predict else None,
    )
    _finish(view, [_work(view, job, new=new)])


def run_training(view: Terminal, file: Path) -> None:
    """Train the model of a train file."""
    from chipmill.orchestration.jobs import Job

    _finish(view, [_work(view, Job("train", train=load_train(file)))])


def run_prediction(view: Terminal, file: Path) -> None:
    """Map each region of a predict file in turn; exits with 3 where strips of one failed."""
    from chipmill.orchestration.jobs import Job

    config = load_predict(file)
    if not config.regions:
        raise BadInputError(f"{file}: regions is empty: name at least one region file to map")
    jobs = [Job("predict", load_region(config.resolve(region)), None, config) for region in config.regions]
    _finish(view, [_work(view, job) for job in jobs])


def run_demo(view: Terminal, out: Path, size: str, seed: int) -> None:
    """Run the demo and say what it made and where to look."""
    from chipmill.demo.run import make_demo
    from chipmill.report.numbers import duration

    with bars(view) as listener:
        demo = make_demo(out, size, seed, view.note, listener)
    summary = demo.summary
    if summary.changed:
        view.table(
            ("Stage", ">Time"), [(stage, duration(seconds)) for stage, seconds in demo.seconds.items()]
        )
    for text in demo.story():
        view.say(text)
    _finish(view, [summary])


def _work(view: Terminal, job: "Job", *, new: bool = False) -> "RunSummary":
    from chipmill.orchestration.run import run_job

    with bars(view) as listener:
        return run_job(
            job,
            lambda: load_flow(job.kind),
            new=new,
            on_progress=listener,
            tell=lambda text: view.say(text, "yellow"),
        )


def load_flow(kind: "Kind") -> Any:
    """Return the flow of a kind of job; importing it imports Prefect."""
    if kind == "build":
        from chipmill.flows.build_dataset import build_dataset

        return build_dataset
    if kind == "train":
        from chipmill.flows.train_model import train_model

        return train_model
    if kind == "predict":
        from chipmill.flows.predict_map import predict_map

        return predict_map
    from chipmill.flows.refresh_region import refresh_region

    return refresh_region


def _finish(view: Terminal, summaries: "list[RunSummary]") -> None:
    """Say how jobs ended and exit with the worst of their codes."""
    for summary in summaries:
        view.say(summary.message, "red" if summary.exit_code else "green")
        for lost in summary.failures[:20]:
            view.say(f"  failed: {lost.unit} in {lost.stage}: {lost.reason}", "red")
        if summary.redo:
            view.say(f"redo only what failed: {summary.redo}")
        for kind, page in pages(summary).items():
            view.say(f"  {kind:<8} {shown(page)}")
    code = max(summary.exit_code for summary in summaries)
    view.result({"ok": code == 0, "exit_code": code, "runs": [_facts(summary) for summary in summaries]})
    if code:
        raise typer.Exit(code)


def pages(summary: "RunSummary") -> dict[str, Path]:
    """Return the reports of what a job made or found in force."""
    products = {"dataset": summary.dataset, "model": summary.model, "map": summary.map}
    found = {kind: product.path / "report.html" for kind, product in products.items() if product is not None}
    return found | ({"run": summary.report} if summary.report else {})


def _facts(summary: "RunSummary") -> dict[str, Any]:
    return {
        "changed": summary.changed,
        "message": summary.message,
        "reports": {kind: str(page) for kind, page in pages(summary).items()},
        "failures": [asdict(lost) for lost in summary.failures],
        "redo": summary.redo,
    }

"""`chipmill convert`: datasets in the formats of other programs, in and out; one thin command per direction.

The commands for Earth Engine are in :mod:`chipmill.cli.earthengine`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chipmill.cli.application import app
from chipmill.cli.console import Json, Terminal, terminal

if TYPE_CHECKING:
    from chipmill.exchange.chips import Converted, ImportOptions

convert = typer.Typer(
    name="convert",
    help="Convert datasets from and to the formats of other programs; the output folder must not exist yet.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(convert)

Dataset = Annotated[
    Path, typer.Argument(help="Region file, or version of a dataset.", metavar="DATASET", show_default=False)
]
Folder = Annotated[
    Path, typer.Argument(help="Folder of the other program.", metavar="FOLDER", show_default=False)
]
Out = Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT", show_default=False)]
Name = Annotated[
    str | None, typer.Option(help="Name of the dataset; without it as the folder says.", metavar="NAME")
]
Date = Annotated[str | None, typer.Option(help="When the pictures are from, YYYY-MM-DD.", metavar="DATE")]
Split = Annotated[
    str, typer.Option(help="Split of a folder that is not divided into train, val and test.", metavar="SPLIT")
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        help="Label value and name, as 1=water; repeatable, in the order of the classes.",
        metavar="VALUE=NAME",
    ),
]
Ignore = Annotated[
    list[int] | None, typer.Option(help="Label value that means: not known; repeatable.", metavar="VALUE")
]
Bands = Annotated[
    list[str] | None,
    typer.Option("--band", help="Name of a band; repeatable, in their order.", metavar="NAME"),
]

Stored = Annotated[
    Literal["uint8", "int16", "uint16", "int32"],
    typer.Option("--to", help="Pixel type that lists of floats are stored as."),
]
Scales = Annotated[
    list[str] | None,
    typer.Option(
        "--scale",
        help="Band and scale, as ndvi=0.0001: stored value x scale = physical value; repeatable. A band without one "
        "must hold integers.",
        metavar="BAND=NUMBER",
    ),
]

Shares = Annotated[
    tuple[float, float, float] | None,
    typer.Option(
        help="Shares of train, val and test, as 0.7 0.15 0.15, for a folder that is not divided; chips that share ground "
        "stay together."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the order in which chips are dealt.")]


@convert.command("to-esri")
def to_esri(dataset: Dataset, out: Out, as_json: Json = False) -> None:
    """Write Esri Classified Tiles for ArcGIS, a folder for each split."""
    with terminal(as_json) as view:
        from chipmill.exchange.esri import export_esri

        show(view, export_esri(version_of(dataset), out), "chips")


@convert.command("from-esri")
def from_esri(  # noqa: PLR0913, PLR0917 - the options of a command
    folder: Folder,
    out: Out,
    name: Name = None,
    date: Date = None,
    split: Split = "train",
    shares: Shares = None,
    seed: Seed = 8,
    ignore: Ignore = None,
    band: Bands = None,
    as_json: Json = False,
) -> None:
    """Make a dataset of Esri Classified Tiles."""
    with terminal(as_json) as view:
        from chipmill.exchange.esri import import_esri

        options = import_options(name, date, split, None, ignore, band, (shares, seed))
        show(view, import_esri(folder, out, options), "chips")


@convert.command("to-folders")
def to_folders(dataset: Dataset, out: Out, as_json: Json = False) -> None:
    """Write pairs of GeoTIFFs, images/NAME.tif and labels/NAME.tif, a folder for each split."""
    with terminal(as_json) as view:
        from chipmill.exchange.folders import export_folders

        show(view, export_folders(version_of(dataset), out), "chips")


@convert.command("from-folders")
def from_folders(  # noqa: PLR0913, PLR0917 - the options of a command
    folder: Folder,
    out: Out,
    name: Name = None,
    date: Date = None,
    split: Split = "train",
    shares: Shares = None,
    seed: Seed = 8,
    classes: Classes = None,
    ignore: Ignore = None,
    band: Bands = None,
    as_json: Json = False,
) -> None:
    """Make a dataset of pictures in images/ and labels/, paired by name; one without a partner is an error."""
    with terminal(as_json) as view:
        from chipmill.exchange.folders import import_folders

        options = import_options(name, date, split, classes, ignore, band, (shares, seed))
        show(view, import_folders(folder, out, options), "chips")


@convert.command("dtype")
def dtype(  # noqa: PLR0913, PLR0917 - the options of a command
    tree: Annotated[Path, typer.Argument(help="Folder of GeoTIFFs, folders below it too.", metavar="TREE")],
    out: Out,
    to: Annotated[
        Literal["uint8", "int16", "uint16", "int32", "float32"], typer.Option(help="Pixel type to write.")
    ],
    scale: Annotated[float, typer.Option(help="Stored value x scale = physical value.")] = 1.0,
    nodata: Annotated[
        float | None,
        typer.Option(help="Value of no data; without it the lowest, of unsigned types the highest."),
    ] = None,
    band: Annotated[
        list[int] | None, typer.Option(help="Number of a band to take, from 1; repeatable; without it all.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="Put between name and ending of each file.")] = "",
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of names that are left out, as *_mask.tif or old/**; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a tree of GeoTIFFs in another pixel type; values that do not fit are counted, never wrapped."""
    with terminal(as_json) as view:
        from chipmill.exchange.dtypes import DtypeOptions, convert_dtype

        options = DtypeOptions(to, scale, nodata, tuple(band or ()), suffix, tuple(exclude or ()))
        show(view, convert_dtype(tree, out, options), "files")


@convert.command("from-dl-records")
def from_dl_records(  # noqa: PLR0913, PLR0917 - the options of a command
    folder: Folder,
    out: Out,
    name: Name = None,
    date: Date = None,
    split: Split = "train",
    classes: Classes = None,
    ignore: Ignore = None,
    band: Bands = None,
    to: Stored = "int16",
    scale: Scales = None,
    as_json: Json = False,
) -> None:
    """Make a dataset of TFRecords of dl_image_segmentation."""
    with terminal(as_json) as view:
        from chipmill.exchange.dl_records import import_dl_records
        from chipmill.exchange.ee_values import Storing, parse_scales

        options = import_options(name, date, split, classes, ignore, band)
        show(view, import_dl_records(folder, out, options, Storing(to, parse_scales(scale or ()))), "chips")


def version_of(path: Path) -> Path:
    """Return the version of a dataset that a path means; raises BadInputError for a model or a map."""
    from chipmill.cli.places import find_product
    from chipmill.core.errors import BadInputError

    found = find_product(path)
    if found.kind != "dataset":
        raise BadInputError(f"{path} is a {found.kind}: give a region file, or a version of a dataset")
    return found.path


def import_options(
    name: str | None,
    date: str | None,
    split: str,
    classes: list[str] | None,
    ignore: list[int] | None,
    bands: list[str] | None,
    dealing: tuple[tuple[float, float, float] | None, int] = (None, 8),
) -> "ImportOptions":
    """Return what the options of an import say; ``dealing`` is shares and seed."""
    from chipmill.exchange.chips import ImportOptions, parse_classes

    return ImportOptions(
        name, date, split, parse_classes(classes or ()), tuple(ignore or ()), tuple(bands or ()), *dealing
    )


def show(view: Terminal, done: "Converted", what: str) -> None:
    """Say what a conversion did."""
    view.say(f"wrote {done.chips:,} {what} to {done.out}")
    for note in done.notes:
        view.say(note, style="yellow")
    view.result({"ok": True, "path": str(done.out), what: done.chips, "notes": list(done.notes)})

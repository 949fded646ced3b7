"""`chipmill convert`, the commands for Earth Engine: chips and rasters, in and out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from chipmill.cli.console import Json, terminal
from chipmill.cli.convert import (
    Bands,
    Classes,
    Dataset,
    Date,
    Folder,
    Ignore,
    Name,
    Out,
    Scales,
    Split,
    Stored,
    convert,
    import_options,
    show,
    version_of,
)

ByteValues = Annotated[
    Literal["uint8", "int16", "uint16", "int32", "float32"] | None,
    typer.Option("--values", help="Type of the values in lists of bytes; without it uint8."),
]
Margin = Annotated[
    tuple[int, int] | None,
    typer.Option(help="Columns and rows beyond patchDimensions (kernelSize); found where they are equal."),
]


@convert.command("to-earthengine")
def to_earthengine(
    dataset: Dataset,
    out: Out,
    values: Annotated[
        Literal["float", "int64", "bytes"], typer.Option(help="List that holds the values of a band.")
    ] = "float",
    plain: Annotated[bool, typer.Option("--plain", help="Do not compress (gzip).")] = False,
    as_json: Json = False,
) -> None:
    """Write the chips as TFRecords of Earth Engine, a list for each band, a folder for each split."""
    with terminal(as_json) as view:
        from chipmill.exchange.earthengine_out import export_chips

        show(view, export_chips(version_of(dataset), out, values, compressed=not plain), "chips")


@convert.command("from-earthengine")
def from_earthengine(  # noqa: PLR0913, PLR0917 - the options of a command
    folder: Folder,
    out: Out,
    name: Name = None,
    date: Date = None,
    split: Split = "train",
    classes: Classes = None,
    ignore: Ignore = None,
    band: Bands = None,
    label: Annotated[str, typer.Option(help="Band that holds the label.")] = "label",
    to: Stored = "int16",
    scale: Scales = None,
    nodata: Annotated[float | None, typer.Option(help="Value in the records that means: no data.")] = None,
    values: ByteValues = None,
    margin: Margin = None,
    keep_margin: Annotated[
        bool, typer.Option("--keep-margin", help="Leave the margin in the chips.")
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(help="Side in pixels that neighbourhoods of points are cut to, around their centre."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a dataset of TFRecords: patches with mixer.json, or neighbourhoods of points without."""
    with terminal(as_json) as view:
        from chipmill.exchange.earthengine import RecordOptions, import_earthengine
        from chipmill.exchange.ee_values import Storing, parse_scales

        storing = Storing(to, parse_scales(scale or ()), nodata)
        records = RecordOptions(label, storing, values, margin, keep_margin, size)
        options = import_options(name, date, split, classes, ignore, band)
        show(view, import_earthengine(folder, out, options, records), "chips")


@convert.command("raster-to-earthengine")
def raster_to_earthengine(  # noqa: PLR0913, PLR0917 - the options of a command
    raster: Annotated[Path, typer.Argument(help="GeoTIFF, or stack of a dataset.", metavar="RASTER")],
    out: Out,
    patch: Annotated[tuple[int, int], typer.Option(help="Width and height of a patch in pixels.")] = (
        256,
        256,
    ),
    margin: Annotated[
        tuple[int, int], typer.Option(help="Columns and rows beyond that, half on each side.")
    ] = (0, 0),
    edges: Annotated[
        Literal["pad", "drop"],
        typer.Option(help="Pixels that fill no patch: kept with nodata around, or left out."),
    ] = "pad",
    values: Annotated[
        Literal["float", "int64", "bytes"],
        typer.Option(help="List that holds the values; an upload needs float."),
    ] = "float",
    plain: Annotated[bool, typer.Option("--plain", help="Do not compress (gzip).")] = False,
    asset: Annotated[str | None, typer.Option(help="Asset to upload to; writes the manifest for it.")] = None,
    bucket: Annotated[
        str | None, typer.Option(help="gs://BUCKET/FOLDER that the files will be copied to.")
    ] = None,
    pyramiding: Annotated[
        Literal["MEAN", "MODE", "SAMPLE"], typer.Option(help="Overviews of the asset: MODE for classes.")
    ] = "MODE",
    as_json: Json = False,
) -> None:
    """Write a raster, such as a map, as patches with mixer.json that Earth Engine takes as an image."""
    with terminal(as_json) as view:
        from chipmill.exchange.earthengine_out import RasterOptions, export_raster

        options = RasterOptions(
            patch,
            margin,
            edges,
            values,
            compressed=not plain,
            asset=asset,
            bucket=bucket,
            pyramiding=pyramiding,
        )
        show(view, export_raster(raster, out, options), "patches")


@convert.command("raster-from-earthengine")
def raster_from_earthengine(
    folder: Folder,
    out: Out,
    band: Bands = None,
    values: ByteValues = None,
    margin: Margin = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Join patches with mixer.json to one GeoTIFF."""
    with terminal(as_json) as view:
        from chipmill.exchange.earthengine import RecordOptions
        from chipmill.exchange.earthengine_map import import_raster

        records = RecordOptions(value_type=values, margin=margin)
        show(view, import_raster(folder, out, tuple(band or ()), records), "patches")

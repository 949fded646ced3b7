"""The image of a chip as one picture in memory: PNG, JPEG or GeoTIFF, and back.

The file to change for another encoded form, or for what one of them can hold. GDAL writes and reads them, each by one
named driver: a record is never opened by whatever driver takes it.
"""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from chipmill.core.errors import BadInputError, DamagedFileError

Encoding = Literal["array", "png", "jpeg", "geotiff", "float"]
PICTURES: Final = ("png", "jpeg", "geotiff")
"""The encodings whose image is one picture."""

_DRIVERS: Final = {"png": "PNG", "jpeg": "JPEG", "geotiff": "GTiff"}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "png": {"zlevel": 1},  # higher levels take ten times as long for a twentieth of the size
    "jpeg": {},
    "geotiff": {"compress": "deflate", "zlevel": 1, "predictor": 2, "interleave": "pixel"},
}
_PLAIN: Final = (2.0, 0.0, 0.0, 0.0, -2.0, 0.0)
"""Stands for "no place": with any place but the identity GDAL has nothing to warn of."""
_WORLD_FILE: Final = b"2\n0\n0\n-2\n0\n0\n"
_OVERHEAD: Final = 4096
"""Bytes of headers and checksums of a picture, at most."""
_LIST_MAX: Final = 1 << 24
"""Integers up to here are exact in float32."""


def check_encoding(encoding: Encoding, dtype: str, bands: int, *, series: bool, where: str) -> None:
    """Raise BadInputError, naming ``where``, unless the encoding can hold images of these bands without a silent cast.

    png holds 1, 3 or 4 bands of uint8 or uint16 (TensorFlow reads no others), jpeg 1 or 3 of uint8, geotiff any, float
    whatever float32 holds exactly; a series has more axes than a picture.
    """
    problem = ""
    if encoding in PICTURES and series:
        problem = "a picture, which has no axis of time"
    elif encoding == "png" and (bands not in (1, 3, 4) or dtype not in ("uint8", "uint16")):
        problem = "1, 3 or 4 bands of uint8 or uint16"
    elif encoding == "jpeg" and (bands not in (1, 3) or dtype != "uint8"):
        problem = "1 or 3 bands of uint8"
    elif encoding == "float" and np.iinfo(dtype).max > _LIST_MAX:
        problem = "values that float32 holds exactly, of at most 16 bits"
    if problem:
        raise BadInputError(
            f"dataset.shards.encoding {encoding} holds {problem}, {where} has {bands} bands of {dtype}"
            f"{' in a series' if series else ''}: set encoding to array, or change what the bands are stored as"
        )


def picture_bound(raw_bytes: int, rows: int) -> int:
    """Return the most bytes that a picture of ``raw_bytes`` of pixels takes: shards are planned with it.

    Deflate adds five bytes to a block that it cannot shrink and PNG one to each row. JPEG has no such bound; at the
    qualities that are allowed, noise stays below its raw size.
    """
    return raw_bytes + raw_bytes // 64 + rows + _OVERHEAD


def encode_picture(
    image: npt.NDArray[Any],
    encoding: Encoding,
    *,
    crs: str = "",
    transform: Sequence[float] = _PLAIN,
    quality: int | None = None,
    names: Sequence[str] = (),
) -> bytes:
    """Return the file of an image (y, x, band) of an integer type.

    A GeoTIFF has ``crs``, ``transform`` (a, b, c, d, e, f) and band ``names``; ``quality`` (1 to 100) is JPEG's.
    """
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine

    geo: dict[str, Any] = {"transform": Affine(*_PLAIN)}
    if encoding == "geotiff" and crs:
        geo = {"transform": Affine(*transform), "crs": crs}
    lossy = {"quality": quality} if quality is not None else {}
    rows, cols, bands = image.shape
    with MemoryFile() as memory:
        with memory.open(
            driver=_DRIVERS[encoding], height=rows, width=cols, count=bands, dtype=image.dtype.name,
            **_OPTIONS[encoding], **lossy, **geo,
        ) as target:  # fmt: skip
            target.write(np.moveaxis(image, -1, 0))
            if encoding == "geotiff" and names:
                target.descriptions = tuple(names)
        return bytes(memory.getbuffer())


def decode_picture(data: Any, encoding: Encoding, where: str) -> npt.NDArray[Any]:
    """Return the image (y, x, band) in a file of this encoding; raises DamagedFileError, naming ``where``."""
    from rasterio.errors import RasterioError

    try:
        with _opened(bytes(data), _DRIVERS[encoding]) as source:
            return np.moveaxis(source.read(), 0, -1)
    except (RasterioError, OSError) as error:
        raise DamagedFileError(
            f"{where} holds no readable {encoding} ({error}): run verify --data on it"
        ) from error


@contextlib.contextmanager
def _opened(data: bytes, driver: str) -> Iterator[Any]:
    """Open a file in memory, beside a world file: rasterio warns of a picture without a place."""
    from rasterio import Env
    from rasterio.io import MemoryFile

    folder = uuid.uuid4().hex
    with (
        # GDAL's short cut for PNG reads a file that is cut as whatever lay in memory, without an error
        Env(GDAL_PNG_WHOLE_IMAGE_OPTIM="NO"),
        MemoryFile(_WORLD_FILE, dirname=folder, filename="chip.wld"),
        MemoryFile(data, dirname=folder, filename="chip.img") as memory,
        memory.open(driver=driver) as source,
    ):
        yield source

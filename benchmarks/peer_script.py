"""What a competent user writes by hand for the end-to-end benchmark: odc-stac, xarray and tf.io in one script.

Median composites of each quarter by Dask chunks with the clouds masked, chips of 128 px at a stride of 64 that hold the
key class, one `tf.train.Example` per chip with raw bytes of pixels and label. No composites are kept, nothing is hashed,
no statistics, no index. Run as `python -m benchmarks.peer_script SPEC.json`; prints one JSON object. Its seconds leave
out starting Python and importing the libraries.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

CHUNK = 1024


def work(spec: dict[str, Any], modules: dict[str, Any]) -> int:
    """Make the chips of a spec (items by slot, grid, bands, label, chips); return how many were written."""
    import numpy as np

    rasterio, tf = modules["rasterio"], modules["tf"]
    slots = [_median(items, spec, modules) for items in spec["slots"]]
    stack = np.concatenate([slot.to_dataarray("band").values for slot in slots])
    stack = np.where(np.isnan(stack), -32768, np.rint(stack)).astype(np.int16)
    with rasterio.open(spec["label"]) as source:
        label = source.read(1)
    size, step, written = spec["chip_px"], spec["stride_px"], 0
    side = label.shape[0]
    with tf.io.TFRecordWriter(spec["out"]) as writer:
        for row in range(0, side - size + 1, step):
            for col in range(0, side - size + 1, step):
                own = label[row : row + size, col : col + size]
                if np.mean(own == spec["key"]) < spec["min_key_fraction"]:
                    continue
                pixels = np.moveaxis(stack[:, row : row + size, col : col + size], 0, -1)
                writer.write(_example(tf, pixels.tobytes(), own.tobytes(), row, col))
                written += 1
    return written


def _median(items: list[dict[str, Any]], spec: dict[str, Any], modules: dict[str, Any]) -> Any:
    pystac, odc, dask = (modules[name] for name in ("pystac", "odc", "dask"))
    cube = odc.stac.load(
        [pystac.Item.from_dict(item) for item in items],
        bands=[*spec["bands"], "scl"],
        geobox=modules["GeoBox"](tuple(spec["shape"]), modules["Affine"](*spec["transform"]), spec["crs"]),
        resampling="nearest",
        chunks={"x": CHUNK, "y": CHUNK},
    )
    bands, clear = cube[spec["bands"]], ~cube["scl"].isin(spec["dropped"])
    with warnings.catch_warnings(), dask.config.set(scheduler="threads", num_workers=spec["threads"]):
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels that are never clear
        return bands.where(clear & (bands != 0)).median("time").compute()


def _example(tf: Any, image: bytes, label: bytes, row: int, col: int) -> bytes:
    def raw(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    place = tf.train.Feature(int64_list=tf.train.Int64List(value=[row, col]))
    feature = {"image": raw(image), "label": raw(label), "place": place}
    done: bytes = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    return done


def main() -> None:
    """Import everything, then work as often as the spec says; print seconds of each time, chips and peak memory."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    spec = json.loads(Path(sys.argv[1]).read_text())
    import dask
    import odc.stac
    import pystac
    import rasterio
    import tensorflow as tf
    from affine import Affine
    from odc.geo.geobox import GeoBox

    modules = {"dask": dask, "odc": odc, "pystac": pystac, "rasterio": rasterio, "tf": tf}
    modules |= {"Affine": Affine, "GeoBox": GeoBox}
    seconds, written = [], 0
    for _ in range(spec["times"]):
        began = time.perf_counter()
        written = work(spec, modules)
        seconds.append(time.perf_counter() - began)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    print(json.dumps({"seconds": seconds, "chips": written, "peak_bytes": peak}))


if __name__ == "__main__":
    main()

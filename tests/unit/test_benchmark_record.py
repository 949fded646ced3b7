"""Figures are kept with what they were measured on, and without the name of the machine or a path of it."""

import json
import platform

from benchmarks.figure import Figure
from benchmarks.record import record


def test_a_record_is_one_line_per_figure_and_is_appended(tmp_path):
    figures = [Figure("a", 1.5, "x", ">= 1", True, {"n": 3}), Figure("b", 2.0, "MB/s")]
    path = record("some", figures, tmp_path)
    record("some", figures[:1], tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["a", "b", "a"]
    assert rows[0]["context"] == {"n": 3}
    host = rows[0]["host"]
    assert host["cores"] >= 1
    assert host["memory_gib"] > 0
    assert host["versions"]["numpy"]
    assert {"date", "load_1min", "python", "gdal", "system"} <= set(host)
    text = path.read_text()
    assert platform.node() not in text
    assert str(tmp_path) not in text

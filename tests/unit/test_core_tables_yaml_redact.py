import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chipmill.core.errors import DamagedFileError, RegionFileError
from chipmill.core.redact import redact
from chipmill.core.store import read_sidecar
from chipmill.core.tables import BLOCKS, read_table, write_table
from chipmill.core.yaml import dump_yaml, parse_yaml, read_yaml

ROW = {"block": "b", "lattice": "l", "bx": 1, "by": -2, "split": "train"}


def test_a_table_round_trips_with_the_same_bytes_each_time(tmp_path):
    table = pa.Table.from_pylist([ROW], schema=BLOCKS)
    for name in ("a.parquet", "b.parquet"):
        write_table(tmp_path / name, table, BLOCKS, "f")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert read_table(tmp_path / "a.parquet", BLOCKS).to_pylist() == [ROW]
    assert read_sidecar(tmp_path / "a.parquet").records == 1


def test_the_bytes_do_not_depend_on_the_chunks_of_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr("chipmill.core.tables._GROUP_ROWS", 3)
    rows = [ROW | {"bx": number} for number in range(7)]
    whole = pa.Table.from_pylist(rows, schema=BLOCKS)
    pieces = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 0), whole.slice(2)])
    for name, table in (("a", whole), ("b", pieces), ("none", whole.slice(0, 0))):
        write_table(tmp_path / f"{name}.parquet", table, BLOCKS, "f")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 3
    assert read_table(tmp_path / "b.parquet", BLOCKS).to_pylist() == rows
    assert read_table(tmp_path / "none.parquet", BLOCKS).num_rows == 0


def test_a_table_without_a_column_is_damaged(tmp_path):
    write_table(tmp_path / "a.parquet", pa.table({"x": [1]}), pa.schema([("x", pa.int64())]), "f")
    with pytest.raises(DamagedFileError, match="block"):
        read_table(tmp_path / "a.parquet", BLOCKS)
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    with pytest.raises(DamagedFileError, match=r"a\.parquet"):
        read_table(tmp_path / "a.parquet")


def test_yaml_keeps_text_as_text():
    values = parse_yaml(
        "a: NO\nb: 12:30\nc: 2019-01-01\nd: 010\ne: [1, 2.5, true, null, ~]\nf:\ng: 1e-3", "x"
    )
    assert values == {
        "a": "NO", "b": "12:30", "c": "2019-01-01", "d": "010", "e": [1, 2.5, True, None, None], "f": None, "g": 0.001,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "line 2.*stands twice"),
        ("a: &x 1\nb: *x", "anchor or alias"),
        ("a: !!python/object:os.system 1", "could not determine a constructor"),
        ("a: [1", "line"),
        ("? [1, 2]\n: 3", "key must be text"),
        ("a: " + "x" * (1 << 20), "larger than"),
    ],
)
def test_yaml_refuses_with_one_sentence(text, says):
    with pytest.raises(RegionFileError, match=says):
        parse_yaml(text, "region.yaml")


def test_yaml_of_a_missing_or_binary_file(tmp_path):
    with pytest.raises(RegionFileError, match="cannot be read"):
        read_yaml(tmp_path / "no.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RegionFileError, match="UTF-8"):
        read_yaml(tmp_path / "b.yaml")


def test_yaml_written_by_us_reads_back():
    values = {"b": ["x", 1], "a": {"n": None, "t": True, "d": "2019-01-01", "no": "NO"}}
    assert parse_yaml(dump_yaml(values), "x") == values


def test_redact_cuts_queries_credentials_and_secret_values(monkeypatch):
    monkeypatch.setenv("CHIPMILL_SECRET_TOKEN", "tok-123456")
    text = "read https://user:pw@host.test/a/b.tif?sig=abc&x=1 (with tok-123456) and s3://bucket/key?v=2"
    assert redact(text) == (
        "read https://host.test/a/b.tif?... (with <CHIPMILL_SECRET_TOKEN>) and s3://bucket/key?..."
    )

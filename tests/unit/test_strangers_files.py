"""Vector and grid files in disguise: GDAL would follow them to other files; they are refused by their first bytes."""

import pyogrio
import pytest
from tests import imagery_world as iw

from chipmill.core.errors import AoiError, ChipmillError, GridError, LabelError
from chipmill.dataset.features import vector_crs
from chipmill.region.aoi import read_aoi
from chipmill.region.layers import LabelLayer
from chipmill.region.tiles import lattice_tiles
from chipmill.region.vectors import vector_problem

SECRET = '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"v": 1}, "geometry": {"type": "Polygon", "coordinates": [[[14, 46], [15, 46], [15, 47], [14, 46]]]}}]}'


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.geojson"
    path.write_text(SECRET)
    return path


def disguise(path, secret):
    path.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource>{secret}</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    return path


@pytest.mark.parametrize("name", ["a.json", "a.geojson", "a.gpkg", "a.parquet", "a.shp"])
def test_a_virtual_file_under_another_ending_is_not_followed(tmp_path, secret, name):
    path = disguise(tmp_path / name, secret)
    assert "content" in vector_problem(path)
    with pytest.raises(AoiError, match="content is not that of"):
        read_aoi(iw.region(tmp_path, {"catalog": "c.json"}, aoi={"path": name}))
    with pytest.raises(LabelError):
        vector_crs(path, LabelLayer(path=name, value=1))


def test_the_disguise_would_work_without_the_look(tmp_path, secret):
    """Else the test above could not fail."""
    assert pyogrio.read_info(disguise(tmp_path / "a.json", secret))["features"] == 1


@pytest.mark.parametrize(
    "name", ["/vsicurl/http://127.0.0.1:9/a.geojson", "/vsistdin/a.json", "/vsizip/a.zip/a.gpkg"]
)
def test_a_path_that_means_more_to_gdal_is_a_missing_file(tmp_path, name):
    region = iw.region(tmp_path, {"catalog": "c.json"}, aoi={"path": name})
    with pytest.raises(AoiError, match="does not exist"):
        read_aoi(region)


def test_true_files_are_read(tmp_path, secret):
    assert read_aoi(iw.region(tmp_path, {"catalog": "c.json"}, aoi={"path": secret.name})).area > 0
    (tmp_path / "bom.geojson").write_text("\ufeff\n " + SECRET)
    assert vector_problem(tmp_path / "bom.geojson") == ""
    info, (_, _, wkb, fields) = pyogrio.read_info(secret), pyogrio.raw.read(secret)[:4]
    for name in ("a.gpkg", "a.shp", "a.fgb"):
        pyogrio.raw.write(tmp_path / name, wkb, fields, ["v"], geometry_type="Polygon", crs=info["crs"])
        assert vector_problem(tmp_path / name) == ""


def test_a_grid_is_not_taken_from_a_virtual_raster(tmp_path):
    (tmp_path / "a.tif").write_text('<VRTDataset rasterXSize="64" rasterYSize="64"/>')
    region = iw.region(tmp_path, {"catalog": "c.json"}, grid={"like": "a.tif"})
    with pytest.raises(GridError, match="cannot be opened"):
        lattice_tiles(region, read_aoi(region))
    assert issubclass(GridError, ChipmillError)

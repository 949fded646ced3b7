"""The doctor finds what would make a run fail or lie, and the canary bites."""

import socket
from pathlib import Path

import pytest

from chipmill import doctor
from chipmill.core.errors import CanaryError
from chipmill.imagery import canary


def test_all_is_well_here_and_below_a_place_that_does_not_exist_yet(tmp_path):
    checks = doctor.run_checks(tmp_path / "not" / "yet")
    assert [check for check in checks if not check.ok] == []
    assert {check.name for check in checks} >= {"python", "gdal", "proj", "disk", "port", "rooms", "output"}
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"


def test_the_canary_reads_below_and_above_a_million_pixels():
    areas = [side**2 for side in canary.READS_PX]
    assert min(areas) < 1_000_000 < max(areas)
    assert canary.silent_reads() == ()


def test_a_gdal_that_reads_zeros_is_refused(monkeypatch):
    # A VRT without sources is what such a GDAL makes of one whose sources are missing: zeros, no error.
    silent = canary.canary_vrt().split(b"<SimpleSource>")[0].strip() + b"</VRTRasterBand></VRTDataset>"
    monkeypatch.setattr(canary, "canary_vrt", lambda: silent)
    assert canary.silent_reads() == canary.READS_PX
    canary.require_safe_gdal.cache_clear()
    try:
        with pytest.raises(
            CanaryError, match=r"GDAL .* as zeros.*256, 1024, 2048.*install rasterio >= 1\.5\.2"
        ):
            canary.require_safe_gdal()
        assert not doctor.check_gdal().ok
    finally:
        canary.require_safe_gdal.cache_clear()


def test_raster_files_that_run_code_are_refused(monkeypatch):
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "TRUSTED_MODULES")
    check = doctor.check_vrt_python()
    assert not check.ok
    assert "TRUSTED_MODULES" in check.detail


def test_a_lost_proj_database_is_named_with_its_variable(monkeypatch):
    def lost(code):
        raise ValueError(f"no {code}")

    monkeypatch.setenv("PROJ_LIB", "elsewhere")
    monkeypatch.setattr("pyproj.CRS.from_epsg", lost)
    check = doctor.check_proj()
    assert not check.ok
    assert "PROJ_LIB=elsewhere" in check.detail
    assert "unset" in check.remedy


def test_lost_links_are_named(monkeypatch, tmp_path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").touch()
    (tmp_path / "tasks").write_text("../../tasks")  # what git leaves where symbolic links are switched off
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    check = doctor.check_rooms()
    assert not check.ok
    assert check.detail.startswith("tasks missing")


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 10**18)
    assert not doctor.check_disk(tmp_path).ok


def test_no_hard_links_is_told_but_is_no_fault(monkeypatch, tmp_path):
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setitem(doctor._LINKS, "hard links", refuse)
    check = doctor.check_file_links(tmp_path)
    assert check.ok
    assert "no hard links" in check.detail


def test_an_output_that_cannot_be_written_is_a_fault(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    assert not doctor.check_file_links(tmp_path).ok


def test_a_closed_loopback_is_a_fault(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert not doctor.check_port().ok

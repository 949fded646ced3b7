"""Noise, landscape, signatures and sun of the embedded world, as pure functions."""

from datetime import UTC, datetime

import numpy as np
import pytest

from chipmill.demo.landscape import make_landscape, make_terrain
from chipmill.demo.noise import fractal_field, hash_ids, hash_uniform, named_rng, nearest_cells, rank_field
from chipmill.demo.scenes import SCHEDULE, illumination, render, sun_at
from chipmill.demo.signatures import (
    BANDS,
    CLASSES,
    COVER_INDEX,
    COVERS,
    PHASES,
    VARIANTS,
    greenness,
    reflectance_table,
)


def test_named_draws_do_not_depend_on_each_other():
    assert named_rng(8, "a").integers(1 << 60) == named_rng(8, "a").integers(1 << 60)
    draws = {named_rng(seed, name).integers(1 << 60) for seed in (1, 2) for name in ("a", "b", "ab")}
    assert len(draws) == 6


def test_fractal_fields_are_standardised_and_smoother_when_told():
    rough, smooth = (fractal_field((128, 96), named_rng(1, "f"), 40, slope) for slope in (1.5, 3.0))
    for field in (rough, smooth):
        assert (field.shape, field.dtype) == ((128, 96), np.float32)
        assert abs(field.mean()) < 1e-4
        assert field.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()


def test_rank_field_is_a_share_of_area():
    rank = rank_field(fractal_field((256, 256), named_rng(1, "f"), 30, 2.0))
    for share in (0.1, 0.5, 0.9):
        assert (rank < share).mean() == pytest.approx(share, abs=0.03)


def test_hashes_spread_and_salts_are_independent():
    ids = hash_ids(np.arange(-5000, 5000), 3)
    assert len(np.unique(ids)) == 10_000
    one, two = hash_uniform(ids, 1), hash_uniform(ids, 2)
    assert np.histogram(one, bins=10, range=(0, 1))[0].min() > 850
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05


def test_nearest_cells_agrees_with_a_search_over_all_points():
    y, x = np.meshgrid(np.arange(60, dtype=np.float32), np.arange(60, dtype=np.float32), indexing="ij")
    ids, pair, border = nearest_cells(y, x, spacing_px=20, seed=5)
    rows, cols = (axis.ravel() for axis in np.mgrid[-2:6, -2:6])
    names = hash_ids(rows, cols, 5)
    py = (rows + 0.15 + 0.7 * hash_uniform(names, 1)) * 20
    px = (cols + 0.15 + 0.7 * hash_uniform(names, 2)) * 20
    distance = np.hypot(y[..., None] - py, x[..., None] - px)
    order = np.argsort(distance, axis=-1)
    assert (names[order[..., 0]] == ids).mean() > 0.999  # ties
    assert (
        names[order[..., 0]] ^ names[order[..., 1]] == pair
    ).mean() > 0.98  # the lattice looks one cell around
    assert border.min() >= 0


def test_landscape_is_fixed_by_its_seed_and_fields_have_a_size():
    one, same, other = (make_landscape((256, 256), seed) for seed in (8, 8, 9))
    assert np.array_equal(one.code, same.code)
    assert np.array_equal(one.landcover, same.landcover)
    assert (one.landcover != other.landcover).mean() > 0.3
    assert set(np.unique(one.landcover)) <= {0, *CLASSES}
    # neighbours mostly agree: patches, not noise
    assert (one.landcover[:, 1:] == one.landcover[:, :-1]).mean() > 0.9


def test_covers_name_the_classes_and_codes_fit_the_table():
    assert {cover.value for cover in COVERS} == set(CLASSES)
    table = reflectance_table(day=150, seed=8)
    assert table.shape == (len(BANDS), len(COVERS) * PHASES * VARIANTS)
    assert 0 < table.min() < table.max() < 0.8
    assert make_landscape((64, 64), 1).code.max() < table.shape[1]


def test_wheat_is_green_in_may_and_maize_in_august():
    wheat, maize = (COVERS[COVER_INDEX[name]] for name in ("wheat", "maize"))
    assert min(greenness(wheat, 140).min(), greenness(maize, 215).min()) > 0.8
    assert max(greenness(wheat, 240).max(), greenness(maize, 120).max()) < 0.1


@pytest.mark.parametrize(
    ("day", "elevation"), [("2019-06-21T11:02", 67.4), ("2019-12-21T11:02", 20.6), ("2019-03-21T11:02", 44)]
)
def test_sun_at_noon_stands_as_the_almanac_says(day, elevation):
    sun = sun_at(datetime.fromisoformat(day).replace(tzinfo=UTC))
    assert sun.elevation == pytest.approx(elevation, abs=1.0)
    assert sun.azimuth == pytest.approx(180, abs=2.0)


def test_morning_sun_lights_the_southeastern_slopes():
    terrain, sun = make_terrain((128, 128), 8, 10.0), sun_at(SCHEDULE[0].moment)
    assert 150 < sun.azimuth < 180
    light = illumination(terrain, sun)
    # slope_y > 0 rises towards the south, so it faces north
    assert light[terrain.slope_y < -0.2].mean() > 1.2
    assert light[terrain.slope_y > 0.2].mean() < 0.9
    flat = np.hypot(terrain.slope_y, terrain.slope_x) < 0.01
    assert light[flat].mean() == pytest.approx(1, abs=0.02)


def test_shadows_fall_away_from_the_sun():
    ground = make_landscape((256, 256), 8)
    scl = render(ground, SCHEDULE[3], 8).scl
    cloud, shadow = np.isin(scl, [8, 9, 10]).astype(float), (scl == 3).astype(float)
    north, south = np.roll(cloud, -30, axis=0), np.roll(cloud, 30, axis=0)
    assert (north * shadow).sum() > 2 * (south * shadow).sum()

"""Areas: pixels become square metres of ground in any CRS, and Olofsson's estimator gives the paper's table."""

import numpy as np
import pytest
from pyproj import Geod

from chipmill.mapping.areas import areas_table, olofsson, pixel_areas_m2
from chipmill.region.grid import Lattice, Window, projector

GEOD = Geod(ellps="WGS84")


def ground_m2(lattice, window):
    """Area on the ellipsoid of a window, as a polygon with many vertices."""
    left, bottom, right, top = lattice.bounds(window)
    along = np.linspace(0, 1, 200)
    x = np.concatenate(
        [
            left + along * (right - left),
            np.full(200, right),
            right - along * (right - left),
            np.full(200, left),
        ]
    )
    y = np.concatenate(
        [
            np.full(200, bottom),
            bottom + along * (top - bottom),
            np.full(200, top),
            top - along * (top - bottom),
        ]
    )
    longitude, latitude = projector(lattice.epsg, 4326).transform(x, y)
    return abs(GEOD.polygon_area_perimeter(longitude, latitude)[0])


@pytest.mark.parametrize(
    ("lattice", "window"),
    [
        (Lattice(4326, 2.8, 42.4, 9e-5, 9e-5), Window(0, 0, 300, 200)),
        (Lattice(4326, 0, 0, 0.01, 0.01), Window(100, 5000, 50, 60)),  # southern hemisphere
        (Lattice(4326, 0, 0, 0.01, 0.01), Window(0, -8000, 40, 30)),  # 80 degrees north
        (Lattice(32633, 0, 0, 10, 10), Window(50_000, -500_000, 200, 150)),  # on the central meridian
        (Lattice(32633, 0, 0, 10, 10), Window(80_000, -500_000, 200, 150)),  # far from it
        (Lattice(3857, 0, 0, 30, 30), Window(50_000, -240_000, 100, 100)),  # Mercator swells to the pole
    ],
)
def test_pixel_areas_are_those_on_the_ellipsoid(lattice, window):
    areas = pixel_areas_m2(lattice, window)
    assert areas.shape == (window.height,)
    assert areas.sum() * window.width == pytest.approx(ground_m2(lattice, window), rel=2e-5)


def test_nominal_mercator_hectares_would_be_wrong_by_half():
    window = Window(50_000, -240_000, 10, 10)
    assert pixel_areas_m2(Lattice(3857, 0, 0, 30, 30), window).mean() < 0.6 * 900


def test_table_has_shares_of_the_mapped_ground():
    text = areas_table(["water", "a,b"], np.array([100, 300]), np.array([1.0, 3.0]))
    assert (
        text
        == 'class,mapped_px,mapped_ha,mapped_share\nwater,100,1.0000,0.250000\n"a,b",300,3.0000,0.750000\n'
    )


def test_olofsson_gives_the_example_of_the_paper():
    sample = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
    hectares = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09
    found = olofsson(sample, hectares)
    assert found.area.round().tolist() == [21158, 11686, 285770, 581386]
    assert found.area_ci95.round().tolist() == [6158, 3756, 15510, 16282]
    assert found.users_accuracy.round(3).tolist() == [0.88, 0.733, 0.927, 0.963]
    assert found.producers_accuracy.round(3).tolist() == [0.749, 0.847, 0.935, 0.962]
    assert (round(found.overall_accuracy, 4), round(found.overall_ci95, 4)) == (0.9465, 0.0185)


def test_olofsson_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = np.array([[0.18, 0.02], [0.05, 0.75]])  # share of the ground: map class x true class
    rng, held = np.random.default_rng(6), 0
    for _ in range(400):
        sample = np.array([rng.multinomial(100, row / row.sum()) for row in truth])
        found = olofsson(sample, truth.sum(axis=1))
        held += abs(found.area[0] - truth[:, 0].sum()) <= found.area_ci95[0]
    assert 370 <= held <= 394


def test_olofsson_needs_two_samples_of_each_class():
    with pytest.raises(ValueError, match="at least two"):
        olofsson(np.array([[5, 1], [0, 1]]), np.array([1.0, 2.0]))

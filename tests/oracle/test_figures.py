"""The figures that are counts, not times: they hold on every machine, so they are tests as well as benchmarks."""

import pytest
from benchmarks import ranking, search


@pytest.mark.parametrize("benchmark", [search, ranking], ids=["search", "ranking"])
def test_what_is_counted_holds(benchmark):
    figures = benchmark.run(quick=True)
    counted = [figure for figure in figures if figure.goal]
    assert counted
    assert [figure.line(as_json=False) for figure in counted if not figure.holds] == []

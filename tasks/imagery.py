"""Tasks of the imagery room: from the area of interest to composites.

API calls run in the flow's process with retries; ranking and composites are batches on Dask.
"""

from prefect import task

from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.orchestration.retry import API_CALL, BATCH, DIRECT

tile_aoi = task(name="tile_aoi", task_run_name="tile_aoi", tags=["imagery"], **API_CALL)(planning.tile_aoi)

search_items = task(name="search_items", task_run_name="search_items", tags=["imagery"], **API_CALL)(
    catalog.search_items
)

rank_items = task(name="rank_items", task_run_name="rank_items-{batch.number}", tags=["imagery"], **BATCH)(
    ranking.rank_items
)

close_ranking = task(name="close_ranking", task_run_name="close_ranking", tags=["imagery"], **DIRECT)(
    ranking.close_ranking
)

composite_tiles = task(
    name="composite_tiles", task_run_name="composite_tiles-{batch.number}", tags=["imagery"], **BATCH
)(composite.composite_tiles)

"""A region and a model become a map: strips of the stacks are predicted, stitched and measured."""

from prefect import flow

from chipmill.dataset.manifest import DatasetRef
from chipmill.flows.build_dataset import build_dataset
from chipmill.learning.bundle import ModelRef
from chipmill.mapping.outputs import MapRef
from chipmill.orchestration.cells import run_name
from chipmill.orchestration.cluster import stage_runner
from chipmill.orchestration.ending import conclude
from chipmill.orchestration.stage import given, run_flow, run_stage, step
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig
from chipmill.region.roots import check_roots
from chipmill.tasks.mapping import estimate_areas, plan_map, predict_strips, stitch_map


@flow(name="predict-map", flow_run_name=run_name("predict-map"), task_runner=stage_runner())
def predict_map(
    region: Region, model: ModelRef | None, predict: PredictConfig, dataset: DatasetRef | None = None
) -> MapRef:
    """Map a region's cell and make the map the version in force.

    Args:
        region: the region file; it needs no labels.
        model: the model of this run; null, or another name: the one that the predict file names.
        predict: the predict file.
        dataset: the version of the cell in force, whose stacks are mapped; null: it is built.
    """
    region, predict = check_roots(region), check_roots(predict)
    stacks = given(dataset) if dataset else run_flow(build_dataset, region)
    plan = step(plan_map, stacks, region, model, predict, after=stacks)
    predicted = run_stage(predict_strips, plan, after=plan)
    stitched = step(stitch_map, plan, after=predicted)
    mapped = step(estimate_areas, plan, stitched, after=stitched)
    return conclude(mapped.value, [stacks.lost])

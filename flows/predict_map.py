"""A region and a model become a map: strips of the stacks are predicted, stitched and measured."""

from prefect import flow

from chipmill.dataset.manifest import DatasetRef
from chipmill.flows.build_dataset import build_dataset
from chipmill.learning.bundle import ModelRef
from chipmill.mapping.outputs import MapRef
from chipmill.orchestration.cells import run_name
from chipmill.orchestration.cluster import stage_runner
from chipmill.orchestration.ending import conclude
from chipmill.orchestration.entry import entering, nothing_to_do
from chipmill.orchestration.jobs import Job
from chipmill.orchestration.stage import given, run_flow, run_stage, step
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig
from chipmill.region.roots import check_roots
from chipmill.tasks.mapping import estimate_areas, plan_map, predict_strips, stitch_map


@flow(name="predict-map", flow_run_name=run_name("predict-map"), task_runner=stage_runner())
def predict_map(
    region: Region, predict: PredictConfig, model: ModelRef | None = None, dataset: DatasetRef | None = None
) -> MapRef:
    """Map a region's cell and make the map the version in force.

    Args:
        region: The region file: what is mapped; it needs no labels.
        predict: The predict file: with which model, and how.
        model: Left empty by people: a committed model to map with, where it has the name in the predict file; empty,
            the one that the predict file names.
        dataset: Left empty by people: a committed dataset of the cell whose stacks are mapped; empty, the one in
            force, built where it is missing or out of date.
    """
    region, predict = check_roots(region), check_roots(predict)
    with entering(Job("predict", region, None, predict), dataset=dataset, model=model) as have:
        if have.complete:
            return nothing_to_do(have.map)
        stacks = given(have.dataset) if have.dataset else run_flow(build_dataset, region)
        plan = step(plan_map, stacks, region, have.model, predict, after=stacks)
        predicted = run_stage(predict_strips, plan, after=plan)
        stitched = step(stitch_map, plan, after=predicted)
        mapped = step(estimate_areas, plan, stitched, after=stitched)
        return conclude(mapped.value, [stacks.lost])

"""Tasks of the mapping room: from a model and the stacks of a region to a committed map."""

import uuid

from prefect import get_run_logger, task

from chipmill.dataset.manifest import DatasetRef
from chipmill.learning.bundle import ModelRef, find_model
from chipmill.mapping import areas, outputs, prediction
from chipmill.mapping.outputs import MapRef, StitchedRef
from chipmill.mapping.prediction import MapPlan
from chipmill.orchestration.ending import whole
from chipmill.orchestration.retry import BATCH, DIRECT
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig
from chipmill.report.map import map_page


@task(name="plan_map", task_run_name="plan_map", tags=["mapping"], **DIRECT)
def plan_map(dataset: DatasetRef, region: Region, model: ModelRef | None, predict: PredictConfig) -> MapPlan:
    """Open the attempt at a map; without the model of this run it is the one that the predict file names."""
    chosen = model if model and model.name == predict.model else find_model(predict.model, predict.output_dir)
    plan = prediction.plan_map(dataset, region, chosen, predict, uuid.uuid4().hex[:12])
    for note in plan.notes:
        get_run_logger().warning(note)
    return plan


predict_strips = task(
    name="predict_strips", task_run_name="predict_strips-{batch.number}", tags=["mapping"], **BATCH
)(prediction.predict_strips)

stitch_map = task(name="stitch_map", task_run_name="stitch_map", tags=["mapping"], **DIRECT)(
    outputs.stitch_map
)


@task(name="estimate_areas", task_run_name="estimate_areas", tags=["mapping"], **DIRECT)
def estimate_areas(plan: MapPlan, stitched: StitchedRef) -> MapRef:
    """Measure the classes, write the report, make the map the version in force; fails afterwards where strips are missing."""
    sealed = areas.estimate_areas(plan, stitched)
    map_page(sealed.path)
    return whole(outputs.publish_map(plan, sealed), plan.redo)

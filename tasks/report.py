"""Task of the report room: the page of the whole run."""

from prefect import task

from chipmill.dataset.manifest import DatasetRef
from chipmill.learning.bundle import ModelRef
from chipmill.mapping.outputs import MapRef
from chipmill.orchestration.cells import cell_name
from chipmill.orchestration.retry import DIRECT
from chipmill.orchestration.runs import Clock, RunRef, write_run
from chipmill.region.config import Region
from chipmill.region.plan import cell_dir


@task(name="write_report", task_run_name="write_report", tags=["report"], **DIRECT)
def write_report(
    region: Region, dataset: DatasetRef, model: ModelRef | None, mapped: MapRef | None, clock: Clock
) -> RunRef:
    """Write runs/<run>.json and its page, with links to the reports of the products."""
    name = f"refresh-region/{cell_name(region)}"
    products = (dataset, model, mapped)
    record, page = write_run(cell_dir(region), name, clock.started, clock.stages(), products)
    return RunRef(dataset, model, mapped, record, page)

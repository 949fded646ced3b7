"""How tasks are run: what is tried again, and the order in which products are sealed, told and committed."""

import inspect
from types import SimpleNamespace

import pytest
from prefect import Task
from prefect.states import Completed, Failed

from chipmill.core.errors import AssetReadError, ItemSearchError, TilesFailedError, TransientReadError
from chipmill.orchestration.ending import CommittedWithFailuresError
from chipmill.orchestration.retry import API_CALL, BATCH, transient
from chipmill.tasks import dataset, imagery, learning, mapping


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransientReadError("throttled"), True),
        (caused(ItemSearchError("no answer"), OSError("cut")), True),
        (ItemSearchError("the answer holds no item"), False),
        (AssetReadError("not a TIFF"), False),
        (ConnectionResetError("cut"), True),
        (TimeoutError("late"), True),
        (ValueError("a defect"), False),
    ],
    ids=repr,
)
def test_only_what_may_pass_by_itself_is_tried_again(error, again):
    assert transient(None, None, Failed(data=error)) is again


def test_a_completed_task_is_not_tried_again():
    assert transient(None, None, Completed(data=1)) is False


def test_prefect_takes_the_condition_for_a_function():
    """It asks inspect.isfunction, and silently never retries for anything else."""
    assert inspect.isfunction(imagery.search_items.retry_condition_fn)
    assert imagery.search_items.retries == API_CALL["retries"] == 3


@pytest.mark.parametrize(
    "batched",
    [
        imagery.rank_items,
        imagery.composite_tiles,
        dataset.grid_layers,
        dataset.index_windows,
        dataset.write_shards,
        mapping.predict_strips,
    ],
    ids=lambda one: one.name,
)
def test_a_batch_has_no_retries_and_is_named_by_its_number(batched):
    assert "retries" not in BATCH
    assert batched.retries == 0
    assert batched.task_run_name == f"{batched.name}-{{batch.number}}"
    assert list(inspect.signature(batched.fn).parameters)[-1] == "batch"


@pytest.mark.parametrize("room", [imagery, dataset, learning, mapping], ids=lambda room: room.__name__)
def test_a_task_is_called_like_its_variable_and_carries_its_room(room):
    tasks = {name: value for name, value in vars(room).items() if isinstance(value, Task)}
    assert tasks
    for name, value in tasks.items():
        assert value.name == name
        assert value.tags == {room.__name__.rpartition(".")[2]}


class Ref:
    """As much of a product as the tasks look at."""

    def __init__(self, path, failed=0):
        self.path, self.failed = path, failed


class Plan:
    """As much of a plan as the tasks look at."""

    redo = "chipmill build r.yaml"

    class region:  # noqa: N801 - an attribute
        name = "r"


@pytest.fixture
def calls(monkeypatch):
    """The calls of commit_dataset and estimate_areas, in order, with a product of which `failed` units are missing."""
    seen = []

    def fake(name, result):
        def call(*_args, **_kwargs):
            seen.append(name)
            return result

        return call

    def plant(failed):
        monkeypatch.setattr(dataset.manifest, "seal_dataset", fake("seal", Ref("attempt", failed)))
        monkeypatch.setattr(dataset, "dataset_page", fake("page", None))
        monkeypatch.setattr(dataset.manifest, "publish_dataset", fake("publish", Ref("version", failed)))
        monkeypatch.setattr(dataset, "show_funnel", fake("funnel", None))
        monkeypatch.setattr(mapping.areas, "estimate_areas", fake("seal", Ref("attempt", failed)))
        monkeypatch.setattr(mapping, "map_page", fake("page", None))
        monkeypatch.setattr(mapping.outputs, "publish_map", fake("publish", Ref("version", failed)))
        return seen

    return plant


def test_the_report_is_written_before_the_commit(calls):
    seen = calls(0)
    assert dataset.commit_dataset.fn(Plan, None, None, None, None).path == "version"
    assert seen == ["seal", "page", "publish", "funnel"]
    seen.clear()
    assert mapping.estimate_areas.fn(Plan, None).path == "version"
    assert seen == ["seal", "page", "publish"]


@pytest.mark.parametrize(
    "commit",
    [lambda: dataset.commit_dataset.fn(Plan, *[None] * 4), lambda: mapping.estimate_areas.fn(Plan, None)],
)
def test_what_is_committed_with_failures_is_committed_and_fails(calls, commit):
    seen = calls(2)
    with pytest.raises(
        CommittedWithFailuresError, match=r"2 units failed.*redo only.*chipmill build r.yaml"
    ) as caught:
        commit()
    assert isinstance(caught.value, TilesFailedError)
    assert caught.value.exit_code == 3
    assert caught.value.product.path == "version"
    assert "publish" in seen


def test_the_map_is_made_with_the_model_of_the_run_only_where_the_predict_file_names_it(monkeypatch):
    class Predict:
        model, output_dir = "crops", "out"

    class Model:
        name = "crops"

    monkeypatch.setattr(mapping, "find_model", lambda name, output: f"{name} in {output}")

    def plan(dataset, region, model, predict, run):
        return SimpleNamespace(model=model, run=run, notes=())

    monkeypatch.setattr(mapping.prediction, "plan_map", plan)
    planned = mapping.plan_map.fn("data", "region", Model, Predict)
    assert (planned.model, len(planned.run)) == (Model, 12)
    assert mapping.plan_map.fn("data", "region", None, Predict).model == "crops in out"
    Predict.model = "crops@3"
    assert mapping.plan_map.fn("data", "region", Model, Predict).model == "crops@3 in out"

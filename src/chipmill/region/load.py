"""Reading region, train and predict files: strict YAML, then one sentence for each wrong field with the nearest right name."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from chipmill.core.errors import RegionFileError
from chipmill.core.yaml import dump_yaml, read_yaml
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig


def load_region(path: Path) -> Region:
    """Read a region file; raises RegionFileError that names the file and each wrong field."""
    return _load(path, Region)


def load_train(path: Path) -> TrainConfig:
    """Read a train file; raises RegionFileError that names the file and each wrong field."""
    return _load(path, TrainConfig)


def load_predict(path: Path) -> PredictConfig:
    """Read a predict file; raises RegionFileError that names the file and each wrong field."""
    return _load(path, PredictConfig)


def dump_config(config: BaseModel) -> str:
    """Return the YAML of a configuration as resolved: all fields, paths as the user wrote them."""
    return dump_yaml(config.model_dump(mode="json", by_alias=True, exclude={"file"}))


def _load[M: BaseModel](path: Path, model: type[M]) -> M:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise RegionFileError(
            f"{path} holds no fields: write name, aoi, time, imagery and labels, or use chipmill init"
        )
    if "file" in values:
        raise RegionFileError(f"{path}: file is set by chipmill: remove it")
    try:
        return model.model_validate({**values, "file": str(path.absolute())})
    except ValidationError as error:
        raise RegionFileError(f"{path}: {explain(error, model)}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the wrong fields as one sentence, each with its name, what is wrong and what was given."""
    return "; ".join(_explain_one(dict(detail), model) for detail in error.errors())


def _explain_one(detail: dict[str, Any], model: type[BaseModel]) -> str:
    location = ".".join(str(part) for part in detail["loc"]) or "the file"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(detail["loc"][-1]), _names(model, detail["loc"][:-1]), n=1)
        return f"{location} is no field" + (f": did you mean {near[0]}" if near else "")
    if detail["type"] == "missing":
        return f"{location} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    shown = "" if isinstance(given, dict | list) else f", got {given!r}"
    return f"{location}: {message}{shown}"


def _names(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the field names of the model that a location lies in (following nested and repeated models)."""
    current: type[BaseModel] = model
    for part in location:
        field = current.model_fields.get(str(part)) or next(
            (one for one in current.model_fields.values() if one.alias == part), None
        )
        inner = _model_of(field.annotation) if field is not None else None
        current = inner or current
    return [field.alias or name for name, field in current.model_fields.items() if name != "file"]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_of(argument)
        if found is not None:
            return found
    return None

"""Reading region, train and predict files: strict YAML, then one sentence for each wrong field with the nearest right name."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from chipmill.core.errors import RegionFileError
from chipmill.core.plain import plain
from chipmill.core.redact import redact
from chipmill.core.yaml import dump_yaml, read_yaml
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig

_SHOWN: Final = 5
"""Wrong fields that are told of at once."""
_KINDS: Final[dict[type[BaseModel], str]] = {Region: "region", TrainConfig: "train", PredictConfig: "predict"}


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
    _refuse_other_kind(path, values, model)
    try:
        return model.model_validate({**values, "file": str(path.absolute())})
    except ValidationError as error:
        raise RegionFileError(f"{path}: {explain(error, model)}") from error


def _refuse_other_kind(path: Path, values: dict[Any, Any], model: type[BaseModel]) -> None:
    """Raise RegionFileError where a file is wholly one of another kind, so that its fields need not be listed."""
    fitting = [other for other in _KINDS if values.keys() <= set(_names(other, ()))]
    if fitting and model not in fitting:
        raise RegionFileError(
            f"{path} is a {_KINDS[fitting[0]]} file, not a {_KINDS[model]} file: give the other one"
        )


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the wrong fields as one sentence, each with its name, what is wrong and what was given."""
    details = error.errors()
    told = [plain(_explain_one(dict(detail), model)) for detail in details[:_SHOWN]]
    return "; ".join([*told, *([f"and {len(details) - _SHOWN} more"] if len(details) > _SHOWN else [])])


def _explain_one(detail: dict[str, Any], model: type[BaseModel]) -> str:
    location = " ".join(plain(".".join(str(part)[:80] for part in detail["loc"])).split()) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{location} is no field: {_nearest(str(detail['loc'][-1]), detail['loc'][:-1], model)}"
    if detail["type"] == "missing":
        return f"{location} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    near = difflib.get_close_matches(str(given).lower(), _choices(detail), n=1)
    hint = f": did you mean {near[0]}" if near else ""
    # what stands in auth may be the secret itself, given in the wrong place
    hidden = isinstance(given, dict | list | BaseModel) or "auth" in detail["loc"]
    shown = "" if hidden else f", got {given!r:.80}"
    return redact(f"{location}: {message}{shown}{hint}")


def _choices(detail: dict[str, Any]) -> list[str]:
    """Return the values that a field may have, where it has a list of them."""
    expected = str(detail.get("ctx", {}).get("expected", "")) if detail["type"] == "literal_error" else ""
    return re.findall(r"'([^']*)'", expected)


def _nearest(name: str, location: tuple[Any, ...], model: type[BaseModel]) -> str:
    """Return a question for the nearest right key: of the same block first, then the same name in another block."""
    own = _names(model, location)
    elsewhere = [path for path in _paths(model) if path.rsplit(".", 1)[-1] == name]
    if near := difflib.get_close_matches(name, own, n=1, cutoff=0.8) or elsewhere[:1]:
        return f"did you mean {near[0]}"
    if near := difflib.get_close_matches(name, own, n=1):
        return f"did you mean {near[0]}"
    return f"known here are {', '.join(own)}"


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields of a model and of the models inside it."""
    for key, field in model.model_fields.items():
        if key == "file":
            continue
        name = f"{prefix}{field.alias or key}"
        yield name
        if inner := _model_of(field.annotation):
            yield from _paths(inner, f"{name}.")


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

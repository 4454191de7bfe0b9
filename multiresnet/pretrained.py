"""Models on disk: a JSON config that rebuilds the model and safetensors weights. No pickle, no download."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from multiresnet import spaces
from multiresnet.atomic import write_atomically
from multiresnet.spaces.base import Space

CONFIG, WEIGHTS = "config.json", "model.safetensors"
M = TypeVar("M", bound=nn.Module)
Folder = str | os.PathLike[str]


def to_json(value: Any) -> Any:
    """A constructor argument as plain JSON: spaces as `{class: arguments}`, torch's classes and functions by name."""
    if isinstance(value, Space):
        return value.config()
    name = str(getattr(value, "__name__", ""))
    if isinstance(value, type) and getattr(nn, name, None) is value:  # only an activation may be given by its name
        return name if name in nn.modules.activation.__all__ else {"module": name}
    if name and getattr(nn.functional, name, None) is value:
        return {"functional": name}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{value!r} cannot be written to {CONFIG}; build the model with a torch.nn activation class or its name, "
        "and with a named norm, or save the weights yourself with safetensors"
    )


def from_json(value: Any) -> Any:
    """Inverse of `to_json`."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if isinstance(value, dict):
        [(name, arguments)] = value.items()
        if name in ("functional", "module"):
            return getattr(nn.functional if name == "functional" else nn, arguments)
        return getattr(spaces, name)(**{key: from_json(item) for key, item in arguments.items()})
    return value


def save(model: nn.Module, arguments: dict[str, Any], folder: Folder) -> None:
    """Write both files, each whole or not at all; `arguments["build"]` names what the other ones are given to."""
    from safetensors.torch import save_model

    if not arguments:
        raise ValueError("a stage, or a UNet assembled from parts, has no config; save the model that it belongs to")
    config = {name: to_json(value) for name, value in arguments.items()}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / WEIGHTS, lambda file: save_model(model, str(file)))
    write_atomically(path / CONFIG, lambda file: file.write_text(json.dumps(config, indent=2) + "\n"))


def load(cls: type[M], folder: Folder) -> M:
    """Rebuild the model from its config and load its weights, strictly."""
    from safetensors.torch import load_model

    path = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"no {name} in {str(path)!r}; give a folder written by save_pretrained (nothing is downloaded)"
            )
    arguments = json.loads((path / CONFIG).read_text())
    name = arguments["build"].partition(".")[0]
    if name != cls.__name__:
        raise ValueError(
            f"{str(path)!r} holds a {name}, not a {cls.__name__}; load it with multiresnet.{name}.from_pretrained"
        )
    model = build(cls, arguments)
    dtype = _dtype(path / WEIGHTS)
    load_model(model.to(dtype), str(path / WEIGHTS))
    return model


def build(cls: type[M], arguments: Mapping[str, Any]) -> M:
    """The model that `to_json` of its arguments describes, with new weights."""
    layout = arguments["build"].partition(".")[2]
    make: Callable[..., M] = getattr(cls, layout) if layout else cls
    return make(**{key: from_json(value) for key, value in arguments.items() if key != "build"})


def _dtype(path: Path) -> torch.dtype:
    from safetensors import safe_open

    with safe_open(str(path), "pt") as tensors:
        for key in tensors.keys():
            tensor: torch.Tensor = tensors.get_tensor(key)
            if tensor.is_floating_point():
                return tensor.dtype
    return torch.get_default_dtype()

"""Directions as a control vector of llama.cpp: one GGUF file that its `--control-vector` option adds while it runs.

Layout (GGUF version 3, little endian): `general.architecture` = "controlvector", `controlvector.model_hint`,
`controlvector.layer_count`, and a float32 tensor (width,) `direction.L` per layer. llama.cpp adds it to the output of
block L, blocks counted from 0, at every token: that is `residual.L` here, steered with `Add` and an empty `When`. Layer
0 cannot be steered there. A control vector has no unit norm: it is the unit vector times a strength.
Checked with gguf 0.19.0 (tools/check_gguf.py).
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from overtone.core.artifacts import write_bytes
from overtone.core.errors import DataError, SiteError, StoreError
from overtone.core.sites import Site
from overtone.directions.direction import Direction, unit_direction
from overtone.steering.strength import Strength, as_strength

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
STRING, ARRAY, UINT32 = 8, 9, 4
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TENSORS = {0: torch.float32, 1: torch.float16}  # of the types that a tensor may have, those that hold plain numbers


def export_control_vector(
    directions: Sequence[Direction], path: str | Path, *, strength: Strength | float = 1.0, model_hint: str = "",
) -> Path:  # fmt: skip
    """Write directions, each at a residual site of its own, as one GGUF file; returns its path.

    strength: how long each vector is (a number is absolute; with unit "norm" it is a share of the mean state norm);
    llama.cpp's own factor multiplies that. model_hint: llama.cpp's name of the architecture, such as "llama"; it warns
    where that differs from the model's. Raises DataError for no directions or two at one layer, SiteError for a site
    that llama.cpp cannot steer, SettingError for a strength whose unit was not measured.
    """
    by_layer: dict[int, Tensor] = {}
    if not directions:
        raise DataError("there is no direction to write. Give at least one.")
    for direction in directions:
        direction.require(width=directions[0].width)
        layer = _layer(direction)
        if layer in by_layer:
            raise DataError(f"two directions at {direction.site}: llama.cpp adds one per layer. Combine them first.")
        by_layer[layer] = direction.vector * as_strength(strength).absolute(direction)
    facts = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": model_hint or "unknown",
        "controlvector.layer_count": max(by_layer),
        "general.name": "; ".join(d.name for d in directions if d.name) or "overtone directions",
    }
    write_bytes(Path(path), _file(facts, {f"direction.{layer}": by_layer[layer] for layer in sorted(by_layer)}))
    return Path(path)


def import_control_vector(path: str | Path, *, model: str = "") -> list[Direction]:
    """The directions of a control vector, by layer; `raw_norm` is the length of each vector, the strength it was
    written with.

    model: fingerprint of the model they belong to ("": not bound to one). Raises StoreError if the file is damaged, no
    control vector, or of numbers that are quantised.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            facts, tensors = _read(file)
    except (OSError, struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read as a GGUF control vector ({error}). Fetch or write it again."
        ) from None
    if facts.get("general.architecture") != "controlvector":
        raise StoreError(f"{path} holds {facts.get('general.architecture')!r}, not a control vector.")
    origin = {"how": "control vector", "file": path.name, "model_hint": facts.get("controlvector.model_hint", "")}
    name = str(facts.get("general.name", path.stem))
    layers = sorted((int(key.split(".")[1]), vector) for key, vector in tensors.items() if key.startswith("direction."))
    return [unit_direction(v, Site("residual", layer), model=model, name=name, origin=origin) for layer, v in layers]


def _layer(direction: Direction) -> int:
    site = direction.site
    if site.kind != "residual" or site.layer < 1:
        raise SiteError(
            f"{direction} lies where llama.cpp cannot steer: it adds to the output of a block from block 1 on "
            "(residual.1, residual.2, ...). Move it there with direction.moved(...), if you mean that."
        )
    return site.layer


# ---------------------------------------------------------------------------------------------------------- the file
def _file(facts: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(facts))]
    for key, value in facts.items():
        kind = STRING if isinstance(value, str) else UINT32
        parts += [_text(key), struct.pack("<I", kind), _text(value) if kind == STRING else struct.pack("<I", value)]
    data = b""
    for name, tensor in tensors.items():
        parts += [_text(name), struct.pack("<IQIQ", 1, len(tensor), 0, len(data))]
        data += _padded(tensor.float().contiguous().numpy().astype("<f4").tobytes())
    return _padded(b"".join(parts)) + data


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)


def _read(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(facts, tensors) of a GGUF file whose tensors are vectors."""
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version, n_tensors, n_facts = _take(file, "IQQ")
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    facts = {}
    for _ in range(n_facts):
        key = _string(file)
        facts[key] = _value(file, _take(file, "I")[0])
    entries = [_entry(file) for _ in range(n_tensors)]
    alignment = int(facts.get("general.alignment", ALIGNMENT))
    start = file.tell() + -file.tell() % alignment
    return facts, {name: _vector(file, start + offset, length, kind) for name, length, kind, offset in entries}


def _take(file: BinaryIO, form: str) -> tuple[Any, ...]:
    form = f"<{form}"
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _string(file: BinaryIO) -> str:
    (length,) = _take(file, "Q")
    return file.read(length).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind == ARRAY:
        inner, length = _take(file, "IQ")
        return [_value(file, inner) for _ in range(length)]
    return _take(file, SCALARS[kind])[0]


def _entry(file: BinaryIO) -> tuple[str, int, int, int]:
    """(name, length, kind, offset) of one tensor."""
    name = _string(file)
    (n_axes,) = _take(file, "I")
    sizes = _take(file, "Q" * n_axes)
    kind, offset = _take(file, "IQ")
    if n_axes != 1 or kind not in TENSORS:
        raise ValueError(f"{name} has {n_axes} axes and type {kind}; a control vector holds float vectors")
    return name, sizes[0], kind, offset


def _vector(file: BinaryIO, start: int, length: int, kind: int) -> Tensor:
    file.seek(start)
    data = file.read(length * TENSORS[kind].itemsize)
    if len(data) < length * TENSORS[kind].itemsize:
        raise ValueError("it ends too early")
    return torch.frombuffer(bytearray(data), dtype=TENSORS[kind]).float()

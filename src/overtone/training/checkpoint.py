"""Checkpoints: a folder that holds a training completely, written atomically, refused by another training."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from overtone.core.artifacts import MANIFEST, Manifest, new_folder, read_manifest, write_json
from overtone.core.errors import StoreError
from overtone.training.record import Record
from overtone.training.run import Run

KIND = "training"


def save_checkpoint(
    folder: Path, runs: list[Run], tensors: list[dict[str, Tensor]], position: dict[str, int], identity: dict[str, Any]
) -> None:
    """Write the state of all runs with their tensors, the position in the stream and what training this is; the older
    one is replaced."""
    from safetensors.torch import save_file

    plain = [{"tokens": run.tokens, "records": [r.to_dict() for r in run.records]} for run in runs]
    with new_folder(folder, Manifest(KIND, identity.get("seed"))) as part:
        for i, state in enumerate(tensors):
            save_file({k: v.cpu() for k, v in state.items()}, part / f"run-{i}.safetensors")
        write_json(part / "state.json", {"identity": identity, "position": position, "runs": plain})


def load_checkpoint(folder: Path, runs: list[Run], identity: dict[str, Any]) -> dict[str, int] | None:
    """Restore all runs from a folder and return the position in the stream; None if there is no checkpoint yet.

    Raises StoreError if the folder is damaged or belongs to a training with other settings or data, naming what
    differs.
    """
    from safetensors.torch import load_file

    if not (folder / MANIFEST).exists():
        return None
    read_manifest(folder, KIND)
    state = json.loads((folder / "state.json").read_text())
    theirs, ours = state["identity"], json.loads(json.dumps(identity))
    if different := [key for key in ours if theirs.get(key) != ours[key]]:
        raise StoreError(
            f"{folder} holds another training: {', '.join(different)} differ ({_brief(theirs, different)} there, "
            f"{_brief(ours, different)} asked). Use another folder, or resume=False to start over."
        )
    for i, (run, plain) in enumerate(zip(runs, state["runs"], strict=True)):
        records = [Record(**record) for record in plain["records"]]
        run.load(load_file(folder / f"run-{i}.safetensors"), plain["tokens"], records)
    return state["position"]


def _brief(identity: dict[str, Any], keys: list[str]) -> str:
    return "; ".join(str(identity.get(key))[:80] for key in keys)

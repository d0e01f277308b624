"""Checkpoints: a folder that holds a training completely, written atomically, refused by another training."""

import itertools
import json
from pathlib import Path
from typing import Any

from overtone.core.artifacts import MANIFEST, Manifest, new_folder, read_manifest, write_json
from overtone.core.errors import StoreError
from overtone.core.tensor_files import Blocks, StoredTensors, in_file_order, write_tensors
from overtone.training.record import Record
from overtone.training.run import Run

KIND = "training"


def save_checkpoint(
    folder: Path, runs: list[Run], position: dict[str, int], identity: dict[str, Any], *, first: bool = True
) -> None:
    """Write the state of all runs, the position in the stream and what training this is; the older one is replaced.

    Where processes train together all of them call it; the first one writes, the others give it what they have, block
    by block, to the end also if it cannot."""
    left, whole = list(runs), dict[str, Blocks]()
    try:
        if first:
            plain = [{"tokens": run.tokens, "records": [r.to_dict() for r in run.records]} for run in runs]
            with new_folder(folder, Manifest(KIND, identity.get("seed"))) as part:
                while left:
                    i, whole = len(runs) - len(left), left.pop(0).whole()
                    write_tensors(part / f"run-{i}.safetensors", whole)
                write_json(part / "state.json", {"identity": identity, "position": position, "runs": plain})
    finally:
        for rest in itertools.chain([whole], (run.whole() for run in left)):
            for name in in_file_order(rest):
                for _ in rest[name].blocks:
                    pass


def load_checkpoint(folder: Path, runs: list[Run], identity: dict[str, Any]) -> dict[str, int] | None:
    """Restore all runs from a folder and return the position in the stream; None if there is no checkpoint yet. Each
    process reads its own part.

    Raises StoreError if the folder is damaged or belongs to a training with other settings or data, naming what
    differs.
    """
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
        run.load(StoredTensors(folder / f"run-{i}.safetensors"), plain["tokens"], records)
    return state["position"]


def _brief(identity: dict[str, Any], keys: list[str]) -> str:
    return "; ".join(str(identity.get(key))[:80] for key in keys)

"""Claim: where latents are spread over processes, none holds more of the parameters and their moments than its part,
from the first draw of the weights to the last checkpoint; only the first one, and only at the end, holds the dictionary
whole.

TopK with 32 active latents of 32,768 (`--latents`), rows of width 512, 256 to a step (`--rows`), a checkpoint at the
end: trained by one process, by two and by four that share the latents (gloo, one torch thread each), and then taken up
again from the finished checkpoint by as many. Reported in MiB, for the process that needs most and for the one that
needs most of those that are not the first: by what its resident memory grew at most since before the training began,
  start    until the dictionary is made and its input scale fitted
  steps    while it trains
  save     while the checkpoint is written
  restore  while a checkpoint is read, in the second training
  end      while what is returned is put together
and the size of what the dictionary consists of ("whole": parameters and both moments), of which each has its part.
Steps also need gradients (a third of "whole"), and kernels keep weights in low precision. Linux only: peaks are those
of /proc/self/status, set back after each phase.

    python benchmarks/each_of_several_processes_holds_its_part_of_a_dictionary.py [--latents 32768] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from overtone.dictionaries.presets.top_k import TopK
from overtone.training.fit import _Saver, fit
from overtone.training.run import Run

PROCESSES, PHASES = (1, 2, 4), ("start", "steps", "save", "restore", "end")


def memory_mib(what: str) -> float:
    """What is resident now (VmRSS), or was at most since the last `forget` (VmHWM)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "this needs Linux"
    return int(found[1]) / 1024


def forget() -> None:
    """Set the peak back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


class Peaks:
    """The largest growth of each phase: a phase ends with the function that it is named with."""

    def __init__(self) -> None:
        forget()
        self.before, self.found = memory_mib("VmRSS"), dict[str, float]()

    def note(self, phase: str) -> None:
        """A phase ends here."""
        grown = memory_mib("VmHWM") - self.before
        self.found[phase] = max(grown, self.found.get(phase, 0.0))
        forget()

    def after(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """The function, after which a phase ends."""

        def noting(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.note(phase)
            return result

        return noting


def train(options: argparse.Namespace) -> dict[str, float]:
    """The peaks of one process, by phase."""
    torch.set_num_threads(1)
    if options.size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{options.meeting}", rank=options.rank, world_size=options.size
        )
    x = torch.randn(2 * options.rows, options.width, generator=torch.Generator().manual_seed(0))
    peaks = Peaks()
    Run.begin, Run.advance = peaks.after(Run.begin, "start"), peaks.after(Run.advance, "steps")
    _Saver.save = peaks.after(_Saver.save, "save")
    _Saver.restore = peaks.after(_Saver.restore, "restore")
    fit(
        TopK(options.latents, k=32), x, n_tokens=options.steps * options.rows, batch_rows=options.rows, quiet=True,
        split="latents" if options.size > 1 else None, checkpoint=options.checkpoint, checkpoint_every_s=1e9,
    )  # fmt: skip
    peaks.note("end")
    if options.size > 1:
        dist.destroy_process_group()
    return peaks.found


def together(size: int, folder: Path, sizes: dict[str, int]) -> list[dict[str, float]]:
    """What each of some processes needed for a training, or for taking up what lies in the folder."""
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--child", "--meeting", str(meeting), "--checkpoint", str(folder / "saved")]
    for name, value in {**sizes, "size": size}.items():
        command += [f"--{name}", str(value)]
    children = [
        subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(size)
    ]
    return [json.loads(child.communicate()[0]) for child in children]


def measured(size: int, sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    """The peaks by phase of the neediest process, and of the neediest but the first."""
    with tempfile.TemporaryDirectory() as folder:
        began = together(size, Path(folder), sizes)
        again = together(size, Path(folder), sizes)
    found = [{**one, "restore": other["restore"]} for one, other in zip(began, again, strict=True)]
    groups = {"any": found, "not the first": found[1:]}
    return {
        name: {phase: round(max(one[phase] for one in group)) for phase in PHASES}
        for name, group in groups.items()
        if group
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"latents": 32_768, "width": 512, "rows": 256, "steps": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name in ("size", "rank"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    for name in ("meeting", "checkpoint"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(options)))
        return
    sizes = {name: getattr(options, name) for name in ("latents", "width", "rows", "steps")}
    found: dict[str, Any] = {"whole": round(2 * 3 * 4 * options.latents * options.width / 2**20)}
    found |= {str(size): measured(size, sizes) for size in PROCESSES}
    print(json.dumps(found, indent=1) if options.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()

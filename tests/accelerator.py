"""An accelerator that is not there: `python accelerator.py FOLDER` trains every kind of dictionary on it, and steers.

Its tensors are held by the CPU, but refuse to meet those of the CPU, to be read as numpy arrays and to be drawn by a
CPU's generator, as a GPU's do; and it is counted how often a step waits for it. What comes out lies in FOLDER.
"""

import copy
import io
import json
import os
import sys
import traceback
from contextlib import redirect_stdout, suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import overtone as ot
from overtone.cli import main as main_of_overtone
from overtone.core.artifacts import file_hash
from overtone.core.batch import ActivationBatch, Where
from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError
from overtone.core.seeds import torch_generator
from overtone.core.sites import Site
from overtone.data.countdown import problems
from overtone.dictionaries.presets.pca import PCA
from overtone.evaluate.faithfulness import faithfulness, spliced
from overtone.formats.exchange import export_dictionary
from overtone.steering.measure import measure_kl
from overtone.training.fit import fit
from overtone.training.run import Run
from overtone.training.schedules import Schedule

DEVICE = "pretended"
WIDTH, LATENTS, K, ROWS = 24, 16, 4, 400
aten = torch.ops.aten
MOVES = {aten._to_copy, aten.copy_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
JOINING = {aten.cat, aten.stack}
SIZED_BY_VALUES = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten.bincount,
    aten._unique2, aten.unique_consecutive, aten.repeat_interleave,
}  # fmt: skip


class Far(Tensor):
    """A tensor on the accelerator."""

    held: Tensor

    @staticmethod
    def __new__(cls, held):
        """Around what the CPU holds for it."""
        shape, strides, offset = held.shape, held.stride(), held.storage_offset()
        made = Tensor._make_wrapper_subclass(
            cls, shape, strides=strides, storage_offset=offset, dtype=held.dtype, device=torch.device(DEVICE, 0)
        )
        made.held = held
        return made

    def __repr__(self):
        """What it holds."""
        return f"Far({self.held})"

    def tolist(self):
        """Its numbers, for which the accelerator is waited for."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """One operation with such tensors."""
        return _done(func, args, kwargs or {})


class Accelerator(TorchDispatchMode):
    """Inside, tensors can be made on the accelerator. waits: where it was waited for."""

    waits: list[str]
    now: "Accelerator | None" = None

    def __enter__(self):
        """Nobody has waited."""
        self.waits, Accelerator.now = [], self
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """One operation."""
        return _done(func, args, kwargs or {})


def _is_far(device) -> bool:
    return device is not None and torch.device(device).type == DEVICE


def _done(func, args, kwargs):
    leaves = _leaves((args, list(kwargs.values())))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    far = [t for t in tensors if isinstance(t, Far)]
    goes_far = _is_far(kwargs["device"]) if kwargs.get("device") is not None else bool(far)
    if not far and not goes_far:
        return func(*args, **kwargs)
    packet = func._overloadpacket
    if packet is aten.copy_:
        goes_far = isinstance(args[0], Far)
    met = [args[0], *_leaves(args[2:])] if packet in INDEXING and isinstance(args[0], Far) else tensors
    joins = packet in JOINING  # all else takes a number of the CPU, as an index too
    strangers = [t for t in met if isinstance(t, Tensor) and not isinstance(t, Far) and (t.dim() or joins)]
    if far and strangers and packet not in MOVES:
        raise RuntimeError(f"{func}: tensors of both devices")
    if goes_far and any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{func}: the CPU's generator draws for the accelerator")
    if far and Accelerator.now is not None and (not goes_far or _has_to_look(packet, args)):
        Accelerator.now.waits.append(f"{packet} {_place()}")
    inner = {name: _mapped(_held, value) for name, value in kwargs.items()}
    if kwargs.get("device") is not None:
        inner["device"] = torch.device("cpu")
    found = func(*_mapped(_held, args), **inner)
    if not goes_far or not any(isinstance(leaf, Tensor) for leaf in _leaves((found,))):
        return found
    found = _mapped(lambda leaf: Far(leaf) if isinstance(leaf, Tensor) else leaf, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if far else found


def _leaves(values) -> list:
    """All that is in sequences of values and of sequences, in which operations have their arguments and results."""
    found = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += _leaves(value)
        else:
            found.append(value)
    return found


def _mapped(change, value):
    """The same with another value for each."""
    return type(value)([_mapped(change, one) for one in value]) if isinstance(value, (list, tuple)) else change(value)


def _held(leaf):
    return leaf.held if isinstance(leaf, Far) else leaf


def _has_to_look(packet, args) -> bool:
    """Whether the size of what comes out, or a number, depends on what the accelerator holds."""
    by_mask = packet in INDEXING and any(t is not None and t.dtype == torch.bool for t in args[1])
    return by_mask or packet in SIZED_BY_VALUES


def _place() -> str:
    """The line of the package that is at work; in a backward pass, none."""
    frames = [frame for frame in traceback.extract_stack() if f"{os.sep}overtone{os.sep}" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "backward"


def register() -> None:
    """Make torch know the device."""
    _setup_privateuseone_for_python_backend(DEVICE)
    library = torch.library.Library("aten", "IMPL")

    def empty_strided(size, stride, **options):
        return Far(torch.empty_strided(size, stride, dtype=options.get("dtype")))

    def copy_from(source, to, non_blocking=False):
        _held(to).copy_(_held(source))
        return to

    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    register.kept = library  # what it registers goes with it


# ------------------------------------------------------------------------------------------------------- what is tried
HERE, THERE = Site("mlp_in", 0), Site("mlp_out", 0)


def states() -> Tensor:
    """(ROWS, WIDTH) states."""
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(3)) + 0.3


def trained(preset, device: str, folder: Path):
    """The preset's training on a device, once to the end and once from what that saved."""
    x, nothing = states(), torch.zeros(ROWS, dtype=torch.int64)
    batch = ActivationBatch({HERE: x, THERE: x.roll(1, 1).abs()}, Where(nothing, nothing, nothing), g={HERE: x.cos()})
    target = THERE if "y" in preset.needs else None
    options = {"n_tokens": 2000, "batch_rows": 100, "quiet": True, "checkpoint": folder, "device": device}
    first, again = (fit(preset, batch, site=HERE, target=target, **options) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.dictionary.state_dict().values(),
                                                  again.dictionary.state_dict().values(), strict=True))  # fmt: skip
    return first


def used(dictionary, folder: Path) -> list[Tensor | str]:
    """What a dictionary makes of states on the CPU: codes, reconstructions, atoms, and the file for another library."""
    x = states()
    beside = ({"g": x.cos()},) if dictionary.origin["preset"] == "g_sae" else ()
    codes = dictionary.encode(x, *beside)
    found = [codes.dense(), dictionary.decode(codes.to("cpu"), x)]
    if dictionary.capabilities.linear_decoder:
        found += [dictionary.atoms() * dictionary.atom_norms()[:, None]]
    with suppress(CapabilityError):
        export_dictionary(dictionary, folder, "saelens")
        found += [file_hash(file) for file in sorted(folder.glob("*.safetensors"))]
    return found


def tried(name: str, folder: Path) -> dict:
    """What became of a preset on the CPU and on the accelerator."""
    preset = entries("dictionaries")[name].thing.example(n_latents=LATENTS, k=K)
    here = trained(preset, "cpu", folder / f"{name}-here")
    with Accelerator() as accelerator:
        there = trained(preset, DEVICE, folder / f"{name}-there")
        near = used(there.dictionary, folder / f"{name}-near")
        far = used(copy.deepcopy(there.dictionary).to(DEVICE), folder / f"{name}-far")
        return {
            "losses": [[record.loss for record in fitted.record] for fitted in (here, there)],
            "apart": [
                float(a != b) if isinstance(a, str) else float((a - b.cpu()).abs().max())
                for a, b in zip(near, far, strict=True)
            ],
            "waits": [] if preset.whole else waits(preset, accelerator),
        }


def waits(preset, accelerator: Accelerator) -> list[str]:
    """Where a step that is not the first, and renews no list of dead latents, waits for the accelerator."""
    generator = torch_generator(0, "accelerator")
    other = {"width_out": WIDTH} if "y" in preset.needs else {}
    model = preset.build(WIDTH, generator, **other).to(DEVICE).train()
    run = Run("", preset, model, lr=1e-3, schedule=Schedule(), n_tokens=10**6)
    for maintainer in run.maintainers:  # lists of latents are renewed now and then, but not in this step
        for horizon in {"window", "memory"} & set(vars(maintainer)):
            setattr(maintainer, horizon, 10**6)
    x = states().to(DEVICE)
    batch = x, x.abs() if "y" in preset.needs else None, x.cos() if "g" in preset.needs else None
    run.begin(*batch[:2])
    for _ in range(4):
        accelerator.waits.clear()
        run.advance(*batch)
    return list(accelerator.waits)


def steered(device: str) -> dict:
    """What a model writes with and without an edit, and what is read from it, on a device; all that is given to it lies
    on the CPU."""
    made = ot.bundled_reasoner()
    model = ot.HookedModel.wrap(made.model.to(device), made.tokenizer)
    site = Site("residual", 3)
    asked = [model.tokenizer.encode(problems.prompt(p) + "\n\n") for p in problems.split_problems(held_out=True)[:3]]
    traces = ot.generate(model, asked, max_new_tokens=30)
    rows = ot.ActivationStream(model, traces, site, ot.AllTokens(), quiet=True).all().at(site).cpu()
    vector = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0))
    direction = ot.unit_direction(vector, site, model=model.fingerprint, rows=rows, name="random")
    arms = {"none": [], "push": [ot.Steering(direction, ot.Add(ot.Strength(0.5, "norm")), ot.When())]}
    written = ot.generate_arms(model, asked, arms, ot.Sampling(max_new_tokens=30))
    dictionary = fit(PCA(8), rows, n_tokens=len(rows), quiet=True).dictionary
    faith = faithfulness(model, traces, site, {"pca": spliced(dictionary)})
    return {
        "tokens": {name: [trace.tokens for trace in found] for name, found in written.items()},
        "numbers": [
            float(rows.norm()), float(model.unembed(rows[:4]).norm()), faith.divergence("pca").value,
            measure_kl(model, traces, arms["push"]).mean,
        ],
    }  # fmt: skip


def told(folder: Path, device: str) -> list[float]:
    """The figures of `overtone collect`, `overtone train` and `overtone compare` on a device."""
    lines = [json.dumps({"text": f"Numbers: {n} {n + 1} {n + 2}"}) for n in range(40)]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    common = ["--device", device, "--json", "--quiet"]
    store = _said("collect", "--texts", folder / "texts.jsonl", "--sites", "residual.1", "--out", folder, *common)
    words = ["--store", store["store"], "--latents", 32, "--k", 4, "--tokens", 4000, "--out", folder / "made"]
    found = _said("train", "top_k", *words, *common)
    words = ["--activations", store["store"], "--n-latents", 32, "--k", 4, "--n-tokens", 4000, "--seeds", 1]
    compared = _said("compare", "top_k", "pca", *words, "--out", folder / "compared", *common)
    standings = {one["name"]: one["fvu"]["value"] for one in compared["standings"]}
    return [*(found[name] for name in ("error", "l0", "dead_share")), standings["top_k"], standings["pca"]]


def _said(*words) -> dict:
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main_of_overtone([str(word) for word in words]) == 0
    return json.loads(printed.getvalue())


def message_of(action) -> str:
    """The error that an action ends with, "" if there is none."""
    try:
        action()
    except (RuntimeError, TypeError) as error:
        return str(error)
    return ""


def refused() -> dict:
    """What the accelerator does not do, and how many of four reading operations it counts."""
    with Accelerator() as accelerator:
        x, generator = torch.ones(3, device=DEVICE), torch.Generator().manual_seed(0)
        found = {
            "strangers": message_of(lambda: x + torch.ones(3)),
            "generator": message_of(lambda: torch.empty(3, device=DEVICE).normal_(generator=generator)),
            "numpy": message_of(lambda: x.numpy()),
        }
        accelerator.waits.clear()
        float(x.sum()), x.cpu(), x[x > 0], x.nonzero()
    return {**found, "waits": len(accelerator.waits)}


def main(folder: Path) -> None:
    """Try all kinds."""
    os.environ["OVERTONE_KERNELS"] = "plain"
    torch.set_num_threads(1)
    register()
    for part in ("told-here", "told-there"):
        (folder / part).mkdir()
    here = steered("cpu"), told(folder / "told-here", "cpu")
    with Accelerator():
        there = steered(DEVICE), told(folder / "told-there", DEVICE)
    found = {"refused": refused(), "model": [here[0], there[0]], "told": [here[1], there[1]]}
    for name in entries("dictionaries"):
        try:
            found[name] = tried(name, folder)
        except Exception:  # the test shows it
            found[name] = {"error": traceback.format_exc()}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # the engine's thread for the device does not end by itself


if __name__ == "__main__":
    main(Path(sys.argv[1]))

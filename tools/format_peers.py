"""The other libraries' side of check_formats.py: runs in THEIR environments, with their package and nothing of ours.

    python tools/format_peers.py PEER write FOLDER   small random dictionaries in every kind that PEER writes, each in a
                                                     folder with expected.safetensors (x, codes, reconstruction)
    python tools/format_peers.py PEER read FOLDER    for every folder in FOLDER, written by overtone: what PEER makes of
                                                     its rows (x), as PEER.result (codes, reconstruction; safetensors)

Both leave the name and version of the package in FOLDER/peer.json.
"""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WIDTH, LATENTS, K, ROWS = 6, 16, 3, 20
HOOK = "blocks.3.hook_resid_post"
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows to (codes, reconstruction)."""


def shaken(module: Any) -> Any:
    """Every parameter random, thresholds positive."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn.abs() * 0.5 if "threshold" in name else drawn * 0.5)
    return module.eval()


def rows() -> Tensor:
    """The rows that everyone encodes."""
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)) * 2 + 0.5


def expected(folder: Path, encode: Encode) -> None:
    """Keep what the peer itself makes of the rows."""
    x = rows()
    with torch.no_grad():
        codes, reconstruction = encode(x)
    tensors = {"x": x, "codes": codes.detach(), "reconstruction": reconstruction.detach()}
    save_file({name: tensor.contiguous().float() for name, tensor in tensors.items()}, folder / "expected.safetensors")


# -------------------------------------------------------------------------------------------------------------- SAELens
def _saelens(sae: Any) -> Encode:
    return lambda x: (sae.encode(x), sae(x))


def saelens_write(folder: Path) -> None:
    """One folder per architecture that version 6 writes."""
    import sae_lens as sl

    size = {"d_in": WIDTH, "d_sae": LATENTS}
    place = {"metadata": sl.saes.sae.SAEMetadata(model_name="gpt2", hook_name=HOOK)}
    across = {
        "metadata": sl.saes.sae.SAEMetadata(hook_name="blocks.3.hook_mlp_in", hook_name_out="blocks.3.hook_mlp_out")
    }
    transcoder = {**size, **across, "d_out": WIDTH + 2, "apply_b_dec_to_input": False}
    made = {
        "standard": sl.StandardSAE(sl.StandardSAEConfig(**size, **place)),
        "standard-uncentred": sl.StandardSAE(sl.StandardSAEConfig(**size, **place, apply_b_dec_to_input=False)),
        "gated": sl.GatedSAE(sl.GatedSAEConfig(**size, **place)),
        "jumprelu": sl.JumpReLUSAE(sl.JumpReLUSAEConfig(**size, **place, apply_b_dec_to_input=False)),
        "topk": sl.TopKSAE(sl.TopKSAEConfig(**size, **place, k=K)),
        "topk-rescaled": sl.TopKSAE(sl.TopKSAEConfig(**size, **place, k=K, rescale_acts_by_decoder_norm=True)),
        "transcoder": sl.Transcoder(sl.TranscoderConfig(**transcoder)),
        "skip-transcoder": sl.SkipTranscoder(sl.SkipTranscoderConfig(**transcoder)),
        "jumprelu-transcoder": sl.JumpReLUTranscoder(sl.JumpReLUTranscoderConfig(**transcoder)),
    }
    if hasattr(sl, "MatchingPursuitSAE"):
        fixed = {"max_iterations": 4, "residual_threshold": 0.0, "stop_on_duplicate_support": False}
        made["matching_pursuit"] = sl.MatchingPursuitSAE(sl.MatchingPursuitSAEConfig(**size, **place, **fixed))
    for norm in ("layer_norm", "constant_norm_rescale"):
        made[norm] = sl.TopKSAE(sl.TopKSAEConfig(**size, **place, k=K, normalize_activations=norm))
    if hasattr(sl, "AbsTopKSAE"):
        made["abstopk"] = sl.AbsTopKSAE(sl.AbsTopKSAEConfig(**size, **place, k=K))
    for name, sae in made.items():
        shaken(sae)
        if name == "matching_pursuit":  # with rows of other lengths its residuals grow
            sae.W_dec.data /= sae.W_dec.data.norm(dim=1, keepdim=True)
        sae.save_model(folder / name)
        expected(folder / name, _saelens(sae))
    for name, more in {
        "old-standard": {"activation_fn_str": "relu", "normalize_activations": False, "hook_point": HOOK},
        "old-topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "hook_name": HOOK},
    }.items():  # cfg.json as versions before 6 wrote it, read by today's SAELens
        shaken(made["standard"]).save_model(folder / name)
        old = {"d_in": WIDTH, "d_sae": LATENTS, "dtype": "float32", "apply_b_dec_to_input": True, "model_name": "gpt2"}
        (folder / name / "cfg.json").write_text(json.dumps({**old, **more}))
        expected(folder / name, _saelens(sl.SAE.load_from_disk(folder / name)))
    training = sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(**size, **place, k=K))
    shaken(training)
    training.topk_threshold.fill_(0.7)
    training.save_inference_model(folder / "batchtopk")
    expected(folder / "batchtopk", _saelens(sl.SAE.load_from_disk(folder / "batchtopk")))


def saelens_load(folder: Path) -> Encode:
    """SAELens' reading of a folder."""
    import sae_lens as sl

    kind = json.loads((folder / "cfg.json").read_text())["architecture"]
    return _saelens(sl.registry.get_sae_class(kind)[0].load_from_disk(folder))


# ------------------------------------------------------------------------------------------------------------- sparsify
def _sparsify(coder: Any) -> Encode:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices, _ = coder.encode(x)
        return torch.zeros(len(x), coder.num_latents).scatter_(1, indices, values), coder(x).sae_out

    return encode


def sparsify_write(folder: Path) -> None:
    """An autoencoder, and transcoders with and without skip."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    for name, options in {
        "topk": {},
        "transcoder": {"transcode": True},
        "skip-transcoder": {"transcode": True, "skip_connection": True},
    }.items():
        coder = shaken(SparseCoder(WIDTH, SparseCoderConfig(num_latents=LATENTS, k=K, **options)))
        coder.save_to_disk(folder / name)
        expected(folder / name, _sparsify(coder))


def sparsify_load(folder: Path) -> Encode:
    """sparsify's reading of a folder."""
    from sparsify.sparse_coder import SparseCoder

    return _sparsify(SparseCoder.load_from_disk(folder))


# -------------------------------------------------------------------------------------------------- dictionary_learning
def _dictionary_learning_classes() -> dict[str, type]:
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    found = {name: getattr(dictionary, name) for name in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder")}
    found |= {"JumpReluAutoEncoder": dictionary.JumpReluAutoEncoder}
    found |= {"AutoEncoderTopK": AutoEncoderTopK, "BatchTopKSAE": BatchTopKSAE}
    try:
        from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    except ImportError:  # not in the release of February 2025
        return found
    return {**found, "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE}


def _dictionary_learning_new(kind: str, width: int, n_latents: int, k: int) -> Any:
    more = {"AutoEncoderTopK": [k], "BatchTopKSAE": [k], "MatryoshkaBatchTopKSAE": [k, [n_latents]]}
    return _dictionary_learning_classes()[kind](width, n_latents, *more.get(kind, []))


def _coder(coder: Any) -> Encode:
    return lambda x: (coder.encode(x), coder.decode(coder.encode(x)))


def dictionary_learning_write(folder: Path) -> None:
    """One folder per class, saved as its trainer saves it."""
    for kind in _dictionary_learning_classes():
        coder = shaken(_dictionary_learning_new(kind, WIDTH, LATENTS, K))
        if kind == "AutoEncoder":
            coder.decoder.weight.data /= coder.decoder.weight.data.norm(dim=0)
        if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
            coder.threshold.fill_(0.7)
        place = folder / kind
        place.mkdir(parents=True)
        torch.save(coder.state_dict(), place / "ae.pt")
        trainer = {"dict_class": kind, "activation_dim": WIDTH, "dict_size": LATENTS, "k": K, "lm_name": "gpt2"}
        (place / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
        expected(place, _coder(coder))


def dictionary_learning_load(folder: Path) -> Encode:
    """The class that config.json names, with the state dict in ae.safetensors."""
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    coder = _dictionary_learning_new(
        trainer["dict_class"], trainer["activation_dim"], trainer["dict_size"], trainer.get("k", 1)
    )
    coder.load_state_dict(load_file(folder / "ae.safetensors"))
    return _coder(coder)


# ------------------------------------------------------------------------------------------------------- circuit-tracer
def circuit_tracer_write(folder: Path) -> None:
    """Transcoders with a rectifier or a threshold, with and without skip, and an npz as Gemma Scope has it."""
    import numpy
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, load_gemma_scope_transcoder

    for name, jump, skip in (("relu", False, False), ("jumprelu", True, False), ("relu-skip", False, True)):
        act = JumpReLU(torch.zeros(LATENTS)) if jump else nn.functional.relu
        made = SingleLayerTranscoder(
            WIDTH, LATENTS, act, 2, skip_connection=skip, device=torch.device("cpu"), dtype=torch.float32
        )
        (folder / name).mkdir(parents=True)
        shaken(made).to_safetensors(str(folder / name / "layer_2.safetensors"))
        expected(folder / name, lambda x, made=made: (made.encode(x), made(x)))
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, Any] = {
        "W_enc": (WIDTH, LATENTS),
        "W_dec": (LATENTS, WIDTH),
        "b_enc": (LATENTS,),
        "b_dec": (WIDTH,),
    }
    arrays: dict[str, Any] = {key: torch.randn(shape, generator=generator).numpy() for key, shape in shapes.items()}
    (folder / "gemma-scope").mkdir()
    numpy.savez(folder / "gemma-scope" / "params.npz", threshold=numpy.full(LATENTS, 0.7, numpy.float32), **arrays)
    read = load_gemma_scope_transcoder(
        str(folder / "gemma-scope" / "params.npz"), 2, device=torch.device("cpu"), dtype=torch.float32
    )
    expected(folder / "gemma-scope", lambda x: (read.encode(x), read(x)))


def circuit_tracer_load(folder: Path) -> Encode:
    """circuit-tracer's reading of layer_N.safetensors or of Gemma Scope's params.npz."""
    from circuit_tracer.transcoder.single_layer_transcoder import load_gemma_scope_transcoder, load_relu_transcoder

    if (folder / "params.npz").exists():
        made = load_gemma_scope_transcoder(str(folder / "params.npz"), 0, torch.device("cpu"), torch.float32)
    else:
        made = load_relu_transcoder(
            str(next(folder.glob("layer_*.safetensors"))), 0, torch.device("cpu"), torch.float32
        )
    return lambda x: (made.encode(x), made(x))


# --------------------------------------------------------------------------------------------------------------- OpenAI
def openai_write(folder: Path) -> None:
    """State dicts of openai/sparse_autoencoder; with TopK it standardises the rows."""
    from sparse_autoencoder.model import Autoencoder, TopK

    for name, activation in (("relu", nn.ReLU()), ("identity", nn.Identity()), ("topk", TopK(K))):
        made = shaken(Autoencoder(LATENTS, WIDTH, activation=activation, normalize=name == "topk"))
        (folder / name).mkdir(parents=True)
        torch.save(made.state_dict(), folder / name / "autoencoder.pt")

        def encode(x: Tensor, made: Any = made) -> tuple[Tensor, Tensor]:
            codes, info = made.encode(x)
            return codes, made.decode(codes, info)

        expected(folder / name, encode)


PEERS: dict[str, Any] = {
    "saelens": ("sae-lens", saelens_write, saelens_load),
    "sparsify": ("eai-sparsify", sparsify_write, sparsify_load),
    "dictionary_learning": ("dictionary-learning", dictionary_learning_write, dictionary_learning_load),
    "circuit_tracer": ("circuit-tracer", circuit_tracer_write, circuit_tracer_load),
    "openai": ("sparse_autoencoder", openai_write, None),
}


def main() -> None:
    """Do what the command line says (see the top of the file)."""
    peer, what, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    package, write, load = PEERS[peer]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not an installed package
        version = "checkout"
    (folder / "peer.json").write_text(json.dumps({"package": package, "version": version}))
    if what == "write":
        write(folder)
        return
    assert load is not None, f"{peer} is not written by overtone"
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        with torch.no_grad():
            codes, reconstruction = load(place)(load_file(folder / "x.safetensors")["x"])
        result = {"codes": codes.contiguous().float(), "reconstruction": reconstruction.contiguous().float()}
        save_file(result, place / f"{peer}.result")


if __name__ == "__main__":
    main()

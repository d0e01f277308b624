"""SAEBenchObject, checked by SAEBench itself: its core evaluation on a tiny random transformer, without network.

    PYTHONPATH=src PYTHON tools/check_saebench.py [--json]

PYTHON is the interpreter of an environment with sae-bench (which brings SAELens). Every preset that decodes with one
matrix is trained for a moment on the transformer's states and evaluated as our object. Those that SAELens holds are
exported, loaded by SAELens and evaluated beside it: the metrics must agree. Prints L0, explained variance and cross
entropy recovered; exits 1 if a metric differs by more than 1e-3 of its size or is not finite.
"""

import argparse
import json
import math
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.custom_saes.custom_sae_config import CustomSAEConfig
from sae_bench.evals.core.eval_config import CoreEvalConfig
from sae_bench.evals.core.main import run_evals
from sae_bench.sae_bench_utils.general_utils import _standardize_sae_cfg
from sae_lens import SAE
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError, SettingError
from overtone.core.sites import Site
from overtone.dictionaries.dictionary import Dictionary
from overtone.formats.exchange import export_dictionary
from overtone.formats.saebench import SAEBenchObject
from overtone.training.fit import fit

SITE, WIDTH, LATENTS, K = Site("residual", 1), 16, 32, 4


class Tokens:
    """What SAEBench asks of its store of activations: batches of random tokens, the same after every reset."""

    context_size, store_batch_size_prompts = 12, 8

    def reset_input_dataset(self) -> None:
        """Begin again."""
        self.generator = torch.Generator().manual_seed(0)

    def get_batch_tokens(self, rows: int) -> Tensor:
        """(rows, context) tokens."""
        return torch.randint(40, (rows, self.context_size), generator=self.generator)


def evaluated(sae: Any, model: HookedTransformer) -> dict[str, float]:
    """SAEBench's core metrics by name."""
    store = Tokens()
    store.reset_input_dataset()
    _standardize_sae_cfg(sae.cfg)
    config = CoreEvalConfig(
        batch_size_prompts=8,
        n_eval_reconstruction_batches=2,
        n_eval_sparsity_variance_batches=2,
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
    )
    found, per_latent = run_evals(sae, store, model, eval_config=config)
    assert len(per_latent["feature_density"]) == sae.cfg.d_sae
    flat = {name: value for group in found.values() for name, value in group.items()}
    return {name: float(value) for name, value in flat.items() if isinstance(value, float)}


def trained(thing: Any, states: Tensor) -> Dictionary:
    """A preset after a short training; those that can have no more latents than coordinates have that many."""
    options = {"n_tokens": 20_000, "batch_rows": 100, "quiet": True}
    try:
        return fit(thing.example(n_latents=LATENTS, k=K), states, **options).dictionary
    except SettingError:
        return fit(thing.example(n_latents=WIDTH, k=K), states, **options).dictionary


def apart(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The largest difference of a metric in units of its size."""
    return max(abs(ours[name] - theirs[name]) / max(abs(theirs[name]), 1e-3) for name in theirs)


def main() -> int:
    """Evaluate every preset; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    as_json = parser.parse_args().json
    torch.manual_seed(0)
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=3, d_model=WIDTH, n_ctx=16, d_head=8, n_heads=2, d_vocab=40, act_fn="gelu", seed=0, device="cpu"
        )
    )
    tokens = Tokens()
    tokens.reset_input_dataset()
    _, cache = model.run_with_cache(tokens.get_batch_tokens(200), names_filter=SITE.lens_name)
    states = cache[SITE.lens_name].detach().reshape(-1, WIDTH)
    lines = []
    for name, entry in entries("dictionaries").items():
        if entry.thing.needs:
            continue
        dictionary = trained(entry.thing, states)
        try:
            ours = SAEBenchObject(dictionary, site=SITE, model="tiny")
        except CapabilityError:
            continue
        lacking = {f.name for f in fields(CustomSAEConfig)} - set(ours.cfg.to_dict())
        assert not lacking and BaseSAE.check_decoder_norms(ours), f"{name}: cfg lacks {lacking}"  # type: ignore[arg-type]
        metrics = evaluated(ours, model)
        line = {"preset": name, "finite": all(math.isfinite(value) for value in metrics.values()), **metrics}
        with tempfile.TemporaryDirectory() as folder:
            try:
                export_dictionary(
                    dictionary, Path(folder) / "sae", "saelens", facts={"site": str(SITE), "model": "tiny"}
                )
            except CapabilityError:
                lines.append(line)
                continue
            theirs = SAE.load_from_disk(Path(folder) / "sae")
            ranked = theirs.cfg.architecture() in ("topk", "abstopk", "matching_pursuit")
            if not ranked:  # where SAELens can make its rows unit rows, as ours are
                theirs.fold_W_dec_norm()
            compared = evaluated(theirs, model)
            if ranked and not BaseSAE.check_decoder_norms(theirs):
                del compared["l1"]  # the size of codes goes by the length of the rows
            lines.append({**line, "apart_from_saelens": apart(metrics, compared)})
    bad = [line for line in lines if not line["finite"] or line.get("apart_from_saelens", 0) > 1e-3]
    if as_json:
        print(json.dumps({"checked": lines, "bad": len(bad)}, indent=1))
    else:
        for line in lines:
            told = {key: round(line[key], 4) for key in ("l0", "explained_variance", "ce_loss_score")}
            print(
                f"{line['preset']:<20} {told}  apart from SAELens: {line.get('apart_from_saelens', 'not held there')}"
            )
        print(f"{len(lines)} evaluated, {len(bad)} bad")
    return 1 if bad or not lines else 0


if __name__ == "__main__":
    sys.exit(main())

"""overtone: decompose what a neural network computes into directions, name them, turn them up or down, and prove it.

Importing this package costs nothing: no torch, no transformers. Rooms (`overtone.data`, `overtone.steering`, ...) and
the public names below are imported when they are first used. Code inside the package never imports this module.
"""

from importlib import import_module

__version__ = "0.1.0"

ROOMS = (
    "core", "data", "models", "activations", "dictionaries", "training", "interpret", "directions", "steering",
    "evaluate", "formats", "discover", "studies",
)  # fmt: skip

PUBLIC: dict[str, str] = {
    "AbsTopK": "overtone.dictionaries.presets.abs_top_k",
    "ActivationBatch": "overtone.core.batch",
    "ActivationStore": "overtone.activations.store",
    "ActivationStream": "overtone.activations.stream",
    "Adapter": "overtone.models.adapter",
    "Add": "overtone.steering.edits.add",
    "AlignedSources": "overtone.activations.aligned",
    "AllTokens": "overtone.activations.positions",
    "ArraySource": "overtone.activations.array",
    "BatchTopK": "overtone.dictionaries.presets.batch_top_k",
    "Crosscoder": "overtone.dictionaries.presets.crosscoder",
    "Dictionary": "overtone.dictionaries.dictionary",
    "Direction": "overtone.directions.direction",
    "DiscoverSettings": "overtone.discover.settings",
    "FeatureChoice": "overtone.dictionaries.presets.feature_choice",
    "Finding": "overtone.core.report",
    "GBA": "overtone.dictionaries.presets.gba",
    "GSAE": "overtone.dictionaries.presets.g_sae",
    "Gated": "overtone.dictionaries.presets.gated",
    "HookedModel": "overtone.models.hooked",
    "ICA": "overtone.dictionaries.presets.ica",
    "ITDA": "overtone.dictionaries.presets.itda",
    "JumpReLU": "overtone.dictionaries.presets.jump_relu",
    "KMeans": "overtone.dictionaries.presets.k_means",
    "LogitBias": "overtone.steering.bias",
    "MPSAE": "overtone.dictionaries.presets.mp_sae",
    "Matryoshka": "overtone.dictionaries.presets.matryoshka",
    "MultiTopK": "overtone.dictionaries.presets.multi_top_k",
    "MutualChoice": "overtone.dictionaries.presets.mutual_choice",
    "NMF": "overtone.dictionaries.presets.nmf",
    "OvertoneError": "overtone.core.errors",
    "PAnnealing": "overtone.dictionaries.presets.p_annealing",
    "PCA": "overtone.dictionaries.presets.pca",
    "PolySAE": "overtone.dictionaries.presets.poly_sae",
    "Pursuit": "overtone.dictionaries.pursuit",
    "RandomDirections": "overtone.dictionaries.presets.random_directions",
    "ReasoningTrace": "overtone.data.traces",
    "ReluL1": "overtone.dictionaries.presets.relu_l1",
    "Remove": "overtone.steering.edits.remove",
    "Report": "overtone.core.report",
    "SAEBenchObject": "overtone.formats.saebench",
    "SNMF": "overtone.dictionaries.presets.snmf",
    "Sampling": "overtone.steering.generate",
    "Scale": "overtone.steering.edits.scale",
    "Site": "overtone.core.sites",
    "SkipTranscoder": "overtone.dictionaries.presets.skip_transcoder",
    "SparseCodes": "overtone.dictionaries.codes",
    "StateAtoms": "overtone.dictionaries.classic.state_atoms",
    "Steering": "overtone.steering.steer",
    "StepAnchor": "overtone.activations.positions",
    "Strength": "overtone.steering.strength",
    "TopAFA": "overtone.dictionaries.presets.top_afa",
    "TopK": "overtone.dictionaries.presets.top_k",
    "Transcoder": "overtone.dictionaries.presets.transcoder",
    "VSAE": "overtone.dictionaries.presets.v_sae",
    "When": "overtone.steering.when",
    "bundled_reasoner": "overtone.models.reasoner",
    "centroid_of_atoms": "overtone.directions.atoms",
    "collect": "overtone.activations.store",
    "convert": "overtone.formats.exchange",
    "cut_steps": "overtone.data.traces",
    "delimiter_ids": "overtone.data.traces",
    "export_control_vector": "overtone.formats.control_vector",
    "export_dictionary": "overtone.formats.exchange",
    "feature_tree": "overtone.dictionaries.classic.feature_tree",
    "fit": "overtone.training.fit",
    "fit_many": "overtone.training.fit",
    "from_atom": "overtone.directions.atoms",
    "from_interaction": "overtone.directions.interactions",
    "from_linear_parts": "overtone.directions.interactions",
    "generate": "overtone.steering.generate",
    "generate_arms": "overtone.steering.generate",
    "import_control_vector": "overtone.formats.control_vector",
    "import_dictionary": "overtone.formats.exchange",
    "interactions": "overtone.interpret.interactions",
    "label_overlap": "overtone.evaluate.similarity",
    "lineup": "overtone.evaluate.lineup.lineup",
    "load_dictionary": "overtone.dictionaries.storage",
    "load_directions": "overtone.directions.direction",
    "load_traces": "overtone.data.traces",
    "matched_contrast": "overtone.interpret.profiles",
    "matched_mean_difference": "overtone.directions.means",
    "mean_difference": "overtone.directions.means",
    "measure_kl": "overtone.steering.measure",
    "open_activations": "overtone.activations.opening",
    "parse_sites": "overtone.core.sites",
    "profile": "overtone.interpret.profiles",
    "quality": "overtone.evaluate.quality",
    "quasi_orthogonality": "overtone.evaluate.afa",
    "random_like": "overtone.directions.controls",
    "relative_norms": "overtone.evaluate.diffing",
    "save_directions": "overtone.directions.direction",
    "save_traces": "overtone.data.traces",
    "specific": "overtone.interpret.profiles",
    "split_groups": "overtone.data.traces",
    "steered": "overtone.steering.steer",
    "unit_direction": "overtone.directions.direction",
    "with_unit_rows": "overtone.dictionaries.rescale",
    "written_directions": "overtone.directions.writing",
}
"""Public name -> the module that defines it. One line here is all that exporting a name takes. The main job is the
function `overtone.discover.discover`: a room has that name already."""

__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str):
    """Import a room or a public name on first use (PEP 562)."""
    if name in ROOMS:
        return import_module(f"overtone.{name}")
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"overtone has no name {name!r}. Its rooms are {', '.join(ROOMS)}.")


def __dir__() -> list[str]:
    """Names offered to completion: what is loaded, the rooms and the public names."""
    return sorted({*globals(), *ROOMS, *PUBLIC})

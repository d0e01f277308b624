"""A dictionary as the object that SAEBench evaluates.

Followed: sae-bench 0.6.0, custom_saes/base_sae.py and its README: encode, decode and forward on any leading shape;
W_enc (width, latents), W_dec (latents, width) with unit rows, b_enc, b_dec; `cfg` with the fields that its core
evaluation reads; `device`, `dtype`; `check_decoder_norms`. The dictionary itself encodes, so any selection works: W_enc
and b_enc are there to be looked at. Codes are multiplied by the length of the decoder's rows, since W_dec has none.
"""

import copy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from overtone.core.errors import CapabilityError
from overtone.core.sites import Site
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Dictionary


@dataclass
class SAEBenchConfig:
    """The fields that SAEBench reads from `cfg`, with its defaults. hook_name: the site's name in TransformerLens.

    architecture: "overtone_" and the preset, since SAEBench expects a bias `b_mag` of what is called "gated".
    """

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    architecture: str = "overtone"
    dtype: str = "float32"
    device: str = "cpu"
    context_size: int | None = None
    hook_head_index: int | None = None
    apply_b_dec_to_input: bool | None = None
    finetuning_scaling_factor: bool | None = None
    activation_fn_str: str = ""
    activation_fn_kwargs: dict[str, Any] = field(default_factory=dict)
    prepend_bos: bool = True
    normalize_activations: str = "none"
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    dataset_path: str = ""
    dataset_trust_remote_code: bool = True
    seqpos_slice: tuple[int | None, ...] = (None,)
    training_tokens: int = -100_000
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict."""
        return asdict(self)


class SAEBenchObject(nn.Module):
    """`SAEBenchObject(dictionary, site="residual.6", model="gpt2-small")`: hand it to SAEBench as a custom SAE.

    Raises CapabilityError for a dictionary whose decoder is not linear or needs the input, which predicts other states
    than it reads, or reads several views: SAEBench puts a reconstruction in the place of one site's states.
    """

    def __init__(self, dictionary: Dictionary, *, site: Site | str, model: str) -> None:
        super().__init__()
        can, place = dictionary.capabilities, Site.parse(site)
        if not can.linear_decoder or can.decode_needs_input or can.predicts_other_states or can.several_views:
            raise CapabilityError(
                f"SAEBench decodes the states of one site with one matrix W_dec; {dictionary.kind} with its parts "
                "cannot. Evaluate it with overtone.evaluate."
            )
        self.dictionary = copy.deepcopy(dictionary).eval().requires_grad_(False)  # `to` moves it, not the caller's
        norms = dictionary.atom_norms().detach()
        self.norms: Tensor
        self.register_buffer("norms", norms)
        self.W_dec = nn.Parameter(dictionary.atoms().detach().clone(), requires_grad=False)
        self.b_dec = nn.Parameter(self._constant(), requires_grad=False)
        weight, bias = self._encoder()
        self.W_enc = nn.Parameter((weight * norms[:, None]).T.contiguous(), requires_grad=False)
        self.b_enc = nn.Parameter(bias * norms, requires_grad=False)
        self.device, self.dtype = self.W_dec.device, self.W_dec.dtype
        self.cfg = SAEBenchConfig(
            model, dictionary.width, dictionary.n_latents, place.layer, place.lens_name,
            architecture=f"overtone_{dictionary.origin.get('preset') or dictionary.origin.get('format') or 'own'}",
            dtype=str(self.dtype).removeprefix("torch."), device=str(self.device),
        )  # fmt: skip

    def _constant(self) -> Tensor:
        nothing = SparseCodes(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64), self.dictionary.n_latents)
        return self.dictionary.decode(nothing.to(self.W_dec.device))[0].detach().clone()

    def _encoder(self) -> tuple[Tensor, Tensor]:
        """Matrix and bias of the pre-activations in the states' units, zeros where there is no matrix."""
        model = self.dictionary.folded() if self.dictionary.capabilities.foldable else self.dictionary
        if isinstance(model, Autoencoder) and model.capabilities.has_encoder_matrix:
            weight, bias = model.encoder.affine(model.decoder)
            return weight.detach(), bias.detach()
        return torch.zeros_like(self.W_dec), self.W_dec.new_zeros(len(self.W_dec))

    def encode(self, x: Tensor) -> Tensor:
        """(..., width) states to (..., latents) dense codes for unit rows."""
        codes = self.dictionary.encode(x.reshape(-1, x.shape[-1])).dense() * self.norms
        return codes.to(self.dtype).reshape(*x.shape[:-1], -1)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """(..., latents) codes for unit rows to (..., width) reconstructions."""
        return feature_acts.to(self.dtype) @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """decode(encode(x))."""
        return self.decode(self.encode(x))

    def check_decoder_norms(self) -> bool:
        """True if the rows of W_dec have length 1, within SAEBench's own tolerance."""
        close = 1e-2 if self.W_dec.dtype in (torch.bfloat16, torch.float16) else 1e-5
        return bool(((self.W_dec.norm(dim=1) - 1).abs() <= close).all())

    def to(self, *args: Any, **kwargs: Any) -> "SAEBenchObject":
        """As torch's `to`; `device`, `dtype` and `cfg` follow."""
        super().to(*args, **kwargs)
        self.device, self.dtype = self.W_dec.device, self.W_dec.dtype
        self.cfg.device, self.cfg.dtype = str(self.device), str(self.dtype).removeprefix("torch.")
        return self

"""Multi-TopK: the file of the page, and TopK when the second term weighs nothing."""

import re
from pathlib import Path

import torch

from overtone.dictionaries.presets import multi_top_k
from overtone.dictionaries.presets.multi_top_k import MultiTopK
from overtone.dictionaries.presets.top_k import TopK
from overtone.training.fit import fit

PAGE = Path(__file__).parents[3] / "docs" / "adding" / "a-dictionary.md"


def test_the_example_of_the_page_is_this_file():
    (code,) = re.findall(r"^```python\n(\"\"\"Multi-TopK.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert code == Path(multi_top_k.__file__).read_text()


def trained(preset, x, **options):
    return fit(preset, x, **{"n_tokens": 2000, "batch_rows": 50, "quiet": True, **options}).dictionary


def test_with_weight_zero_it_is_top_k_bit_for_bit(generator):
    x = torch.randn(200, 8, generator=generator)
    same, other = trained(MultiTopK(16, k=3, weight=0.0), x).state_dict(), trained(MultiTopK(16, k=3), x)
    plain = trained(TopK(16, k=3), x).state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in same.items())
    assert not torch.equal(other.state_dict()["decoder.weight"], plain["decoder.weight"])


def test_it_stands_more_active_latents_better_than_top_k(generator):
    """What it is for: after training, k can be raised."""
    x = torch.randn(2000, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    errors = []
    for preset in (TopK(48, k=2), MultiTopK(48, k=2)):
        dictionary = trained(preset, x, n_tokens=30_000, batch_rows=200, lr=4e-3)
        dictionary.selection.budget = 8
        errors.append(float((dictionary.reconstruct(x) - x).square().mean()))
    assert errors[1] < 0.7 * errors[0]

"""The bundled reasoner: loaded like any other model, or a line that says how to make it."""

import pytest
import torch

from overtone.core.errors import ModelError
from overtone.core.sites import Site
from overtone.models.reasoner import bundled_folder, bundled_reasoner


def is_bundled():
    try:
        return bool(bundled_folder())
    except ModelError as error:
        assert "python tools/train_reasoner.py" in str(error)
        return False


@pytest.mark.skipif(not is_bundled(), reason="this checkout has no trained reasoner yet")
def test_the_reasoner_reads_and_goes_on_writing():
    model = bundled_reasoner()
    prompt = torch.tensor([model.need_tokenizer()("use 3 4 and 7 to make 14.")["input_ids"]])
    states = model.read(prompt, None, [Site("residual", model.n_layers - 1)])
    assert torch.isfinite(next(iter(states.values()))).all()
    logits, cache = model.forward(prompt, last_only=True)
    assert logits.shape == (1, 1, model.vocab_size) and cache.columns == prompt.shape[1]


@pytest.mark.skipif(is_bundled(), reason="the reasoner is there")
def test_its_absence_names_the_command_that_makes_it():
    with pytest.raises(ModelError, match="python tools/train_reasoner.py"):
        bundled_reasoner()

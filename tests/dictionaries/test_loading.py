"""Saved dictionaries load where nothing else was imported before, and without what only some installations have."""

import subprocess
import sys

import pytest

from overtone.core.catalogue import lookup
from overtone.core.seeds import torch_generator
from overtone.dictionaries.storage import save_dictionary

EXTRAS = ("triton", "datasets", "umap", "fastapi", "uvicorn", "plotly", "openai", "gguf", "ray")


@pytest.mark.parametrize("kind", ["top_k", "poly_sae", "v_sae"])
def test_a_dictionary_loads_in_a_process_of_its_own_without_extras(kind, tmp_path):
    preset = lookup("dictionaries", kind).thing.example(n_latents=8, k=2)
    save_dictionary(preset.build(6, torch_generator(0)), tmp_path / kind)
    code = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS})); from overtone import load_dictionary"
    code += f"; print(load_dictionary({str(tmp_path / kind)!r}).n_latents)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "8", done.stderr

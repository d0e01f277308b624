"""What the other libraries wrote, read with overtone: codes and reconstructions agree with theirs.

golden/ is made by tools/check_formats.py: a folder per library and version, with expected.safetensors beside each
dictionary (the rows, and what the library itself makes of them).
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError
from overtone.dictionaries.storage import load_dictionary, save_dictionary
from overtone.formats.exchange import export_dictionary, import_dictionary

CASES = sorted(path.parent for path in (Path(__file__).parent / "golden").glob("*/*/expected.safetensors"))
PEERS = {case.parent.name.rpartition("-")[0] for case in CASES}


def name_of(case):
    return f"{case.parent.name}/{case.name}"


def sizes(dictionary, x):
    """What codes are to be multiplied by to be in the units of the library: 1, or the rows' own units."""
    return dictionary.outward.units(x) if dictionary.outward.rowwise else 1.0


def test_every_library_with_a_package_has_left_something():
    assert {"saelens", "sparsify", "dictionary_learning", "circuit_tracer", "openai"} == PEERS
    assert PEERS | {"gemma_scope"} == set(entries("formats")), "gemma_scope lies with its reader, circuit_tracer"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_codes_and_reconstructions_are_those_of_the_library(case, tmp_path):
    expected = load_file(case / "expected.safetensors")
    imported, x = import_dictionary(case), expected["x"]
    codes = imported.dictionary.encode(x)
    assert imported.format == ("gemma_scope" if case.name == "gemma-scope" else case.parent.name.rpartition("-")[0])
    theirs = codes.dense() * sizes(imported.dictionary, x)
    torch.testing.assert_close(theirs, expected["codes"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(imported.dictionary.decode(codes, x), expected["reconstruction"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_is_read_obeys_the_laws_of_dictionaries(case, tmp_path):
    dictionary, x = import_dictionary(case).dictionary, load_file(case / "expected.safetensors")["x"]
    together = dictionary.encode(x).dense()
    alone = torch.cat([dictionary.encode(row[None]).dense() for row in x])
    torch.testing.assert_close(alone, together)
    with pytest.raises(CapabilityError, match="fold"):
        dictionary.folded()
    again = load_dictionary(save_dictionary(dictionary, tmp_path / "kept"))
    assert again.origin == dictionary.origin and again.capabilities == dictionary.capabilities
    assert torch.equal(again.encode(x).dense(), together)
    assert bool((together < 0).any()) == dictionary.capabilities.signed_codes


def weights_of(folder):
    """Tensors of the weights file in a folder, whatever its format."""
    if (folder / "ae.pt").exists():
        return torch.load(folder / "ae.pt", weights_only=True)
    (path,) = [p for p in folder.glob("*.safetensors") if not p.name.startswith(("expected", "overtone"))]
    return load_file(path)


CHANGED = {
    "old-standard": "configured as before version 6: written as version 6 does",
    "old-topk": "as old-standard",
    "topk-rescaled": "ranks by row length: read with unit rows",
    "gemma-scope": "an archive of numpy, compared in test_exchange",
    "MatryoshkaBatchTopKSAE": "one code at inference: written as BatchTopKSAE, its twin there",
}
BACK = [case for case in CASES if case.name not in CHANGED and not case.parent.name.startswith("openai")]


@pytest.mark.parametrize("case", BACK, ids=name_of)
def test_written_back_the_files_hold_the_same_bits(case, tmp_path):
    imported = import_dictionary(case)
    facts = {"site": "mlp_in.2", **imported.facts}
    export_dictionary(imported.dictionary, tmp_path / "back", imported.format, facts=facts)
    theirs, ours = weights_of(case), weights_of(tmp_path / "back")
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor) and ours[name].dtype == tensor.dtype, name
    for name in ("cfg.json", "config.json"):
        if (case / name).exists():
            before, after = json.loads((case / name).read_text()), json.loads((tmp_path / "back" / name).read_text())
            assert not {key for key in before if key not in after}, "nothing that was written there is lost"
            assert before.get("metadata") is None or before["metadata"].items() <= after["metadata"].items()

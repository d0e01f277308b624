"""On a real GPU everything that takes a device computes what the CPU does: trainings, updates, dictionaries, models.

Skipped where there is no GPU (`tests/accelerator.py` pretends one there) or where its kernels would be interpreted: run
it with TRITON_INTERPRET=0. OVERTONE_TEST_DEVICE names another device; "cpu" tries this file itself.
"""

import copy
import json
import os
from functools import cache
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file

import overtone as ot
from models.miniatures import WIDTH as MODEL_WIDTH
from models.miniatures import build, miniature, some_rows
from overtone.activations.positions import AllTokens
from overtone.activations.stream import ActivationStream
from overtone.cli import main
from overtone.core.artifacts import file_hash
from overtone.core.batch import ActivationBatch, Where
from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError, SettingError
from overtone.core.seeds import torch_generator
from overtone.core.sites import Site
from overtone.data.traces import ReasoningTrace
from overtone.dictionaries.interacting import interaction_vector
from overtone.dictionaries.presets.k_means import KMeans
from overtone.dictionaries.presets.pca import PCA
from overtone.dictionaries.storage import load_dictionary, save_dictionary
from overtone.directions.confidence import Anchored, SearchSettings, search
from overtone.evaluate.afa import quasi_orthogonality
from overtone.evaluate.faithfulness import faithfulness, spliced
from overtone.evaluate.reconstruction import fvu
from overtone.formats.exchange import export_dictionary
from overtone.formats.saebench import SAEBenchObject
from overtone.interpret.interactions import interactions
from overtone.interpret.vocabulary import vocabulary_effect
from overtone.models.hooked import HookedModel
from overtone.steering.bias import keyword_penalty
from overtone.steering.edits.atom_set import AtomSet
from overtone.steering.measure import measure_kl
from overtone.training.fit import fit
from overtone.training.run import Run
from overtone.training.schedules import Schedule

DEVICE = os.environ.get("OVERTONE_TEST_DEVICE", "cuda")


def why_not() -> str:
    """What keeps this file from being run, "" if nothing does."""
    if not DEVICE.startswith("cuda"):
        return ""
    if not torch.cuda.is_available():
        return "no GPU that torch can use on this machine"
    interpreted = find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"
    return "Triton would interpret its kernels: set TRITON_INTERPRET=0" if interpreted else ""


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

ENTRIES = entries("dictionaries")
NAMES = list(ENTRIES)
STEPPED = ("top_k", "abs_top_k", "batch_top_k", "g_sae", "jump_relu", "gated", "matryoshka", "multi_top_k")
WIDTH, LATENTS, K, ROWS, N_DEAD = 24, 32, 4, 800, 12
BATCH = 100
HERE, THERE = Site("mlp_in", 0), Site("mlp_out", 0)
SITE = Site("residual", 1)


@pytest.fixture(autouse=True)
def products_of_float32():
    """Not of TF32, which is right to three digits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def near(found, expected, **tolerance):
    """The same numbers, wherever they are."""
    torch.testing.assert_close(found.cpu(), expected.cpu(), **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


def nearly(found, expected):
    """The same numbers but for one in a thousand, where a choice hangs on the last bit, and hardly another whole."""
    found, expected = found.cpu(), expected.cpu()
    apart = ~torch.isclose(found, expected, rtol=1e-3, atol=1e-4)
    assert float(apart.double().mean()) < 1e-3
    assert float((found - expected).norm()) < 1e-2 * float(expected.norm())


def states(seed=0, rows=ROWS):
    """(rows, WIDTH) states: sparse sums of more directions than coordinates, with noise and a mean."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(2 * WIDTH, WIDTH, generator=torch.Generator().manual_seed(9))
    amounts = torch.rand(rows, 2 * WIDTH, generator=generator)
    x = (amounts * (amounts > 0.9)) @ directions
    return x + 0.05 * torch.randn(rows, WIDTH, generator=generator) + 0.3


def beside(x):
    """What else a preset may need: targets that follow from the states, and gradients there."""
    return {"y": x.roll(1, 1).abs() - 0.5 * x, "g": x.sin()}


def example(name):
    """A small preset of a kind."""
    kind = ENTRIES[name].thing
    return kind.example(n_latents=WIDTH if kind.whole else LATENTS, k=K)


def trained(preset, device, x=None, **options):
    """What `fit` makes of states that are on the CPU unless given."""
    x = states() if x is None else x
    nothing = torch.zeros(len(x), dtype=torch.int64)
    more = beside(x)
    batch = ActivationBatch({HERE: x, THERE: more["y"]}, Where(nothing, nothing, nothing), g={HERE: more["g"]})
    target = THERE if "y" in preset.needs else None
    options = {"n_tokens": 4000, "batch_rows": BATCH, "quiet": True, **options}
    return fit(preset, batch, site=HERE, target=target, device=device, **options)


@cache
def kept(name, device):
    """The training of a preset on a device; leave it as it is."""
    return trained(example(name), device)


def moved(name):
    """The dictionary that the CPU trained, and a copy on the device."""
    dictionary = kept(name, "cpu").dictionary
    return dictionary, copy.deepcopy(dictionary).to(DEVICE)


def gradients_for(name, x):
    """What `encode` takes beside the states."""
    return ({"g": beside(x)["g"]},) if name == "g_sae" else ()


def error_and_l0(name, dictionary):
    """The share of variance that is missed, and the active latents per row, on the states of the training."""
    x = states()
    codes = dictionary.encode(x, *gradients_for(name, x))
    aim = beside(x)["y"] if dictionary.origin["preset"] in ("transcoder", "skip_transcoder") else x
    return fvu(aim, dictionary.decode(codes, x)), float(codes.counts().float().mean())


# ------------------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize("name", NAMES)
def test_a_training_ends_as_on_the_cpu_and_gives_a_dictionary_on_the_cpu(name):
    here, there = kept(name, "cpu"), kept(name, DEVICE)
    assert {t.device.type for t in there.dictionary.state_dict().values()} == {"cpu"}
    assert len(there.record) == len(here.record) and (example(name).whole or here.record)
    assert all(torch.isfinite(torch.tensor([r.loss, r.unexplained, r.l0])).all() for r in there.record)
    for found, expected in zip(there.record[-1:], here.record[-1:], strict=True):
        assert found.unexplained == pytest.approx(expected.unexplained, rel=0.05)
        assert found.loss == pytest.approx(expected.loss, rel=0.05)
        assert found.l0 == pytest.approx(expected.l0, rel=0.05)
    found, expected = error_and_l0(name, there.dictionary), error_and_l0(name, here.dictionary)
    assert found == pytest.approx(expected, rel=0.05) and expected[0] < 1.2


@pytest.mark.parametrize("name", ["top_k", "gated", "pca", "k_means", "itda"])
def test_states_that_lie_on_the_device_train_like_those_on_the_cpu(name):
    for device in ("cpu", DEVICE):
        dictionary = trained(example(name), device, states().to(DEVICE)).dictionary
        assert error_and_l0(name, dictionary) == pytest.approx(
            error_and_l0(name, kept(name, "cpu").dictionary), rel=0.05
        )


@pytest.mark.parametrize("name", ["top_k", "batch_top_k", "matryoshka", "jump_relu", "v_sae"])
def test_what_was_interrupted_and_resumed_is_what_was_not(name, tmp_path):
    def stop(record):
        if record.tokens >= 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(example(name), DEVICE, checkpoint=tmp_path / "state", on_record=stop)
    resumed = trained(example(name), DEVICE, checkpoint=tmp_path / "state")
    whole = kept(name, DEVICE)
    assert [r.tokens for r in resumed.record] == [r.tokens for r in whole.record]
    for key, expected in whole.dictionary.state_dict().items():
        near(resumed.dictionary.state_dict()[key], expected, rtol=1e-3, atol=1e-4)


def test_a_training_begun_on_the_device_is_finished_on_the_cpu(tmp_path):
    def stop(record):
        if record.tokens >= 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(example("top_k"), DEVICE, checkpoint=tmp_path / "state", on_record=stop)
    last = trained(example("top_k"), "cpu", checkpoint=tmp_path / "state").record[-1]
    assert last.unexplained == pytest.approx(kept("top_k", "cpu").record[-1].unexplained, rel=0.05)


def test_a_device_that_is_not_there_is_named():
    if DEVICE == "cpu":
        pytest.skip("there is one CPU only, whatever its number")
    with pytest.raises(SettingError, match=":99"):
        trained(example("top_k"), f"{DEVICE}:99")


# ---------------------------------------------------------------------------------------------------------- one update
def begun(preset, device):
    """A training that has fitted scale and centre."""
    x = states()
    other = {"width_out": WIDTH} if "y" in preset.needs else {}
    model = preset.build(WIDTH, torch_generator(0, "dictionary"), **other).to(device).train()
    run = Run(preset.name, preset, model, lr=1e-3, schedule=Schedule(), n_tokens=20 * BATCH)
    run.firing.window = 10**6  # so that the list of the dead is what it is set to
    run.begin(x.to(device), beside(x)["y"].to(device) if "y" in preset.needs else None)
    return run


def advanced(run, preset, step):
    """The same run after the update of a batch."""
    device = run.model.decoder.centre().device
    x = states(1, rows=10 * BATCH)[step * BATCH : (step + 1) * BATCH]
    run.advance(x.to(device), **{name: part.to(device) for name, part in beside(x).items() if name in preset.needs})
    return run


@cache
def underway(name):
    """The state of a training on the CPU after five updates: Adam then divides by no noise."""
    preset = example(name)
    run = begun(preset, "cpu")
    for step in range(5):
        advanced(run, preset, step)
    return {key: value.clone() for key, value in run.tensors().items()}


def after_one_more(name, device, *, n_dead):
    """A run on a device after the sixth update."""
    preset = example(name)
    run = begun(preset, device)
    run.load(underway(name), 5 * BATCH, [])
    if n_dead:
        run.firing.state["idle_tokens"][:n_dead] = 10**7
        run.firing.state["dead"] = torch.arange(n_dead, device=device)
    return advanced(run, preset, 5)


@pytest.mark.parametrize("name", [name for name in NAMES if not example(name).whole])
def test_scale_centre_and_what_maintainers_know_begin_as_on_the_cpu(name):
    found, expected = (begun(example(name), device).tensors() for device in (DEVICE, "cpu"))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        near(found[key], value, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("n_dead", [0, N_DEAD], ids=["all alive", "some dead"])
@pytest.mark.parametrize("name", STEPPED)
def test_an_update_is_that_of_the_cpu(name, n_dead):
    found, expected = (after_one_more(name, device, n_dead=n_dead) for device in (DEVICE, "cpu"))
    assert found.measure().loss == pytest.approx(expected.measure().loss, rel=1e-4)
    assert found.records[-1].l0 == pytest.approx(expected.records[-1].l0, rel=1e-3)
    found, expected, before = found.tensors(), expected.tensors(), underway(name)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        near(found[key], value, msg=lambda m, key=key: f"{key}: {m}")
    assert any(not torch.equal(expected[key], before[key]) for key in expected if key.startswith("model."))


@pytest.mark.parametrize("name", ["top_k", "abs_top_k", "batch_top_k", "g_sae", "matryoshka", "multi_top_k"])
def test_dead_latents_add_their_term_on_the_device(name):
    alive, dead = (after_one_more(name, DEVICE, n_dead=n).measure().loss for n in (0, N_DEAD))
    assert dead > alive * (1 + 1e-3)


# -------------------------------------------------------------------------------------------------------- dictionaries
@pytest.mark.parametrize("name", NAMES)
def test_a_dictionary_on_the_device_encodes_and_decodes_as_on_the_cpu(name):
    (here, there), x = moved(name), states(2)
    codes = here.encode(x, *gradients_for(name, x))
    for given in (x, x.to(DEVICE)):
        found = there.encode(given, *gradients_for(name, given))
        assert found.values.device.type == torch.device(DEVICE).type
        nearly(found.dense(), codes.dense())
        nearly(there.decode(codes.to(DEVICE), given), here.decode(codes, x))
    near(found.frequencies(), codes.frequencies(), atol=1e-2)
    if here.capabilities.linear_decoder:
        near(there.atoms(), here.atoms())
    if here.capabilities.foldable:
        nearly(there.folded().encode(x).dense(), here.folded().encode(x).dense())


@pytest.mark.parametrize("name", NAMES)
def test_a_dictionary_on_the_device_is_saved_and_exported_bit_for_bit(name, tmp_path):
    here, there = moved(name)
    expected, loaded = here.state_dict(), load_dictionary(save_dictionary(there, tmp_path / "made")).state_dict()
    assert loaded.keys() == expected.keys() and all(torch.equal(loaded[key], expected[key]) for key in expected)
    try:
        folders = [export_dictionary(one, tmp_path / f"{i}", "saelens") for i, one in enumerate((here, there))]
    except CapabilityError:
        return
    hashes = [[file_hash(file) for file in sorted(tmp_path.glob(f"{i}/*.safetensors"))] for i in range(len(folders))]
    assert hashes[0] and hashes[0] == hashes[1]


def test_what_is_measured_of_a_dictionary_on_the_device_is_what_the_cpu_says():
    (here, there), x = moved("top_afa"), states(2)
    found, expected = (quasi_orthogonality(dictionary, x) for dictionary in (there, here))
    assert (found.gap, found.excess) == pytest.approx((expected.gap, expected.excess), rel=1e-3)
    here, there = moved("poly_sae")
    found, expected = (interactions(dictionary, dictionary.encode(x)) for dictionary in (there, here))
    near(found.strength, expected.strength)
    assert found.strength_with_together == pytest.approx(expected.strength_with_together, abs=1e-3)
    near(interaction_vector(there, 0, 1), interaction_vector(here, 0, 1))


def test_the_object_for_saebench_moves_with_its_configuration():
    here = SAEBenchObject(moved("batch_top_k")[0], site="residual.5", model="m")
    x, there = states(2), copy.deepcopy(here).to(DEVICE)
    assert there.cfg.device == str(there.device) and there.device.type == torch.device(DEVICE).type
    near(there(x.to(DEVICE)), here(x), rtol=1e-3, atol=1e-4)
    near(SAEBenchObject(moved("batch_top_k")[1], site="residual.5", model="m").b_dec, here.b_dec)


# -------------------------------------------------------------------------------------------------------------- models
@cache
def models():
    """A miniature on the CPU, and the same on the device."""
    return miniature("llama"), HookedModel.wrap(build("llama").to(DEVICE))


def traces():
    """Texts of several lengths, the first part of each a prompt."""
    rows = some_rows((9, 6, 12, 8, 11, 7), seed=5)
    return [ReasoningTrace(tuple(row[:4]), tuple(row[4:]), i, str(i), {}) for i, row in enumerate(rows)]


def rows_of(model, **options):
    """(rows, width) states of the traces, on the model's device."""
    return ActivationStream(model, traces(), SITE, AllTokens(), quiet=True, **options).all()


@cache
def direction():
    """A direction at the site, measured on the CPU."""
    here = models()[0]
    vector = torch.randn(MODEL_WIDTH, generator=torch.Generator().manual_seed(0))
    return ot.unit_direction(vector, SITE, model=here.fingerprint, rows=rows_of(here).at(SITE), name="random")


@cache
def spliced_in():
    """A dictionary of the model's states."""
    return fit(PCA(8), rows_of(models()[0]).at(SITE), n_tokens=40, quiet=True).dictionary


def test_states_and_their_gradients_are_harvested_as_on_the_cpu():
    here, there = models()
    assert there.device.type == torch.device(DEVICE).type and there.fingerprint == here.fingerprint
    found, expected = (rows_of(model, gradient="mean") for model in (there, here))
    assert found.at(SITE).device.type == there.device.type
    near(found.at(SITE), expected.at(SITE), rtol=1e-3, atol=1e-4)
    near(found.g[SITE], expected.g[SITE], rtol=1e-3, atol=1e-5)
    assert torch.equal(found.where.token, expected.where.token)


@pytest.mark.parametrize("preset", [PCA(8), KMeans(8)], ids=lambda p: p.name)
def test_a_stream_of_the_device_trains_what_is_fitted_whole(preset):
    found, expected = (
        fit(preset, ActivationStream(model, traces(), SITE, AllTokens(), quiet=True), n_tokens=40, quiet=True)
        for model in reversed(models())
    )
    x = rows_of(models()[0]).at(SITE)
    near(found.dictionary.reconstruct(x), expected.dictionary.reconstruct(x), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_on_the_device_writes_the_same_with_and_without_edits(temperature):
    strength = ot.Strength(0.5, "norm")
    dictionary = spliced_in()
    atom = ot.from_atom(dictionary, 0, SITE)
    arms = {
        "none": [],
        "add": [ot.Steering(direction(), ot.Add(strength), ot.When())],
        "remove": [ot.Steering(direction(), ot.Remove(), ot.When())],
        "penalty": [keyword_penalty(models()[0], range(3, 40), -3.0)],
        "atom": [ot.Steering(atom, AtomSet(dictionary, 0, 2.0), ot.When())],
        "atom on the device": [ot.Steering(atom, AtomSet(copy.deepcopy(dictionary).to(DEVICE), 0, 2.0), ot.When())],
    }
    prompts = [list(trace.prompt_ids) for trace in traces()]
    sampling = ot.Sampling(max_new_tokens=6, temperature=temperature, batch_rows=16, compact_at=0.0)
    here, there = (ot.generate_arms(model, prompts, arms, sampling, eos=[5, 6, 7], quiet=True) for model in models())
    for name in arms:
        assert [t.tokens for t in there[name]] == [t.tokens for t in here[name]], name
    assert [t.tokens for t in here["none"]] != [t.tokens for t in here["add"]]


def test_divergences_and_faithfulness_are_measured_as_on_the_cpu():
    push = [ot.Steering(direction(), ot.Add(ot.Strength(0.5, "norm")), ot.When())]
    bias = [keyword_penalty(models()[0], range(3, 40), -3.0)]
    for arm in (push, bias, push + bias):
        for positions in ("steered", "response"):
            here, there = (measure_kl(model, traces(), arm, positions).mean for model in models())
            assert there == pytest.approx(here, rel=1e-3) and here > 0
    here, there = (
        faithfulness(model, traces(), SITE, {"pca": spliced(spliced_in())}).divergence("pca").value
        for model in models()
    )
    assert there == pytest.approx(here, rel=1e-3) and here > 0


def test_directions_are_read_and_searched_for_on_the_device():
    rows = rows_of(models()[1]).at(SITE)
    model = copy.copy(models()[1])
    model.tokenizer = Names()
    here = copy.copy(models()[0])
    here.tokenizer = Names()
    expected = vocabulary_effect(here, direction().vector, rows=rows.cpu(), n=3)
    for vector, given in ((direction().vector, rows), (direction().vector.to(DEVICE), rows)):
        found = vocabulary_effect(model, vector, rows=given, n=3)
        assert [t.id for t in found.raised] == [t.id for t in expected.raised]
    assert vocabulary_effect(model, direction().vector.to(DEVICE), n=3).raised
    texts = Anchored.of([(row, [2, len(row) - 1]) for row in some_rows((9, 7, 12, 8), seed=3)])
    quick = SearchSettings(n_iterations=5, batch_anchors=8, n_controls=2)
    found, expected = (
        search(one, dictionary, texts, SITE, settings=quick, quiet=True)
        for one, dictionary in ((model, copy.deepcopy(spliced_in()).to(DEVICE)), (here, spliced_in()))
    )
    assert (found.before, found.after) == pytest.approx((expected.before, expected.after), rel=1e-3)


class Names:
    """A tokenizer that only names tokens."""

    def decode(self, ids):
        """A name."""
        return f"token {ids[0]}"


def test_the_bundled_model_is_loaded_onto_the_device():
    here, there = ot.bundled_reasoner(), ot.bundled_reasoner(device=DEVICE)
    assert there.device.type == torch.device(DEVICE).type and there.fingerprint == here.fingerprint
    tokens = torch.tensor([here.tokenizer.encode("Numbers: 3 5 7\n\n")])
    near(there.logits(tokens, None), here.logits(tokens, None), rtol=1e-3, atol=1e-3)


# --------------------------------------------------------------------------------------------------------- the command
def told(capsys, *words):
    """What a command prints, as data."""
    assert main([*map(str, words), "--quiet", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["top_k", "g_sae", "skip_transcoder", "pca"])
def test_the_command_trains_on_arrays_as_on_the_cpu(name, tmp_path, capsys):
    x = states()
    file = tmp_path / "states.safetensors"
    save_file({"x": x, **{key: value.contiguous() for key, value in beside(x).items()}}, file)
    words = ["train", name, "--activations", file, "--site", "x", "--tokens", 4000, "--batch-rows", BATCH]
    words += {"pca": ["--latents", 8], "skip_transcoder": ["--latents", LATENTS, "--target", "y"]}.get(
        name, ["--latents", LATENTS, "--k", K]
    )
    words += ["--gradients", "g"] if name == "g_sae" else []
    here, there = (
        told(capsys, *words, "--device", device, "--out", tmp_path / where / "made")
        for where, device in (("here", "cpu"), ("there", DEVICE))
    )
    for figure in ("error", "l0"):
        assert there[figure] == pytest.approx(here[figure], rel=0.05)
    assert load_dictionary(there["dictionary"]).origin["preset"] == name


def test_the_command_collects_on_the_device_what_the_cpu_collects(tmp_path, capsys):
    lines = [json.dumps({"text": f"Numbers: {n} {n + 1} {n + 2}"}) for n in range(8)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    words = ["collect", "--texts", tmp_path / "texts.jsonl", "--sites", "residual.1", "--gradient", "mean"]
    stores = [
        ot.open_activations(told(capsys, *words, "--device", device, "--out", tmp_path / str(i))["store"])
        for i, device in enumerate(("cpu", DEVICE))
    ]
    here, there = (store.all() for store in stores)
    near(there.at(SITE), here.at(SITE), rtol=1e-3, atol=1e-3)
    near(there.g[SITE], here.g[SITE], rtol=1e-2, atol=1e-4)

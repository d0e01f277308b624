"""The whole job on models that anybody could have saved: from a folder and a file of prompts to a report or a line."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import think_aloud
from models.miniatures import build
from overtone.cli import main
from overtone.core.errors import StoreError
from overtone.discover.pipeline import discover
from overtone.discover.settings import CausalSettings, DictionarySettings

FIELDS = {"id", "claim", "paper", "measured", "unit", "interval", "control", "n", "holds"}
FAST = """
    --workers 1 --sampling.n-traces 96 --sampling.max-new-tokens 48 --naming.preset top_k --naming.epochs 5
    --boundary.epochs 5 --causal.n-problems 24 --causal.doses -0.5 0.5 --causal.n-random 1 --confidence.iterations 5
    --confidence.n-random 5
""".split()  # noqa: SIM905 (read as it is typed)


def claims(report) -> list[dict]:
    return [f.to_dict() for f in report.findings]


# ---------------------------------------------------------------------------------------------------------- the report
@pytest.fixture(scope="module")
def thinking(saved, tmp_path_factory):
    """The folder and the exit code of the command on the model with a think section, and what it printed."""
    out = tmp_path_factory.mktemp("thinking") / "run"
    words = ["discover", "--model", str(saved.thinking), "--prompts", str(saved.prompts), "--out", str(out), *FAST]
    done = subprocess.run(
        [Path(sys.executable).with_name("overtone"), *words, "--json", "--quiet"],
        capture_output=True,
        text=True,
        timeout=170,
    )
    return out, done


@pytest.fixture(params=["library", "command"])
def folder(request, finished):
    return finished.out if request.param == "library" else request.getfixturevalue("thinking")[0]


def test_the_command_ends_well_and_prints_the_report_alone(thinking):
    out, done = thinking
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed.pop("written") == [str(out / "report.json"), str(out / "report.html")]
    assert printed == json.loads((out / "report.json").read_text())


def test_findings_have_the_shape_that_scripts_rely_on(folder):
    report = json.loads((folder / "report.json").read_text())
    ids = [f["id"] for f in report["findings"]]
    assert len(set(ids)) == len(ids) and {i[0] for i in ids} >= set("abcde")
    for f in report["findings"]:
        assert set(f) >= FIELDS and f["claim"] and f["holds"] in (True, False, None)
        assert f["interval"] is None or f["interval"][0] <= f["interval"][1]
        assert f["measured"] is not None or f["holds"] is None or f["unit"] == "ratio of log effects"
        assert isinstance(f["n"], int)


def test_every_effect_stands_beside_a_control(folder):
    report = json.loads((folder / "report.json").read_text())
    effects = [f for f in report["findings"] if f["id"].rpartition(".")[2] in ("amplify", "suppress", "entropy")]
    assert effects and all(f["control"] is not None and f["control_name"] for f in effects)


def test_provenance_tells_how_to_make_it_again(finished, folder):
    told = json.loads((folder / "report.json").read_text())["provenance"]
    assert {"settings", "seed", "model", "labels", "versions", "command", "seconds"} <= set(told)
    assert re.fullmatch("[0-9a-f]{16}", told["model"]["fingerprint"]) and told["labels"] == "keywords"
    assert type(finished.settings).from_dict(told["settings"]).to_dict() == told["settings"]


def test_the_page_needs_nothing_else(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!") and page.rstrip().endswith("</html>")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#|data:)|@import|url\((?!["']?(data:|#))""", page)


def test_steps_are_those_of_the_think_section(thinking):
    report = json.loads((thinking[0] / "report.json").read_text())
    texts = [s["text"] for t in report["traces"] for p in t["panels"] for s in p["steps"]]
    assert texts and not any("</think>" in text for text in texts)


# ------------------------------------------------------------------------------------------------------ once and again
def test_a_second_run_reuses_everything_and_finds_the_same(finished, tmp_path):
    shutil.copytree(finished.out, tmp_path / "run")
    again = discover(finished.settings, tmp_path / "run", resume=True)
    assert claims(again) == claims(finished.report)
    assert set(again.provenance["seconds"]) == {"total"}  # no stage took any time
    assert "steering" in again.provenance["reused"] and "traces" in again.provenance["reused"]


KILLED = """
import os, signal, sys
from overtone.discover.pipeline import discover
from overtone.discover.settings import DiscoverSettings
import json

real, left = os.replace, [int(sys.argv[3])]

def replace(*names):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*names)

os.replace = replace
discover(DiscoverSettings.from_dict(json.loads(sys.argv[1])), sys.argv[2])
"""


def test_a_killed_run_goes_on_to_the_same_end(finished, tmp_path):
    """Killed in the middle of the thirtieth atomic write, while arms are answered."""
    out = tmp_path / "run"
    words = [json.dumps(finished.settings.to_dict()), str(out), "30"]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, timeout=170)
    assert done.returncode == -signal.SIGKILL
    assert not list(out.glob("report*")) and list((out / "parts").iterdir())
    resumed = discover(finished.settings, out, resume=True)
    assert resumed.provenance["reused"] and claims(resumed) == claims(finished.report)


def test_another_seed_finds_other_numbers_in_the_same_folder(finished, tmp_path):
    shutil.copytree(finished.out, tmp_path / "run")
    other = discover(finished.settings.replaced(seed=1), tmp_path / "run", resume=True)
    assert claims(other) != claims(finished.report) and other.provenance["reused"] == []


def test_what_cannot_be_tested_is_said_instead_of_failing(finished, tmp_path):
    """One layer with dictionaries of two latents, and four held-out traces: hardly anything can be named or made."""
    tiny = DictionarySettings(expansion=0.05, epochs=1)
    settings = finished.settings.replaced(
        layers=(1,), naming=tiny, boundary=tiny.replaced(preset="relu_l1", anchor="next"),
        causal=CausalSettings(n_problems=4, doses=(-0.1, 0.1), n_random=1),
    )  # fmt: skip
    report = discover(settings, tmp_path / "run")
    by_id = {f.id: f for f in report.findings}
    assert by_id["b.silhouette"].holds is None and by_id["b.silhouette"].note
    assert {"c.reflection.monotone", "c.transition.monotone"} <= set(by_id)
    assert {i[0] for i in by_id} >= set("abcde") and (tmp_path / "run" / "report.html").exists()
    assert json.loads((tmp_path / "run" / "report.json").read_text())["atoms"]["points"] == []


# ------------------------------------------------------------------------------------------------------------- mistakes
@pytest.fixture(scope="module")
def broken(saved, tmp_path_factory):
    """Folders and files that cannot be used, by name."""
    folder = tmp_path_factory.mktemp("broken")
    nan = shutil.copytree(saved.model, folder / "nan")
    model = transformers.AutoModelForCausalLM.from_pretrained(nan)
    model.model.layers[1].mlp.up_proj.weight.data[:] = torch.nan
    model.save_pretrained(nan)
    smaller = shutil.copytree(saved.model, folder / "smaller")
    model = transformers.AutoModelForCausalLM.from_pretrained(smaller)
    model.resize_token_embeddings(20)
    model.save_pretrained(smaller)
    encoder = folder / "encoder"
    build("bert").save_pretrained(encoder)
    mute = shutil.copytree(saved.model, folder / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (mute / name).unlink()
    lines = think_aloud.save_model(folder / "lines", ends=("@\n\n",))
    (folder / "empty.jsonl").write_text("")
    (folder / "broken.jsonl").write_text('{"prompt": "one"}\nnot json\n')
    think_aloud.save_prompts(folder / "three.jsonl", 3)
    names = {"nan": nan, "smaller": smaller, "encoder": encoder, "mute": mute, "lines": lines}
    return {"model": saved.model, "prompts": saved.prompts, "nowhere": folder / "nowhere", **names} | {
        name: folder / f"{name}.jsonl" for name in ("empty", "broken", "three", "absent")
    }


MISTAKES = [
    ("missing model", "nowhere", "prompts", [], "there is no folder"),
    ("encoder", "encoder", "prompts", [], "causal language model"),
    ("no tokenizer", "mute", "prompts", [], "with its tokenizer"),
    ("no prompts", "model", "absent", [], "does not exist"),
    ("empty prompts", "model", "empty", [], "holds no text"),
    ("broken prompts", "model", "broken", [], "line 2 is not JSON"),
    ("three prompts", "model", "three", [], "needs at least 4"),
    ("wrong layer", "model", "prompts", ["--layers", "7"], "residual.0 to residual.2"),
    ("wrong layer to steer", "model", "prompts", ["--layers", "0", "1", "--causal.layer", "2"], "0, 1"),
    ("truth", "model", "prompts", ["--labels", "truth"], "Use keywords or judge"),
    ("unknown dictionary", "model", "prompts", ["--naming.preset", "topk"], "Did you mean 'top_k'"),
    ("unknown behaviour", "model", "prompts", ["--causal.behaviours", "reflexion"], "Did you mean 'reflection'"),
    ("long responses", "model", "prompts", ["--sampling.max-new-tokens", "300"], "more than the 256"),
    ("NaN weights", "nan", "prompts", [], "not finite"),
    ("foreign tokenizer", "smaller", "prompts", [], "tokenizer that belongs to this model"),
    ("no blank lines", "lines", "prompts", ["--sampling.max-new-tokens", "3"], "fewer than two kinds"),
]


@pytest.mark.parametrize(("model", "prompts", "words", "said"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_no_report(broken, tmp_path, capsys, model, prompts, words, said):
    out = tmp_path / "run"
    given = ["--model", str(broken[model]), "--prompts", str(broken[prompts]), "--out", str(out)]
    assert main(["discover", *given, *FAST, *words, "--quiet"]) == 2
    printed, error = capsys.readouterr()
    assert printed == "" and error.count("\n") == 1 and error.startswith("overtone: ") and said in error
    assert not out.exists() or not [p for p in out.rglob("*") if p.name.startswith("report") or ".part" in p.name]


def test_a_foreign_folder_is_refused_and_left_alone(broken, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    given = ["--model", str(broken["model"]), "--prompts", str(broken["prompts"]), "--out", str(tmp_path)]
    assert main(["discover", *given, *FAST, "--quiet"]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("part", ["activations/*/shards/*.safetensors", "traces-*/*.parquet", "top_k-*/*.safetensors"])
def test_a_truncated_part_is_refused_by_name(finished, tmp_path, part):
    out = tmp_path / "run"
    shutil.copytree(finished.out, out)
    (out / "report.json").unlink()
    damaged = next((out / "parts").glob(part))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{damaged.name}.*damaged.*again"):
        discover(finished.settings, out, resume=True)
    assert not (out / "report.json").exists()


def test_a_run_of_another_model_is_not_taken_for_this_ones(finished, saved, tmp_path):
    """The same folder, resumed with another model: nothing is reused, no direction of the first is used."""
    shutil.copytree(finished.out, tmp_path / "run")
    other = finished.settings.replaced(model=str(saved.thinking))
    report = discover(other, tmp_path / "run", resume=True)
    assert report.provenance["reused"] == []
    assert report.provenance["model"] != finished.report.provenance["model"]

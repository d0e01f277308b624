"""The edge of the program: which verb runs, what it prints where, and how it ends."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import overtone.cli
from overtone.cli import main, version
from overtone.cli._table import VERBS, overview
from overtone.core import progress
from overtone.core.errors import DataError

SCRIPT = Path(sys.executable).with_name("overtone")


def test_the_table_and_the_files_name_the_same_verbs():
    files = {path.stem for path in Path(overtone.cli.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(VERBS)


def test_help_names_every_verb_on_a_line_of_its_own(capsys):
    assert main(["--help"]) == main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(re.match(rf"  {verb} +\S", line) for line in lines) for verb in VERBS)
    assert max(map(len, overview().splitlines())) <= 110


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_three_parts_and_shows_an_example(verb):
    tree = ast.parse(Path(overtone.cli.__file__).with_name(f"{verb}.py").read_text())
    named = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert {"Options", "run", "show"} <= set(named)
    assert f"Example: overtone {verb}" in (ast.get_docstring(named["Options"]) or "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_takes_json_and_quiet(verb, capsys):
    assert main([verb, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"overtone {verb}" in told and "--json" in told and "--quiet" in told


def test_help_of_every_verb_imports_nothing_heavy():
    code = (
        f"import sys\nfrom overtone.cli import main\n"
        f"assert all(main(words) == 0 for words in [['--help'], *([v, '--help'] for v in {list(VERBS)})])\n"
        "sys.exit(' '.join(sorted({'torch', 'transformers', 'numpy', 'sklearn', 'jinja2'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("given", "spins"), [({}, True), ({"OMP_WAIT_POLICY": "ACTIVE"}, False)])
def test_waiting_threads_rest_soon_unless_a_policy_is_set(monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["version", "--quiet", "--json"]) == 0
    assert ("GOMP_SPINCOUNT" in os.environ) == spins


def test_the_general_help_does_not_even_import_the_option_parser():
    code = "import sys\nfrom overtone.cli import main\nmain(['--help'])\nsys.exit('tyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vresion"], "Did you mean 'version'?"),
        (["--json", "version"], "options follow it"),
        (["version", "--jsn"], "Did you mean '--json'?"),
        (["version", "extra"], "'extra'"),
        (["list"], "Missing"),
        (["list", "dictionary"], "'dictionaries'"),
        (["discover", "--causl.layer", "1"], "Did you mean '--causal.layer'?"),
        (["discover", "--layers", "one"], "--layers"),
        (["discover", "--sampling.n-traces", "3"], "at least 16"),
        (["discover", "--model", "somewhere"], "--prompts"),
        (["collect", "--limit", "1.5"], "--limit: '1.5' is neither a whole number nor None."),
        (["collect", "--sites", "residual.1"], "--texts FILE or --traces FOLDER"),
        (["train", "topk"], "Did you mean 'top_k'?"),
        (["train", "top_k", "--n-latents", "4", "--k", "5"], "only 4"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_exits_2(words, said, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("overtone: ") and err.count("\n") == 1 and said in err
    assert not set("│╭╰") & set(err)


def test_a_mistake_that_the_library_finds_is_one_line_too(monkeypatch, capsys):
    def refuse(options):
        raise DataError("two lines\nof   reasons")

    monkeypatch.setattr(version, "run", refuse)
    assert main(["version"]) == 2
    assert capsys.readouterr().err == "overtone: two lines of reasons\n"


def test_an_interruption_says_how_to_go_on_and_exits_130(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(version, "run", interrupted)
    assert main(["version"]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    discover = import_module("overtone.cli.discover")
    monkeypatch.setattr(discover, "run", interrupted)
    assert main(["discover"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named_in_one_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(version, "run", lambda options: (tmp_path / "file" / "folder").mkdir())
    assert main(["version"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{tmp_path / 'file' / 'folder'}: " in said and "another place" in said
    monkeypatch.setattr(version, "run", lambda options: (tmp_path / "gone" / "file").read_text())
    with pytest.raises(FileNotFoundError):
        main(["version"])


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    def faulty(options):
        raise ZeroDivisionError

    monkeypatch.setattr(version, "run", faulty)
    with pytest.raises(ZeroDivisionError):
        main(["version"])


def test_json_is_one_document_whatever_a_library_prints(monkeypatch, capsys):
    def talkative(options):
        sys.stdout.write("a library says hello\n")
        return {"answer": 42}

    monkeypatch.setattr(version, "run", talkative)
    assert main(["version", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"answer": 42}
    assert err == "a library says hello\n"


@pytest.mark.parametrize("before", [False, True])
def test_quiet_holds_for_one_command_only(monkeypatch, before):
    seen = []
    monkeypatch.setattr(progress, "QUIET", before)
    monkeypatch.setattr(version, "run", lambda options: seen.append(progress.QUIET) or {"overtone": "0"})
    assert main(["version", "--quiet"]) == main(["version"]) == 0
    assert seen == [True, before] and progress.QUIET is before


def test_version_names_what_is_installed(capsys):
    assert main(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert re.match(r"\d+\.\d+", found["torch"]) and found["overtone"]
    assert main(["--version"]) == 0
    assert found["torch"] in capsys.readouterr().out


def test_the_installed_program_ends_with_the_code_and_survives_a_closed_pipe():
    environment = {**os.environ, "OVERTONE": str(SCRIPT)}
    line = 'set -o pipefail; "$OVERTONE" vresion; a=$?; "$OVERTONE" list sites | true; echo "$a"'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.split() == ["2"]
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr

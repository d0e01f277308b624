"""Documentation is behaviour: what it shows runs, what it links to exists, what it promises to describe is there."""

import inspect
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from overtone.cli._parse import parse
from overtone.core import errors

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^(```+)[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
# A block to run: above it `executed`, or `raises SomeError`; the block of text that may follow is then the message.
EXECUTED = re.compile(
    r"^<!-- (?:executed|raises (\w+)) -->\s*\n```python\n(.*?)^```\n(?:```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL
)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without code: fenced blocks, inline code and comments."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`|<!--.*?-->", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, formed as code hosts form them."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Targets of the page's links and pictures, those with a scheme left out."""
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose(page))
    return [target for target in targets if not re.match(r"[a-z][a-z+.-]*:", target)]


@pytest.mark.timeout(600)  # the tour takes half a minute of one core, but a busy machine may give it little
@pytest.mark.parametrize(
    "page", [page for page in PAGES if EXECUTED.search(page.read_text(encoding="utf-8"))], ids=name_of
)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    """Marked blocks run from top to bottom in one namespace, in an empty folder; wrong code raises what it should."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace = {"__name__": "example"}
    for block in EXECUTED.finditer(text):
        raises, code, message = block.groups()
        above = "\n" * text.count("\n", 0, block.start(2))  # so that a traceback shows the line of the page
        compiled = compile(above + code, str(page), "exec")
        if raises is None:
            exec(compiled, namespace)
            continue
        with pytest.raises(getattr(errors, raises)) as raised:
            exec(compiled, namespace)
        assert type(raised.value).__name__ == raises
        assert message is None or str(raised.value).split() == message.split()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fences_are_closed(page):
    assert not re.search(r"^```", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)


def test_every_error_has_a_section_and_every_section_an_error():
    classes = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.OvertoneError) and kind.__module__ == errors.__name__
    }
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == classes


def test_every_section_on_an_error_names_symptom_and_remedy():
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [s.split("\n")[0] for s in sections if "**Symptom.**" not in s or "**Remedy.**" not in s] == []


def test_the_readme_lists_38_papers_with_an_honest_status():
    rows = re.findall(
        r"^\| .+ \| \[([\d.]+)\]\(https://arxiv\.org/abs/([\d.]+)\) \| .+ \| (.+) \|$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == len({shown for shown, _, _ in rows}) == 38
    assert all(shown == linked for shown, linked, _ in rows)
    assert all(
        re.fullmatch(r"planned|parts: .+|(\[works\]\(docs/studies/[\w-]+\.md\)|works)(: .+)?", status)
        for _, _, status in rows
    )


def commands(page: Path) -> list[str]:
    """The overtone commands in the page's bash blocks, comments left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return re.findall(r"^overtone .*?(?=\s+#|$)", "\n".join(blocks), re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_shown_are_understood(page):
    """Every option is known and every value readable; nothing is run."""
    for command in commands(page):
        _, verb, *words = shlex.split(command)
        module = import_module(f"overtone.cli.{verb}")
        kind = module.options_for(words) if hasattr(module, "options_for") else module.Options
        assert isinstance(parse(kind, verb, words), kind), command


def test_the_targets_of_the_makefile_that_pages_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for words in re.findall(r"`make ([a-z ]+)`|^make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        for target in " ".join(words).split()
    }
    assert named <= targets


def test_generated_pages_are_up_to_date():
    command = [sys.executable, str(ROOT / "tools" / "build_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


# --------------------------------------------------------------------------------------- the checks find what they seek
def test_a_broken_link_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page, with: signs\n[a](other.md#x) `[b](code.md)` [c](https://example.org)\n```\n[d](e.md)\n```\n"
    )
    assert links(page) == ["other.md#x"]
    assert anchors(page) == {"a-page-with-signs"}


def test_only_marked_blocks_are_executed():
    fence = "```python\n{}()\n```\n"
    text = fence.format("no") + "<!-- executed -->\n" + fence.format("yes") + "```text\nprinted\n```\n"
    text += "<!-- raises DataError -->\n" + fence.format("wrong") + "\n```text\nnot its message\n```\n"
    assert [block.groups() for block in EXECUTED.finditer(text)] == [
        (None, "yes()\n", "printed\n"),
        ("DataError", "wrong()\n", None),
    ]

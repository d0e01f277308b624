"""Sections are values that become plain data, and the README names every one of them."""

import dataclasses
import inspect
import json
import re
from importlib.resources import files

import pytest

import page_example
from overtone.discover.page import sections
from overtone.discover.page.render import SECTIONS

CLASSES = [
    kind
    for _, kind in inspect.getmembers(sections, inspect.isclass)
    if issubclass(kind, sections.Section) and kind is not sections.Section
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_sections_are_frozen(kind):
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen


def test_plain_data_is_json_and_keeps_every_field():
    point = sections.DosePoint(1.0, counts={"reflection": sections.Estimate(2.0, 1.0, 3.0)})
    data = sections.plain({"doses": [point]})
    assert json.loads(json.dumps(data)) == data
    assert set(data["doses"][0]) == {field.name for field in dataclasses.fields(point)}
    assert data["doses"][0]["counts"]["reflection"] == {"value": 2.0, "low": 1.0, "high": 3.0}


def test_the_example_is_plain_json():
    example = page_example.example()
    assert json.loads(json.dumps(example, allow_nan=False)) == example


def test_the_readme_documents_every_section_of_the_page():
    text = (files("overtone.discover.page") / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert documented == {key for key, _ in SECTIONS} | {"summary", "dictionaries", "trials"}

"""The page's HTML, CSS and JavaScript files: modules fit together, classes have styles, nothing is left over."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tinycss2

from gee_polygons.report import bundle

FOLDER = Path(bundle.__file__).parent / "assets"
VOID = {"meta", "link", "input", "br", "img"}  # elements without an end tag


def text_of(suffix):
    return {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob(f"*{suffix}")}


def test_every_file_is_used():
    assert sorted(text_of(".js")) == sorted(bundle.MODULES)
    assert sorted(text_of(".css")) == sorted(bundle.STYLES)


def test_modules_stand_after_what_they_import():
    for name, text in text_of(".js").items():
        for imported in re.findall(r"from '\./(\w+)\.js'", text):
            assert bundle.MODULES.index(imported) < bundle.MODULES.index(name), f"{name}.js imports {imported}.js"


def test_the_joined_script_names_everything_once():
    script = bundle.script()
    sources = "\n".join(text_of(".js").values()).replace("export ", "")
    names = re.findall(r"^(?:const|let|function|class) (\w+)", sources, flags=re.MULTILINE)
    assert [name for name, n in Counter(names).items() if n > 1] == []
    assert not re.search(r"^(import|export)\b", script, flags=re.MULTILINE)
    assert "</script" not in script


def parsed(rules):
    """All rules, those of media queries too."""
    for rule in rules:
        assert rule.type != "error", f"line {rule.source_line}: {rule.message}"
        if rule.type == "at-rule" and rule.at_keyword == "media":
            yield from parsed(tinycss2.parse_rule_list(rule.content, skip_whitespace=True, skip_comments=True))
        elif rule.type == "qualified-rule":
            yield rule


def declarations(rule):
    found = tinycss2.parse_declaration_list(rule.content, skip_whitespace=True, skip_comments=True)
    for declaration in found:
        assert declaration.type == "declaration", f"line {declaration.source_line}: {declaration}"
    return found


@pytest.mark.parametrize("name", bundle.STYLES)
def test_style_sheets_have_no_syntax_error(name):
    rules = list(parsed(tinycss2.parse_stylesheet(text_of(".css")[name], skip_whitespace=True, skip_comments=True)))
    assert rules
    for rule in rules:
        names = [d.name for d in declarations(rule)]
        assert names, f"{name}.css, line {rule.source_line}: a rule without declarations"
        assert len(set(names)) == len(names), f"{name}.css, line {rule.source_line}: a property stands twice"


def test_styles_are_for_classes_ids_and_variables_that_exist():
    css = bundle.style()
    rules = list(parsed(tinycss2.parse_stylesheet(css, skip_whitespace=True, skip_comments=True)))
    selectors = " ".join(tinycss2.serialize(rule.prelude) for rule in rules)
    python = "".join(path.read_text(encoding="utf-8") for path in FOLDER.parent.glob("*.py"))
    elsewhere = "".join([*text_of(".js").values(), *text_of(".html").values(), python])
    for name in set(re.findall(r"[.#]([a-z][\w-]*)", selectors)):
        assert re.search(rf"\b{name}\b", elsewhere), f"nothing is called {name}"
    defined = set(re.findall(r"(--[\w-]+):", css))
    assert set(re.findall(r"var\((--[\w-]+)\)", css)) == defined


class Balance(HTMLParser):
    """Checks that tags are closed in order, and collects ids."""

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_template_is_balanced_and_the_script_finds_its_ids():
    page = Balance()
    page.feed(text_of(".html")["page"])
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    wanted = set(re.findall(r"byId\('(\w+)'\)", bundle.script()))
    for name, text in text_of(".html").items():
        if name != "page":
            page.feed(text)
            assert page.open == [], f"{name}.html leaves a tag open"
    assert wanted <= set(page.ids)

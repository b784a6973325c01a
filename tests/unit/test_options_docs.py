"""The written manual of the options is the schema's own."""

import json

import pytest

from options.schema import Opt
from scripts import make_options_docs
from utils import utils_option

SCHEMA = make_options_docs.editor_schema()


def test_both_files_are_fresh():
    hint = "run scripts/make_options_docs.py and commit what it writes"
    assert make_options_docs.PAGE.read_text(encoding="utf-8") == make_options_docs.options_page(SCHEMA), hint
    assert json.loads(make_options_docs.EDITOR.read_text(encoding="utf-8")) == SCHEMA, hint


def test_every_option_is_in_both():
    page, known = make_options_docs.options_page(SCHEMA), set()
    for block in (SCHEMA, *SCHEMA["$defs"].values()):
        known |= set(block["properties"])
    for key, _ in utils_option._walk(Opt):
        name = key.rpartition(".")[2]
        assert f"| `{name}` |" in page
        assert name in known


@pytest.mark.parametrize("place", ["opt.json", "base.json"])
def test_the_key_by_which_an_editor_finds_the_schema_means_nothing(tmp_path, place, heard):
    (tmp_path / "base.json").write_text('{"task": "a"}')
    (tmp_path / "opt.json").write_text('{"_base_": "base.json"}')
    plain = utils_option.load(tmp_path / "opt.json", Opt)
    text = (tmp_path / place).read_text()
    (tmp_path / place).write_text(text.replace("{", '{"$schema": "../docs/options.schema.json", ', 1))
    assert utils_option.load(tmp_path / "opt.json", Opt) == plain
    assert not heard.records

"""Write docs/options.md and docs/options.schema.json anew from the options' schema, whose docstrings are the manual."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from options.schema import Opt
from utils.utils_file import write_text
from utils.utils_option import BASE_KEY, EDITOR_KEY

Schema = dict[str, Any]
PAGE, EDITOR = ROOT / "docs" / "options.md", ROOT / "docs" / "options.schema.json"
HEAD = """# Options

Written by `python scripts/make_options_docs.py` from the docstrings in `options/schema*.py`: change those, not this.

Option files are JSON with `//` and `/* */` comments and trailing commas. A file contains only what differs from its
`_base_` or from these defaults. Unknown and duplicate keys are errors; the message suggests the nearest known key.
`--set train.total_iter=200 datasets.train.gt_size=128` changes single options of one call. KAIR's nine VRT option
files load unchanged: [migrating](migrating.md#option-keys).

With [options.schema.json](options.schema.json) an editor completes keys and shows their meaning. Name it in an option
file (`"$schema": "../../docs/options.schema.json"`), or for all of them in VS Code's settings:

```json
"json.schemas": [{"fileMatch": ["options/vrt/**/*.json"], "url": "./docs/options.schema.json"}],
"files.associations": {"**/options/vrt/**/*.json": "jsonc"}
```
"""
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
KINDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true`, `false`", "null": "`null`"}


def editor_schema() -> Schema:
    """The JSON Schema of an option file, the same from every pydantic.

    Nothing is required, for a file may inherit it. Of KAIR's keys those without an effect here are not known.
    """
    schema: Schema = _plain(Opt.model_json_schema())
    schema["properties"] = {
        EDITOR_KEY: {"description": "Where an editor finds this schema.", "type": "string"},
        BASE_KEY: {"description": "Option file that this one inherits from, relative to it.", "type": "string"},
        **schema["properties"],
    }
    for block in (schema, *schema["$defs"].values()):
        for field in block["properties"].values():
            if "$ref" in field:  # pydantic leaves out, not in every version, what the block itself says
                field.setdefault("description", _block(field, schema)["description"])
    return {EDITOR_KEY: "https://json-schema.org/draft/2020-12/schema", **schema}


def options_page(schema: Schema) -> str:
    """The page of all options, a table a block."""
    parts = [HEAD]
    for place, block in _blocks(schema, schema, ""):
        rows = []
        for name, field in block["properties"].items():
            default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
            meaning = " ".join(field["description"].split()).replace("|", "\\|").replace("<", "\\<")
            if name not in (EDITOR_KEY, BASE_KEY):
                rows.append(f"| `{name}` | {_values(field)} | {default} | {meaning} |")
        title = f"`{place}`" if place else "The file"
        table = "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows])
        parts.append(f"## {title}\n\n{block['description']}\n\n{table}\n")
    return "\n".join(parts)


def _plain(node: Any) -> Any:
    """Drop what pydantic adds beyond the meaning, or writes otherwise in another version."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    node |= {key: int(node[key]) for key in BOUNDS if node.get(key, 0.5) % 1 == 0}
    node = {key: _plain(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    node.pop("required", None)
    if choices := node.pop("oneOf", None) or node.get("anyOf"):  # choices of choices are choices
        node["anyOf"] = [inner for choice in choices for inner in choice.get("anyOf", [choice])]
    if "const" in node:
        node.pop("enum", None)
    if len(parts := node.get("allOf", ())) == 1:
        del node["allOf"]
        node |= parts[0]
    if "$ref" in node:
        node.pop("default", None)  # the block's own defaults say it
    return node


def _blocks(node: Schema, root: Schema, place: str) -> Iterator[tuple[str, Schema]]:
    """Yield every block with its dotted place; one that stands in two places, once."""
    yield place, node
    seen = set()
    for field in node["properties"].values():
        for kind in (field, *field.get("anyOf", ()), field.get("items", {})):
            reference = kind.get("$ref")
            if reference and reference not in seen:
                seen.add(reference)
                both = [other for other, twin in node["properties"].items() if reference in str(twin)]
                below = f"{place}.{'|'.join(both)}".lstrip(".") + "[]" * ("items" in field)
                yield from _blocks(_block(kind, root), root, below)


def _values(kind: Schema) -> str:
    """The values that a field takes, in words."""
    if "$ref" in kind:
        return "`{...}`"
    if "anyOf" in kind:
        return " or ".join(_values(choice) for choice in kind["anyOf"])
    if "const" in kind or "enum" in kind:
        return ", ".join(f"`{json.dumps(value)}`" for value in kind.get("enum", [kind.get("const")]))
    if kind["type"] == "array":
        each = kind.get("prefixItems", ())
        return f"list{f' of {len(each)}' if each else ''}, each {_values(each[0] if each else kind['items'])}"
    bounds = [f"{sign} {kind[key]}" for key, sign in BOUNDS.items() if key in kind]
    return " ".join([KINDS[kind["type"]], " and ".join(bounds)]).strip()


def _block(field: Schema, root: Schema) -> Schema:
    block: Schema = root["$defs"][field["$ref"].rpartition("/")[2]]
    return block


def main() -> None:
    """Write both files."""
    schema = editor_schema()
    write_text(PAGE, options_page(schema))
    write_text(EDITOR, json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    main()

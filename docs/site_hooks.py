"""What mkdocs does to the pages beside its own work."""

import json
import re
from pathlib import Path

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")
CELLS = re.compile(r"<!-- The site shows the cells of (\S+) here. -->")
TO_NOTEBOOK = "](quickstart.ipynb)", "](notebook.md)"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Show the notebook on its page and link that page elsewhere; name files outside docs/, which the site does not
    have, instead of linking them."""
    shown = CELLS.search(markdown)
    markdown = CELLS.sub(lambda place: _cells(place[1]), markdown) if shown else markdown.replace(*TO_NOTEBOOK)
    return OUTSIDE.sub(lambda link: f"{link[1]} (`{link[2]}`)" if link[1] not in link[2] else f"`{link[2]}`", markdown)


def _cells(notebook: str) -> str:
    """The cells of a notebook of this folder as Markdown, their headings one level down."""
    cells = json.loads(Path(__file__).with_name(notebook).read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"] == "code", "".join(cell["source"])) for cell in cells]
    return "\n\n".join(f"```python\n{text}\n```" if is_code else re.sub(r"\A#", "##", text) for is_code, text in texts)

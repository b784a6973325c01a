"""What mkdocs does to the pages beside its own work."""

import re

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Name files outside docs/ instead of linking them: the site does not have them."""
    return OUTSIDE.sub(lambda link: f"{link[1]} (`{link[2]}`)" if link[1] not in link[2] else f"`{link[2]}`", markdown)

"""What tests ask of a page: its tags, its tables, and that nothing of it comes from elsewhere."""

from html.parser import HTMLParser

POINTING = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        tags: of all elements, in order.
        references: what attributes point to.
        styles: texts in which url() may stand.
        rows: of all tables: the texts of their <td> cells.
        labels: of all pictures.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.references, self.styles, self.rows, self.labels = [], [], [], [], []
        self._inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag if tag in ("td", "style") else self._inside
        for name, value in attrs:
            if name in POINTING:
                self.references.append(value)
            elif value and "url(" in value:
                self.styles.append(value)
            elif tag == "img" and name == "alt":
                self.labels.append(value)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside == "td":
            self.rows[-1][-1] += data
        if self._inside == "style":
            self.styles.append(data)

    def assert_alone(self):
        """Fail if the page needs anything besides itself."""
        assert self.tags[0] == "html"
        assert all(value.startswith(("data:image/", "#")) for value in self.references), self.references
        assert all("//" not in text and "@import" not in text for text in self.styles)
        assert not {"link", "iframe", "object", "embed", "base"} & set(self.tags)

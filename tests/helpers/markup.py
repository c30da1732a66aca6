"""Hostile text, and the elements of a page."""

import html.parser

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def nodes(text):
    """Element names of a piece of HTML, which must be well-formed, and its event handlers."""
    found, handlers, stack = [], [], []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append(tag)
            handlers.extend(name for name, _ in attrs if name.startswith("on"))
            if tag not in ("img", "br", "input", "meter", "path", "circle", "polyline"):
                stack.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("meter", "path", "circle", "polyline"):
                assert stack.pop() == tag

    Reader().feed(text)
    assert not stack
    return found, handlers

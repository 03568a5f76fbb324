"""What all pages are made with: templates, style, scripts, and text with citations as HTML."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bids_qsm.report.references import CITATION, REFERENCES, Reference


def page_environment() -> Environment:
    """Return the templates of the package; all that is put into them is escaped."""
    environment = Environment(
        loader=PackageLoader("bids_qsm", "resources/report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(script_hash=script_hash, packed_script_hash=packed_script_hash)
    return environment


def script_hash(script: str) -> Markup:
    """Return what names a script in a page's policy: a script of another hand has no such name."""
    digest = hashlib.sha256(script.encode()).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")


@cache
def packed_script_hash(packed: str) -> Markup:
    """Return the same of a script that the page unpacks: base64 of gzip."""
    return script_hash(gzip.decompress(base64.b64decode(packed)).decode("utf-8"))


def resource(name: str) -> Markup:
    """Return a file of the package, which is not escaped."""
    folder = resources.files("bids_qsm") / "resources" / "report"
    return Markup((folder / name).read_text(encoding="utf-8"))


def png_uri(content: bytes) -> str:
    """Return an address that holds a PNG itself."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def as_html(text: str, *, heading: str, references: Mapping[str, Reference] = REFERENCES) -> Markup:
    """Return methods text as HTML: headings, paragraphs, code and links to the references.

    Parameters
    ----------
    text : str
        Paragraphs, headings (``## ``), code in backquotes, citations such as ``[@first2001]``.
    heading : str
        The element of a heading, such as ``h4``.
    references : mapping of str to Reference
    """

    def links(citation: re.Match[str]) -> str:
        made = (
            f'<a href="#ref-{key}">{escape(references[key].short)}</a>'
            if key in references
            else key
            for key in citation.group(1).split("; @")
        )
        return f"({'; '.join(made)})"

    blocks = []
    for block in text.split("\n\n"):
        is_heading = block.startswith("## ")
        content = str(escape(block.removeprefix("## ")))
        content = re.sub(r"`([^`]*)`", r"<code>\1</code>", content)
        content = CITATION.sub(links, content)
        blocks.append(f"<{heading}>{content}</{heading}>" if is_heading else f"<p>{content}</p>")
    return Markup("\n".join(blocks))

"""Settings of the documentation site: ``make docs``."""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bids_qsm import __version__

project = "bids-qsm"
author = "the bids-qsm authors"
project_copyright = "the bids-qsm authors; Apache License 2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["Thumbs.db", ".*"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say types, with shapes and units
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

smartquotes = False  # headings show words of settings files

html_theme = "furo"
html_title = f"bids-qsm {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_permalinks_icon = "#"
# Formulas are MathML, made here: no script is fetched when a page is read.
html_math_renderer = "mathml"


class Help(SphinxDirective):
    """What a command says when it is asked for ``--help``: ``{help} module function``."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return the text of the parser that the function returns."""
        os.environ["COLUMNS"] = "88"
        module, function = self.arguments
        text = getattr(importlib.import_module(module), function)().format_help()
        return [nodes.literal_block(text, text, language="text")]


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(_mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def _mathml(formula: str, *, as_block: bool) -> str:
    """Return a formula as MathML; the converter needs the braces that TeX does without."""
    return tex2mathml(re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", formula), as_block=as_block)


def setup(app: Sphinx) -> dict[str, Any]:
    """Give Sphinx the renderer of formulas and the directive for commands' words."""
    app.add_directive("help", Help)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

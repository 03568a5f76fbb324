"""The methods of a run and the papers behind them as files: Markdown, HTML, LaTeX and BibTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bids_qsm import __version__
from bids_qsm.report.references import CITATION, REFERENCES, Reference, cited_keys
from bids_qsm.report.templates import as_html, page_environment, resource

STEM = "CITATION"
SOURCE = re.compile(r"(?P<journal>.+) (?P<volume>\d+):(?P<pages>\S+)")
OTHERS = re.compile(r"and others(?: \((?P<group>.+)\))?")
CODE = re.compile(r"`([^`]*)`")
LATEX_SPECIALS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
LATEX_SIGNS = {
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "°": r"$^{\circ}$",
    "²": "$^2$",
    "³": "$^3$",
    "µ": r"$\mu$",
    "√": r"$\surd$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "–": "--",
    "—": "---",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "Δ": r"$\Delta$",
}
GREEK = "GREEK SMALL LETTER "
LATEX_HEAD = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\begin{document}
"""
LATEX_END = r"""
\bibliographystyle{unsrt}
\bibliography{CITATION}
\end{document}
"""


@dataclass(frozen=True)
class Part:
    """Methods text of something: paragraphs, headings (``## ``), code, citations ``[@key]``."""

    title: str
    text: str


def grouped(texts: Mapping[str, str]) -> list[Part]:
    """Return methods texts, each once, with the names of what was processed so.

    Parameters
    ----------
    texts : mapping of str to str
        Methods text of each series, by its name.
    """
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    if len(names) == 1:
        return [Part("", text) for text in names]
    return [Part(", ".join(named), text) for text, named in names.items()]


def citation_files(
    parts: Sequence[Part],
    *,
    title: str = "Methods",
    references: Mapping[str, Reference] = REFERENCES,
    version: str = __version__,
) -> dict[str, str]:
    """Return the content of the files by their names: ``CITATION.md``, .html, .tex and .bib.

    Parameters
    ----------
    parts : sequence of Part
    title : str
    references : mapping of str to Reference
        What the text may cite.
    version : str
        Of the program.
    """
    keys = [key for key in cited_keys("\n".join(part.text for part in parts)) if key in references]
    cited = {key: references[key] for key in keys}
    return {
        f"{STEM}.md": as_markdown(parts, title, cited),
        f"{STEM}.html": _as_page(parts, title, cited, version),
        f"{STEM}.tex": as_latex(parts, title),
        f"{STEM}.bib": as_bibtex(cited),
    }


def as_markdown(parts: Sequence[Part], title: str, references: Mapping[str, Reference]) -> str:
    """Return the text as Markdown; Pandoc finds its citations in the BibTeX file."""
    blocks = [f"# {title}"]
    for part in parts:
        level = "#" if part.title else ""
        blocks += [f"## {part.title}"] if part.title else []
        blocks.append(re.sub("^## ", f"##{level} ", part.text, flags=re.MULTILINE))
    blocks.append("## References")
    blocks.append(
        "\n".join(
            f"- [@{key}]: {item.text}" + (f" doi:{item.doi}" if item.doi else "")
            for key, item in references.items()
        )
    )
    return "\n\n".join(blocks) + "\n"


def _as_page(
    parts: Sequence[Part], title: str, references: Mapping[str, Reference], version: str
) -> str:
    shown = [
        (part.title, as_html(part.text, heading="h3", references=references)) for part in parts
    ]
    template = page_environment().get_template("citation.html")
    return template.render(
        title=title,
        parts=shown,
        references=list(references.items()),
        style=resource("report.css"),
        script="",
        version=version,
    )


def as_latex(parts: Sequence[Part], title: str) -> str:
    """Return the text as a LaTeX document that cites from ``CITATION.bib``."""
    blocks = [rf"\section*{{{latex(title)}}}"]
    for part in parts:
        heading = "subsubsection" if part.title else "subsection"
        blocks += [rf"\subsection*{{{latex(part.title)}}}"] if part.title else []
        for block in part.text.split("\n\n"):
            if block.startswith("## "):
                blocks.append(rf"\{heading}*{{{_latex_line(block.removeprefix('## '))}}}")
            else:
                blocks.append(_latex_line(block))
    return LATEX_HEAD + "\n\n".join(blocks) + "\n" + LATEX_END


def latex(text: str) -> str:
    """Return plain text for LaTeX: nothing in it is taken for a command."""
    return "".join(_latex_letter(letter) for letter in text)


def _latex_letter(letter: str) -> str:
    name = unicodedata.name(letter, "")
    if name.startswith(GREEK):
        return f"$\\{name.removeprefix(GREEK).lower().replace('lamda', 'lambda')}$"
    return LATEX_SPECIALS.get(letter) or LATEX_SIGNS.get(letter, letter)


def _latex_line(text: str) -> str:
    """Return a paragraph with its citations and code."""
    found = re.compile(f"{CITATION.pattern}|{CODE.pattern}")
    made, start = [], 0
    for match in found.finditer(text):
        made.append(latex(text[start : match.start()]))
        keys, code = match.groups()
        # long lines of code may be broken after commas and underscores
        made.append(
            rf"\cite{{{keys.replace('; @', ',')}}}"
            if keys
            else rf"\texttt{{{latex(code)}}}".replace(r"\_", r"\_\allowbreak{}")
        )
        start = match.end()
    return "".join([*made, latex(text[start:])])


def as_bibtex(references: Mapping[str, Reference]) -> str:
    """Return references as BibTeX entries under their keys."""
    return "\n".join(_entry(key, reference) for key, reference in references.items())


def _entry(key: str, reference: Reference) -> str:
    source = SOURCE.fullmatch(reference.source)
    fields = {
        "author": " and ".join(_author(name) for name in reference.authors.split(", ")),
        "title": f"{{{latex(reference.title)}}}",  # braces keep capitals
        "journal": latex(source["journal"] if source else reference.source),
        "volume": source["volume"] if source else "",
        "pages": source["pages"].replace("-", "--") if source else "",
        "year": str(reference.year),
        "doi": reference.doi,
    }
    lines = [f"  {name} = {{{value}}},\n" for name, value in fields.items() if value]
    return f"@article{{{key},\n{''.join(lines)}}}\n"


def _author(name: str) -> str:
    """Return ``Last, F. M.`` of ``Last FM``; others as BibTeX wants them."""
    if others := OTHERS.fullmatch(name):
        group = others["group"]
        return f"{{{latex(group)}}} and others" if group else "others"
    surname, initials = name.rsplit(" ", 1)
    return f"{latex(surname)}, {' '.join(f'{letter}.' for letter in initials)}"

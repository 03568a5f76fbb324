from __future__ import annotations

import re
from pathlib import Path

import pytest

from bids_qsm.report.citations import Part, as_bibtex, as_latex, citation_files, grouped, latex
from bids_qsm.report.group_references import GROUP_REFERENCES
from bids_qsm.report.methods import (
    OPTION_SENTENCES,
    SENTENCES,
    STEP_SENTENCES,
    methods_body,
)
from bids_qsm.report.record import SeriesRecord, StepRecord
from bids_qsm.report.references import REFERENCES, cited_keys

ALL_REFERENCES = {**REFERENCES, **GROUP_REFERENCES}
ENTRY = re.compile(r"@article\{(\w+),\n((?:  \w+ = \{.*\},\n)+)\}\n")
FIELD = re.compile(r"  (\w+) = \{(.*)\},\n")


def entries(text: str) -> dict[str, dict[str, str]]:
    """Read BibTeX, every character of it."""
    assert "\n".join(match[0] for match in ENTRY.finditer(text)) == text
    return {key: dict(FIELD.findall(body)) for key, body in ENTRY.findall(text)}


def plain(text: str) -> str:
    """Take escapes and commands that stand for one sign out of LaTeX, as LaTeX would."""
    text = re.sub(r"\\(textbackslash|text\w+|ldots|allowbreak)\{\}", "x", text)
    text = re.sub(r"\\([{}$&#%_])", "x", text)
    return re.sub(r"\$(\\\w+|\^\d|\^\{\\circ\}|-)\$", "x", text)


def check_latex(text: str) -> None:
    """Check that braces are closed, and that nothing else is left that LaTeX takes for its own."""
    body = plain(text)
    depth = 0
    for letter in body:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[$&#%_^~<>|]", body)
    # what Latin fonts have
    assert all(ord(letter) < 0x180 for letter in text)


def test_the_bibliography_has_what_is_cited_and_nothing_else(series_record: SeriesRecord) -> None:
    body = methods_body(series_record.steps)
    files = citation_files([Part("", body)])
    assert list(files) == ["CITATION.md", "CITATION.html", "CITATION.tex", "CITATION.bib"]
    assert list(entries(files["CITATION.bib"])) == cited_keys(body)
    cited = re.findall(r"\\cite\{([\w,]+)\}", files["CITATION.tex"])
    assert {key for keys in cited for key in keys.split(",")} == set(cited_keys(body))
    for key in cited_keys(body):
        assert f"- [@{key}]: " in files["CITATION.md"]
        assert f'id="ref-{key}"' in files["CITATION.html"]
        assert f'href="#ref-{key}"' in files["CITATION.html"]


@pytest.mark.parametrize("key", ALL_REFERENCES)
def test_each_paper_has_a_whole_entry(key: str) -> None:
    reference = ALL_REFERENCES[key]
    fields = entries(as_bibtex({key: reference}))[key]
    assert {"author", "title", "journal", "volume", "pages", "year"} <= fields.keys()
    assert fields["year"] == str(reference.year)
    assert fields.get("doi", "") == reference.doi
    assert f"{fields['volume']}:{fields['pages'].replace('--', '-')}" in reference.source
    for name in fields["author"].split(" and "):
        assert re.fullmatch(r"others|\{[\w ]+\}|[^,]+, ([^\W\d_]\.)( [^\W\d_]\.)*", name), name
    for name in fields.keys() - {"doi"}:
        check_latex(fields[name])


def test_authors_as_bibtex_wants_them() -> None:
    some = entries(as_bibtex({key: REFERENCES[key] for key in ("bilgic2024", "bredies2010")}))
    assert some["bredies2010"]["author"] == "Bredies, K. and Kunisch, K. and Pock, T."
    assert some["bredies2010"]["pages"] == "492--526"
    assert some["bilgic2024"]["author"].endswith(
        "Chan, K. S. and {QSM Consensus Organization Committee} and others"
    )


def test_all_sentences_are_good_latex() -> None:
    sentences = [*SENTENCES.values(), *OPTION_SENTENCES.values(), *STEP_SENTENCES.values()]
    check_latex(as_latex([Part("", " ".join(sentences))], "Methods"))


@pytest.mark.parametrize(
    "hostile", ["\\input{x}", "100 % of $5 & #1_a^b~c", "{", "}}", '<a href="x">', "|", "χ ± 1 µm²"]
)
def test_a_text_from_outside_is_no_command(hostile: str) -> None:
    steps = [StepRecord("atlas", hostile, {hostile: hostile})]
    text = as_latex([Part(hostile, methods_body(steps))], hostile)
    check_latex(text)
    commands = set(re.findall(r"\\([a-z]+)", text))
    assert "input" not in {c for c in commands if rf"\{c}{{x" in text}
    html = citation_files([Part(hostile, methods_body(steps))])["CITATION.html"]
    assert '<a href="x">' not in html


def test_signs() -> None:
    assert latex("50 % of χ_i") == r"50 \% of $\chi$\_i"
    assert latex("4.1 ± 2 ppb") == r"4.1 $\pm$ 2 ppb"


def test_texts_that_differ_are_told_apart() -> None:
    alike = grouped({"sub-01": "a", "sub-02": "a"})
    assert alike == [Part("", "a")]
    apart = grouped({"sub-01": "## H\n\na", "sub-02": "b", "sub-03": "## H\n\na"})
    assert [part.title for part in apart] == ["sub-01, sub-03", "sub-02"]
    files = citation_files(apart)
    assert "\n## sub-01, sub-03\n\n### H\n\na\n" in files["CITATION.md"]
    assert "\\subsection*{sub-01, sub-03}\n\n\\subsubsection*{H}\n\na\n" in files["CITATION.tex"]
    assert files["CITATION.html"].index("<h2>sub-02</h2>") > files["CITATION.html"].index("<h3>H")


def test_files_lie_together(tmp_path: Path) -> None:
    tex = citation_files([Part("", "Text [@bilgic2024].")])["CITATION.tex"]
    assert "\\bibliography{CITATION}" in tex
    assert tex.endswith("\\end{document}\n")

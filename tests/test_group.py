"""The group level as the command line runs it."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from bids_qsm.cli import main
from tests.analyses.tiny import Tiny, make, small_pictures
from tests.validator import errors_among, issues_of

MARKED = '<b>MS</b> & "it\'s"'
MODELS = """
[[analysis]]
name = "groups"
kind = "regions"
measures = ["Chimap"]
covariates = ["age"]

[[analysis]]
name = "voxels"
kind = "voxelwise"
title = "Voxels <script>alert(1)</script>"
measures = ["Chimap"]
permutations = 20

[[analysis]]
name = "broken"
kind = "regions"
by = "grupo"

[[analysis]]
name = "sizes"
kind = "power"
"""
QUICK = '[[analysis]]\nname = "sizes"\nkind = "power"\n'


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Tiny:
    return make(tmp_path_factory.mktemp("original"), n_each=5)


@pytest.fixture
def tiny(original: Tiny, tmp_path) -> Tiny:
    """A copy that a test may change, with a models file that is quick."""
    folder = tmp_path / "copy"
    shutil.copytree(original.bids.parent, folder)
    (folder / "quick.toml").write_text(QUICK)
    return Tiny(folder / "bids", folder / "out", folder / "tiny.nii.gz", original.plan)


@pytest.fixture
def small() -> Iterator[None]:
    with small_pictures():
        yield


def run(tiny: Tiny, *words: str, models: str = "quick.toml") -> int:
    """Run the group level; with no models file, if it is named so."""
    model = ["--model", str(tiny.bids.parent / models)] if models else []
    return main([*tiny.words, *model, *words])


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)


def change_people(tiny: Tiny, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = tiny.bids / "participants.tsv"
    change(read(path)).to_csv(path, sep="\t", index=False, na_rep="n/a")


@pytest.mark.usefixtures("small")
def test_tables_over_all_subjects_with_their_columns(tiny: Tiny, capsys) -> None:
    change_people(tiny, lambda p: p.assign(edss=p["edss"].where(p.index != 9)))
    assert run(tiny) == 0
    assert "20 scans of 10 subjects, 360 rows" in capsys.readouterr().out
    regions = read(tiny.out / "group_regions.tsv")
    assert set(regions["atlas"]) == {"tiny"}
    first = regions[regions["series"] == "sub-04_ses-2"]
    assert len(first) == 6 * 3
    own = read(next(tiny.out.glob("sub-04/ses-2/anat/*regions_stats.tsv")))
    keys = ["measure", "reference", "index"]
    one, other = (t.assign(reference=t["reference"].fillna("n/a")) for t in (first, own))
    pd.testing.assert_series_equal(
        one.sort_values(keys)["mean"], other.sort_values(keys)["mean"], check_index=False
    )
    assert set(first["years"]) == {1.25}
    assert set(first["age"]) == {tiny.plan.participants["age"].iloc[3]}
    assert regions[regions["participant_id"] == "sub-10"]["edss"].isna().all()
    morphometry = read(tiny.out / "group_morphometry.tsv")
    assert len(morphometry) == 20 * 8
    scans = read(tiny.out / "group_scans.tsv")
    assert scans["series"].tolist()[:2] == ["sub-01_ses-1", "sub-01_ses-2"]
    described = json.loads((tiny.out / "group_scans.json").read_text())
    assert described["putamen_Chimap"] == {"Description": "putamen: Chimap", "Units": "ppb"}
    assert set(described) <= set(scans.columns)
    assert (tiny.out / "group_missing.tsv").read_text() == "unit\treason\n"


@pytest.mark.usefixtures("small")
def test_only_the_wanted_subjects_and_sessions(tiny: Tiny) -> None:
    assert run(tiny, "--participant-label", "02", "sub-05", "--session-label", "2") == 0
    scans = read(tiny.out / "group_scans.tsv")
    assert scans["series"].tolist() == ["sub-02_ses-2", "sub-05_ses-2"]


@pytest.mark.usefixtures("small")
def test_who_has_no_table_is_listed(tiny: Tiny) -> None:
    (tiny.bids / "sub-99" / "anat").mkdir(parents=True)
    (tiny.bids / "sub-99" / "anat" / "sub-99_T1w.nii.gz").touch()
    path = tiny.out / "logs" / "sub-02_ses-1_record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tables": []}))
    assert run(tiny) == 0
    missing = read(tiny.out / "group_missing.tsv").set_index("unit")["reason"]
    assert set(missing.index) == {"sub-99", "sub-02_ses-1"}
    assert "no structures" in missing["sub-02_ses-1"]
    assert "not finished" in missing["sub-99"]
    assert "sub-99" in (tiny.out / "group.html").read_text()


@pytest.mark.usefixtures("small")
def test_dry_run_writes_nothing(tiny: Tiny, capsys) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny.out.rglob("*")}
    assert run(tiny, "--dry-run", models="") == 0
    said = capsys.readouterr().out
    assert "regions-by-group: regions" in said
    assert "voxels-by-group: voxelwise" in said
    assert {p: p.stat().st_mtime_ns for p in tiny.out.rglob("*")} == before


def unreadable_people(tiny: Tiny) -> None:
    change_people(tiny, lambda p: p.rename(columns={"participant_id": "id"}))


def twice_the_same(tiny: Tiny) -> None:
    change_people(tiny, lambda p: pd.concat([p, p.iloc[:1]]))


@pytest.mark.parametrize(
    ("spoil", "status", "sentence"),
    [
        (lambda t: [p.unlink() for p in t.out.glob("logs/*")], 18, "participant level first"),
        (lambda t: next(t.out.glob("logs/*.json")).write_text("{"), 66, "process the subject"),
        (lambda t: next(t.out.rglob("*regions_stats.tsv")).unlink(), 66, "cannot be read"),
        (lambda t: t.atlas.unlink(), 66, "no such atlas"),
        (unreadable_people, 66, "participants.tsv has no column 'participant_id'"),
        (twice_the_same, 66, "participants.tsv: a row stands twice (sub-01)"),
    ],
)
def test_what_is_missing_or_damaged_is_said(tiny: Tiny, capsys, spoil, status, sentence) -> None:
    spoil(tiny)
    assert run(tiny) == status
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tiny.out / "group_regions.tsv").exists()


def test_an_atlas_that_is_not_given_is_asked_for(tiny: Tiny, capsys) -> None:
    assert main(tiny.words[:3]) == 66
    assert "give it by '--atlas PATH'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "status", "sentence"),
    [
        (None, 66, "models file cannot be read"),
        ("[[analysis]\n", 2, "models.toml: "),
        ('[[analysis]]\nname = "a"\nkind = "voodoo"\n', 2, "has no kind 'voodoo'"),
    ],
)
def test_a_bad_models_file_ends_the_run(tiny: Tiny, capsys, text, status, sentence) -> None:
    if text is not None:
        (tiny.bids.parent / "models.toml").write_text(text)
    assert run(tiny, models="models.toml") == status
    assert sentence in capsys.readouterr().err
    assert not list(tiny.out.glob("group*"))


def test_words_of_the_group_level_are_refused_elsewhere(tiny: Tiny, capsys) -> None:
    words = [str(tiny.bids), str(tiny.out), "participant", "--model", "x.toml"]
    assert main(words) == 2
    assert "for the group level" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_an_output_folder_that_cannot_be_written_is_said(tiny: Tiny, capsys) -> None:
    (tiny.out / "group_regions.tsv").mkdir()  # a folder in a file's place: root may write anywhere
    assert run(tiny) == 73
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_one_failure_does_not_stop_the_others(tiny: Tiny, capsys) -> None:
    (tiny.bids.parent / "models.toml").write_text(
        MODELS.replace("permutations = 20", "primary_p = 0.5")
    )
    old = tiny.out / "group" / "broken"
    old.mkdir(parents=True)
    (old / "pairs.tsv").touch()
    assert run(tiny, models="models.toml") == 1
    said = capsys.readouterr().out
    assert "FAILED broken: the comparison names 'grupo', which is no column" in said
    assert "FAILED voxels: " in said
    assert not old.exists()
    assert (tiny.out / "group" / "groups" / "pairs.tsv").exists()
    assert (tiny.out / "group" / "sizes" / "sample-sizes.tsv").exists()
    page = html.unescape((tiny.out / "group.html").read_text())
    assert "broken could not be made: the comparison names 'grupo'" in page


@pytest.mark.usefixtures("small")
def test_a_fault_of_the_program_stops_its_analysis_alone(tiny: Tiny, capsys, monkeypatch) -> None:
    def fault(cohort: object, **options: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("bids_qsm.group.KINDS", {"power": fault})
    assert run(tiny) == 1
    said = capsys.readouterr().out
    assert "FAILED sizes: a fault in the program (KeyError: 'x'; test_group.py, line" in said
    assert (tiny.out / "group.html").exists()


@pytest.mark.usefixtures("small")
def test_default_analyses_say_what_they_assume(tiny: Tiny) -> None:
    assert run(tiny, "--rescan", "1", "ses-2", models="") == 0
    assert {p.name for p in (tiny.out / "group").iterdir() if p.is_dir()} == {
        "regions-by-group", "voxels-by-group", "reliability",
    }  # fmt: skip
    cited = (tiny.out / "group/CITATION.tex").read_text()
    assert "Group analyses" in cited
    for key in re.findall(r"\\cite\{(\w+)", cited):
        assert f"@article{{{key}," in (tiny.out / "group/CITATION.bib").read_text()
    page = html.unescape((tiny.out / "group.html").read_text())
    assert "has two levels (control, patient)" in page
    assert "adjusted for age and sex" in page
    made = json.loads((tiny.out / "group/reliability/analysis.json").read_text())
    assert made["Options"]["sessions"] == ["ses-1", "ses-2"]


@pytest.mark.usefixtures("small")
def test_without_maps_structures_alone_are_compared(tiny: Tiny) -> None:
    for path in tiny.out.glob("logs/*_record.json"):
        record = json.loads(path.read_text())
        record["outputs"] = [name for name in record["outputs"] if "_space-" not in name]
        path.write_text(json.dumps(record))
    assert run(tiny, models="") == 0
    made = {p.name for p in (tiny.out / "group").iterdir() if p.is_dir()}
    assert made == {"regions-by-group"}
    page = html.unescape((tiny.out / "group.html").read_text())
    assert "There are no maps in the atlas' space" in page


@pytest.mark.usefixtures("small")
def test_other_references_are_said_and_not_compared_by_voxel(tiny: Tiny) -> None:
    path = tiny.out / "logs" / "sub-02_ses-1_record.json"
    record = json.loads(path.read_text())
    record["reference"]["region"] = "whole brain"
    path.write_text(json.dumps(record))
    models = '[[analysis]]\nname = "v"\nkind = "voxelwise"\npermutations = 0\nsession = "ses-1"\n'
    (tiny.bids.parent / "v.toml").write_text(models)
    assert run(tiny, models="v.toml") == 0
    page = html.unescape((tiny.out / "group.html").read_text())
    assert "is relative to CSF of the ventricles' atria in 19 maps, but in 1 to whole brain" in page
    notes = json.loads((tiny.out / "group/v/analysis.json").read_text())["Notes"]
    assert "1 scan left out for want of a map of Chimap: sub-02_ses-1." in notes
    assert not any("map of R2starmap" in note for note in notes)


@pytest.mark.usefixtures("small")
def test_files_of_columns_stay_in_their_folder(tiny: Tiny) -> None:
    names = ["../../x", "a/b", "a b"]
    values = {name: (p.index + 1.5) ** 2 for name in names for p in [tiny.plan.participants]}
    change_people(tiny, lambda p: p.assign(**values))
    words = ", ".join(f'"{name}"' for name in names)
    models = f'[[analysis]]\nname = "r"\nkind = "regression"\noutcomes = [{words}]\n'
    (tiny.bids.parent / "r.toml").write_text(models + 'predictors = ["age"]\n')
    before = {p for p in tiny.bids.parent.rglob("*") if p.is_file()}
    assert run(tiny, models="r.toml") == 0
    written = {p for p in tiny.bids.parent.rglob("*") if p.is_file()} - before
    ladders = [p for p in written if p.name.startswith("ladder_") and p.suffix == ".png"]
    assert len(ladders) == 4
    assert {p.parent for p in ladders} == {tiny.out / "group" / "r"}
    assert {p.parent for p in written} == {tiny.out, tiny.out / "group", tiny.out / "group" / "r"}


@pytest.mark.usefixtures("small")
def test_several_runs_of_a_session_are_taken_once(tiny: Tiny) -> None:
    for path in sorted(tiny.out.rglob("sub-01_ses-1*")):
        text = path.name.replace("ses-1", "ses-1_run-2", 1)
        shutil.copy(path, path.with_name(text))
    path = tiny.out / "logs" / "sub-01_ses-1_run-2_record.json"
    path.write_text(
        path.read_text()
        .replace("sub-01_ses-1", "sub-01_ses-1_run-2")
        .replace("anat/sub-01_ses-1_run-2", "anat/sub-01_ses-1_run-2")
    )
    models = '[[analysis]]\nname = "g"\nkind = "regions"\nsession = "ses-1"\n'
    models += '[[analysis]]\nname = "r"\nkind = "reliability"\nvoxels = false\n'
    models += '[[analysis]]\nname = "l"\nkind = "longitudinal"\n'
    (tiny.bids.parent / "g.toml").write_text(models)
    status = run(tiny, models="g.toml")
    scans = read(tiny.out / "group_scans.tsv")
    assert scans["series"].tolist()[:2] == ["sub-01_ses-1", "sub-01_ses-1_run-2"]
    notes = {n: json.loads((tiny.out / f"group/{n}/analysis.json").read_text()) for n in ("g", "r")}
    assert any("1 scan left out" in note for note in notes["g"]["Notes"])
    assert any("1 series left out" in note for note in notes["r"]["Notes"])
    page = html.unescape((tiny.out / "group.html").read_text())
    assert status == 1
    assert "l could not be made: sub-01 has two scans of one structure at the same years" in page


@pytest.mark.slow
def test_a_whole_run_is_valid_escaped_and_the_same_again(tmp_path) -> None:
    tiny = make(tmp_path, n_each=4, n_sessions=1, thalamus="<i>thalamus</i> & co")
    (tmp_path / "models.toml").write_text(MODELS)
    change_people(tiny, lambda p: p.assign(group=p["group"].replace("patient", MARKED)))
    files = []
    for _ in range(2):
        assert run(tiny, models="models.toml") == 1
        written = [*tiny.out.glob("group*"), *(tiny.out / "group").rglob("*")]
        files.append({p.relative_to(tiny.out): p.read_bytes() for p in written if p.is_file()})
    assert files[0].keys() == files[1].keys()
    assert [path for path in files[0] if files[0][path] != files[1][path]] == []
    names = {path.as_posix() for path in files[0]}
    assert {f"group/voxels/Chimap_{n}" for n in (
        "clusters.tsv", "statistic.nii.gz", "statistic.json", "slices-random-fields.png",
        "slices-random-fields.svg", "slices-tfce.png", "log10p-tfce.nii.gz",
    )} <= names  # fmt: skip

    page = (tiny.out / "group.html").read_text()
    for marked in ("<b>MS</b>", "<i>thalamus</i>", "<script>alert", "it's\""):
        assert marked not in page
    assert "&lt;b&gt;MS&lt;/b&gt;" in page
    for path in names:
        if path.startswith("group/") and path.endswith((".tsv", ".svg")):
            assert f'href="./{path}"' in page

    assert errors_among(issues_of(tiny.out)) == []

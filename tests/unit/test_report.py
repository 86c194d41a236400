"""The report as a file: whole, self-contained, safe, and written of whatever is there."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from fake_run import FakeRun
from prism_operator.report import summary_tables, write_report
from prism_operator.report.folder import read_run
from prism_operator.report.responses import compare, split_tags
from prism_operator.report.summary import headline, run_headline

VOID = {"meta", "img", "link", "br", "hr", "input", "path", "use"}
OPTIONAL_END = {"td", "th", "tr", "li", "p", "tbody", "thead", "tfoot"}


class Page(HTMLParser):
    """Addresses, ids and texts of a page, and the elements left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID | OPTIONAL_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.handle_starttag(tag, attrs)
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID | OPTIONAL_END:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = FakeRun(tmp_path_factory.mktemp("run")).finished().with_baseline().folder
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text()


def text_of(html: str) -> str:
    return " ".join(" ".join(Page(html).texts).split()).replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_needs_no_network_and_no_other_file(html: str) -> None:
    assert all(address.startswith(("#", "data:")) for address in Page(html).addresses)
    assert not re.search(r"<script|<link|@import|url\((?!#)", html)


def test_every_link_on_the_page_leads_somewhere_and_no_id_is_given_twice(html: str) -> None:
    page = Page(html)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    repeated = {name for name in page.ids if page.ids.count(name) > 1}
    assert not {name for name in repeated if not re.fullmatch(r"[pm][0-9a-f]{10}", name)}


def test_the_page_is_well_formed(html: str) -> None:
    assert Page(html).open == []


def test_a_plot_of_each_promised_kind_is_written(folder: Path) -> None:
    assert {file.stem for file in (folder / "plots").glob("*.png")} >= {
        "accuracy", "rollout-accuracy", "reward", "discriminator-gap", "discriminator-accuracy",
        "response-length", "sft-loss", "format-rate",
    }  # fmt: skip
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (folder / "plots").iterdir())


def test_the_headline_states_what_was_measured(html: str) -> None:
    assert "Held-out accuracy rose from 43.5 ± 2.2 % after sft to 59.8 ± 2.2 % after rlvr; the intervals do not overlap." in text_of(html)


def test_captions_are_computed_from_the_curves(html: str) -> None:
    text = text_of(html)
    assert re.search(r"Over 60 steps of discriminator, the caption gap rose from 0\.\d+ to 5\.\d+ and the cot gap rose", text)
    assert re.search(r"over 40 steps of alignment, the caption gap fell from \d\.\d+ to \d\.\d+ and the cot gap fell", text)


def test_the_page_shows_conditions_configuration_digests_and_versions(folder: Path, html: str) -> None:
    text = text_of(html)
    assert "AlignmentSucceeded True Verified" in text
    assert "optimizer.learningRate 0.001 default 1e-05" in text
    assert "transformers 5.9.0" in text
    manifests = [json.loads(file.read_text()) for file in folder.rglob("manifest.json")]
    assert len(manifests) == 8
    assert all(manifest["digest"] in html for manifest in manifests)


def test_text_from_the_run_is_escaped(html: str) -> None:
    """One in 25 of the fake responses of sft holds markup."""
    assert "<b>well" not in html


def test_markup_in_every_place_that_a_run_fills_is_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    run = FakeRun(tmp_path).finished()
    for file in [
        run.folder / "status.json",
        *run.folder.rglob("job.json"),
        *run.folder.rglob("samples.jsonl"),
        *run.folder.rglob("result.json"),
    ]:
        for word in ("What is the sum of the two digits?", "All stages are verified.", "The spec is valid.", "runs/digits/base", "plus"):
            file.write_text(file.read_text().replace(word, evil))
    html = write_report(run.folder).read_text()
    assert "&lt;img src=x" in html
    assert evil not in html


@pytest.mark.parametrize("stage", ["sft", "discriminator", "alignment", "rlvr"])
def test_an_unfinished_run_has_a_report_of_what_there_is(tmp_path: Path, stage: str) -> None:
    run = FakeRun(tmp_path)
    for earlier in ("sft", "discriminator", "alignment")[: ("sft", "discriminator", "alignment", "rlvr").index(stage)]:
        run.trained(earlier)
    run.running(stage, 12).with_status("Running")
    text = text_of(write_report(run.folder).read_text())
    assert "No checkpoint has been evaluated yet." in text
    assert stage in text
    assert "results.json is not there (yet)" in text


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    assert "No stage has started." in write_report(tmp_path).read_text()


def test_one_step_of_one_stage_can_be_drawn(tmp_path: Path) -> None:
    write_report(FakeRun(tmp_path).running("alignment", 1).folder)
    assert (tmp_path / "plots" / "discriminator-gap.png").is_file()


def test_a_metric_logged_before_the_first_step_can_be_drawn(tmp_path: Path) -> None:
    run = FakeRun(tmp_path).running("discriminator", 1)
    metrics = tmp_path / "stages" / "discriminator" / "attempt-1" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"step":1', '"step":0'))
    assert "the caption gap was" in text_of(write_report(run.folder).read_text())


def test_the_report_can_be_written_again_and_is_the_same(folder: Path, html: str) -> None:
    assert write_report(folder).read_text() == html


def test_the_image_of_a_prompt_is_shown_where_its_data_file_is_there(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    png = b"\x89PNG\r\n\x1a\n" + bytes(40)
    file = tmp_path / "test.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"images": [{"bytes": png, "path": None}]}] * 120), file, row_group_size=50)
    run = FakeRun(tmp_path / "run").finished()
    for written in [*run.folder.rglob("job.json"), *run.folder.rglob("samples.jsonl")]:
        text = written.read_text().replace("runs/digits/data/evaluation.parquet", str(file))
        written.write_text(re.sub(r'"test-0*(\d+)"', r'"test.parquet:\1"', text))
    assert write_report(run.folder).read_text().count("data:image/png;base64,") == 6


def test_responses_are_shown_by_rule_one_for_each_prompt(folder: Path) -> None:
    responses = compare(read_run(folder).samples, ["sft", "alignment", "rlvr", "rlvr-baseline"], ["sft", "alignment", "rlvr"])
    assert responses is not None
    assert [comparison.turn for comparison in responses.shown] == ["became right"] * 3 + ["became wrong", "stayed right", "stayed wrong"]
    assert len({comparison.prompt.prompt_id for comparison in responses.shown}) == 6
    assert responses.compared == 360
    for comparison in responses.shown:
        by_stage = {sample.stage: sample for sample in comparison.samples}
        assert by_stage["rlvr"].correct == comparison.turn.endswith("right"), "turns are those of the main line, not of the baseline"


def test_tags_are_set_apart_and_nothing_is_lost() -> None:
    text = "<caption>a <b></caption> <think>x</answer>"
    assert "".join(part for _, part in split_tags(text)) == text
    assert [part for is_tag, part in split_tags(text) if is_tag] == ["<caption>", "</caption>", "<think>", "</answer>"]


def test_overlapping_intervals_are_called_that(folder: Path) -> None:
    rows = read_run(folder).main_line
    assert headline([rows[2], rows[2].model_copy(update={"accuracy": 0.58})]).endswith("the intervals overlap.")
    assert "fell from" in headline([rows[2], rows[0]])


def test_the_table_has_a_row_for_each_stage_with_what_was_measured(folder: Path) -> None:
    console = Console(width=120, file=io.StringIO())
    with console.capture() as shown:
        console.print(summary_tables(folder)[0])
    lines = [" ".join(line.replace("\N{NO-BREAK SPACE}", " ").split()) for line in shown.get().splitlines()]
    assert "sft 180 1m 04s 43.5 ± 2.2 % 96.2 % 49.1" in lines
    assert "discriminator 60 41 s – – –" in lines
    assert "rlvr-baseline 100 3m 51s 57.1 ± 2.2 % 99.4 % 47.9" in lines


def test_the_table_of_an_empty_folder_says_so(tmp_path: Path) -> None:
    (table,) = summary_tables(tmp_path)
    assert table.row_count == 0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two of the seven benchmarks."""
    return FakeRun(tmp_path_factory.mktemp("measured"), benchmarks=("mmmu", "mathvista")).finished().folder


def shown(folder: Path) -> list[str]:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        for table in summary_tables(folder):
            console.print(table)
    return [" ".join(line.replace("\N{NO-BREAK SPACE}", " ").split()) for line in captured.get().splitlines()]


def test_checkpoints_stand_beside_the_papers_models_on_the_benchmarks_that_were_run(measured: Path) -> None:
    lines = shown(measured)
    assert "model MathVista MMMU mean" in lines
    assert "rlvr 49.8 ± 2.2 % 49.8 ± 2.2 % 49.8 %" in lines
    assert "paper: 4B PRISM+GRPO 77.9 % 64.1 % 71.0 %" in lines
    assert sum(line.startswith("paper:") for line in lines) == 18


def test_the_table_tells_each_checkpoint_from_the_one_before_it_and_from_the_first(measured: Path) -> None:
    lines = shown(measured)
    assert "held-out data rlvr sft +16.3 (+14.3 to +18.3) <0.001" in lines
    assert "MathVista rlvr alignment +8.6 (+6.6 to +10.6) <0.001" in lines
    assert sum(line.startswith("MMMU ") for line in lines) == 3


def test_a_run_without_benchmarks_has_no_table_of_them_and_none_of_the_papers_rows(folder: Path) -> None:
    assert not any(line.startswith(("paper:", "Benchmarks")) for line in shown(folder))


def test_the_page_has_benchmarks_sub_scores_and_every_difference(measured: Path) -> None:
    page = write_report(measured).read_text()
    text = text_of(page)
    assert Page(page).open == [] and {"benchmarks", "differences"} <= set(Page(page).ids)
    assert "paper: 8B PRISM+DAPO 78.2 % 66.2 % 72.2 %" in text
    assert "MathVista of rlvr" in text and "20.0 % by rules alone" in text and "version/<Text & Lite>" in text
    assert "MMMU alignment sft +7.7 (+5.7 to +9.7) <0.001" in text


def test_a_run_of_benchmarks_alone_has_a_headline_of_their_mean(measured: Path) -> None:
    run = read_run(measured)
    assert (
        run_headline(replace(run, rows=()))
        == "Mean score on 2 benchmarks went from 33.5\N{NO-BREAK SPACE}% after sft to 49.8\N{NO-BREAK SPACE}% after rlvr."
    )
    assert run_headline(run).startswith("Held-out accuracy rose")


def test_a_benchmark_nobody_knows_is_shown_by_its_name(tmp_path: Path) -> None:
    folder = FakeRun(tmp_path, benchmarks=("mine", "mmmu")).finished().folder
    assert "mine of sft" in text_of(write_report(folder).read_text())

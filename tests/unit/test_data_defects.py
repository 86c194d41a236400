"""Upstream's defects that concern data (specification section 9): each of these fails with upstream's behaviour. And items 1 to 3 of
section 10, what must be there to claim PRISM.
"""

import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import prism_trainer
from prism_trainer.contract.job import PRISM_SYSTEM_PROMPT, DataSource
from prism_trainer.contract.optim import Sampling
from prism_trainer.curation.__main__ import main, parser
from prism_trainer.curation.difficulty import count_right, journal_file
from prism_trainer.curation.journal import Journal
from prism_trainer.curation.sampler import Drawing, describe_drawing
from prism_trainer.data.dataset import open_taught, open_verifiable
from prism_trainer.data.formats import FORMATS, format_of
from prism_trainer.data.rows import Prompt, VerifiablePrompt
from prism_trainer.data.sources import digest_sources, scan_file
from prism_trainer.data.template import user_turn
from prism_trainer.data.writers import write_verifiable
from prism_trainer.discriminator.spans import scored_rows
from prism_trainer.errors import DataError
from prism_trainer.responses import parse_response

GOOD = "<caption>c</caption><think>t</think><answer>7</answer>"


def _png(size=(100, 60)):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    return buffer.getvalue()


def _set(folder, rows, name="set.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSource(uri=str(folder / name))


def test_a1_a_teacher_of_thousands_of_words_is_kept_to_the_last_one_A1(tmp_path):
    think = " ".join(f"step{number}" for number in range(5000))
    columns = {"question": "?", "teacher_caption": "c", "teacher_cot": f"<think>{think} end</think><answer>7</answer>"}
    (row,) = open_taught([_set(tmp_path, [columns])])
    assert row.teacher.think.of(row.teacher.text).split()[-2:] == ["step4999", "end"]
    (scored,) = scored_rows(row.teacher, lambda text: [ord(char) for char in text], cot_sees_caption=True, max_tokens=100_000)
    assert "step4999 end" in "".join(map(chr, scored.token_ids))


def test_a16_the_teachers_text_travels_with_its_row_and_not_through_the_rollout_A16(tmp_path):
    (row,) = open_taught([_set(tmp_path, [{"question": "?", "teacher_response": GOOD}])])
    assert row.teacher.text == GOOD and not hasattr(row.prompt, "teacher")


def test_a19_images_reach_the_models_own_processor_as_they_are_in_the_file_A19(tmp_path):
    (tmp_path / "a.png").write_bytes(_png((101, 57)))
    (row,) = open_taught([_set(tmp_path, [{"question": "?", "image": "a.png", "teacher_response": GOOD}])])
    assert row.prompt.images == (_png((101, 57)),)


def test_b1_a_missing_file_is_refused_and_no_pairs_are_made_up_B1(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        list(open_taught([DataSource(uri=str(tmp_path / "pairs.jsonl"))]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "sentence"), [("gone.png", "there is no file"), ("https://example.com/a.png", "is on the web, and nothing is fetched")]
)
def test_b4_a_bad_image_is_named_and_no_other_row_takes_its_place_B4(tmp_path, image, sentence):
    rows = [{"question": "?", "image": image, "teacher_response": GOOD}, {"question": "other", "teacher_response": GOOD}]
    with pytest.raises(DataError, match=rf"row 0, column 'image': .*{sentence}"):
        open_taught([_set(tmp_path, rows)])[0]


@pytest.mark.parametrize("part", ["teacher_caption", "teacher_cot", "student_caption", "student_cot"])
def test_b4_a_pair_that_lacks_a_part_is_named_and_not_dropped_B4(tmp_path, part):
    columns = {"question": "?", "teacher_caption": "c", "teacher_cot": "<think>t</think><answer>7</answer>"}
    columns |= {name.replace("teacher", "student"): text for name, text in columns.items() if name != "question"}
    del columns[part]
    row = next(scan_file(_set(tmp_path, [columns]).uri))
    with pytest.raises(DataError, match=rf"row 0, column '{part}': found nothing"):
        FORMATS["pairs"].read(row)


def test_e3_paths_start_at_the_set_and_none_of_ours_is_built_in_E3(tmp_path, monkeypatch):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/a.png").write_bytes(_png())
    source = _set(tmp_path / "sets", [{"question": "?", "image": "a.png", "teacher_response": GOOD}])
    monkeypatch.chdir("/")
    assert open_taught([source])[0].prompt.images == (_png(),)
    code = "".join(file.read_text() for file in (Path(prism_trainer.__file__).parent / "data").glob("*.py"))
    assert not re.search(r"[\"']/(home|mnt|data|root|scratch|work)/", code)


SCHEMAS = {
    "sharegpt": {"messages": [{"role": "user", "content": "<image>\n?\n"}, {"role": "assistant", "content": GOOD}], "images": ["a.png"]},
    "stage-2": {
        "data_source": "mm_gad",
        "prompt": [{"role": "system", "content": PRISM_SYSTEM_PROMPT}, {"role": "user", "content": "<image>\n?\n"}],
        "images": [{"path": "a.png"}],
        **{"teacher_caption": "<caption>c</caption>", "teacher_cot": "<think>t</think><answer>7</answer>", "teacher_response": GOOD},
        **{"answer": "7", "reward_model": {"ground_truth": "7", "style": "rule"}, "extra_info": {"index": 1}},
    },
    "stage-3": {
        "data_source": "math-77k",
        "prompt": [{"role": "user", "content": "<image>\n?\n"}],
        "images": [{"path": "a.png"}],
        "reward_model": {"ground_truth": "7", "equivalent_answers": ["7.0", "__EMPTY__"]},
    },
    "pairs": {
        **{"id": "1", "image": "a.png", "question": "?"},
        **{"teacher_caption": "<caption>c</caption>", "teacher_cot": "<think>t</think><answer>7</answer>"},
        **{"student_caption": "<caption>d</caption>", "student_cot": "<think>u</think><answer>8</answer>"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_item_1_every_schema_of_the_paper_is_read_and_told_from_the_others(tmp_path, name):
    (tmp_path / "a.png").write_bytes(_png())
    row = next(scan_file(_set(tmp_path, [SCHEMAS[name]]).uri))
    assert format_of(row.uri, row.columns).name == name
    found = FORMATS[name].read(row)
    assert (found.prompt.question, found.prompt.images) == ("?", (_png(),))


def test_item_2_the_system_prompt_and_the_user_template_are_the_papers_to_the_letter():
    assert PRISM_SYSTEM_PROMPT == (
        "You are a helpful scientific assistant.\nAnswer the user's question based on the image provided.\n\n"
        "Your output must strictly follow this XML format:\n\n"
        "<caption>\n- [Briefly describe the image style, key objects, and text using bullet points]\n</caption>\n"
        "<think>\n[Reason step-by-step to solve the problem]\n</think>\n<answer>\n[Final answer ONLY]\n</answer>\n"
    )
    assert user_turn("How many?") == "<image>\nHow many?\n"


def test_item_3_a_right_answer_counts_in_the_right_format_only():
    row = VerifiablePrompt(Prompt("", "?", (_png(),)), ("7",))
    drawn = [parse_response(GOOD), None, parse_response(GOOD.replace("7", "8")), parse_response(GOOD.replace("7", " 7.0 "))]
    assert count_right(row, drawn) == 2


def _sampled(folder, options, right):
    """The command's arguments where a policy has answered question n rightly `right[n]` times, and nothing is left to sample."""
    (folder / "policy").mkdir()
    save_file({"weight": torch.zeros(1)}, folder / "policy" / "model.safetensors")
    (folder / "policy" / "config.json").write_text("{}")
    sets = folder / "answers.parquet"
    write_verifiable(sets, [VerifiablePrompt(Prompt("", f"question {number}", (_png(),)), ("7",)) for number in range(len(right))])
    arguments = ["filter", str(sets), "--policy", str(folder / "policy"), "--out", str(folder / "out.parquet"), *options]
    given = parser().parse_args(arguments)
    sampling = Sampling(temperature=given.temperature, top_p=given.top_p, max_response_tokens=given.max_response_tokens)
    drawing = Drawing(given.samples, given.at_once, sampling, given.seed, given.system_prompt)
    digests = list(digest_sources((DataSource(uri=str(sets)),)).values())
    Journal(journal_file(given.out), {**describe_drawing(given.policy, drawing), "data": digests}).add({"right": list(right)})
    return arguments


@pytest.mark.parametrize(
    ("options", "samples", "right", "kept"),
    [
        ([], 16, range(17), range(4, 13)),
        (["--samples", "5"], 5, range(6), range(1, 5)),
        (["--low", "0.5", "--high", "1"], 16, range(17), range(8, 17)),
    ],
    ids=["pass@16 in [0.2, 0.8] by default", "both ends belong to it", "other bounds"],
)
def test_item_3_the_filter_keeps_the_rows_of_its_band_and_leaves_the_others_out(tmp_path, options, samples, right, kept):
    """By the real command; 3 of 16 is below 0.2 and 13 of 16 above 0.8."""
    assert main(_sampled(tmp_path, options, right)) == 0
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["pass_rate"] for row in table] == [number / samples for number in kept]
    assert [row.prompt.question for row in open_verifiable([DataSource(uri=str(tmp_path / "out.parquet"))])] == [
        f"question {number}" for number in kept
    ]

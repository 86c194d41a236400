"""The one parser of caption, think and answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.responses import TAGS, count_caption_items, count_think_steps, parse_response

GOOD = "<caption>\n- a\n- b\n</caption>\n<think>\nx\n\ny\n</think>\n<answer>\n7\n</answer>"


def test_sections_are_found_by_character_offset():
    parsed = parse_response(GOOD)
    assert parsed.caption_block.of(GOOD) == "<caption>\n- a\n- b\n</caption>"
    assert parsed.cot_block.of(GOOD) == "<think>\nx\n\ny\n</think>\n<answer>\n7\n</answer>"
    assert (parsed.think.of(GOOD).strip(), parsed.answer.of(GOOD).strip()) == ("x\n\ny", "7")
    assert (count_caption_items(parsed), count_think_steps(parsed)) == (2, 2)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("</answer>", ""),
        GOOD.replace("7", ""),
        GOOD.replace("- a\n- b", " "),
        GOOD.replace("<think>", "more <think>"),
        GOOD + "<answer>8</answer>",
        GOOD.replace("x", "<answer>8</answer>"),
        GOOD.replace("- a", "<caption>"),
        "so " + GOOD,
        GOOD + " bye",
        "<answer>7</answer><think>x</think><caption>a</caption>",
        "",
    ],
    ids=[
        "unclosed",
        "empty answer",
        "empty caption",
        "junk between sections",
        "a second answer",
        "an answer inside think",
        "a nested caption",
        "text before",
        "text after",
        "another order",
        "nothing",
    ],
)
def test_c6_a_wrong_format_has_no_sections(text):
    assert parse_response(text) is None


PLAIN = st.text(alphabet=st.characters(exclude_characters="<>", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(PLAIN, PLAIN, PLAIN, st.sampled_from(["", " ", "\n\n"]))
def test_what_was_put_in_comes_out(caption, think, answer, gap):
    text = f"{gap}<caption>{caption}</caption>{gap}<think>{think}</think>{gap}<answer>{answer}</answer>{gap}"
    parsed = parse_response(text)
    assert [span.of(text) for span in (parsed.caption, parsed.think, parsed.answer)] == [caption, think, answer]
    assert parsed.caption_block.end <= parsed.cot_block.start


@given(st.lists(st.one_of(st.sampled_from(TAGS), st.sampled_from(["a", " ", "\n", "<"])), max_size=14).map("".join))
def test_any_mixture_of_tags_is_parsed_or_refused_and_never_ambiguous(text):
    parsed = parse_response(text)
    if parsed:
        assert all(text.count(tag) == 1 for tag in TAGS)
        assert [text.index(tag) for tag in TAGS] == sorted(text.index(tag) for tag in TAGS)

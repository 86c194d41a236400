"""Which rows a step sees."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.data.order import epoch_order, mixture_order


@given(st.integers(1, 30), st.integers(0, 5), st.integers(1, 100))
def test_every_row_comes_once_before_any_comes_twice(num_rows, seed, count):
    order = epoch_order(num_rows, seed, "here", count).tolist()
    assert len(order) == count
    counts = Counter(order)
    assert max(counts.values()) - min(counts.get(row, 0) for row in range(num_rows)) <= 1


@given(st.integers(1, 30), st.integers(0, 5), st.integers(1, 60), st.integers(1, 60))
def test_a_longer_plan_begins_with_the_shorter_one(num_rows, seed, short, more):
    longer = epoch_order(num_rows, seed, "here", short + more).tolist()
    assert longer[:short] == epoch_order(num_rows, seed, "here", short).tolist()


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.sampled_from([None, 1.0]), st.integers(0, 3), st.integers(1, 80))
def test_no_row_comes_again_before_its_whole_set_was_seen(sizes, weight, seed, count):
    order = mixture_order(sizes, [weight] * len(sizes), seed, "here", count).tolist()
    assert len(order) == count and all(0 <= row < sum(sizes) for row in order)
    for number, size in enumerate(sizes):
        rows = [row for row in order if sum(sizes[:number]) <= row < sum(sizes[: number + 1])]
        assert len(set(rows[:size])) == len(rows[:size])


def test_sets_are_drawn_by_weight():
    drawn = Counter((mixture_order([50, 50], [3.0, 1.0], 0, "here", 4000) // 50).tolist())
    assert 0.72 < drawn[0] / 4000 < 0.78


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 3))
def test_without_weights_an_epoch_is_every_row_once(sizes, seed, epochs):
    drawn = Counter(mixture_order(sizes, [None] * len(sizes), seed, "here", epochs * sum(sizes)).tolist())
    assert drawn == dict.fromkeys(range(sum(sizes)), epochs)


def test_a_set_without_weight_beside_one_with_weight_counts_by_its_rows():
    one, other = (mixture_order([30, 10], [weight, 10.0], 0, "here", 99) for weight in (None, 30.0))
    assert one.tolist() == other.tolist()


def test_the_same_seed_and_place_give_the_same_rows():
    first, again, other = (mixture_order([9, 9], [1, 1], seed, "sft", 40).tolist() for seed in (1, 1, 2))
    assert first == again != other

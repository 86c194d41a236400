"""How numbers read: a table of values and their spelling."""

import pytest

from prism_operator.wording import duration, interval, number, percent, short_digest, size, when


def plain(text: str) -> str:
    """With the no-break space as a space, so that a failure can be read."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1m 00s"),
        (512, "8m 32s"),
        (3599.7, "1h 00m"),
        (3840, "1h 04m"),
        (360_000, "100h 00m"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert plain(duration(seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00001, "1.0e−05"), (0.0731, "0.0731"), (1.234, "1.23"), (-2.2149, "−2.21"), (49.26, "49.3"), (5123.4, "5,123")],
)
def test_a_number_has_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_an_interval_is_written_as_half_its_width() -> None:
    assert plain(interval(0.435, 0.414, 0.456)) == "43.5 ± 2.1 %"
    assert plain(percent(1 / 3)) == "33.3 %"


def test_sizes_digests_and_times_are_short() -> None:
    assert [plain(size(amount)) for amount in (999, 8_412_160, 21_000_000_000_000_000)] == ["999 B", "8.4 MB", "21000.0 TB"]
    assert short_digest("sha256:" + "3f2a91c07b4e" + "0" * 52) == "sha256:3f2a91c07b4e"
    assert when("2026-11-23T04:11:52.1Z") == "2026-11-23 04:11 UTC"
    assert when("yesterday") == "yesterday"

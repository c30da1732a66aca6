"""Text that is safe to print, and counts, sizes and durations in words."""

import pytest

from diffusekit.display import first_line, format_count, format_duration, format_size, printable, quote


def test_printable_text_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\u202ec\x00") == "a\ufffd[2Jb\ufffdc\ufffd"
    assert printable("two\nlines") == "two\ufffdlines"
    assert printable("two\nlines", allow="\n") == "two\nlines"
    assert printable("猫 é") == "猫 é"


def test_long_text_is_cut_to_the_limit():
    assert printable("abcdef", limit=6) == "abcdef"
    assert printable("abcdefg", limit=6) == "abcde…"
    assert quote("a\n" * 50, limit=5) == "'a\ufffda\ufffd…'"


def test_the_first_line_of_an_error_or_its_type():
    assert first_line(ValueError("\n first \nsecond")) == "first "
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert first_line(ValueError("abc"), limit=2) == "ab"


def test_counts_have_a_plural():
    assert [format_count(n, "image") for n in (0, 1, 2, 1200)] == ["0 images", "1 image", "2 images", "1,200 images"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (20_400, "20 kB"),
        (999_600, "1.0 MB"),
        (36_123_456, "36 MB"),
        (2.5e9, "2.5 GB"),
        (5e12, "5,000 GB"),
    ],
)
def test_sizes(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (3569, "59 min"),
        (3599, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text

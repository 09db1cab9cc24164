"""Damaged files: the first few of what `make fuzz` tries."""

from fuzz import TARGETS, attack


def test_damaged_files_end_in_numbers_or_in_one_line_of_this_package():
    outcomes, _, failures = attack(list(TARGETS), stop=15, seed=14)
    assert failures == []
    for name, found in outcomes.items():
        assert found.total() == 15, name
        assert found["read"] < 15, name  # some damage is seen

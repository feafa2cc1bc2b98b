from typing import Any

import pytest

from bitrix_pull.emulator.php import as_php_writes, read_form


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({}, []),
        ([], []),
        ({"a": {}, "b": [{}]}, {"a": [], "b": [[]]}),
        ({"0": "x", "1": "y"}, ["x", "y"]),
        ({"1": "x"}, {"1": "x"}),
        ({"0": "x", "2": "y"}, {"0": "x", "2": "y"}),
        ("text", "text"),
        (None, None),
        (1.5, 1.5),
    ],
)
def test_maps_come_out_as_php_writes_them(value: Any, written: Any) -> None:
    assert as_php_writes(value) == written


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ([], {}),
        ([("A", "1"), ("B", "2"), ("A", "3")], {"A": "3", "B": "2"}),
        ([("USERS[]", "5"), ("USERS[]", "7")], {"USERS": ["5", "7"]}),
        ([("P[a]", "1"), ("P[b][c]", "2"), ("P[b][d]", "3")], {"P": {"a": "1", "b": {"c": "2", "d": "3"}}}),
        ([("P[][x]", "1"), ("P[][x]", "2")], {"P": [{"x": "1"}, {"x": "2"}]}),
        ([("P", "1"), ("P[a]", "2")], {"P": {"a": "2"}}),
        ([("0", "zero")], {"0": "zero"}),
    ],
)
def test_brackets_in_a_form_are_levels(fields: list[tuple[str, str]], read: dict[str, Any]) -> None:
    assert read_form(fields) == read

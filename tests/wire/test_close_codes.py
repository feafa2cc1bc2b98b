"""Close codes and refusals (protocol §7 and §8)."""

import pytest

from bitrix_pull.wire.close_codes import ServerClose, describe, read_refusal


@pytest.mark.parametrize("code", ServerClose)
def test_each_code_has_its_text_and_reads_back_from_it(code: ServerClose) -> None:
    assert describe(code) == f"{code.value}: {code.text}"
    assert read_refusal(describe(code).encode()) == code


def test_what_a_stranger_wrote_is_not_repeated() -> None:
    assert describe(4999) == "4999"
    assert read_refusal(b"4010: any address, with all its secrets") == 4010


@pytest.mark.parametrize(
    "body", [b"", b"Wrong Channel Id.", b"<html>: no", b": text", b"-4010: text", b" : ", b"\xff\xfe: x"]
)
def test_a_body_of_another_form_is_no_refusal(body: bytes) -> None:
    assert read_refusal(body) is None

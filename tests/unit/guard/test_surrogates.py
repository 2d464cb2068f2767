"""Surrogates: the same shape, the same for the same value, and never somebody's."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.guard.test_pii import documents
from tests.unit.guard.test_rules import STRONG, WEAK
from tuneloop.guard import digits, pii
from tuneloop.guard.surrogates import Surrogates

SAME_SHAPE = {"phone", "cn_id", "us_ssn", "bank_card", "passport", "medical_record"}


def replaced(text: str, seed: str = "s", key: str = "k") -> str:
    return Surrogates(seed, key).replace(text, pii.find(text))


@pytest.mark.parametrize(("kind", "text", "value"), [*STRONG, *WEAK])
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_a_surrogate_is_another_value_and_no_strong_find(kind: str, text: str, value: str, seed: str) -> None:
    new = replaced(text, seed)
    assert new != text and value not in new
    assert [one for one in pii.find(new, strength="strong") if one.kind != "date"] == []


@settings(max_examples=300)
@given(documents, st.text(max_size=5))
def test_no_document_has_strong_finds_after_replacing(text: str, seed: str) -> None:
    found = pii.find(text)
    new = Surrogates(seed).replace(text, found)
    dates = {one.kind for one in found} >= {"date"}
    assert [one for one in pii.find(new, strength="strong") if not dates or one.kind != "date"] == []


@pytest.mark.parametrize(
    "text",
    [
        "api_key=11010519491231002X",  # two kinds, one place
        "病历号：219-09-9998zhangsan@qq.com",
        "https://h.cn/?token=9f8e7d6c5b4azhangsan@qq.com",
        "sk-a1B2c3D4e5F6g7H8i9J0k-----BEGIN PRIVATE KEY-----",
        "+110101900307851 +192.168.1.5 +8613812345678",
        "4111 1111 1111 1111",
    ],
)
def test_overlapping_kinds(text: str) -> None:
    for seed in "abcdefgh":
        assert pii.find(Surrogates(seed).replace(text, pii.find(text)), strength="strong") == []


@pytest.mark.parametrize(("kind", "text", "value"), [row for row in STRONG if row[0] in SAME_SHAPE])
def test_numbers_keep_their_shape(kind: str, text: str, value: str) -> None:
    found = [one for one in pii.find(text) if one.text == value]
    new = Surrogates("seed").replace(value, [pii.replace(found[0], start=0, end=len(value))])
    assert digits.shape(new) == digits.shape(value)


def test_the_same_value_has_the_same_surrogate_within_a_document() -> None:
    text = "张三的电话13812345678，再打138-1234-5678；李四是13912345678，邮箱ZS@qq.com即zs@qq.com"
    new = pii.find(replaced(text)) and replaced(text)
    first, again, other = new.split("电话")[1][:11], new.split("再打")[1][:13], new.split("李四是")[1][:11]
    assert digits.only(again) == first and again[3] == again[8] == "-"
    assert other != first
    assert new.split("邮箱")[1].split("即")[0] == new.split("即")[1]


def test_surrogates_depend_on_the_seed_and_not_on_the_value() -> None:
    one, two = "电话13812345678，身份证11010519491231002X", "电话15987654321，身份证110101199003078515"
    assert digits.shape(replaced(one))[:13] == digits.shape(replaced(two))[:13]
    assert replaced(one)[:13] == replaced(two)[:13]
    assert replaced(one, "s") != replaced(one, "t")
    assert replaced(one) == replaced(one)


def test_all_dates_of_a_document_move_by_the_same_days() -> None:
    text = "出生日期：1990-03-07，入院2024年2月28日，discharged March 1, 2024 or 01/03/2024"
    new = replaced(text)
    born, entered = (one.text for one in pii.find(new)[:2])
    year, month, day = map(int, entered.removesuffix("日").replace("年", " ").replace("月", " ").split())
    days = (date.fromisoformat(born) - date(1990, 3, 7)).days
    assert 30 <= abs(days) <= 365
    assert (date(year, month, day) - date(2024, 2, 28)).days == days
    assert (replaced(text, key="other") == new) is False
    assert [one.kind for one in pii.find(new)] == ["date"] * 4


@pytest.mark.parametrize(
    "form", ["2024-01-02", "2024/1/2", "1/2/2024", "25.12.2023", "Jan 2, 2024", "2nd January 2024", "2024年1月2日"]
)
def test_dates_keep_their_form(form: str) -> None:
    (one,) = pii.find(form)
    new = Surrogates("x").replace(form, [one])
    assert [found.text for found in pii.find(new)] == [new]
    assert {c for c in digits.shape(new) if not c.isalnum()} == {c for c in digits.shape(form) if not c.isalnum()}


def test_full_width_digits_stay_full_width() -> None:
    new = replaced("手机１３８１２３４５６７８")
    assert new.startswith("手机１２") and len(new) == 13


def test_an_overlap_of_two_dates_is_replaced_too() -> None:
    assert replaced("May 6, 2023-05-06") != "May 6, 2023-05-06"

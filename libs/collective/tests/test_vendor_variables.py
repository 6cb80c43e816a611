"""SMDDP's variables that size its AllGather."""

import warnings

import pytest

from trainyard_collective.vendor_variables import STAGING_SIZES, check_vendor_variables


@pytest.mark.parametrize("name", STAGING_SIZES)
def test_sizes_are_accepted_and_rank_0_says_that_they_have_no_effect(monkeypatch, name):
    monkeypatch.setenv(name, str(16 << 20))
    with pytest.warns(UserWarning, match=f"{name}=16777216: accepted, without effect"):
        check_vendor_variables(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_vendor_variables(1)


@pytest.mark.parametrize("value", ["0", "1000", "-8192", "16M"])
def test_sizes_that_smddp_refuses_are_refused(monkeypatch, value):
    monkeypatch.setenv(STAGING_SIZES[0], value)
    with pytest.raises(ValueError, match=f"{STAGING_SIZES[0]} is '{value}' but must be a positive multiple of 8192"):
        check_vendor_variables(0)


def test_nothing_is_said_where_they_are_not_set(monkeypatch):
    for name in STAGING_SIZES:
        monkeypatch.delenv(name, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_vendor_variables(0)

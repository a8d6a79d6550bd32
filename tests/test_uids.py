"""What a damaged object still says of where it belongs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from slicewatch.uids import is_uid, stated_uids
from tests import studies


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_cut_object_still_states_its_study(syntax: str, seed: int) -> None:
    dataset = studies.ct_image(seed=seed)
    data = studies.with_transfer_syntax(studies.to_bytes(dataset), syntax)
    assert stated_uids(data[: len(data) // 2]) == stated_uids(data)
    stated = stated_uids(data)
    assert stated is not None
    assert all(is_uid(uid) for uid in stated)


@given(st.binary(max_size=300))
def test_any_bytes_give_uids_or_nothing(data: bytes) -> None:
    stated = stated_uids(data)
    assert stated is None or is_uid(stated[0])

"""The ledger in storage: nothing is assigned twice, nothing is forgotten."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from slicewatch import closings, inventory, unfinished
from slicewatch.messages import Inventory, InventoryRequest
from slicewatch.records import BatchResult, Outcome, SliceResult
from slicewatch.storage import INCOMING, Storage

MODELS = hashlib.sha256(b"models").hexdigest()


@pytest.fixture
def study(seed: int) -> str:
    return f"1.2.826.0.1.{seed}"


def arrive(storage: Storage, study: str, *numbers: int, suffix: str = "") -> None:
    for number in numbers:
        digest = hashlib.sha256(f"{number}{suffix}".encode()).hexdigest()
        storage.write(
            INCOMING, f"{study}/1/{number}{suffix}.dcm", b"x", metadata={"sha256": digest}
        )


def arrive_noted(storage: Storage, study: str, *numbers: int) -> None:
    """As a door's request leaves them."""
    arrive(storage, study, *numbers)
    inventory.note_arrival(
        storage,
        study,
        [
            inventory.Arrived(
                f"{study}/1/{n}.dcm", hashlib.sha256(str(n).encode()).hexdigest(), size=1
            )
            for n in numbers
        ],
    )


def take(storage: Storage, study: str, *, after: int = -1, flush: bool = False) -> Inventory:
    return inventory.take(
        storage,
        InventoryRequest(study, after, flush),
        models_digest=MODELS,
        batch_size=4,
        batch_wait_s=3600,
    )


def finish(storage: Storage, study: str, batch: int) -> None:
    entries = inventory.manifest(storage, study, batch)
    slices = [SliceResult(one.blob, one.sha256, Outcome.SCREENED) for one in entries]
    counts = BatchResult(batch, len(slices), 0, 0, 0)
    inventory.write_results(storage, study, batch, MODELS, slices, counts)


def assigned(storage: Storage, study: str, batches: int) -> list[str]:
    return [e.blob for n in range(batches) for e in inventory.manifest(storage, study, n)]


def test_only_full_batches_are_made_while_the_study_arrives(storage: Storage, study: str) -> None:
    arrive(storage, study, *range(6))
    taken = take(storage, study)
    assert (taken.received, taken.batches, taken.unassigned) == (6, (0,), 2)


def test_flush_takes_the_rest(storage: Storage, study: str) -> None:
    arrive(storage, study, *range(6))
    taken = take(storage, study, flush=True)
    assert (taken.batches, taken.unassigned) == ((0, 1), 0)


def test_what_waited_long_enough_is_taken(storage: Storage, study: str) -> None:
    arrive(storage, study, 1)
    request = InventoryRequest(study)
    taken = inventory.take(storage, request, models_digest=MODELS, batch_size=4, batch_wait_s=0)
    assert taken.batches == (0,)


def test_batches_known_to_the_caller_are_not_named_again(storage: Storage, study: str) -> None:
    arrive(storage, study, *range(8))
    assert take(storage, study).batches == (0, 1)
    arrive_noted(storage, study, *range(8, 12))
    assert take(storage, study, after=1).batches == (2,)


def test_after_a_restart_only_what_is_not_screened_is_named(storage: Storage, study: str) -> None:
    arrive(storage, study, *range(8))
    take(storage, study)
    finish(storage, study, 0)
    taken = take(storage, study)
    assert taken.batches == (1,)
    assert taken.done.screened == 4


def test_other_models_screen_again(storage: Storage, study: str) -> None:
    arrive(storage, study, *range(4))
    take(storage, study)
    finish(storage, study, 0)
    taken = inventory.take(
        storage,
        InventoryRequest(study),
        models_digest=hashlib.sha256(b"other models").hexdigest(),
        batch_size=4,
        batch_wait_s=3600,
    )
    assert taken.batches == (0,)
    assert taken.done.screened == 0


def test_inventories_at_once_assign_each_object_to_one_batch(storage: Storage, study: str) -> None:
    arrive(storage, study, *range(22))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: take(storage, study, flush=True), range(6)))
    batches = max(answer.last_batch for answer in answers) + 1
    names = assigned(storage, study, batches)
    assert len(names) == len(set(names)) == 22


def test_a_look_between_goes_by_what_requests_noted(
    storage: Storage, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive_noted(storage, study, *range(4))
    assert take(storage, study).listed, "the first look lists"
    arrive_noted(storage, study, *range(4, 9))
    with monkeypatch.context() as without:
        without.setattr(inventory, "received", lambda *_: pytest.fail("it lists all objects"))
        taken = take(storage, study, after=0)
    assert (taken.received, taken.batches, taken.unassigned) == (9, (1,), 1)
    assert not taken.listed
    screened = {entry for batch in range(2) for entry in inventory.manifest(storage, study, batch)}
    assert {(one.name, one.metadata["sha256"]) for one in inventory.received(storage, study)} > {
        (entry.blob, entry.sha256) for entry in screened
    }


def test_an_object_that_no_request_noted_is_found_before_the_study_is_whole(
    storage: Storage, study: str
) -> None:
    arrive_noted(storage, study, *range(4))
    take(storage, study)
    arrive(storage, study, 4)  # its door died before it noted it
    between = take(storage, study, after=0)
    assert (between.received, between.listed) == (4, False)
    last = take(storage, study, after=0, flush=True)
    assert (last.received, last.batches, last.listed) == (5, (1,), True)
    again = take(storage, study, after=1)
    assert again.received == 5, "what is in a batch stays counted"


def test_an_object_that_two_requests_brought_is_screened_once(storage: Storage, study: str) -> None:
    arrive_noted(storage, study, *range(4))
    take(storage, study)
    arrive_noted(storage, study, 4, 5)
    arrive_noted(storage, study, 5, 4, 6, 7)
    taken = take(storage, study, after=0)
    assert (taken.received, taken.batches, taken.unassigned) == (8, (1,), 0)


def test_a_batch_holds_no_more_bytes_than_its_bound(
    storage: Storage, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "MOST_BYTES", 2)
    arrive(storage, study, *range(5))
    taken = take(storage, study, flush=True)
    sizes = [len(inventory.manifest(storage, study, n)) for n in taken.batches]
    assert sizes == [2, 2, 1]


def test_a_large_answer_is_cut_and_says_so(
    storage: Storage, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "MOST_BATCHES", 2)
    arrive(storage, study, *range(12))
    first = take(storage, study)
    assert (first.batches, first.more, first.last_batch) == ((0, 1), True, 1)
    rest = take(storage, study, after=first.last_batch)
    assert (rest.batches, rest.more) == ((2,), False)


def test_a_closed_study_tells_what_is_missing(storage: Storage, study: str) -> None:
    arrive(storage, study, 1, 2)
    closings.close_study(storage, study, ["1", "2", "3"])
    taken = take(storage, study)
    assert (taken.closed, taken.missing) == (True, 1)


def test_a_later_close_never_makes_an_instance_unexpected(storage: Storage, study: str) -> None:
    closings.close_study(storage, study, ["1", "2"])
    closings.close_study(storage, study, None)
    closings.close_study(storage, study, ["3"])
    assert closings.expected_instances(storage, study) == ("1", "2", "3")


def test_a_variant_with_other_bytes_is_the_same_instance() -> None:
    assert inventory.sop_instance_uid("1/2/3.4.dcm") == "3.4"
    assert inventory.sop_instance_uid("1/2/3.4~0123456789abcdef.dcm") == "3.4"


def content(storage: Storage, study: str) -> str:
    return inventory.digest(inventory.content_of(inventory.received(storage, study)), ())


def test_a_settled_study_is_no_longer_open(storage: Storage, study: str) -> None:
    arrive(storage, study, 1)
    unfinished.open_study(storage, study)
    assert unfinished.settle(storage, study, content(storage, study), finished=True)
    assert not unfinished.is_open(storage, study)


def test_a_study_that_waits_for_its_decision_stays_open(storage: Storage, study: str) -> None:
    arrive(storage, study, 1)
    unfinished.open_study(storage, study)
    assert unfinished.settle(storage, study, content(storage, study), finished=False)
    assert unfinished.is_open(storage, study)


def test_what_came_after_the_review_keeps_the_study_open(storage: Storage, study: str) -> None:
    arrive(storage, study, 1)
    unfinished.open_study(storage, study)
    before = content(storage, study)
    arrive(storage, study, 2)
    assert not unfinished.settle(storage, study, before, finished=True)
    assert unfinished.is_open(storage, study)


def test_an_object_stored_while_the_study_is_settled_keeps_it_open(
    storage: Storage, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(storage, study, 1)
    unfinished.open_study(storage, study)
    before = content(storage, study)

    def covers_then_arrives(*_: object) -> bool:
        arrive(storage, study, 2)
        unfinished.open_study(storage, study)
        return True

    monkeypatch.setattr(inventory, "covers", covers_then_arrives)
    assert not unfinished.settle(storage, study, before, finished=True)
    assert unfinished.is_open(storage, study)


def test_an_instance_that_turns_out_missing_changes_what_the_review_covers(
    storage: Storage, study: str
) -> None:
    arrive(storage, study, 1)
    before = content(storage, study)
    assert inventory.covers(storage, study, before)
    closings.close_study(storage, study, ["1", "2"])
    assert not inventory.covers(storage, study, before)


def test_an_instance_id_tells_nothing_of_the_study() -> None:
    name = inventory.instance_id("1.2.3")
    assert name == "study-c47f5b18b8a430e698b9fe15e51f6119"
    assert "1.2.3" not in name


def test_senders_that_close_at_once_lose_no_list(storage: Storage, study: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: closings.close_study(storage, study, [f"1.{n}"]), range(16)))
    assert set(closings.expected_instances(storage, study) or ()) == {f"1.{n}" for n in range(16)}


def rejection(study: str, instance: str) -> SliceResult:
    return SliceResult(
        f"quarantine/{instance}",
        hashlib.sha256(instance.encode()).hexdigest(),
        Outcome.REJECTED,
        study_instance_uid=study,
        sop_instance_uid=instance,
    )


def test_what_a_door_refused_changes_what_a_review_must_cover(storage: Storage, study: str) -> None:
    arrive(storage, study, 1)
    before = content(storage, study)
    inventory.note_rejection(storage, rejection(study, "2"))
    assert not inventory.covers(storage, study, before)


def test_an_instance_that_came_well_after_all_is_no_longer_refused(
    storage: Storage, study: str
) -> None:
    inventory.note_rejection(storage, rejection(study, "2"))
    assert len(inventory.rejections(storage, study, [f"{study}/1/1.dcm"])) == 1
    assert inventory.rejections(storage, study, [f"{study}/1/2.dcm"]) == []


def test_a_study_is_all_screened_only_by_the_models_that_ask(storage: Storage, study: str) -> None:
    arrive(storage, study, *range(4))
    take(storage, study)
    assert not inventory.all_screened(storage, study, MODELS)
    finish(storage, study, 0)
    assert inventory.all_screened(storage, study, MODELS)
    assert not inventory.all_screened(storage, study, hashlib.sha256(b"new").hexdigest())

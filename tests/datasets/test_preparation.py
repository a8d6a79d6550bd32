"""The orchestration of a preparation, its steps and its doors."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from activities import (
    batch_objects,
    inspect_objects,
    plan_dataset,
    publish_dataset,
    render_examples,
    survey_inbox,
    unpack_archive,
)
from slicewatch import dataset_store, unfinished
from slicewatch import settings as app_settings
from slicewatch.dataset_messages import PreparationStep
from slicewatch.settings import Settings
from slicewatch.storage import Storage, StorageUnavailable
from tests import studies
from tests.datasets.inbox import (
    ORCHESTRATOR,
    Engine,
    Inbox,
    annotated,
    two_patients,
    zipped,
)
from tests.doors import body_of, function_of, request
from tests.identities import DEVELOPER
from tests.orchestration import replay

# --- the orchestration --------------------------------------------------------------------------


def test_what_lands_is_prepared_once_nothing_more_comes(
    inbox: Inbox, engine: Engine, seed: int
) -> None:
    for name, data in two_patients(seed).items():
        inbox.tell(inbox.put(name, data))
    assert inbox.finished()["status"] == "prepared"
    assert inbox.name not in dataset_store.open_datasets(inbox.storage)
    instance = dataset_store.instance_id(inbox.name)
    replay(list(engine.backend._instances[instance].history), orchestrator=ORCHESTRATOR)


def test_a_late_event_of_what_is_prepared_changes_nothing(inbox: Inbox, seed: int) -> None:
    blob = inbox.put("all.zip", zipped(two_patients(seed)))
    before = inbox.prepared()
    inbox.tell(blob)
    assert inbox.finished() == before
    assert inbox.name not in dataset_store.open_datasets(inbox.storage)


def test_what_comes_later_is_added_and_what_was_replaced_is_gone(inbox: Inbox, seed: int) -> None:
    inbox.put("a.zip", zipped(annotated(seed)))
    assert inbox.prepared()["status"] == "misleading"
    first = inbox.files()
    inbox.put("a.zip", zipped(annotated(seed, slices=4)))
    inbox.tell(inbox.put("b.zip", zipped(annotated(seed + 50_000, "val"))))
    manifest = inbox.finished()
    assert manifest["status"] == "prepared"
    assert manifest["examples"]["train"] == {"positive": 2, "negative": 2}
    files = inbox.files()
    gone = {name for name in first if name not in files}
    assert len(gone) == 4
    assert sum(name.startswith("images/") for name in files) == 10


def test_what_comes_while_it_is_prepared_is_prepared_too(
    inbox: Inbox, seed: int, app: pytest.MonkeyPatch
) -> None:
    from slicewatch import dataset_making

    inbox.put("a.zip", zipped(annotated(seed)))
    render = dataset_making.render

    def late(*args: Any) -> Any:
        if not [b for b in dataset_store.inbox(inbox.storage, inbox.name) if "b.zip" in b.name]:
            inbox.tell(inbox.put("b.zip", zipped(annotated(seed + 50_000, "val"))))
        return render(*args)

    app.setattr(dataset_making, "render", late)
    manifest = inbox.prepared()
    assert manifest["status"] == "prepared"
    assert set(manifest["examples"]) == {"train", "val"}


@pytest.mark.parametrize("fault_every", [4, 7])
def test_storage_that_fails_now_and_then_changes_nothing(
    inbox: Inbox, seed: int, app: pytest.MonkeyPatch, fault_every: int
) -> None:
    inbox.put("all.zip", zipped(two_patients(seed)))
    inbox.prepared()
    expected = inbox.files()
    write, writes = inbox.storage.write, iter(range(1, 10_000))

    def failing(container: str, name: str, *args: Any, **options: Any) -> None:
        write(container, name, *args, **options)
        # After the write: the activity runs again over what it did already.
        if "/rendered/" in name and next(writes) % fault_every < 2:
            raise StorageUnavailable("storage does not answer")

    app.setattr(inbox.storage, "write", failing)
    inbox.prepared()
    app.undo()
    files = inbox.files()
    for content in (files, expected):
        del content["manifest.json"]  # it has the time
    assert files == expected


def test_storage_that_stays_away_fails_the_preparation_and_leaves_it_to_the_sweep(
    inbox: Inbox, engine: Engine, seed: int, app: pytest.MonkeyPatch
) -> None:
    from slicewatch import dataset_making
    from triggers import sweep

    inbox.put("all.zip", zipped(two_patients(seed)))

    def away(*_: Any) -> Any:
        raise StorageUnavailable("storage does not answer")

    with app.context() as broken:
        broken.setattr(dataset_making, "plan", away)
        assert inbox.post().status_code == 202
        instance = dataset_store.instance_id(inbox.name)
        state = engine.client.wait_for_orchestration_completion(instance, timeout=30)
        assert state is not None
        assert state.runtime_status.name == "FAILED"
        assert inbox.status()["status"] == "failed"
    app.setattr(unfinished, "open_studies", lambda _: iter(()))
    app.setattr(dataset_store, "open_datasets", lambda _: iter((inbox.name,)))
    function_of(sweep)(None, engine.client)
    assert inbox.finished()["status"] == "prepared"


def test_messages_stay_small_whatever_the_size_of_the_data_set(
    inbox: Inbox, engine: Engine, seed: int
) -> None:
    images = studies.ct_series(60, seed=seed, rows=16, columns=16)
    structures = studies.rt_structure_set(seed=seed, references=images[:30])
    inbox.put(
        "all.zip",
        zipped({f"{one.SOPInstanceUID}": studies.to_bytes(one) for one in (*images, structures)}),
    )
    inbox.prepared()
    history = engine.backend._instances[dataset_store.instance_id(inbox.name)].history
    assert max(len(event.SerializeToString()) for event in history) < 1024
    names = [e.taskScheduled.name for e in history if e.HasField("taskScheduled")]
    assert names.count("inspect_objects") == 13
    assert names.count("survey_inbox") == 1


def test_steps_that_run_twice_leave_the_same(inbox: Inbox, storage: Storage, seed: int) -> None:
    for n, split in enumerate(("train", "val")):
        inbox.put(f"{n}.zip", zipped(annotated(seed + 50_000 * n, split, slices=2, marked=(1,))))

    def run(module: ModuleType, step: PreparationStep) -> Any:
        name = module.__name__.rpartition(".")[2]
        work = getattr(module, name).build().get_user_function()
        first = work(step.to_json())
        before = inbox.files() | inbox.work()
        assert work(step.to_json()) == first
        assert inbox.files() | inbox.work() == before
        return first

    dataset_store.open_dataset(storage, inbox.name)
    survey = run(survey_inbox, PreparationStep(inbox.name, ""))
    step = PreparationStep(inbox.name, survey["run"])
    for number in range(survey["archives"]):
        run(unpack_archive, PreparationStep(inbox.name, survey["run"], number))
    for number in range(run(batch_objects, step)["batches"]):
        run(inspect_objects, PreparationStep(inbox.name, survey["run"], number))
    for number in range(run(plan_dataset, step)["batches"]):
        run(render_examples, PreparationStep(inbox.name, survey["run"], number))
    outcome = run(publish_dataset, step)
    assert outcome["status"] == "prepared"
    assert outcome["covered"]
    assert inbox.work() == {}


# --- doors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["dataset_prepare", "dataset_status"])
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("Ward 7", 400, "bad-dataset-name"),
        ("work", 400, "bad-dataset-name"),
        ("..", 400, "bad-dataset-name"),
        ("never-seen", 404, "unknown-dataset"),
    ],
)
def test_a_door_names_what_is_wrong(
    engine: Engine, door: str, name: str, status: int, code: str
) -> None:
    module = __import__(f"triggers.{door}", fromlist=[door])
    answer = function_of(module)(request("POST", "datasets/x", dataset=name), engine.client)
    assert answer.status_code == status
    error = body_of(answer)["error"]
    assert error["code"] == code
    assert error["remedy"]


def test_the_answer_to_prepare_says_where_the_data_set_stands(inbox: Inbox, seed: int) -> None:
    inbox.put("1.dcm", studies.to_bytes(studies.ct_image(seed=seed)))
    answer = inbox.post()
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(f"/api/datasets/{inbox.name}")
    inbox.finished()
    assert inbox.status()["progress"]["objects"] == 1


@pytest.mark.parametrize("blob", ["inbox/Ward 7/x.dcm", "inbox/no-folder.dcm", "inbox/work/x"])
def test_a_blob_that_is_of_no_data_set_is_left_alone(
    inbox: Inbox, blob: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(dataset_store.open_datasets(inbox.storage))
    inbox.tell(blob)
    assert set(dataset_store.open_datasets(inbox.storage)) == before
    assert "left alone" in caplog.text
    assert "Ward" not in caplog.text


def test_no_more_batches_are_in_flight_than_the_setting_allows(
    inbox: Inbox, seed: int, app: pytest.MonkeyPatch
) -> None:
    from slicewatch import dataset_intake

    inbox.put("all.zip", zipped(two_patients(seed)))
    config = configured_as(app, SLICEWATCH_BATCH_SIZE="1", SLICEWATCH_MAX_IN_FLIGHT="2")
    assert config.max_in_flight == 2
    inspect, lock, flying, most = dataset_intake.inspect, threading.Lock(), 0, 0

    def counted(*args: Any) -> Any:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        try:
            return inspect(*args)
        finally:
            with lock:
                flying -= 1

    app.setattr(dataset_intake, "inspect", counted)
    assert inbox.prepared()["status"] == "prepared"
    assert most == 2


def configured_as(app: pytest.MonkeyPatch, **environ: str) -> Settings:
    """These app settings on top of those of the tests."""
    connection = {
        "AzureWebJobsStorage": app_settings.current().storage,
        "SLICEWATCH_DEVELOPMENT_IDENTITY": DEVELOPER,
    }
    config = app_settings.load(connection | environ)
    app.setattr(app_settings, "current", lambda: config)
    return config

"""From a scanner's client through the agent into the app in the local host, to the flag.

The app believes the platform's authentication, as it does in the cloud: the agent is an uploader.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.stack import Stack
from tests import studies
from tests.edge.running_agent import Dcmtk, RunningAgent, wait_for
from tests.identities import principal
from tests.tiny_model import write_tiny_model

_WAITS = {
    "SLICEWATCH_POLL_SECONDS": "0.1",
    "SLICEWATCH_MAX_POLL_SECONDS": "0.5",
    "SLICEWATCH_BATCH_WAIT_SECONDS": "0.5",
}


_READER: dict[str, Any] = {
    "headers": principal("site", "reader", "clinical-reviewer"),
    "timeout": 30.0,
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    place = tmp_path_factory.mktemp("stack")
    models = write_tiny_model(place / "models").parent
    settings = {
        **_WAITS,
        "SLICEWATCH_MODELS": str(models),
        "SLICEWATCH_DEVELOPMENT_IDENTITY": "",
        "WEBSITE_AUTH_ENABLED": "True",
    }
    with Stack(settings=settings, log=place / "host.log") as running:
        yield running


def uploads_to(stack: Stack, *roles: str) -> str:
    """The agent's table of the cloud, signed in with these roles."""
    [(name, value)] = principal("edge-1", *roles).items()
    return (
        f'[cloud]\nurl = "{stack.url}/api"\nheaders.{name} = "{value}"\n'
        "backoff_first_s = 0.05\nbackoff_max_s = 0.3\n"
    )


def series(folder: Path, seed: int, lesion: range) -> list[Path]:
    folder.mkdir()
    paths = []
    for dataset in studies.ct_series(12, seed=seed, lesion=lesion):
        paths.append(folder / f"{int(dataset.InstanceNumber):03d}.dcm")
        paths[-1].write_bytes(studies.to_bytes(dataset))
    return paths


def settled(stack: Stack, study: str, status: str) -> dict[str, Any]:
    """The study's state once it has this status."""

    def found() -> dict[str, Any] | None:
        answer = httpx.get(f"{stack.url}/api/studies/{study}", **_READER)
        known = answer.status_code == 200 and answer.json()["status"] == status
        return answer.json() if known else None

    told = wait_for(found, f"the study is {status}", 120)
    assert told is not None
    return told


@pytest.mark.integration
def test_a_study_of_storescu_is_received_screened_and_flagged(
    tmp_path: Path, stack: Stack, dcmtk: Dcmtk
) -> None:
    paths = series(tmp_path / "study", 8_001, range(5, 9))
    study = studies.new_uid("study", 8_001)
    with RunningAgent(tmp_path, stack.url, cloud=uploads_to(stack, "uploader")) as agent:
        code, said = dcmtk.store(agent.port, paths)
        assert code == 0, said
        settled(stack, study, "flagged")
        assert agent.count("sent") == 12
        assert agent.get("status")["offered_again"] == 0
        # Again, as a scanner does that was not sure: nothing is sent, nothing changes.
        assert dcmtk.store(agent.port, paths)[0] == 0
        assert agent.count("sent") == 12
        worklist = httpx.get(f"{stack.url}/api/worklist", **_READER).json()
    assert study in str(worklist)


@pytest.mark.integration
def test_without_the_role_of_an_uploader_everything_waits(
    tmp_path: Path, stack: Stack, dcmtk: Dcmtk
) -> None:
    [path] = series(tmp_path / "study", 8_002, range(0))[:1]
    with RunningAgent(tmp_path, stack.url, cloud=uploads_to(stack, "reader")) as agent:
        assert dcmtk.store(agent.port, [path])[0] == 0
        wait_for(lambda: "HTTP 403 role-missing" in agent.get("status")["last_error"], "it is told")
        assert agent.get("status")["pending_objects"] == 1


@pytest.mark.integration
def test_what_stays_on_site_makes_a_study_incomplete_and_the_record_says_so(
    tmp_path: Path, stack: Stack, dcmtk: Dcmtk
) -> None:
    write_tiny_model(tmp_path / "models")
    calm = series(tmp_path / "calm", 8_003, range(0))
    suspicious = series(tmp_path / "suspicious", 8_004, range(5, 9))
    look_first = (
        '[look_first]\nmodels = "models"\ncalm = "summary"\nrest = "summary"\ncontext_slices = 1\n'
    )
    tables = {"cloud": uploads_to(stack, "uploader"), "look_first": look_first}
    with RunningAgent(tmp_path, stack.url, **tables) as agent:
        assert dcmtk.store(agent.port, [*calm, *suspicious])[0] == 0
        unseen = settled(stack, studies.new_uid("study", 8_003), "incomplete")
        flagged = settled(stack, studies.new_uid("study", 8_004), "flagged")
    coverage = unseen["review"]["coverage"]
    assert (coverage["screened"], coverage["held_at_edge"]) == (0, 12)
    assert coverage["screened_at_edge"] == 12
    coverage = flagged["review"]["coverage"]
    assert coverage["screened"] + coverage["held_at_edge"] == 12
    assert coverage["held_at_edge"] == coverage["missing"] > 0

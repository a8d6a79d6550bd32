"""From a scanner's client through the agent into the app in the local host, to the flag."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from demo.stack import Stack
from tests import studies
from tests.edge.running_agent import Dcmtk, RunningAgent, wait_for
from tests.tiny_model import write_tiny_model

_WAITS = {
    "SLICEWATCH_POLL_SECONDS": "0.1",
    "SLICEWATCH_MAX_POLL_SECONDS": "0.5",
    "SLICEWATCH_BATCH_WAIT_SECONDS": "0.5",
}


@pytest.mark.integration
def test_a_study_of_storescu_is_received_screened_and_flagged(tmp_path: Path, dcmtk: Dcmtk) -> None:
    models = write_tiny_model(tmp_path / "models").parent
    paths = []
    for dataset in studies.ct_series(12, seed=8_001, lesion=range(5, 9)):
        paths.append(tmp_path / f"{int(dataset.InstanceNumber):03d}.dcm")
        paths[-1].write_bytes(studies.to_bytes(dataset))
    settings = {**_WAITS, "SLICEWATCH_MODELS": str(models)}
    study = studies.new_uid("study", 8_001)
    with (
        Stack(settings=settings, log=tmp_path / "host.log") as stack,
        RunningAgent(tmp_path, f"{stack.url}/api") as agent,
    ):
        code, said = dcmtk.store(agent.port, paths)
        assert code == 0, said

        def reviewed() -> bool:
            answer = httpx.get(f"{stack.url}/api/studies/{study}", timeout=30)
            return answer.status_code == 200 and answer.json()["status"] == "flagged"

        wait_for(reviewed, "the study is flagged", 120)
        assert agent.count("sent") == 12
        assert agent.get("status")["offered_again"] == 0
        # Again, as a scanner does that was not sure: nothing is sent, nothing changes.
        assert dcmtk.store(agent.port, paths)[0] == 0
        assert agent.count("sent") == 12
        worklist = httpx.get(f"{stack.url}/api/worklist", timeout=30).json()
    assert study in str(worklist)

"""Orthanc with its DICOMweb plugin, as a PACS: a receiver that nobody here wrote."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_COMMAND = shutil.which("Orthanc", path="/usr/sbin:/usr/local/bin:/usr/bin")
IS_INSTALLED = _COMMAND is not None and PLUGIN.exists()
REASON = "Orthanc is not installed: the packages orthanc and orthanc-dicomweb (setup.sh peers)"


class Orthanc:
    """Runs as a context manager; `url` is its DICOMweb service.

    Args:
        users: name → password; nobody else is let in when there are any.
    """

    def __init__(self, folder: Path, users: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._users = users or {}
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as web, socket.socket() as dicom:
            web.bind(("127.0.0.1", 0))
            dicom.bind(("127.0.0.1", 0))
            self._port, self._dicom_port = web.getsockname()[1], dicom.getsockname()[1]
        self.base = f"http://127.0.0.1:{self._port}"
        self.url = f"{self.base}/dicom-web"
        self.http = httpx.Client(
            base_url=self.base, timeout=20, auth=next(iter(self._users.items()), None)
        )

    def __enter__(self) -> Self:
        assert _COMMAND is not None
        configuration = self._folder / "orthanc.json"
        configuration.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(self._folder / "storage"),
                    "IndexDirectory": str(self._folder / "storage"),
                    "HttpPort": self._port,
                    "DicomPort": self._dicom_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": bool(self._users),
                    "RegisteredUsers": self._users,
                    "Plugins": [str(PLUGIN)],
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )
        with (self._folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen([_COMMAND, str(configuration)], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.http.get("/dicom-web/studies").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        self.__exit__(None, None, None)
        raise AssertionError((self._folder / "orthanc.log").read_text("utf-8", "replace")[-2000:])

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.http.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def instances(self, study: str) -> list[dict[str, Any]]:
        """What it says that it has of a study, by QIDO-RS."""
        answer = self.http.get(f"/dicom-web/studies/{study}/instances").raise_for_status()
        return list(answer.json())

    def file(self, study: str, series: str, instance: str) -> bytes:
        """An object as it gives it back, by WADO-RS."""
        answer = self.http.get(
            f"/dicom-web/studies/{study}/series/{series}/instances/{instance}",
            headers={"Accept": 'multipart/related; type="application/dicom"'},
        ).raise_for_status()
        return answer.content.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]

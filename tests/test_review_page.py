"""The door of the review page: what it sends, and what it never does."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import settings as app_settings
from tests import doors
from triggers import review_page

SECRET = b"outside of the build"


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A build, with a file beside it that is none of it."""
    (tmp_path / "secret.js").write_bytes(SECRET)
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>", "utf-8")
    (folder / "assets" / "index-AbC_1-2.js").write_text("import './x.js';", "utf-8")
    (folder / "assets" / "decode-1.wasm").write_bytes(b"\0asm")
    (folder / "assets" / "packed-1.css").write_text("p {}", "utf-8")
    (folder / "assets" / "packed-1.css.gz").write_bytes(gzip.compress(b"p {}"))
    monkeypatch.setattr(review_page, "DIST", folder)
    monkeypatch.setenv("SLICEWATCH_DEVELOPMENT_IDENTITY", "developer:reader")
    app_settings.current.cache_clear()
    yield folder
    app_settings.current.cache_clear()


def get(path: str, **headers: str) -> func.HttpResponse:
    asked = func.HttpRequest(
        "GET",
        f"{doors.BASE}/review/{path}",
        headers=headers,
        route_params={"path": path} if path else {},
        body=b"",
    )
    answer: func.HttpResponse = doors.function_of(review_page)(asked)
    return answer


@pytest.mark.parametrize(
    ("path", "media_type", "kept"),
    [
        ("", "text/html", "no-cache"),
        ("index.html", "text/html", "no-cache"),
        ("assets/index-AbC_1-2.js", "text/javascript", "public, max-age=31536000, immutable"),
        ("assets/decode-1.wasm", "application/wasm", "public, max-age=31536000, immutable"),
    ],
)
def test_files_have_their_media_type_and_hashed_ones_are_kept(
    dist: Path, path: str, media_type: str, kept: str
) -> None:
    answer = get(path)
    assert (answer.status_code, answer.mimetype) == (200, media_type)
    assert answer.headers["Cache-Control"] == kept
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_policy_allows_no_inline_code_and_no_other_origin(dist: Path) -> None:
    policy = dict(
        one.split(" ", 1) for one in get("").headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["style-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"


def test_a_packed_file_is_sent_packed_to_who_takes_it(dist: Path) -> None:
    packed = get("assets/packed-1.css", **{"Accept-Encoding": "gzip, deflate"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.get_body()) == b"p {}"
    plain = get("assets/packed-1.css")
    assert "Content-Encoding" not in plain.headers
    assert (plain.get_body(), plain.mimetype) == (b"p {}", "text/css")


@pytest.mark.parametrize(
    "path",
    [
        "../secret.js",
        "assets/../../secret.js",
        "assets/../index.html",
        "..%2fsecret.js",
        "/etc/passwd",
        "assets",
        "assets/",
        "assets//index-AbC_1-2.js",
        ".env",
        "assets/.hidden",
        "index.html\0.js",
        "C:\\secret.js",
        "no-such.js",
    ],
)
def test_nothing_but_the_build_is_sent(dist: Path, path: str) -> None:
    assert get(path).status_code == 404


@given(path=st.text(alphabet="./\\%2eassets-secret.js\0é", max_size=40))
def test_no_path_leads_out_of_the_build(path: str) -> None:
    if review_page._NAME.fullmatch(path):
        assert (review_page.DIST / path).resolve().is_relative_to(review_page.DIST.resolve())


def test_a_page_that_was_not_built_says_what_to_do(dist: Path) -> None:
    (dist / "index.html").unlink()
    answer = get("")
    assert answer.status_code == 503
    assert b"make page" in answer.get_body()


def test_without_authentication_nothing_is_served(
    dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLICEWATCH_DEVELOPMENT_IDENTITY")
    app_settings.current.cache_clear()
    assert get("").status_code == 503


def test_who_is_not_signed_in_gets_the_page_that_leads_to_the_sign_in(
    dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLICEWATCH_DEVELOPMENT_IDENTITY")
    monkeypatch.setenv("WEBSITE_AUTH_ENABLED", "True")
    app_settings.current.cache_clear()
    assert get("").status_code == 200

"""``review_page``: the review page, the static files that `web/` builds."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import azure.durable_functions as df
import azure.functions as func

from triggers import access
from triggers.responses import Problem, answers_problems

bp = df.Blueprint()

DIST = Path(__file__).resolve().parent.parent / "web" / "dist"

# The names that the build gives. Nothing that a request can name leads out of the folder.
_NAME = re.compile(r"(?:assets/)?[A-Za-z0-9_-]+(?:[.-][A-Za-z0-9_-]+)*")
_INDEX = "index.html"

_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}

_POLICY = "; ".join(
    (
        "default-src 'none'",
        # Decoders of compressed pixel data are WebAssembly, in workers from files of this origin.
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


@bp.route("review/{*path}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@answers_problems
def review_page(req: func.HttpRequest) -> func.HttpResponse:
    """Send the page, or one of its files.

    They hold nothing of any study, so somebody who is not signed in gets them too, and the page
    shows the way to the sign-in. Files under ``assets/`` have a hash of their content in the name
    and may be kept for ever; the page itself is asked for each time. 404: no such file; 503: the
    page was not built, or the app has no authentication configured.
    """
    _check_configured(req)
    name = req.route_params.get("path") or _INDEX
    if not _NAME.fullmatch(name):
        raise _no_such_file()
    zipped = "gzip" in req.headers.get("Accept-Encoding", "")
    for suffix in (".gz", "") if zipped else ("",):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            return _answer(name, (DIST / f"{name}{suffix}").read_bytes(), packed=bool(suffix))
    if not (DIST / _INDEX).exists():
        raise Problem(
            503,
            "not-built",
            "the review page was not built",
            "run `make page`, which `make start` and the packaging do, and deploy web/dist",
        )
    raise _no_such_file()


def _check_configured(request: func.HttpRequest) -> None:
    try:
        access.identity_of(request)
    except Problem as problem:
        if problem.status != 401:
            raise


def _answer(name: str, content: bytes, *, packed: bool) -> func.HttpResponse:
    headers = {
        **_HEADERS,
        "Cache-Control": _FOR_EVER if name.startswith("assets/") else _ASK_AGAIN,
        "Vary": "Accept-Encoding",
    }
    if packed:
        headers["Content-Encoding"] = "gzip"
    media_type = _MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
    return func.HttpResponse(content, mimetype=media_type, headers=headers)


def _no_such_file() -> Problem:
    return Problem(404, "no-such-file", "the review page has no such file", "open /api/review")

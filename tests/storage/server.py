"""An S3 server on this machine, by moto: counts requests, checks signatures, fails when told to.

Run as a program, so that its warnings, its locks and its memory are not those of the tests:
``python server.py``. It prints its port, and is told what to do over the path ``/-/``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import sys
import threading
import time
import urllib.request
from collections import Counter
from typing import Any
from urllib.parse import quote

KEY_ID, SECRET = "TESTKEYID", "the-secret-that-nobody-may-see"
REGION, BUCKET = "us-east-1", "bucket"


class Server:
    """WSGI in front of moto's own."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.checking = False
        self.lock = threading.Lock()
        self.log: list[str] = []
        self.orders: dict[str, Any] = {}
        self.done: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path.startswith("/-/"):
            return self._told(path, environ, start_response)
        with self.lock:
            self.log.append(f"{method} {path}")
        refusal = self._refusal(path, method, environ)
        if refusal is not None:
            status, code = refusal
            body = (
                f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message>'
                f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>"
                f"<StringToSign>{environ.get('HTTP_AUTHORIZATION')}</StringToSign></Error>"
            ).encode()
            start_response(status, [("Content-Type", "application/xml")])
            return [] if method == "HEAD" else [body]
        # moto knows its buckets by path only where the host is a plain one.
        return self.application(environ, start_response)

    def _refusal(self, path: str, method: str, environ: dict[str, Any]) -> tuple[str, str] | None:
        if self.checking and not _signed(environ):
            return "403 Forbidden", "SignatureDoesNotMatch"
        time.sleep(self.orders.get("delay", 0))
        if method in self.orders.get("forbid", ()):
            return "403 Forbidden", "AccessDenied"
        # The first `times` requests for each path that matches fail.
        matches = self.orders.get("fail")
        if matches and re.search(matches, f"{method} {path}"):
            with self.lock:
                self.done[path] += 1
                if self.done[path] <= self.orders.get("times", 10**9):
                    return "503 Slow Down", "SlowDown"
        return None

    def _told(self, path: str, environ: dict[str, Any], start_response: Any) -> Any:
        with self.lock:
            answer: Any = "ok"
            if path == "/-/log":
                answer, self.log = self.log, []
            elif path == "/-/orders":
                length = int(environ["CONTENT_LENGTH"])
                self.orders = json.loads(environ["wsgi.input"].read(length))
                self.done.clear()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


def _signed(environ: dict[str, Any]) -> bool:
    """Whether a request is signed with the secret (AWS signature, version 4)."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d+)/([^/]+)/s3/aws4_request, ?"
        r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)",
        environ.get("HTTP_AUTHORIZATION", ""),
    )
    if found is None or found[1] != KEY_ID:
        return False
    _, day, region, names, signature = found.groups()

    def header(name: str) -> str:
        variable = name.upper().replace("-", "_")
        value = environ.get(f"HTTP_{variable}", environ.get(variable, ""))
        return " ".join(value.split())

    raw_path, _, raw_query = environ["RAW_URI"].partition("?")
    query = "&".join(sorted(p if "=" in p else p + "=" for p in raw_query.split("&") if p))
    request = "\n".join(
        [
            environ["REQUEST_METHOD"],
            quote(raw_path, safe="/%-_.~"),
            query,
            *(f"{name}:{header(name)}" for name in names.split(";")),
            "",
            names,
            header("x-amz-content-sha256"),
        ]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", header("x-amz-date"), scope, hashed])
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, "s3", "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex(), signature)


def main() -> None:
    """Serve on a free port until standard input ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    application = Server(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    make = urllib.request.Request(f"http://127.0.0.1:{server.port}/{BUCKET}", method="PUT")
    urllib.request.urlopen(make).close()
    application.checking = True
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()

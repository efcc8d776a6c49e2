"""Who may ask the server for something: names of hosts, origins, a token; headers of all answers.

A page of another site, open in the same browser, must neither read the library nor set work going:
not by its own requests (`Origin`, `Sec-Fetch-Site`), nor by a name of its own that it lets point to
this machine (`Host`, DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "vatt_token"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob:; media-src 'self' blob:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=(), interest-cohort=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def page_file(name: str) -> bytes:
    """A file of the front end."""
    return files("vatt.serve").joinpath("static", name).read_bytes()


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets only those requests through that may be answered, and puts `HEADERS` on all answers."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str | None) -> None:
        """Guard an application.

        Args:
            app: what answers.
            hosts: names and addresses, without a port, under which the server may be asked.
            token: what a request must show, as a cookie or `Authorization: Bearer`; None: nothing.
        """
        self._app, self._token = app, token
        self._hosts = {host.lower().strip("[]") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on what may be answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        named = headers.getlist("host")
        if len(named) != 1 or self._host_of(f"http://{named[0]}") is None:
            return PlainTextResponse(
                "This name is not one that the server answers to; open it as it was printed, or "
                "start it with --allow_host NAME.\n",
                status_code=421,
            )
        origins = headers.getlist("origin")
        if any(self._host_of(origin) is None for origin in origins) or _is_of_another_site(headers):
            return PlainTextResponse("Requests of other sites are refused.\n", status_code=403)
        if self._token is not None and not self._shows_token(scope, headers):
            return self._ask_for_token(scope)
        return None

    def _host_of(self, address: str) -> str | None:
        """The host of an origin, if it is one of ours."""
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            return None
        host = parts.hostname or ""
        rebuilt = f"[{host}]" if ":" in host else host
        rebuilt += f":{port}" if port is not None else ""
        plain = parts.scheme in ("http", "https") and parts.netloc.lower() == rebuilt
        return host if plain and host in self._hosts and not parts.path else None

    def _shows_token(self, scope: Scope, headers: Headers) -> bool:
        assert self._token is not None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(shown.strip(), self._token):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return COOKIE in cookies and _same(cookies[COOKIE].value, self._token)

    def _ask_for_token(self, scope: Scope) -> Response:
        """A page that asks for it; the token in an address is taken from there into a cookie."""
        asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = asked.pop("token", [""])[0]
        assert self._token is not None
        if scope["method"] in ("GET", "HEAD") and _same(given, self._token):
            query = urlencode(asked, doseq=True)
            # Only a path of ours: "//elsewhere" would be another site.
            answer = RedirectResponse("/" + (f"?{query}" if query else ""), status_code=303)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        if "text/html" in Headers(scope=scope).get("accept", ""):
            return HTMLResponse(page_file("token.html"), status_code=401)
        return PlainTextResponse("This library asks for a token.\n", status_code=401)


def _is_of_another_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another site asks, but for a link that was followed."""
    foreign = headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site")
    return foreign and headers.get("sec-fetch-mode") != "navigate"


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())

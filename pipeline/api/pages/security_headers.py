"""The HTTP headers of every page: what its browser may load, and which pages may embed it."""

from __future__ import annotations

# A page runs only the scripts and styles of this server's /static, sends requests only to this server, and cannot be
# shown in a frame. With `trusted-types 'none'`, a script cannot turn text into HTML.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
        "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)  # fmt: skip

STATIC_HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # The browser asks each time whether a file has changed: after an update, page and script fit each other.
    "Cache-Control": "no-cache",
}

PAGE_HEADERS = {
    **STATIC_HEADERS,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    # With no-referrer, the browser would send `Origin: null` with a form.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # A page contains messages, and the token against forged requests.
    "Cache-Control": "no-store",
}

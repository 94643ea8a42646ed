"""Three ways to deliver a message: a webhook, Apprise, a program. Used by the notifier's process alone."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from trainer import __version__
from trainer.errors import UsageError
from trainer.options import without_secrets

_SECONDS = 20.0  # for an answer, or for the program to end
_SHORTEST_SECRET = 4


class NotDelivered(Exception):
    """A message wasn't delivered; its text says why, without secrets."""


def require(address: str) -> None:
    """Checks an address before the training, as far as that is possible without telling anybody.

    Args:
        address: `--notify`: http(s)://…, another scheme that Apprise knows, or a program with arguments.

    Raises:
        UsageError: if nothing can be delivered there from here.
    """
    shown = without_secrets(address)
    scheme, is_url, _ = address.partition("://")
    if is_url and scheme.lower() in ("http", "https"):
        if not _host_of(address):
            raise UsageError(f"--notify={shown} is no URL: it names no host", "--notify=https://HOST/PATH")
    elif is_url:
        try:
            known = _apprise(address)
        except ImportError:
            raise UsageError(
                f"--notify={shown} needs Apprise, which is not installed", "pip install 'lockstep-trainer[notify]'; "
                "webhooks (http, https) and programs need nothing") from None
        if not known:
            raise UsageError(f"--notify={shown} is no URL that Apprise knows",
                             "see `apprise --details`; a webhook's URL begins with http:// or https://")
    else:
        try:
            words = shlex.split(address)
        except ValueError as error:
            raise UsageError(f"--notify={shown} is no command: {error}", "quote it as a shell wants it") from None
        if not words or not shutil.which(words[0]):
            raise UsageError(f"--notify={shown} is neither a URL nor a program that is here",
                             "write SCHEME://…, such as ntfy://TOPIC, or a program with its arguments; for a pipe: "
                             "--notify=\"sh -c '… | …'\"")


def _host_of(url: str) -> str | None:
    try:
        return urllib.parse.urlsplit(url).hostname
    except ValueError:
        return None


def deliver(address: str, message: Mapping[str, Any]) -> None:
    """Delivers a message.

    Args:
        address: As in `require`.
        message: event, title and text, and more that JSON can hold.

    Raises:
        NotDelivered: if it wasn't.
    """
    scheme, is_url, _ = address.partition("://")
    if is_url and scheme.lower() in ("http", "https"):
        _post(address, message)
    elif is_url:
        _by_apprise(address, message)
    else:
        _call(shlex.split(address), message)


def prepare(address: str) -> None:
    """Imports what `deliver` will need: at the end of a run there is no time for that."""
    if "://" in address and not address.lower().startswith("http"):
        _apprise(address)


def _post(url: str, message: Mapping[str, Any]) -> None:
    # Slack and Mattermost show text, Discord shows content.
    body = json.dumps({**message, "content": message["text"]}).encode()
    parts = urllib.parse.urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json", "User-Agent": f"lockstep/{__version__}"}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
    try:
        request = urllib.request.Request(parts._replace(netloc=host).geturl(), body, headers)
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        raise NotDelivered(f"the server answered {error.code} ({error.reason})") from None
    except urllib.error.URLError as error:
        raise NotDelivered(f"the server can't be reached ({scrubbed(str(error.reason), url)})") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotDelivered(f"the server didn't answer ({scrubbed(str(error), url)})") from None


def _by_apprise(url: str, message: Mapping[str, Any]) -> None:
    service = _apprise(url)
    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.addHandler(heard)
    logger.setLevel(logging.WARNING)
    kind = {"done": "success", "failed": "failure", "died": "failure"}.get(message["event"], "warning")
    if not service or not service.notify(body=message["text"], title=message["title"], notify_type=kind):
        said = scrubbed(heard.lines[-1], url) if heard.lines else "it doesn't say why"
        raise NotDelivered(f"Apprise could not deliver it: {said}")


def _apprise(url: str) -> Any:
    """An `apprise.Apprise` with one service, or None if it doesn't know the URL."""
    import apprise  # pyright: ignore[reportMissingImports]  an extra

    logging.getLogger("apprise").addHandler(logging.NullHandler())
    logging.getLogger("apprise").propagate = False  # it logs URLs
    service = apprise.Apprise()
    return service if service.add(url) else None


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _call(words: list[str], message: Mapping[str, Any]) -> None:
    try:
        done = subprocess.run(words, input=f"{message['title']}\n{message['text']}\n", text=True, timeout=_SECONDS,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise NotDelivered(f"{words[0]} didn't end within {_SECONDS:.0f} s") from None
    except OSError as error:
        raise NotDelivered(f"{words[0]} can't be started ({error.strerror})") from None
    if done.returncode:
        raise NotDelivered(f"{words[0]} ended with {done.returncode}")


def scrubbed(text: str, secret: str) -> str:
    """A text of a library's, in a line, without any part of a URL that may be a key.

    Args:
        text: What the library said.
        secret: The URL.
    """
    parts = {part for part in re.split(r"[/?&=:@,#\s]+", secret.partition("://")[2]) if len(part) >= _SHORTEST_SECRET}
    keep = {_host_of(secret)} if secret.lower().startswith("http") else set()
    for part in sorted(parts - keep, key=len, reverse=True):
        text = text.replace(part, "…")
    return " ".join(text.split())[:300]

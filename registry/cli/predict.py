"""`registry predict`: ask a running server for a prediction."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from registry.cli.output import json_errors, json_option, result, result_json
from registry.errors import (
    AuthError,
    NotFoundError,
    RegistryError,
    UnavailableError,
    UsageError,
)

_BY_STATUS: dict[int, type[RegistryError]] = {
    400: UsageError,
    401: AuthError,
    403: AuthError,
    404: NotFoundError,
    408: UnavailableError,
    413: UsageError,
    415: UsageError,
    422: UsageError,
    429: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}

_TEXTS = ("text", "generated_text", "summary_text", "translation_text")
_LABELS = ("label", "entity_group", "entity", "token_str")
"""Where the tasks' answers have what people read."""


@click.command("predict", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.argument("texts", nargs=-1, metavar="TEXT...")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="An audio or image file in place of texts; may be repeated.",
)
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The server.")
@click.option("--top-k", type=click.IntRange(1), help="Labels of each text [1].")
@click.option(
    "--api-key", envvar="RUNPORT_API_KEY", help="For a server that asks for one [RUNPORT_API_KEY]."
)
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True)
@json_option
def command(
    name: str,
    texts: tuple[str, ...],
    files: tuple[str, ...],
    url: str,
    top_k: int | None,
    api_key: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Print the answer to each TEXT or --file in a line: labels with scores, or a text.

    `-` or no text reads lines from stdin.
    """
    with json_errors(as_json):
        if files and texts:
            raise UsageError("Texts and files cannot be asked for together.")
        inputs = list(files) or _read_texts(texts)
        body: dict[str, Any] = {"inputs": _encoded(files) if files else inputs}
        if top_k is not None:
            body["parameters"] = {"top_k": top_k}
        answer, version = ask(url, name, body, api_key=api_key, timeout_s=timeout)
        if as_json:
            result_json({"model": name, "version": version, "inputs": inputs, "answer": answer})
            return
        for one in answer:
            result(_line(one))


def ask(
    url: str, name: str, body: dict[str, Any], *, api_key: str | None, timeout_s: float
) -> tuple[Any, str]:
    """POST `body` to the model `name`; return the answer and the version that gave it.

    Raises:
        UnavailableError: no server there, or it cannot answer now.
        NotFoundError: no such model.
        RegistryError: whatever else the server said.
    """
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    address = f"{url.rstrip('/')}/models/{name}"
    try:
        # Not the environment's proxy: the server is most often on this machine.
        with httpx.Client(trust_env=False, timeout=timeout_s) as client:
            response = client.post(address, json=body, headers=headers)
    except httpx.TimeoutException as error:
        raise UnavailableError(
            f"{url} did not answer within {timeout_s:g} s.", hint="Allow more with --timeout."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(
            f"No server answers at {url}: {error}",
            hint=f"Start one with `registry serve {name}=<reference>`, or give its --url.",
        ) from error
    if response.status_code != 200:
        raise _refused(response.status_code, response.content)
    return response.json(), response.headers.get("x-model-version", "")


def _encoded(files: tuple[str, ...]) -> list[str]:
    import base64
    from pathlib import Path

    return [base64.b64encode(Path(file).read_bytes()).decode() for file in files]


def _line(answer: Any) -> str:
    """Return an answer in a line: a text, labels with scores, or what else the task says."""
    parts = answer if isinstance(answer, list) else [answer]
    return "\t".join(map(_words, parts))


def _words(part: Any) -> str:
    import msgspec

    if isinstance(part, dict):
        for name in _TEXTS:
            if name in part:
                return str(part[name])
        for name in _LABELS:
            if name in part and "score" in part:
                word = f"{part['word']}\t" if "word" in part else ""
                return f"{word}{part[name]}\t{part['score']:.4f}"
    return msgspec.json.encode(part).decode()


def _refused(status: int, content: bytes) -> RegistryError:
    import msgspec

    try:
        problem = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = {}
    message = str(problem.get("error") or f"The server answered with status {status}.")
    kind = _BY_STATUS.get(status, RegistryError)
    return kind(message, hint=str(problem.get("hint") or ""))


def _read_texts(texts: tuple[str, ...]) -> list[str]:
    if texts and texts != ("-",):
        return list(texts)
    lines = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not lines:
        raise UsageError("There is no text.", hint='For example: registry predict bert "a text"')
    return lines

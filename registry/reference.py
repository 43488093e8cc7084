"""Text <-> reference; pure: nothing is looked up, no file is touched.

    [wandb-artifact:///|wandb://][entity/][project/]collection[:selector][@digest]
    https://<host>/<entity>/<project>/artifacts/<type>/<collection>/<version>
    https://<host>/orgs/<org>/registry/<name>?selectionPath=<entity/project/collection>&version=<version>
    wandb-registry-<registry>/<collection>[:selector]
    ./a/local/directory

A path is local only when it looks like one (`./`, `../`, `/`, `~/`), so that a
folder that happens to be called `run-bert` never shadows an artifact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import InvalidReferenceError
from registry.selector import Alias, Selector, Version, check_alias, parse_selector

NAME_LIMIT = 128
"""Longest name that W&B accepts, in characters."""

REGISTRY_PREFIX = "wandb-registry-"

_WANDB_DIGEST_DIGITS = 32
_SCHEMES = ("wandb-artifact:///", "wandb-artifact://", "wandb://")
_LOCAL_STARTS = ("./", "../", "/", "~/")
_LOCAL_NAMES = frozenset({".", "..", "~"})
_DIGEST = re.compile(r"(?:(?:md5|xxh128|sha256):)?([0-9a-f]{8,64})\Z")
_HINT = "Write [entity/][project/]name[:version or alias], for example run-bert:v0."


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """A name that a W&B server can be asked for.

    Attributes:
        collection: artifact name without version.
        entity, project: None where the settings' defaults apply.
        selector: which version; None means `latest`.
        digest: hexadecimal prefix (8 characters or more) that the version must have; None if any.
    """

    collection: str
    entity: str | None = None
    project: str | None = None
    selector: Selector | None = None
    digest: str | None = None

    def __str__(self) -> str:
        parts = [part for part in (self.entity, self.project) if part]
        text = "/".join([*parts, self.collection])
        if self.selector is not None:
            text += f":{self.selector}"
        if self.digest is not None:
            text += f"@{self.digest}"
        return text

    @property
    def names_snapshot(self) -> bool:
        """Whether the digest is of a snapshot (SHA-256) instead of a W&B version (128 bits)."""
        return self.digest is not None and len(self.digest) > _WANDB_DIGEST_DIGITS

    @property
    def is_registry(self) -> bool:
        """Whether it names a collection of a W&B registry."""
        return (self.project or "").startswith(REGISTRY_PREFIX)


@dataclass(frozen=True, slots=True)
class LocalRef:
    """A directory on this machine, as written."""

    path: str

    def __str__(self) -> str:
        return self.path


Reference = ArtifactRef | LocalRef


def parse_reference(text: str) -> Reference:
    """Parse a name, a W&B URL or a local path.

    Raises:
        InvalidReferenceError: the text is none of them.
    """
    if not text or text != text.strip() or not text.isprintable():
        raise InvalidReferenceError(f"{text!r} is not an artifact name.", hint=_HINT)
    if text in _LOCAL_NAMES or text.startswith(_LOCAL_STARTS):
        return LocalRef(text)
    if text.startswith(("https://", "http://")):
        return _parse_url(text)
    for scheme in _SCHEMES:
        if text.startswith(scheme):
            return _parse_name(text[len(scheme) :])
    return _parse_name(text)


def parse_artifact(text: str) -> ArtifactRef:
    """Parse a reference that must name an artifact on a server.

    Raises:
        InvalidReferenceError: it is malformed, or a local path.
    """
    reference = parse_reference(text)
    if isinstance(reference, LocalRef):
        raise InvalidReferenceError(
            f"{text!r} is a local path; an artifact name is needed.", hint=_HINT
        )
    return reference


def _parse_name(text: str) -> ArtifactRef:
    bare, digest = _split_digest(text)
    path, colon, rest = bare.partition(":")
    selector: Selector | None = parse_selector(rest) if colon else None
    names = path.split("/")
    if len(names) > 3:
        raise InvalidReferenceError(f"{text!r} has too many slashes.", hint=_HINT)
    *owners, collection = [_check_name(name, text) for name in names]
    entity = owners[0] if len(owners) == 2 else None
    project = owners[-1] if owners else None
    return ArtifactRef(collection, entity, project, selector, digest)


def _split_digest(text: str) -> tuple[str, str | None]:
    # A metric may hold an `@` (precision@5), so only what follows the last
    # parenthesis can be a digest.
    closing = text.rfind(")")
    at = text.rfind("@", closing + 1)
    if at < 0:
        return text, None
    match = _DIGEST.match(text[at + 1 :])
    if match is None:
        raise InvalidReferenceError(
            f"{text[at + 1 :]!r} is no digest.", hint="A digest is 8 to 64 hexadecimal digits."
        )
    return text[:at], match[1]


def _check_name(name: str, whole: str) -> str:
    bad = not name or name != name.strip() or name in _LOCAL_NAMES or len(name) > NAME_LIMIT
    if bad or not name.isprintable() or set(name) & set("/:@"):
        raise InvalidReferenceError(
            f"{name!r} in {whole!r} cannot be the name of an entity, project or artifact.",
            hint=_HINT,
        )
    return name


def _parse_url(text: str) -> ArtifactRef:
    from urllib.parse import parse_qs, unquote, urlsplit  # Not loaded for a plain name.

    try:
        url = urlsplit(text)
    except ValueError as error:
        raise InvalidReferenceError(f"{text!r} is not a URL: {error}.", hint=_HINT) from error
    parts = [unquote(part) for part in url.path.split("/") if part]
    selection = parse_qs(url.query).get("selectionPath")
    if selection and "registry" in parts:
        return _registry_url(text, selection[0], parse_qs(url.query).get("version"))
    # A server may live beneath a path (https://host/wandb/entity/project/…), so
    # the names are counted from the word `artifacts`, not from the start.
    if "artifacts" in parts[2:]:
        at = parts.index("artifacts", 2)
        tail = parts[at + 1 :]
        if len(tail) >= 2:
            selector = _url_selector(tail[2]) if len(tail) > 2 else None
            entity, project = (_check_name(name, text) for name in parts[at - 2 : at])
            return ArtifactRef(_check_name(tail[1], text), entity, project, selector)
    raise InvalidReferenceError(
        f"{text!r} is not the address of a W&B artifact.",
        hint="Copy the address of an artifact's own page, or write entity/project/name:v0.",
    )


def _registry_url(text: str, selection: str, version: list[str] | None) -> ArtifactRef:
    names = selection.split("/")
    if len(names) != 3:
        raise InvalidReferenceError(f"{text!r} selects no collection.", hint=_HINT)
    entity, project, collection = (_check_name(name, text) for name in names)
    return ArtifactRef(collection, entity, project, _url_selector(version[0]) if version else None)


def _url_selector(text: str) -> Version | Alias:
    parsed = parse_selector(check_alias(text))
    if isinstance(parsed, Version | Alias):
        return parsed
    raise InvalidReferenceError(f"{text!r} is no version or alias.", hint=_HINT)

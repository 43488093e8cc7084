"""Wall-clock time as sortable UTC text, the form in which rows keep it."""

from __future__ import annotations

from datetime import UTC, datetime


def now_text() -> str:
    """Return the time now as `YYYY-MM-DDTHH:MM:SS.ffffffZ`."""
    return to_text(datetime.now(UTC))


def to_text(moment: datetime) -> str:
    """Return an aware `moment` as `YYYY-MM-DDTHH:MM:SS.ffffffZ`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_text(text: str) -> datetime:
    """Parse ISO 8601 text; without a zone it is UTC.

    Raises:
        ValueError: the text is no ISO 8601 time.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def public_text(text: str | None) -> str | None:
    """Return stored time as the API shows it: whole seconds, `Z`."""
    return f"{text[:19]}Z" if text else None

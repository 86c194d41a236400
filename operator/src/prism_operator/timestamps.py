"""Times as they stand in files and conditions: UTC, RFC 3339. Nobody else formats or parses one."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(time: datetime) -> str:
    """To the second, as the API server writes times."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_exact(time: datetime) -> str:
    """To the microsecond, where an order of events depends on it."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: str | None) -> datetime | None:
    """None for what is not a time: a damaged heartbeat must not stop a run."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def from_timestamp(seconds: float) -> datetime:
    """From seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def format_duration(seconds: float) -> str:
    """As kubectl's AGE column has it: 45s, 12m, 6h, 3d."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * size or (unit == "d" and whole >= size):
            return f"{whole // size}{unit}"
    return f"{whole}s"

"""Numbers and times for people."""

import datetime as dt


def cell(value: object) -> str:
    """A value of a table: a fraction with three digits, a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def size(num_bytes: int) -> str:
    """A number of bytes with its unit: 999 B, 1.2 MB."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def count(value: float) -> str:
    """A count: whole, with separators; a fraction with at most three digits."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def digits(value: float) -> str:
    """A measure: 0.937, 4.13, 5e-05. As a count is written, but a chart's axis of it may have fractions."""
    return count(value)


def seconds(value: float | None) -> str:
    """A duration: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min; a dash where none is known."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time(time: dt.datetime) -> str:
    """A time to the minute."""
    return f"{time:%Y-%m-%d %H:%M}"


def day(time: dt.datetime | None) -> str:
    """The day of a time; `no date` where none is known."""
    return time.date().isoformat() if time else "no date"


def price(value: float) -> str:
    """Money, in whatever currency: 0, 1.25, 0.0031."""
    return "0" if value == 0 else f"{value:,.2f}" if value >= 1 else f"{value:.4f}"

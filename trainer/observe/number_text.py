"""Numbers as people read them, in the terminal and in the report."""

import math


def format_count(value: float) -> str:
    """A count in three or four digits.

    >>> format_count(9_500), format_count(41_234), format_count(2_500_000)
    ('9,500', '41.2k', '2.50M')
    """
    if not math.isfinite(value):
        return "-"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if suffix == "k" else size)
            return f"{scaled:.2f}{suffix}" if scaled < 10 else f"{scaled:.1f}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def format_duration(seconds: float) -> str:
    """A duration as people say it.

    >>> [format_duration(seconds) for seconds in (0.0042, 4.21, 75, 3 * 3600 + 62, 90_000)]
    ['4.2ms', '4.2s', '1m15s', '3h01m', '1d01h']
    """
    if not math.isfinite(seconds):
        return "-"
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.1f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def format_number(value: float) -> str:
    """A loss or a metric in four significant digits.

    >>> format_number(0.123456), format_number(12.3456), format_number(1e-7), format_number(float("nan"))
    ('0.1235', '12.35', '1.00e-07', 'nan')
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def format_bytes(size: float) -> str:
    """A size in binary units, three digits.

    >>> format_bytes(512), format_bytes(1536), format_bytes(90_600_000), format_bytes(3 * 2**30)
    ('512 B', '1.50 KiB', '86.4 MiB', '3.00 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    if unit == "B":
        return f"{size:.0f} B"
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return f"{size:.{digits}f} {unit}"

"""Intervals as they are printed."""

from __future__ import annotations

from folds.metrics.intervals import Interval


def span(interval: Interval) -> str:
    """``.612–.701``"""
    return f"{interval.low:.3f}–{interval.high:.3f}"


def signed_span(interval: Interval) -> str:
    """``-0.012 to +0.031``"""
    return f"{interval.low:+.3f} to {interval.high:+.3f}"

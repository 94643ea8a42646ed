"""Cases of a parametrized test."""

import pytest


def long(*values):
    """One of several cases of a kind, which `make test-all` runs and `make test` leaves to the others."""
    return pytest.param(*values, marks=pytest.mark.long)

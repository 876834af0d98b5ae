"""Shared by the tests of what happens to identities: the home, workshop and app of the tests of enrolment."""

from tests.enrollment.conftest import app, first_home, home, workshop

__all__ = ["app", "first_home", "home", "workshop"]

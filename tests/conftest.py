"""What every test runs under."""

from __future__ import annotations

import hypothesis

# The same examples at every run; no clock decides over success.
hypothesis.settings.register_profile("project", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("project")

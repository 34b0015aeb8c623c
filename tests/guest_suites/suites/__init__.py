"""Test suites of Debian packages, run in a guest and on the host: see ../run."""

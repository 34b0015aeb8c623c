"""Parts of bench/run."""

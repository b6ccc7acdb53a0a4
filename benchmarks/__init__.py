"""Speed, always as a ratio against an alternative in the same run, written to results/*.json."""

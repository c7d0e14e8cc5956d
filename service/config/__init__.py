"""Settings and the files that they name: parse them, compare them with each other, report every error."""

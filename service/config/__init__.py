"""Settings and the files they name: parsed, checked against each other, every fault reported."""

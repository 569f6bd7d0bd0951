"""The networks: torch only, nothing of ours."""

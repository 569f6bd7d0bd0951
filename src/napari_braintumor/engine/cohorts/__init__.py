"""Many cases in one go, resumable: each is read, segmented and written beside the others; a table and a report."""

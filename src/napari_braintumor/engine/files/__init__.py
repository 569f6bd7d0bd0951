"""Files on disk <-> volumes and references in memory."""

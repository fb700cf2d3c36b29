"""The store in one SQLite file, or in memory: one process, one writer, an fsync before every OK."""

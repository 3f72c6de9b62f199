"""Durability: an append-only log of opaque records, snapshots, and recovery from both.

Knows nothing of the domain: records are msgpack values that a callback applies. Reading order:
errors, files (the only place that syncs), blocks (the format), manifest, store (the directory),
syncer (the thread), log (the writer), snapshot, recovery, compaction, inspect, repair.
"""

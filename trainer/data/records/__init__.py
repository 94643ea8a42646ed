"""Sharded TFRecords with an index: written, found and read."""

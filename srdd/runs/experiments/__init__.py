"""Controlled trials of noise: how much a model bears (probe) and whether guided noise helps (aqn)."""

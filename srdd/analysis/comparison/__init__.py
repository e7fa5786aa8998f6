"""Reports against each other: comparability (may they be compared), pairing (which measurement belongs to which),
changes (what differs, what drifts); and against limits: limits (what one says), policy (several, from TOML or texts),
gate (the verdict).
"""

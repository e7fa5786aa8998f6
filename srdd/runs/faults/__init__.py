"""Looking for broken layers: each is run alone on its own input, and what it gives is held against its own parts."""

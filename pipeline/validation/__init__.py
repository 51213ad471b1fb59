"""Whether to believe it: unseen events, bootstrap errors, pyhf, finite differences."""

"""What a run leaves: folder, terminal, cross-checks, pictures, page, and histograms for other tools."""

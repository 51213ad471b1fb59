"""The pictures of a run, each in a file of its own: what is drawn, and a caption for a newcomer."""

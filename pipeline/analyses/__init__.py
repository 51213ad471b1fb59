"""Event functions: what an analysis makes of the sets of objects of an event. The AGC's is the first guest."""

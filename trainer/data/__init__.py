"""Where examples come from, in which order, and how they reach a replica."""

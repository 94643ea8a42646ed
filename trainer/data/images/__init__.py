"""Image files: what a header says, which part is seen, how it is decoded, in a pipeline and outside."""

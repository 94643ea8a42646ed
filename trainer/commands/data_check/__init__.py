"""`doctor --data`: reads all of a data set, and tells what is wrong with it and what is odd."""

"""What is odd about a data set: copies, leaks, and images that show little; from a few numbers of each image."""

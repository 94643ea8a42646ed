"""What is known of the libraries below this program before any of them is imported."""

"""What a run gives away: exports, measured in processes that know nothing of this package."""

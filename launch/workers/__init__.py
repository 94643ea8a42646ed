"""The workers of a job: started, watched, ended together, and why they ended."""

"""Pages for people: report.html of a run, and the comparison of several, each one file that needs nothing else."""

"""Where the time of training goes, as the host sees it between the calls of the device loop."""

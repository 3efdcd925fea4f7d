"""Running notebooks: jobs, progress, the site, what it costs, comparing two runs."""

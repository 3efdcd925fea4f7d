"""One module per notebook, of its name: its models, its tables, its figures."""

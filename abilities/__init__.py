"""Questions that ask for one ability each, made by a script: see README.md."""

"""Helpers under the notebooks. One module per floor; each imports only from floors above it:

errors · paths · study · evidence · corpora · models · pruning · geometry · healing · evaluation ·
bench · measure · transitions · tables · rules · claims · plots · section · check · site · run
"""

"""Helpers under the notebooks. One module per floor; each imports only from floors above it:

errors · paths · schema · study · evidence · corpora · models · blocks · surgery ·
geometry · replay · batches · sweep · healing · harness · evaluation · bench · measure ·
transitions · tables · rules · claims · plots · distance_plots · section · check · publish · site ·
run
"""

"""Helpers under the notebooks. One module per floor; each imports only from floors above it:

errors · paths · schema · study · evidence · corpora · qwen · blocks · anatomy · models · surgery ·
pruning · geometry · replay · batches · sweep · healing · harness · evaluation · bench · measure ·
transitions · tables · rules · claims · plots · distance_plots · section · check · publish · site ·
run
"""

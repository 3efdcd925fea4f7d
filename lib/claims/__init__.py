"""What a paper says, as rules over tables: one file a paper."""

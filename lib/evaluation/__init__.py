"""What a model answers: questions, loss, text; all prunings in one pass."""

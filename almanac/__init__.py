"""A small made-up world, a language model trained on it, and what is needed to question it."""

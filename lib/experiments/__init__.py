"""A study opened, the models that it compares, and measuring them."""

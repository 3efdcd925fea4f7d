"""What is trained afterwards, and on what."""

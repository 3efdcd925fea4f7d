"""What rules are made of (`judging`, `reading`), and the rules of a paper that has many."""

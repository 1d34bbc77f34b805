"""Small legal models that try to fool a rewrite, and the law that every result must keep."""

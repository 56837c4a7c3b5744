"""A byte tokenizer for reviewgen, in ``tokenizer``."""

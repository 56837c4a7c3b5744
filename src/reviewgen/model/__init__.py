"""ReviewModel: a trained model and its tokenizer in one object."""

class Ngram:
    """Counts in plain dictionaries, and asks the shorter history first by recursion."""

    def __init__(self, order, vocab_size):
        self.order = order
        self.vocab_size = vocab_size
        self.followers = {}

    def count(self, ids):
        for end in range(len(ids)):
            for start in range(max(0, end - self.order + 1), end + 1):
                seen = self.followers.setdefault(tuple(ids[start:end]), {})
                seen[ids[end]] = seen.get(ids[end], 0) + 1

    def probs(self, context):
        last = tuple(context)[-(self.order - 1) :]
        return [self.prob(last, token) for token in range(self.vocab_size)]

    def prob(self, history, token):
        lower = self.prob(history[1:], token) if history else 1 / self.vocab_size
        seen = self.followers.get(history)
        if not seen:
            return lower
        return (seen.get(token, 0) + len(seen) * lower) / (sum(seen.values()) + len(seen))

"""The probability that an automaton over tokens will hold within some tokens, if each token depends
on the one before it only. Knows neither a model nor a tokenizer.

Shapes: T steps, S states, V vocabulary, N pairs of tokens.
"""

from reviewgen.compiled.jit import compiled


@compiled
def look_ahead(starts, followers, probs, rest, unigrams, after, is_reached, values):
    """Compute the probabilities step by step, by the backward algorithm of a Markov chain.

    Args:
        starts: int64 (V + 1,), where the followers of each token begin.
        followers, probs: int (N,) and float32 (N,), the followers and their probabilities.
        rest: float32 (V,), the probability of each token's other followers together.
        unigrams: float32 (V,), how the rest is divided.
        after: int32 (S, V), the state after each token in each state.
        is_reached: bool (S, V), whether a text that ends with token v can be in state s.
        values: float32 (T + 1, S, V), the probability that the automaton holds at the end of t
            further tokens, for a text in state s that ends with token v. ``values[0]`` is given;
            the others are written.
    """
    for t in range(1, len(values)):
        before = values[t - 1]
        for s in range(len(after)):
            mean = 0.0
            for u in range(len(unigrams)):
                mean += unigrams[u] * before[after[s, u], u]
            for v in range(len(unigrams)):
                if is_reached[s, v]:
                    value = rest[v] * mean
                    for index in range(starts[v], starts[v + 1]):
                        u = followers[index]
                        value += probs[index] * before[after[s, u], u]
                    values[t, s, v] = value

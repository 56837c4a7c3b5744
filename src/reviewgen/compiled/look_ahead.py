"""The probability that an automaton over tokens will accept a text after some more tokens, if each
token depends only on the one before it. Knows neither a model nor a tokenizer.

Shapes: T further tokens, S states of the automaton, V vocabulary, N pairs of a token and a token
that may follow it.
"""

from reviewgen.compiled.jit import compiled


@compiled
def look_ahead(starts, followers, probs, rest, unigrams, after, is_reached, values):
    """Compute the probabilities for 1, 2, ..., T further tokens, by the backward algorithm of a
    Markov chain.

    Args:
        starts: int64 (V + 1,), where the followers of each token begin; at the end, N.
        followers, probs: int (N,) and float32 (N,), the followers of all tokens, one token after
            another, and the probability of each follower after its token.
        rest: float32 (V,), the total probability of the tokens that are not among a token's
            followers.
        unigrams: float32 (V,), the probabilities in proportion to which the rest is divided.
        after: int32 (S, V), the state after each token in each state.
        is_reached: bool (S, V), whether a text that ends with token v can be in state s. If not,
            ``values[:, s, v]`` stays as it is.
        values: float32 (T + 1, S, V), the probability that the automaton accepts the text after t
            further tokens, if the text ends with token v and is in state s. ``values[0]`` is given;
            the others are written.
    """
    for t in range(1, len(values)):
        fewer = values[t - 1]  # the values for one token less
        for s in range(len(after)):
            mean = 0.0  # the mean value if the next token is drawn from ``unigrams``
            for u in range(len(unigrams)):
                mean += unigrams[u] * fewer[after[s, u], u]
            for v in range(len(unigrams)):
                if is_reached[s, v]:
                    value = rest[v] * mean
                    for index in range(starts[v], starts[v + 1]):
                        u = followers[index]
                        value += probs[index] * fewer[after[s, u], u]
                    values[t, s, v] = value

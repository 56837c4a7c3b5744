"""Wrong solutions: for each exercise, changes of the solution in the docs, each with parts of the
sentence that must refuse it.
"""

WRONG = {
    "count": [
        (
            {
                "self.counts = ": "self.last = []\n        self.counts = ",
                "ids):\n": "ids):\n        ids = self.last = self.last + ids\n",
            },
            ["texts: The order of the texts does not matter: no n-gram reaches"],
        ),
        (
            {"np.full(self.vocab_size, 1 / self.vocab_size)": "np.zeros(self.vocab_size)"},
            ["shape: `probs` returns V probabilities, one for each token, all above 0"],
        ),
        (
            {"(counts.sum() + different)": "counts.sum()"},
            ["sums_to_one: The probabilities of the V"],
        ),
        (
            {"min(self.order, len": "min(self.order + 1, len", "min(self.order, t": "min(9, t"},
            ["window"],
        ),
        (
            {"np.count_nonzero(counts)": "1"},
            ["d(h) is the number of different tokens that followed"],
        ),
        (
            {"context[len(context) - k :]": "context[:k]"},
            ["window: Only the last order - 1 tokens"],
        ),
    ],
    "bits": [
        ({" / math.log(2)": ""}, ["These are nats: divide by ln 2."]),
        (
            {"sum(map(len, texts))": "is_token.sum().item()"},
            ["These are bits per token: divide by"],
        ),
        ({"chosen[is_token]": "chosen"}, ["Padding is counted: where a target is -1"]),
        (
            {"log_softmax(-1)": "log_softmax(1)"},
            ["The softmax is over T: it is over the last axis, V."],
        ),
        (
            {
                "log_softmax(-1)": "exp()\n"
                "    log_probs = (log_probs / log_probs.sum(-1, keepdim=True)).log()"
            },
            ["normal: Large logits give finite bits"],
        ),
        ({"chosen[is_token]": "chosen[is_token].clamp(min=-20)"}, ["nothing_skipped: A token of"]),
        ({"log_softmax(-1)": "clone()"}, ["The logits are not normalised"]),
        (
            {
                "is_token = targets != -1": "following = targets.roll(-1, 1)\n"
                "    following[:, -1] = -1\n    is_token = following != -1"
            },
            ["The end tokens are left out"],
        ),
    ],
    "mixing": [
        (
            {
                "        total -=": "        mixer.update(bit)\n"
                "        p = mixer.predict(row)\n        total -="
            },
            ["no_look_ahead: Each bit is predicted before the mixer is updated with it"],
        ),
        ({"log2": "log"}, ["The cost is in nats: use log2."]),
        ({"(bit - self.p)": "(self.p - bit)"}, ["The weights move the wrong way: add"]),
        (
            {"(bit - self.p)": "(bit - self.p) * self.p * (1 - self.p)"},
            ["The step has a factor P(1) (1 - P(1))"],
        ),
        (
            {
                "    def __init__": "    weights = [1 / 3] * 3\n\n    def __init__",
                "        self.weights = [1 / inputs] * inputs\n": "",
                "self.weights = [w": "self.weights[:] = [w",
            },
            ["rows: Mixers are independent"],
        ),
        ({"        mixer.update(bit)\n": ""}, ["step_equals_whole: `cost` of all T bits equals"]),
        ({"1 / (1 + math.exp(-total))": "sum(probs) / len(probs) + 0.01"}, ["for 1 - p"]),
    ],
    "nnlm": [
        (
            {"return logits, read[:, read.shape[1] - self.order + 2 :]": "return logits, state"},
            ["chunks: A text fed in chunks gives the same logits as the whole text"],
        ),
        (
            {"windows = read": "windows = torch.cat((read[:, 1:], read[:, :1]), 1)"},
            ["causal: Changing `ids[:, t]` does not change the logits before position t."],
        ),
        (
            {"(vectors)))": "(vectors))).softmax(-1)"},
            ["These are probabilities: return the scores before softmax."],
        ),
        (
            {"embedding(windows).flatten(2)": "embedding(windows).transpose(2, 3).flatten(2)"},
            ["The axes n - 1 and E are exchanged"],
        ),
        (
            {"torch.tanh(self.hidden(vectors))": "self.hidden(vectors)"},
            ["The tanh between the layers is missing."],
        ),
        (
            {"embedding(windows).flatten(2)": "embedding(windows).transpose(0, 1).flatten(2)"},
            [
                "logits: Logits are (B, T, V), for one or more rows",
                "They are (T, B, V) = (12, 3, 11)",
            ],
        ),
    ],
    "rnn": [
        (
            {
                "range(ids.shape[1])": "range(ids.shape[0])",
                "inputs[:, t]": "inputs[t]",
                "dim=1": "dim=0",
            },
            ["With B = 3, T = 12, H = 7, E = 10, V = 11: RuntimeError"],
        ),
        ({"dim=1)), state": "dim=1)), state * 0"}, ["chunks: A text fed in chunks gives the same"]),
        (
            {"self.recurrent(state))": "self.recurrent(state.detach()))"},
            ["gradients: The gradient of each weight equals that of the reference"],
        ),
        (
            {"self.recurrent(state))": "self.recurrent(state).mean(0))"},
            ["rows: The logits and the state of a row do not depend on the other rows"],
        ),
        ({"self.recurrent(state))": "state @ self.recurrent.weight)"}, ["is transposed"]),
        ({"dim=1)": "dim=0)"}, ["They are (T, B, V) = (12, 3, 11)"]),
        ({"torch.tanh(": "torch.relu("}, ["The function is relu, not tanh."]),
        (
            {
                "state = torch.tanh(": "state[:] = torch.tanh(",
                "append(state)": "append(state.clone())",
            },
            ["no_mutation: A call modifies neither"],
        ),
    ],
    "bptt": [
        (
            {
                "    grads = [": "    squares = sum((each.grad**2).sum() for each in parameters if"
                " each.grad is not None)\n    grads = [",
                "sum((grad**2).sum() for grad in grads)": "squares",
            },
            ["`parameters` may be a generator, which is read once."],
        ),
        (
            {"        state = state.detach()\n": ""},
            ["detached: The state (B, H) is passed on detached"],
        ),
        (
            {
                "range(0, ids.shape[1], bptt)": "range(0, ids.shape[0], bptt)",
                "ids[:, chunk]": "ids[chunk]",
                "targets[:, chunk]": "targets[chunk]",
            },
            [
                "chunks: The model is called with chunks (B, bptt) of the ids (B, T), along T",
                "A chunk is (B, T) = (3, 12), with B = 3, bptt = 5.",
            ],
        ),
        (
            {"min(1.0, max_norm / norm)": "min(1.0, max_norm / grad.norm().item())"},
            ["Each weight has a norm of its own"],
        ),
        (
            {"min(1.0, max_norm / norm)": "max_norm / norm"},
            ["Gradients below max_norm are enlarged"],
        ),
        ({"        optimizer.zero_grad()\n": ""}, ["Gradients of the chunk before are added"]),
        (
            {
                "        chunk = slice": "        state = model.initial_state(len(ids))\n"
                "        chunk = slice"
            },
            ["The state is new for each chunk"],
        ),
        (
            {"        clip(model.parameters(), max_norm)\n": ""},
            ["Gradients are not clipped between"],
        ),
    ],
    "lstm": [
        (
            {"i, f, g, o = gates": "f, i, g, o = gates"},
            ["are in the order f, i, g, o, not i, f, g, o."],
        ),
        (
            {"chunk(4, dim=1)": "chunk(4, dim=0)"},
            ["ValueError: not enough values to unpack", "(in the line: i, f, g, o = gates.chunk"],
        ),
        (
            {", (h, c)": ", (h, h)"},
            ["chunks: A text fed in chunks gives the same logits as the whole"],
        ),
        ({"torch.tanh(c)": "c"}, ["c = f c + i g and h = o tanh(c), where i, f, o are sigmoids"]),
        ({"torch.tanh(g)": "torch.sigmoid(g)"}, ["where i, f, o are sigmoids and g is a tanh"]),
        (
            {"c = torch.sigmoid(f) * c + torch": "c *= torch.sigmoid(f)\n            c += torch"},
            ["no_mutation: A call modifies neither the ids nor the state"],
        ),
    ],
    "attention": [
        (
            {".masked_fill(is_later, -math.inf)": ""},
            ["causal: Changing `ids[:, t]` does not change the logits before position t."],
        ),
        (
            {"triu(1 + state[0].shape[1])": "triu(1)"},
            ["chunks: A text fed in chunks gives the same"],
        ),
        ({" / math.sqrt(query.shape[-1])": ""}, ["The scores are not divided by sqrt(E / heads)."]),
        (
            {"math.sqrt(query.shape[-1])": "math.sqrt(x.shape[-1])"},
            ["divided by sqrt(E), not by that"],
        ),
        (
            {"(self.heads, -1)).transpose(1, 2)": "(self.heads, -1)).transpose(0, 2)"},
            ["logits: Logits are (B, T, V)"],
        ),
        ({"(keys, values)": "state"}, ["chunks: A text fed in chunks gives the same logits"]),
        ({".softmax(-1)": ".softmax(-2)"}, ["causal: Changing `ids[:, t]` does not change"]),
    ],
}

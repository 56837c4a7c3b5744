"""``reviewgen.explain`` of a mixing model: its contributions against the same sums in numpy, its
heat map and its table.
"""

import json
import math
import xml.etree.ElementTree as ET
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from reviewgen_mixing import coding, mixer
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.model import Mixing

import reviewgen
from reviewgen.errors import ConfigError
from reviewgen.export import export_onnx
from reviewgen.protocols import SupportsContributions
from reviewgen.testing import make_model
from tests.support.fakes import LETTERS, LetterTokenizer, review_model
from tests.support.plugin_models import make_blend, make_network

TEXTS = ("bad cab", "head a beach", "a bad beach", "cabbage", "a head", "aaa", "bab", "dada")
HOSTILE = "<script>alert(1)</script>"
SVG = "{http://www.w3.org/2000/svg}"


@cache
def mixing(characters=LETTERS.characters, texts=TEXTS, **settings):
    """Return a mixing model of some texts, as a ReviewModel."""
    tokenizer = LetterTokenizer(characters)
    alphabet = f"\0\0{characters}"
    model = Mixing(MixingConfig(vocab_size=tokenizer.vocab_size, alphabet=alphabet, **settings))
    for text in texts:
        model.observe(np.array([0, *tokenizer.encode(text), 1]))
    model.finish()
    return review_model(model, tokenizer)


@np.errstate(over="ignore")  # of hashes, whose lowest bits count
def log_odds(review, text):
    """Return the log odds of each symbol of a text, and its probability without maps: each decision
    with its own loop over the sets.
    """
    network = review.model._network
    weights = network.weights
    floats, ints = review.model.stepper().state_arrays(review.model.stepper().initial_state(1))
    work = coding.make_work(network)
    ids = [0, *review.tokenizer.encode(text), 1]
    sums = []
    probs = []
    for last, symbol in pairwise(ids):
        coding.read(network, floats, ints, 0, work, last)
        coding.begin_symbol(network, ints, 0, work)
        total = 0.0
        p = 1.0
        for level in range(network.tree.lengths[symbol]):
            node = network.tree.paths[symbol, level]
            if network.tree.roots[node] == node:
                coding.open_block(network, node, work)
            coding.predict(network, floats, ints, 0, work, node)
            final = weights.final[node].astype(np.float64)
            sets = weights.sets[work.unit.rows[level]].astype(np.float64)
            if weights.own_rows:
                row, start = mixer.final_changes(weights, node)
                final += floats[row, 0, start : start + len(final)]
                for number, chosen in enumerate(work.unit.rows[level]):
                    if chosen < weights.own_rows:
                        sets[number] += floats[chosen, 0]
            logit = final @ (sets @ work.unit.inputs[level])
            logit *= 1 if network.tree.bits[symbol, level] else -1
            total += logit
            p /= 1 + math.exp(-logit)
        sums.append(total)
        probs.append(p)
    return sums, probs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"maps": False},
        {"gated": False, "words": False},
        {"local_slots": 0},
        {"keep_text": True},
    ],
    ids=str,
)
def test_the_contributions_sum_to_the_log_odds_of_the_decisions(settings):
    fixed = {"adapt_weights": False} if settings.get("local_slots") == 0 else {}
    review = mixing(**settings, **fixed)
    text = "bad bad head"
    [model] = reviewgen.explain(review, text).models
    [contributions] = model.contributions
    sums, probs = log_odds(review, text)
    shown = [contributions.log_odds(index) for index in range(len(text) + 1)]
    assert shown == pytest.approx(sums, rel=1e-4, abs=1e-4)
    assert contributions.tokens == (*"bad", "␣", *"bad", "␣", *"head", "(end)")
    bits = [token.bits for token in review.score(text).tokens]
    assert contributions.bits == pytest.approx(bits, rel=1e-4, abs=1e-5)
    if settings.get("maps") is False:  # nothing corrects the mixed probability
        assert bits == pytest.approx([-math.log2(p) for p in probs], rel=1e-3, abs=1e-4)
    is_own = [name.startswith("own") or "this text" in name for name in contributions.contexts]
    assert any(is_own) == ("local_slots" not in settings)
    copies = "match in the training text" in contributions.contexts
    assert copies == ("keep_text" in settings)


def test_a_context_that_was_not_seen_says_nothing():
    review = mixing()
    named = review.model.stepper().contributions(np.array([0, *LETTERS.encode("gcg"), 1]))
    assert isinstance(review.model.stepper(), SupportsContributions)
    assert not np.isnan(named["no context"]).any()
    assert np.isnan(named["11 symbols"][1:]).all()  # no training text begins with g
    assert np.isnan(named["own 2 symbols"]).all()


def test_contexts_of_the_text_and_its_match_speak_where_it_repeats_itself():
    text = "gaf dec " * 3
    [contributions] = reviewgen.explain(mixing(), text).models[0].contributions
    parts = dict(zip(contributions.contexts, contributions.parts, strict=True))
    own = np.nansum([part for name, part in parts.items() if name.startswith("own")], axis=0)
    first, second, third = own[:24].reshape(3, 8).sum(axis=1)
    assert first < second < third
    match = np.array(parts["match in this text"])[:24].reshape(3, 8)
    assert np.isnan(match[0]).all() and np.nansum(match[1:]) > 0 and not np.isnan(match[2]).any()
    assert any(name.startswith("own") for name, _ in contributions.strongest(22))


def test_a_condition_is_read_and_not_predicted():
    model = make_model("mixing", 12, condition_ids=2)
    named = model.stepper().contributions(np.array([0, 10, 3, 1]))
    assert named["bias"][0] == 0 and (named["bias"][1:] != 0).all()
    assert np.isnan(named["no context"][0]) and "conditions and word" in named


def test_each_text_of_a_batch_is_explained_by_itself():
    review = mixing()
    two = reviewgen.explain(review, ["bad", "a cab"])
    alone = reviewgen.explain(review, "a cab")
    assert two.models[0].contributions[1].bits == pytest.approx(alone.heat_map().bits)
    assert repr(two.models[0].contributions[1].parts) == repr(alone.heat_map().parts)


@pytest.mark.slow
def test_a_blend_whose_last_model_mixes_the_others_shows_the_expert(tmp_path):
    network = make_network("gru", vocab_size=LETTERS.vocab_size, hidden_size=6, embedding_size=4)
    rows = [(np.array([0, *LETTERS.encode(text), 1]), None) for text in TEXTS]
    uniform = np.zeros((30, LETTERS.vocab_size), np.float32)
    fitted = mixing().model.fit_expert([(ids, uniform[: len(ids)]) for ids, _ in rows])
    review = review_model(make_blend([network, fitted], ["gru", "mixing"], (1.0, 0.0)), LETTERS)
    explanation = reviewgen.explain(review, ["bad", "a cab"])
    assert [model.name for model in explanation.models] == ["gru", "mixing"]
    contributions = explanation.models[1].contributions
    assert "expert" in contributions[0].contexts and not explanation.models[0].contributions
    first, second = (review.score(text).tokens for text in ("bad", "a cab"))
    bits = [token.bits for token in (*first, *second)]
    shown = (*contributions[0].bits, *contributions[1].bits)
    assert shown == pytest.approx(bits, rel=1e-4)
    assert [token.bits for token in explanation.loss.tokens] == pytest.approx(bits, rel=1e-4)
    pytest.importorskip("onnxscript")
    with pytest.raises(ConfigError, match=r"a part of 'fake', Mixing, was trained by counting"):
        export_onnx(review, tmp_path / "model")


def test_the_json_has_each_context_and_null_where_it_was_not_seen():
    facts = reviewgen.explain(mixing(), "gcg").to_dict()
    facts = json.loads(json.dumps(facts, allow_nan=False))
    [contributions] = facts["models"][0]["contributions"]
    assert set(contributions) == {"tokens", "bits", "contexts", "parts"}
    assert len(contributions["tokens"]) == len(contributions["bits"]) == 4
    assert len(contributions["contexts"]) == len(contributions["parts"])
    assert {len(part) for part in contributions["parts"]} == {4}
    row = contributions["contexts"].index("11 symbols")
    assert contributions["parts"][row][1:] == [None, None, None]


def test_the_heat_map_has_a_cell_for_each_contribution_and_is_escaped(tmp_path):
    characters = "".join(sorted(set(HOSTILE)))
    review = mixing(characters, (HOSTILE,) * 3)
    explanation = reviewgen.explain(review, HOSTILE)
    contributions = explanation.heat_map()
    contributions.save(tmp_path / "map.svg")
    root = ET.fromstring((tmp_path / "map.svg").read_text(encoding="utf-8"))
    cells = [each for each in root.iter(f"{SVG}rect") if "cell" in each.get("class", "")]
    parts = np.array(contributions.parts)
    assert len(cells) == np.isfinite(parts).sum()
    discs = [each for each in cells if "series-1" in each.get("class")]
    assert len(discs) == (parts < 0).sum() and all(each.get("rx") == "7" for each in discs)
    strengths = [float(each.get("fill-opacity")) for each in cells]
    assert max(strengths) == 1 and min(strengths) >= 0.1
    explanation.save_html(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert HOSTILE not in html and "The mixed contexts of" in html and html.count("<svg") == 1
    assert "1 symbol, &lt;:" in html


def test_the_command_prints_the_strongest_contexts_and_writes_the_heat_map(
    model_folder, tmp_path, run_command
):
    trained = reviewgen.train("mixing-char", [*TEXTS] * 4, clean=False)
    trained.save_pretrained(tmp_path / "model")
    picture = tmp_path / "contexts.svg"
    words = ("explain", tmp_path / "model", "--text", "bad cab", "--tokens", 3, "--html", picture)
    status, output, _ = run_command(*words)
    assert status == 0 and "The strongest contexts" in output and "... and 5 more tokens" in output
    strongest = reviewgen.explain(trained, "bad cab").heat_map().strongest(0)
    assert all(f"{part:+.2f}" in output for _, part in strongest)
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    status, _, message = run_command(
        "explain", model_folder("ngram-char"), "--html", tmp_path / "other.svg"
    )
    assert status == 2 and "does not mix contexts" in message and ".html" in message


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"maps": False, "gated": False},
        {"local_slots": 0, "adapt_weights": False},
        {"expert": True},
    ],
    ids=str,
)
def test_the_graph_has_what_the_settings_have(settings):
    described = make_model("mixing", 12, **settings).describe_graph()
    names = {node.id for node in described.nodes}
    assert ("maps" in names) == settings.get("maps", True)
    assert ("own counts" in names) == (settings.get("local_slots") != 0)
    assert ("expert" in names) == settings.get("expert", False)
    loops = {edge.source for edge in described.edges if edge.delay}
    assert ("sets" in loops) == settings.get("adapt_weights", True)
    assert described.sizes["N"] == 10 and "decisions" in str(described)


def test_the_graph_and_the_card_have_the_same_number_of_parameters():
    model = mixing()
    picture = reviewgen.graph(model)
    kinds = model.model.parameter_kinds()
    assert picture.counted == kinds and picture.parameters == sum(kinds.values())
    assert f"{picture.parameters:,} parameters" in picture.svg
    assert f"Parameters: {picture.parameters:,} (" in str(model.generate_model_card())

"""Metrics of texts, each against a count by hand or a slow computation of the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from privolve.evaluation import registry
from privolve.evaluation.metric import Items, MetricError, Score
from privolve.evaluation.metric_config import References
from privolve.evaluation.text import some_of, text_items, texts_of, tokens
from privolve.evaluation.text_divergence import area, curve
from privolve.evaluation.text_diversity import distinct, ngrams, self_bleu
from privolve.evaluation.text_length import kolmogorov, lengths, wasserstein
from privolve.evaluation.text_next_word import NextWord

CATS = ["the cat sat on the mat", "the cat saw a dog", "a dog sat on the cat", "the dog ran"]


def judged(table: object, real: Items, synthetic: Items) -> dict[str, Score]:
    found = registry.parse(table).judge(References(test=real))(synthetic)  # type: ignore[arg-type]
    return {score.name: score for score in found}


def two_topics(count: int, *, seed: int, noise: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Sentences about two things, with the labels of a share of them wrong."""
    rng = np.random.default_rng(seed)
    words = (["soup", "bread", "salt", "oven", "taste"], ["engine", "wheel", "road", "brake", "fuel"])
    labels = np.arange(count) % 2
    texts = [" ".join(["the", *rng.choice(words[label], 5), "again"]) for label in labels]
    wrong = rng.random(count) < noise
    return texts, np.where(wrong, 1 - labels, labels)


# --- texts as items ---------------------------------------------------------------------------------------------------


def test_a_metric_of_texts_refuses_images_in_one_line() -> None:
    images = Items(name="pictures", values=np.zeros((3, 4, 4, 1), dtype=np.uint8))
    with pytest.raises(MetricError, match=r"^pictures: a metric of texts needs texts"):
        texts_of(images)


def test_a_choice_of_texts_is_the_seeds_and_of_the_size_that_was_asked_for() -> None:
    texts = [str(number) for number in range(100)]
    chosen = some_of(texts, 10, seed=1)
    assert len(set(chosen)) == 10 and chosen == some_of(texts, 10, seed=1) != some_of(texts, 10, seed=2)
    assert some_of(texts, 200, seed=1) == texts


@pytest.mark.parametrize("kind", ["text-length", "distinct-n", "self-bleu", "next-word", "text-classifier"])
def test_a_score_of_texts_is_protected_only_if_all_that_it_saw_is(kind: str) -> None:
    texts, labels = two_topics(40, seed=0)
    public = text_items("public", texts, labels, protected=True)
    private = text_items("private", texts, labels)
    for score in judged(kind, private, public).values():
        assert score.protected == (score.reference == "")
    assert all(score.protected for score in judged(kind, public, public).values())
    assert not any(score.protected for score in judged(kind, public, private).values())


@pytest.mark.parametrize("kind", ["text-length", "distinct-n", "self-bleu", "next-word", "text-classifier"])
def test_no_text_at_all_is_one_line(kind: str) -> None:
    texts, labels = two_topics(10, seed=0)
    real = text_items("real", texts, labels)
    with pytest.raises(MetricError, match=r"^none: .* needs at least [^\n]*$"):
        judged(kind, real, text_items("none", [], np.zeros(0, dtype=np.int64)))


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_lengths_are_words_and_their_distance_is_that_of_scipy() -> None:
    from scipy.stats import ks_2samp, wasserstein_distance

    assert lengths(["two words", " one ", ""]).tolist() == [2, 1, 0]
    rng = np.random.default_rng(5)
    first, second = rng.poisson(20, 150).astype(float), rng.poisson(26, 90).astype(float)
    assert wasserstein(first, second) == pytest.approx(wasserstein_distance(first, second))
    assert kolmogorov(first, second) == pytest.approx(ks_2samp(first, second).statistic)


def test_texts_of_twice_the_length_are_as_far_as_they_are_longer() -> None:
    real = text_items("real", ["a b c"] * 5)
    found = judged("text-length", real, text_items("twice", ["a b c a b c"] * 7))
    assert found["length distance"].value == 3 and found["mean words"].value == 6
    assert found["largest difference of lengths"].value == 1
    assert found["length distance"].n == 7 and found["length distance"].reference_n == 5


# --- variety ----------------------------------------------------------------------------------------------------------


def test_distinct_counts_what_differs() -> None:
    words = [tokens(text) for text in ("a b a b", "a b c")]
    assert distinct(words, 1) == 3 / 7
    assert distinct(words, 2) == 3 / 5
    assert distinct([["a"]], 2) == 0


def slow_self_bleu(texts: Sequence[Sequence[str]], longest: int) -> float:
    found = []
    for row, words in enumerate(texts):
        others = [text for place, text in enumerate(texts) if place != row]
        logs = []
        for length in range(1, longest + 1):
            grams = Counter(ngrams(words, length))
            if not grams:
                continue
            most = {gram: max(Counter(ngrams(other, length))[gram] for other in others) for gram in grams}
            matches = sum(min(count, most[gram]) for gram, count in grams.items())
            logs.append(math.log((matches or 0.1) / grams.total()))
        nearest = min((len(other) for other in others), key=lambda size: (abs(size - len(words)), size))
        brevity = 1 if len(words) >= nearest else math.exp(1 - nearest / len(words))
        found.append(brevity * math.exp(sum(logs) / len(logs)))
    return sum(found) / len(found)


def test_self_bleu_is_what_comparing_each_with_all_others_gives() -> None:
    rng = np.random.default_rng(3)
    texts = [list(rng.choice(list("abcdefg"), rng.integers(1, 12))) for _ in range(40)]
    for longest in (1, 2, 4):
        assert self_bleu(texts, longest=longest) == pytest.approx(slow_self_bleu(texts, longest))


def test_copies_have_a_self_bleu_of_one_and_texts_without_common_words_near_none() -> None:
    assert self_bleu([tokens(CATS[0])] * 3) == pytest.approx(1)
    assert self_bleu([["a", "b", "c", "d", "e"], ["f", "g", "h", "i", "j"]]) < 0.05


def test_variety_is_looked_at_in_equally_many_texts() -> None:
    many = text_items("many", [f"text {number} of many" for number in range(300)])
    assert {score.n for score in judged({"kind": "distinct-n", "texts": 50}, many, many).values()} == {50}


# --- divergence -------------------------------------------------------------------------------------------------------


def test_the_curve_of_equal_histograms_has_an_area_of_one_and_of_disjoint_ones_almost_none() -> None:
    p = np.array([0.2, 0.3, 0.5, 0.0])
    assert area(curve(p, p)) == pytest.approx(1)
    disjoint = area(curve(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    assert disjoint < 0.01
    half = area(curve(np.array([0.5, 0.5]), np.array([0.9, 0.1])))
    assert disjoint < half < 1
    assert half == pytest.approx(area(curve(np.array([0.9, 0.1]), np.array([0.5, 0.5]))))


def test_the_curve_is_that_of_the_definition() -> None:
    p, q, scale = np.array([0.7, 0.3]), np.array([0.4, 0.6]), 5.0
    points = curve(p, q, scale=scale, mixtures=3)
    r = 0.5 * p + 0.5 * q
    assert points[2] == pytest.approx(
        [np.exp(-scale * np.sum(q * np.log(q / r))), np.exp(-scale * np.sum(p * np.log(p / r)))]
    )


def test_mauve_ranks_equal_near_and_far_sets_and_refuses_few_items() -> None:
    rng = np.random.default_rng(0)
    sets = {name: rng.normal(size=(300, 16)) + shift for name, shift in (("same", 0), ("near", 0.35), ("far", 3.0))}
    real = Items(name="real", values=rng.normal(size=(300, 16)), network="net", network_hash="h")
    values = {}
    for name, rows in sets.items():
        [score] = judged("mauve", real, Items(name=name, values=rows, network="net", network_hash="h")).values()
        assert score.name == "MAUVE (30 clusters)" and score.network_hash == "h" and score.better == "higher"
        values[name] = score.value
    assert values["same"] > 0.8 > values["near"] > 3 * values["far"]
    with pytest.raises(MetricError, match="few: MAUVE needs at least 20 items, not 5"):
        judged("mauve", real, Items(name="few", values=sets["same"][:5], network="net", network_hash="h"))
    with pytest.raises(MetricError, match="figures of two networks cannot be compared"):
        judged("mauve", real, Items(name="other", values=sets["same"], network="another"))


def test_mauve_of_items_that_are_all_alike_says_nothing_of_them(recwarn: pytest.WarningsRecorder) -> None:
    same = Items(name="same", values=np.ones((40, 4)), network="net")
    [score] = judged("mauve", same, same).values()
    assert score.value == pytest.approx(1)
    assert not recwarn.list


# --- what texts are worth ---------------------------------------------------------------------------------------------


def test_the_next_word_is_the_commonest_after_the_longest_known_context() -> None:
    model = NextWord([tokens(text) for text in CATS], order=3)
    assert model.hits(tokens("the cat")) == 2  # Three of four texts begin with "the", two of these go on with "cat".
    assert model.hits(tokens("on the")) == 1  # No text begins with "on"; after it, "the" alone is known.
    assert model.hits(tokens("unknown unknown")) == 0


def test_next_word_accuracy_is_the_share_of_all_words() -> None:
    real = text_items("real", ["a b", "a c", "x"])
    [score] = judged({"kind": "next-word", "order": 2}, real, text_items("synthetic", ["a b", "a b"])).values()
    # a, b | a | nothing.
    assert score.value == 3 / 5
    assert score.interval is not None and score.interval[0] <= score.value <= score.interval[1]


def test_a_classifier_of_texts_finds_what_is_there_and_nothing_where_labels_are_random() -> None:
    real = text_items("real", *two_topics(200, seed=1))
    told = judged("text-classifier", real, text_items("told", *two_topics(100, seed=2)))
    assert told["text classifier accuracy"].value > 0.99
    assert told["text classifier accuracy of the worst class"].value > 0.98
    assert told["text classifier accuracy"].network and told["text classifier accuracy"].network_hash
    texts, labels = two_topics(100, seed=2)
    turned = judged("text-classifier", real, text_items("turned", texts, 1 - labels))
    assert turned["text classifier accuracy"].value < 0.01
    one = judged("text-classifier", real, text_items("one", texts, np.zeros(100, dtype=np.int64)))
    assert one["text classifier accuracy"].value == 0.5
    assert one["text classifier accuracy of the worst class"].value == 0


def test_a_classifier_of_features_uses_the_network_of_its_items() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    rows = rng.normal(size=(200, 5)) + 3 * labels[:, None]
    real = Items(name="real", values=rows, labels=labels, network="net", network_hash="h")
    other = Items(name="other", values=rows[::-1], labels=labels[::-1].copy(), network="net", network_hash="h")
    found = judged("feature-classifier", real, other)["feature classifier accuracy"]
    assert found.value > 0.95 and (found.network, found.network_hash) == ("net", "h")
    with pytest.raises(MetricError, match="needs labels"):
        judged("feature-classifier", real, Items(name="bare", values=rows, network="net", network_hash="h"))


def test_reviews_rank_as_they_should() -> None:
    """Real reviews: a second half of them against shuffled words, one review repeated, and captions of bedrooms."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("there are no real data sets beside the project: ../shared/data")
    import csv

    with (folder / "text" / "yelp_dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:500]
    column = max(rows[0], key=lambda name: len(rows[0][name] or ""))
    reviews = [row[column] for row in rows]
    with next((folder / "captions").glob("lsun_bedroom_openai*.csv")).open(encoding="utf-8", newline="") as file:
        captions = [row["text"] for row in csv.DictReader(file)]
    rng = np.random.default_rng(0)
    shuffled = [" ".join(rng.permutation(text.split())) for text in reviews[250:]]
    sets = {"same": reviews[250:], "shuffled": shuffled, "repeated": reviews[250:251] * 250, "captions": captions}
    real = text_items("real", reviews[:250])
    found = {
        name: {
            **judged("next-word", real, text_items(name, texts)),
            **judged("text-length", real, text_items(name, texts)),
            **judged("distinct-n", real, text_items(name, texts)),
            **judged({"kind": "self-bleu", "texts": 128}, real, text_items(name, texts)),
        }
        for name, texts in sets.items()
    }
    word, length = "next-word accuracy (4-grams)", "length distance"
    assert found["same"][word].value > 1.5 * found["shuffled"][word].value
    assert found["same"][word].value > 2 * found["captions"][word].value
    assert found["same"][length].value * 3 < found["captions"][length].value
    assert found["repeated"]["distinct-2"].value < 0.1 < found["same"]["distinct-2"].value
    assert found["repeated"]["self-BLEU-4"].value > 0.99 > 0.6 > found["same"]["self-BLEU-4"].value

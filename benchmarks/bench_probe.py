"""How often the probe's 90 % intervals hold the truth, with 5, 6, 10 and 20 groups: `python -m benchmarks.bench_probe`.

Groups (regions, blocks) differ as places do: the classes' vectors are shifted in each, by an amount of its own, and
classes are uneven. A study is drawn, cross-validated, and its interval compared with the truth: what models learnt from
such studies with one group held out reach on new groups. Prints a table, which docs/what_cant_be_concluded.md quotes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.directional import normalize
from gee_polygons.probe import cross_validate, fit_probe

_LATENT = 12  # directions in which real scenes differ are about 17 of 64


@dataclass(frozen=True)
class Places:
    """A population of places: how many classes, how far places shift them, and how points scatter."""

    classes: int
    shift: float
    scatter: float
    uneven: bool

    def draw(self, n_groups: int, rng: np.random.Generator) -> pd.DataFrame:
        """Return points of new groups: A00..A63, `group`, `label` and `value`."""
        world = np.random.default_rng(7)
        centers = world.normal(size=(self.classes, _LATENT)) * 0.7
        bands = np.linalg.qr(world.normal(size=(64, _LATENT)))[0].T
        slope = world.normal(size=_LATENT) * 0.4
        n = rng.integers(10, 60, n_groups) if self.uneven else np.full(n_groups, 30)
        group = np.repeat(np.arange(n_groups), n)
        shares = rng.dirichlet(np.full(self.classes, 1.0 if self.uneven else 50.0), n_groups)
        label = (rng.random((len(group), 1)) > np.cumsum(shares, axis=1)[group][:, :-1]).sum(axis=1)
        shift = rng.normal(size=(n_groups, 1, _LATENT)) + 0.7 * rng.normal(size=(n_groups, self.classes, _LATENT))
        x = centers[label] + self.shift * shift[group, label] + self.scatter * rng.normal(size=(len(group), _LATENT))
        value = x @ slope + 0.3 * rng.normal(size=n_groups)[group] + 0.3 * rng.normal(size=len(group))
        vectors = normalize(x @ bands + 0.1 * rng.normal(size=(len(group), 64)) + 1.0)
        return pd.DataFrame(vectors, columns=list(BANDS)).assign(group=group, label=label.astype(str), value=value)


PLACES = {
    "2 classes, uneven, places differ much": Places(2, 0.5, 0.8, True),
    "4 classes, even, places alike": Places(4, 0.2, 0.8, False),
    "4 classes, uneven, places differ much": Places(4, 0.5, 0.5, True),
}


def coverage(places: Places, n_groups: int, studies: int, *, task: str, model: str, seed: int = 0) -> dict[str, float]:
    """Return the truth, and the share of studies whose interval holds it: {"truth", "mean", "held", "width"}."""
    rng = np.random.default_rng(seed)
    lows, highs, found, reached = [], [], [], []
    for _ in range(studies):
        table = places.draw(n_groups, rng)
        column = "label" if task == "classes" else "value"
        if table["label"].nunique() < 2:
            continue
        result = cross_validate(table, column, groups="group", folds=None, model=model, task=task)
        if task == "classes":
            figures = result.low, result.high, result.balanced_accuracy
        else:
            figures = result.r2_low, result.r2_high, result.r2
        for store, figure in zip((lows, highs, found), figures, strict=True):
            store.append(figure)
        learnt = table[table["group"] > 0]
        if learnt["label"].nunique() < 2:
            continue
        new = places.draw(20, rng)
        guess = fit_probe(learnt, column, model=model, task=task).predict(new[list(BANDS)].to_numpy())
        true = new[column].to_numpy()
        if task == "classes":
            reached.append(np.mean([(guess[true == name] == name).mean() for name in np.unique(true)]))
        else:
            reached.append([np.sum((true - guess) ** 2), np.sum((true - true.mean()) ** 2)])
    sums = np.array(reached)
    truth = float(sums.mean()) if task == "classes" else float(1 - sums[:, 0].sum() / sums[:, 1].sum())
    low, high = np.array(lows), np.array(highs)
    return {
        "truth": truth,
        "mean": float(np.mean(found)),
        "held": float(np.mean((low <= truth) & (truth <= high))),
        "width": float(np.median(high - low)),
    }


def main() -> None:
    """Print the share of studies whose interval holds the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    studies = parser.parse_args().studies
    for task, model in (("classes", "knn"), ("classes", "logistic"), ("values", "ridge")):
        for name, places in PLACES.items():
            for n_groups in (5, 6, 10, 20):
                found = coverage(places, n_groups, studies, task=task, model=model)
                figures = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
                print(f"{task}, {model}; {name}; {n_groups} groups: {figures}", flush=True)


if __name__ == "__main__":
    main()

"""Train with a loop of your own; split, score, compare and blend here.

Two small networks are trained by a plain torch loop on five folds in which no person is on both sides. Everything that
is
needed from this package are the folds before, and the scores after.

Run it: python examples/my_own_training_loop.py
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

import ensemble as en

EPOCHS = 60


def measurements(people: int = 60, seed: int = 0) -> pd.DataFrame:
    """Return a table of some rows for each person, who all have a way of their own: rows of one person are alike."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), rng.integers(2, 8, people))
    kind = rng.choice(3, people, p=[0.6, 0.3, 0.1])[person]
    values = np.eye(6)[kind] + 1.2 * rng.normal(size=(people, 6))[person] + 0.5 * rng.normal(size=(len(person), 6))
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(6)])
    names = np.array(["healthy", "mild", "severe"])
    return frame.assign(
        id=[f"row{i}" for i in range(len(frame))], label=names[kind], person=[f"p{i:02d}" for i in person]
    )


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Your own loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def network(name: str) -> nn.Module:
    """Return a model with random weights."""
    torch.manual_seed(0)
    return nn.Linear(6, 3) if name == "linear" else nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


torch.set_num_threads(1)
table = measurements()
classes = sorted(table["label"].unique())
x = torch.tensor(table[[f"x{i}" for i in range(6)]].to_numpy(np.float32))
y = torch.tensor([classes.index(name) for name in table["label"]])

# The folds: no person on both sides, classes spread evenly.
splitter = en.StratifiedPersonKFold(n_splits=5)
splits = list(splitter.split(table, table["label"], groups=table["person"]))

oof = {name: np.zeros((len(table), len(classes)), np.float32) for name in ("linear", "mlp")}
fold = np.zeros(len(table), int)
for i, (training, validation) in enumerate(splits):
    fold[validation] = i
    for name, proba in oof.items():
        model = network(name)
        train(model, x[training], y[training])
        with torch.no_grad():
            proba[validation] = model(x[validation]).softmax(dim=1).numpy()

for name, proba in oof.items():
    print(f"{name:7}", en.score(table["label"], proba, groups=table["person"], classes=classes))
print("mlp - linear:", en.compare(table["label"], oof["linear"], oof["mlp"], groups=table["person"], classes=classes))

blend = en.blend(oof, y=table["label"], groups=table["person"], fold=fold, classes=classes, method="simplex")
print(blend)

# Files for `ensemble blend` or for a colleague: they state what their rows and columns are.
for name, proba in oof.items():
    kept = en.Predictions.from_array(
        proba, ids=table["id"], classes=classes, labels=table["label"], persons=table["person"], fold=fold, run=name
    )
    print(kept.save(f"runs/{name}.oof.npy", force=True))

"""Blend the out-of-fold predictions of several classifiers that scikit-learn trained: arrays in, arrays out, no files.

Run it: python examples/blend_arrays.py
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ensemble as en

# 1,797 images of digits. It is not known who wrote them; here 13 in a row are taken for one writer.
X, y = load_digits(return_X_y=True)
writer = np.arange(len(y)) // 13
new = writer >= 125  # the last writers stand for what comes later
models = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)),
    "forest": RandomForestClassifier(60, max_depth=8, random_state=0),
    "neighbors": KNeighborsClassifier(25),
}

# Out-of-fold probabilities: every writer is predicted by models that have not seen them.
splitter = en.StratifiedPersonKFold(n_splits=5)
oof = {
    name: cross_val_predict(model, X[~new], y[~new], groups=writer[~new], cv=splitter, method="predict_proba")
    for name, model in models.items()
}
for name, proba in oof.items():
    print(f"{name:10}", en.score(y[~new], proba, groups=writer[~new]))

# What is learned from these predictions is scored on writers that it was not learned from.
blend = en.blend(oof, y=y[~new], groups=writer[~new], method="greedy")
print(blend)
print(en.compare(y[~new], oof["forest"], blend.oof.probabilities, groups=writer[~new]))
print(blend.contributions()[["score", "weight", "gain", "shapley"]].round(3))

# On new samples: models trained on all people, combined in the same way.
later = {name: model.fit(X[~new], y[~new]).predict_proba(X[new]) for name, model in models.items()}
combined = blend.predict_proba(later)
print("new writers:", en.score(y[new], combined, groups=writer[new]))

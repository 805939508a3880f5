"""The head that predicts numbers in the unit of the table."""

import numpy as np
import pytest
import torch

from folds.errors import EnsembleError
from folds.models.factory import create_model
from folds.models.model_names import resolve
from folds.models.number_head import NumberHead, Units, set_units, units_of_model, units_of_numbers

VALUES = np.array([[1900.0, 1.0], [2000.0, np.nan], [np.nan, 1.0], [1950.0, 1.0]])


def test_units_are_of_the_known_cells():
    units = units_of_numbers(VALUES, ("year", "one"))
    assert units.center.tolist() == [1950, 1]
    assert units.scale.tolist() == pytest.approx([np.std([1900, 2000, 1950]), 1])  # a number that does not vary
    found = units.standardize(VALUES)
    assert np.array_equal(np.isnan(found), np.isnan(VALUES))
    assert np.allclose(units.restore(found), VALUES, equal_nan=True)
    with pytest.raises(EnsembleError, match="no image of the training part has a number of 'one'"):
        units_of_numbers(VALUES[[1]], ("year", "one"))


@pytest.mark.parametrize(("head", "width"), [("number", 2), ("gaussian", 4)])
def test_a_model_trains_in_units_and_predicts_numbers(head, width):
    model = create_model(resolve("test_resnet", (32, 32), head=head), 2)
    set_units(model, Units(np.array([40, 7], np.float32), np.array([10, 2], np.float32)))
    images = torch.rand(2, 3, 32, 32)
    assert model.train()(images).shape == (2, width)
    model.eval()
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    layer = model.get_classifier()
    means = torch.nn.functional.linear(features, layer.weight[:2], layer.bias[:2])
    assert torch.allclose(model(images), torch.tensor([40.0, 7]) + torch.tensor([10.0, 2]) * means)
    assert units_of_model(model).scale.tolist() == [10, 2]


def test_a_model_without_units_is_an_error():
    with pytest.raises(EnsembleError, match="a head with their unit, found one without"):
        units_of_model(torch.nn.Linear(2, 1))


def test_variances_begin_as_one():
    head = NumberHead(8, 3, spread=True)
    assert not head(torch.rand(5, 8))[:, 3:].any()


@pytest.mark.parametrize("head", ["number", "gaussian"])
def test_weights_of_numbers_are_loaded_whole_or_without_their_head(head, tmp_path):
    architecture = resolve("test_resnet", (32, 32), head=head)
    source = create_model(architecture, 2)
    set_units(source, Units(np.array([40, 7], np.float32), np.array([10, 2], np.float32)))
    torch.save(source.state_dict(), tmp_path / "w.pt")
    trained = source.state_dict()
    again = create_model(architecture, 2, init=tmp_path / "w.pt", load_head=True).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in trained.items())
    other = {"number": "gaussian", "gaussian": "number"}[head]
    for kind, numbers, load_head in ((head, 2, False), (head, 3, True), (other, 2, True), ("linear", 2, True)):
        made = create_model(
            resolve("test_resnet", (32, 32), head=kind), numbers, init=tmp_path / "w.pt", load_head=load_head
        )
        found = made.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in trained.items() if not name.startswith("fc."))
        assert not torch.equal(found["fc.weight"][:2], trained["fc.weight"][:2])
        assert kind == "linear" or units_of_model(made).are_usual

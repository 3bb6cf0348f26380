import pytest
import torch
from jaxtyping import config

pytest_plugins = ["tests.browser"]  # site, visit: the built site in a browser


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes():
    """Bad input as a reader gives it: without the shape checks that only tests switch on."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)

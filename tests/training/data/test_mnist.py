from __future__ import annotations

from pathlib import Path

import pytest

from training import MNIST, FashionMNIST
from training.data.mnist import IDXImages
from training.errors import DataUnavailable


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_each_data_set_says_where_its_files_are(kind: type[IDXImages], tmp_path: Path):
    assert kind(root=str(tmp_path)).cache == tmp_path
    assert kind().cache.name == kind.folder_name
    assert kind().source == kind.published
    assert kind(source="http://127.0.0.1/").source == "http://127.0.0.1/"
    assert len(kind.classes) == 10


def test_a_data_set_without_a_package_names_none(tmp_path: Path):
    with pytest.raises(DataUnavailable) as caught:
        MNIST(root=str(tmp_path)).setup()
    assert "apt" not in str(caught.value)

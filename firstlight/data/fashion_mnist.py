"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747): clothes in MNIST's file format."""

from pathlib import Path

from firstlight.data.dataset import Dataset
from firstlight.data.mnist import read_mnist_files

CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def load_fashion_mnist(part: str, data_dir: Path) -> Dataset:
    """Return 60,000 training or 10,000 test images of clothes, uint8 [N, 1, 28, 28]."""
    folders = [data_dir / "FashionMNIST" / "raw", data_dir / "fashion_mnist"]
    return read_mnist_files(part, folders, CLASS_NAMES, name="Fashion-MNIST", fetch_name="fashion_mnist")

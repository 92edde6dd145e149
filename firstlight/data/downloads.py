"""The files that `data fetch` downloads, with their mirrors and digests."""

from firstlight.data.fetch import RemoteFile

_MNIST_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def _mnist(name: str, digest: str, size: int) -> RemoteFile:
    urls = tuple(mirror + name for mirror in _MNIST_MIRRORS)
    return RemoteFile(f"MNIST/raw/{name}", urls, f"sha256:{digest}", size, unzipped=True)


def _fashion(name: str, digest: str, size: int) -> RemoteFile:
    return RemoteFile(f"FashionMNIST/raw/{name}", tuple(mirror + name for mirror in _FASHION_MIRRORS), f"md5:{digest}", size)


MNIST_FILES = (
    _mnist("train-images-idx3-ubyte.gz", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47_040_016),
    _mnist("train-labels-idx1-ubyte.gz", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_008),
    _mnist("t10k-images-idx3-ubyte.gz", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7_840_016),
    _mnist("t10k-labels-idx1-ubyte.gz", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_008),
)

FASHION_MNIST_FILES = (  # digests as published in the data set's own README
    _fashion("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
    _fashion("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29_515),
    _fashion("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4_422_102),
    _fashion("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5_148),
)

CIFAR10_FILES = (  # digest as published on the data set's home page, which is slow: 55 kB/s since June 2026, about 50 minutes
    RemoteFile(
        "cifar-10-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz"),
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
        170_052_171,
    ),
)
